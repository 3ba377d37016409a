"""Shortcuts: what predicts the true context without reading it, found, balanced and measured.

In ConflictQA the model's memory is right in 70 to 75 % of rows, in substituted data one passage is older than the
other, anywhere one may be longer. `balance` keeps equally many instances of each kind, `place` puts the true context at
each position equally often, and `probe` asks whether anything is left: a logistic regression on surface features of a
passage alone, cross-validated by question. At 0.5 accuracy nothing is.
"""

from __future__ import annotations

import hashlib
import random
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from launch.errors import DataError
from reasoning.conflict.instance import Context, Instance
from reasoning.conflict.text import STOP_WORDS, negates, normalise, sentences, words
from tasks.benchmarks.intervals import Estimate, bootstrap

Key = Callable[[Instance], Any]

SHORTCUTS: dict[str, Key] = {
    "gold": lambda i: i.gold[0] if i.boolean else "",
    "memory_right": lambda i: i.meta.get("memory_right"),
    "true_is_longer": lambda i: _longer(i),
}
"""What to balance ConflictQA by."""


def balance(instances: Iterable[Instance], keys: Mapping[str, Key] = SHORTCUTS, seed: int = 0) -> list[Instance]:
    """Equally many instances of every combination of `keys`, chosen by `seed`; the order is kept.

    Raises:
        DataError: a value of a key never occurs with some value of another, so that nothing could be kept.
    """
    kept = list(instances)
    cells: dict[tuple[Any, ...], list[int]] = {}
    for number, instance in enumerate(kept):
        cells.setdefault(tuple(key(instance) for key in keys.values()), []).append(number)
    values = [sorted({cell[k] for cell in cells}, key=repr) for k in range(len(keys))]
    wanted = int(np.prod([len(v) for v in values])) if cells else 0
    if len(cells) < wanted:
        raise DataError(f"{len(cells)} of {wanted} combinations of {', '.join(keys)} occur; balance by fewer of them")
    size = min((len(cell) for cell in cells.values()), default=0)
    rng = random.Random(f"balance-{seed}")
    chosen = {number for cell in sorted(cells, key=repr) for number in rng.sample(cells[cell], size)}
    return [instance for number, instance in enumerate(kept) if number in chosen]


def place(instances: Sequence[Instance], seed: int = 0) -> list[Instance]:
    """Contexts reordered so that the first true one stands at each position equally often (to one instance)."""
    rng = random.Random(f"place-{seed}")
    by_size: dict[int, list[int]] = {}
    for number, instance in enumerate(instances):
        by_size.setdefault(len(instance.contexts), []).append(number)
    placed = list(instances)
    for size, numbers in sorted(by_size.items()):
        positions = [k % size for k in range(len(numbers))]
        rng.shuffle(positions)
        for number, position in zip(numbers, positions, strict=True):
            true = instances[number].true_indices[:1]
            rest = [j for j in range(size) if j not in true]
            rng.shuffle(rest)
            order = [*rest[:position], *true, *rest[position:]]
            placed[number] = instances[number].reordered(order)
    return placed


def split_of(question: str, shares: Sequence[float] = (0.8, 0.1, 0.1)) -> int:
    """0, 1 or 2 (train, validation, test): the same for equal questions, on every machine and in any order."""
    at = int.from_bytes(hashlib.sha256(normalise(question).encode()).digest()[:8], "big") / 2**64
    return next((i for i, edge in enumerate(np.cumsum(shares)[:-1]) if at < edge), len(shares) - 1)


# ---------------------------------------------------------------- the probe


@dataclass(frozen=True)
class Probe:
    """How well a passage's surface alone tells whether it is true."""

    accuracy: Estimate
    """Share of instances whose true context scores above the mean false one; a tie is half. 0.5 is none."""
    weights: dict[str, float]
    """Of the standardised features, fitted on all: positive speaks for truth."""

    def strongest(self, count: int = 3) -> list[str]:
        return sorted(self.weights, key=lambda name: -abs(self.weights[name]))[:count]


def features(context: Context, position: int) -> dict[str, float]:
    """What can be seen of a passage without understanding it; any length."""
    text = context.text
    said = words(text)
    count = max(1, len(said))
    lengths = [end - start for start, end in sentences(text)] or [0]
    letters = max(1, len(text))
    return {
        "log_words": float(np.log(count)),
        "position": float(position),
        "sentence_length": float(np.mean(lengths)),
        "sentence_spread": float(np.std(lengths)),
        "distinct": len(set(said)) / count,
        "capitals": sum(c.isupper() for c in text) / letters,
        "digits": sum(c.isdigit() for c in text) / letters,
        "punctuation": sum(not c.isalnum() and not c.isspace() for c in text) / letters,
        "quotes": sum(c in "\"“”'’" for c in text) / letters,
        "stop_words": sum(w in STOP_WORDS for w in said) / count,
        "negations": sum(negates([w]) for w in said) / count,
        "hedges": len(re.findall(r"\b(?:studies|research|according|recent|reported|suggests?)\b", text, re.I)) / count,
        "ends_open": float(not text.rstrip().endswith((".", "!", "?", '"', "”"))),
    }


def probe(instances: Sequence[Instance], folds: int = 5, ridge: float = 1.0, seed: int = 0) -> Probe:
    """Fit the probe and measure it on questions it has not seen.

    Raises:
        DataError: fewer than two instances per fold, or one without a true and a false context.
    """
    if len(instances) < 2 * folds:
        raise DataError(f"{len(instances)} instances for {folds} folds; give at least {2 * folds}")
    rows, labels, owner = [], [], []
    for number, instance in enumerate(instances):
        if len({c.true for c in instance.contexts}) < 2:
            raise DataError(f"instance {instance.id!r} has no true or no false context; the probe compares the two")
        for position, context in enumerate(instance.contexts):
            row = features(context, position)
            rows.append(list(row.values()))
            labels.append(context.true)
            owner.append(number)
    names = list(features(instances[0].contexts[0], 0))
    X, y, who = np.array(rows), np.array(labels, dtype=np.float64), np.array(owner)
    spread = X.std(axis=0)
    X = (X - X.mean(axis=0)) / np.where(spread > 0, spread, 1)
    fold = np.array([split_of(f"{seed} {i.question}", [1 / folds] * folds) for i in instances])
    scores = np.zeros(len(y))
    for k in range(folds):
        held = fold[who] == k
        if held.any() and not held.all():
            scores[held] = X[held] @ _logistic(X[~held], y[~held], ridge)
    wins = []
    for number in range(len(instances)):
        mine = who == number
        true, false = scores[mine & (y == 1)].mean(), scores[mine & (y == 0)].mean()
        wins.append(0.5 if np.isclose(true, false) else float(true > false))
    weights = _logistic(X, y, ridge)
    return Probe(bootstrap(wins, seed=seed), dict(zip(names, weights.tolist(), strict=True)))


def _logistic(X: np.ndarray, y: np.ndarray, ridge: float) -> np.ndarray:
    """Weights float64 [d] of a ridge logistic regression (with an intercept that is not returned), by Newton steps."""
    Z = np.column_stack([X, np.ones(len(X))])
    w = np.zeros(Z.shape[1])
    penalty = np.diag([ridge] * X.shape[1] + [1e-6])
    for _ in range(25):
        p = 1 / (1 + np.exp(-np.clip(Z @ w, -30, 30)))
        gradient = Z.T @ (p - y) + penalty @ w
        step = np.linalg.solve((Z * (p * (1 - p))[:, None]).T @ Z + penalty, gradient)
        w -= step
        if np.abs(step).max() < 1e-9:
            break
    return w[:-1]


def _longer(instance: Instance) -> bool:
    """Whether the true contexts are longer than the false ones, in words on average."""
    sizes = {True: [0], False: [0]}
    for c in instance.contexts:
        sizes[c.true].append(len(words(c.text)))
    mean = {k: sum(v) / max(1, len(v) - 1) for k, v in sizes.items()}
    return mean[True] > mean[False]


def orders(instances: Iterable[Instance]) -> list[int]:
    """How often the first true context stands at each position."""
    found = [i.true_indices[0] for i in instances if i.true_indices]
    return [found.count(k) for k in range(max(found, default=-1) + 1)]
