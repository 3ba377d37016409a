"""Preference models on real answers: BT, GPM and HRC on two frozen real backbones, beside baselines that read nothing.

    OMP_NUM_THREADS=1 python -m benchmarks.real_preferences

Trained on arena_bench_v1 (every strictly different pair of scores), hh_rlhf and auto_j together, the three with equal
total weight; tested on held-out prompts of each (20 %, the same for all seeds), on pandalm by the majority of its three
annotators, and on llmbar. Intervals are 95 %, from 1,000 draws of prompts and of seeds together; a draw of prompts
takes all their pairs. A score of exactly 0 counts one half.

The backbone is frozen here: differences between kinds are those of the heads. Writes docs/results/real_preferences.*.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from align.preference import game
from align.preference.cyclicity import flows
from align.preference.data import prompt_key, split_by_prompt, to_group
from align.preference.formats import Judged
from benchmarks import features, real_data
from benchmarks.features import States
from benchmarks.frozen_heads import KINDS, Pairs, fit_best
from benchmarks.measure import machine

SEEDS = 5
TRAIN_SETS = ("arena", "hh_rlhf", "auto_j")
ADVERSARIAL = ("llmbar_adv_neighbor", "llmbar_adv_gptinst", "llmbar_adv_gptout", "llmbar_adv_manual")
OUT = Path(__file__).parents[1] / "docs" / "results"


@dataclass
class Items:
    """Strict pairs of one test: `winner` beats `loser`, rows of the table of all states."""

    winner: np.ndarray
    loser: np.ndarray
    prompt: np.ndarray


def main(names: Sequence[str]) -> None:
    begun = time.time()
    sets = features.corpora()
    train, valid, tests, shape = arrange(sets)
    results: dict[str, Any] = {"tests": {name: size(items) for name, items in tests.items()}, "backbones": {}}
    results["baselines"] = {
        name: {test: interval(items, right) for test, (items, right) in found.items()}
        for name, found in baselines(train, tests, shape, shown_first(sets)).items()
    }
    known = features.backbones()
    for name in names or known:
        parts = [features.states(known[name], corpus, rows) for corpus, rows in sets.items()]
        table = join(parts)
        rows: dict[str, dict[str, Any]] = {}
        for kind in KINDS:
            fitted = [fit_best(kind, table, train, valid, seed) for seed in range(SEEDS)]
            rows[kind] = {
                test: interval(items, np.stack([correct(f.scores(table, *_rows(items))) for f in fitted]))
                for test, items in tests.items()
            }
            rows[kind]["kept"] = [{"epoch": f.epochs, "rate": f.rate, "loss": f.loss} for f in fitted]
            print(known[name].name, kind, {test: round(rows[kind][test]["accuracy"], 3) for test in tests}, flush=True)
        results["backbones"][known[name].name] = rows
    results["command"] = "OMP_NUM_THREADS=1 python -m benchmarks.real_preferences"
    results["seeds"] = SEEDS
    results["machine"] = machine()
    results["seconds"] = round(time.time() - begun)
    OUT.mkdir(parents=True, exist_ok=True)
    (OUT / "real_preferences.json").write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    (OUT / "real_preferences.md").write_text(page(results), encoding="utf-8")


# ---------------------------------------------------------------- what is trained on and what is tested on


def arrange(sets: dict[str, list[Judged]]) -> tuple[Pairs, Pairs, dict[str, Items], np.ndarray]:
    """Training and validation pairs, the tests, and `surface` [N, 3] of every answer (all sets in a row)."""
    first_answer, first_prompt, answers, prompts = {}, {}, 0, 0
    for name, rows in sets.items():
        first_answer[name], first_prompt[name] = answers, prompts
        answers += sum(len(row.responses) for row in rows)
        prompts += len(rows)
    shape = np.array([surface(text) for rows in sets.values() for row in rows for text in row.responses])

    def pairs(name: str, chosen: set[str], votes: str = "majority", judges: Sequence[str] = ()) -> tuple:
        found, start = [], first_answer[name]
        for number, row in enumerate(sets[name]):
            if prompt_key(row.prompt) in chosen:
                group = to_group(only(row, judges), votes)
                for w, b in zip(group["winners"], group["losers"], strict=True):
                    found.append((start + w, start + b, first_prompt[name] + number))
            start += len(row.responses)
        return tuple(np.array(found, dtype=np.int64).reshape(-1, 3).T)

    both: dict[str, list[tuple]] = {"train": [], "valid": []}
    tests: dict[str, Items] = {}
    for name, side in sides(sets).items():
        for part, rows in (("train", side.train), ("valid", side.valid)):
            found = pairs(name, {prompt_key(row.prompt) for row in rows})
            both[part].append((*found, np.full(len(found[0]), 1000.0 / len(found[0]))))
        tests[f"{name} held out"] = Items(*pairs(name, {prompt_key(row.prompt) for row in side.test}))
    every = {prompt_key(row.prompt) for rows in sets.values() for row in rows}
    tests["pandalm (majority)"] = Items(*pairs("pandalm", every, judges=real_data.HUMANS))
    tests["llmbar natural"] = Items(*pairs("llmbar_natural", every))
    tests["llmbar adversarial"] = _join([Items(*pairs(name, every)) for name in ADVERSARIAL])
    others = [name for name in sets if name.startswith("llmbar_") and "human" in name]
    tests["llmbar human sets"] = _join([Items(*pairs(name, every)) for name in others])
    for judges, title in ((real_data.HUMANS, "humans"), (("gpt35", "pandalm7b"), "model judges")):
        cyclic, other = triples(sets["pandalm"], judges, first_answer["pandalm"], first_prompt["pandalm"])
        tests[f"pandalm cyclic triples ({title})"], tests[f"pandalm other triples ({title})"] = cyclic, other
    train, valid = (Pairs(*(np.concatenate(column) for column in zip(*both[part], strict=True))) for part in both)
    return train, valid, tests, shape


@dataclass
class Sides:
    """The rows of one set that are trained on, watched and tested; no prompt is on two sides."""

    train: list[Judged]
    valid: list[Judged]
    test: list[Judged]


def sides(sets: dict[str, list[Judged]]) -> dict[str, Sides]:
    """The sets of TRAIN_SETS split by prompt, the same way for every model and seed: a fifth of the prompts held out,
    a tenth of the rest for choosing rates and epochs. Prompts that a foreign test set has too are not trained on."""
    elsewhere = {prompt_key(row.prompt) for name, rows in sets.items() if name not in TRAIN_SETS for row in rows}
    found = {}
    for name in TRAIN_SETS:
        rest, held_out = split_by_prompt(sets[name], 0.2, seed=0)
        rest = [row for row in rest if prompt_key(row.prompt) not in elsewhere]
        fitted, watched = split_by_prompt(rest, 0.1, seed=1)
        found[name] = Sides(fitted, watched, held_out)
    return found


def triples(rows: Sequence[Judged], judges: Sequence[str], answer: int, prompt: int) -> tuple[Items, Items]:
    """Strict pairs inside strictly cyclic triples of each judge, and inside its other closed strict triples.

    A pair counts once for each triple it is in. A scalar gets at most two of a cycle's three pairs right.
    """
    found: tuple[list, list] = ([], [])
    for number, row in enumerate(rows):
        for judge in judges:
            Y, _ = flows(to_group(only(row, [judge])))
            cyclic = {frozenset(cycle) for cycle in game.cycles(Y)}
            for triple in combinations(range(len(Y)), 3):
                edges = [(i, j) if Y[i, j] > 0 else (j, i) for i, j in combinations(triple, 2) if Y[i, j]]
                if len(edges) == 3:
                    side = found[frozenset(triple) not in cyclic]
                    side += [(answer + i, answer + j, prompt + number) for i, j in edges]
        answer += len(row.responses)
    return Items(*np.array(found[0]).T), Items(*np.array(found[1]).T)


def only(row: Judged, judges: Sequence[str]) -> Judged:
    """`row` with the votes of some judges, or of all when none is named."""
    votes = [vote for vote in row.votes if not judges or vote.annotator in judges]
    return Judged(row.prompt, row.responses, votes, row.source)


def join(parts: Sequence[States]) -> States:
    """The states of all sets in one table."""
    starts = [part.start[:-1] + sum(len(before.answers) for before in parts[:n]) for n, part in enumerate(parts)]
    answers = np.concatenate([part.answers for part in parts])
    return States(
        answers, np.concatenate([part.prompts for part in parts]), np.append(np.concatenate(starts), len(answers))
    )


# ---------------------------------------------------------------- measuring


def correct(scores: np.ndarray) -> np.ndarray:
    """1 where the winner is preferred, 1/2 for a score of exactly 0."""
    return (scores > 0) + 0.5 * (scores == 0)


def surface(text: str) -> list[float]:
    """What can be seen of an answer without reading it: log of characters, of lines, and of digits."""
    counts = len(text), text.count("\n"), sum(letter.isdigit() for letter in text)
    return [float(np.log1p(count)) for count in counts]


def shown_first(sets: dict[str, list[Judged]]) -> dict[frozenset[int], int]:
    """Which of two answers a judge saw first, by rows of the table of all answers, where the set tells it.

    auto_j, llmbar and pandalm tell it; arena answers were scored alone, and hh_rlhf does not say.
    """
    orders = real_data.pandalm_shown_first()
    found, start = {}, 0
    for name, rows in sets.items():
        for number, row in enumerate(rows):
            if name == "pandalm":
                for pair, first in orders[number].items():
                    found[frozenset(start + k for k in pair)] = start + first
            elif name == "auto_j" or name.startswith("llmbar"):
                found[frozenset((start, start + 1))] = start
            start += len(row.responses)
    return found


def baselines(
    train: Pairs, tests: dict[str, Items], shape: np.ndarray, first: dict[frozenset[int], int]
) -> dict[str, dict[str, tuple]]:
    """Longer wins, shorter wins, the one shown first wins (in the tests where all pairs have an order), a coin, and a
    logistic regression on the difference of `surface`."""
    from scipy.optimize import minimize

    def inputs(pairs: Any) -> np.ndarray:
        return shape[pairs.winner] - shape[pairs.loser]

    def position(items: Items) -> np.ndarray | None:
        told = [first.get(frozenset(pair)) for pair in zip(items.winner.tolist(), items.loser.tolist(), strict=True)]
        return None if None in told else np.where(np.array(told) == items.winner, 1.0, -1.0)

    X = inputs(train)
    loss = lambda w: (train.weight * np.logaddexp(0, -X @ w)).sum() / train.weight.sum()  # noqa: E731
    coefficients = minimize(loss, np.zeros(shape.shape[1])).x
    chance = np.random.default_rng(0)
    scores = {
        "longer answer": lambda items: inputs(items)[:, 0],
        "shorter answer": lambda items: -inputs(items)[:, 0],
        "first shown": position,
        "logistic on characters, lines, digits": lambda items: inputs(items) @ coefficients,
        "coin": lambda items: chance.normal(size=len(items.winner)),
    }
    made = {name: {test: (items, score(items)) for test, items in tests.items()} for name, score in scores.items()}
    return {
        name: {test: (items, correct(found)[None]) for test, (items, found) in row.items() if found is not None}
        for name, row in made.items()
    }


def interval(items: Items, right: np.ndarray, draws: int = 1000) -> dict[str, Any]:
    """Accuracy over pairs with its 95 % interval: `right` [seeds, pairs]; prompts and seeds are drawn together."""
    generator = np.random.default_rng(0)
    _, prompt = np.unique(items.prompt, return_inverse=True)
    G = prompt.max() + 1
    hits = np.stack([np.bincount(prompt, row, G) for row in right])  # [seeds, G]
    pairs = np.bincount(prompt, minlength=G)
    found = []
    for _ in range(draws):
        drawn = generator.integers(G, size=G)
        seeds = generator.integers(len(right), size=len(right))
        found.append(hits[seeds][:, drawn].sum() / (len(seeds) * pairs[drawn].sum()))
    low, high = np.quantile(found, [0.025, 0.975])
    each = right.mean(1)
    return {"accuracy": float(each.mean()), "low": float(low), "high": float(high), "seeds": [float(a) for a in each]}


def _rows(items: Items) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return items.winner, items.loser, items.prompt


def _join(parts: Sequence[Items]) -> Items:
    return Items(*(np.concatenate(column) for column in zip(*map(_rows, parts), strict=True)))


def size(items: Items) -> dict[str, int]:
    return {"pairs": len(items.winner), "prompts": len(np.unique(items.prompt))}


# ---------------------------------------------------------------- the page


def page(results: dict[str, Any]) -> str:
    """The results as Markdown."""
    lines = [
        "# Preference models on real answers (frozen backbones)",
        "",
        "Heads of `align.preference` on the states of two real pretrained backbones that stay frozen",
        "(all-MiniLM-L6-v2: 128 tokens, stories260K: 512). Trained on arena_bench_v1, hh_rlhf and auto_j together,",
        f"with equal total weight; tau 0.1, delta 5; {results['seeds']} seeds. Accuracy over pairs in per cent, with",
        "95 % intervals over prompts and seeds.",
        "",
        f"`{results['command']}` ({results['seconds']} s with cached states, {results['machine']['cores']} cores,",
        f"torch {results['machine']['torch']}, commit {results['machine']['commit']}).",
        "",
    ]
    return "\n".join([*lines, *tables(results)])


def tables(results: dict[str, Any]) -> list[str]:
    """Lines of the two tables, the cyclic triples apart."""
    tests, lines = results["tests"], []
    main_tests = [name for name in tests if "triples" not in name]
    for title, names in (
        ("Held-out and foreign prompts", main_tests),
        ("Cyclic triples apart", [*tests][len(main_tests) :]),
    ):
        lines += [f"## {title}", "", "| | " + " | ".join(names) + " |", "|---" * (len(names) + 1) + "|"]
        sizes = (f"{tests[name]['pairs']} pairs, {tests[name]['prompts']} prompts" for name in names)
        lines.append("| size | " + " | ".join(sizes) + " |")
        for name, row in results["baselines"].items():
            lines.append(f"| {name} | " + " | ".join(_cell(row.get(test)) for test in names) + " |")
        for backbone, kinds in results["backbones"].items():
            for kind, row in kinds.items():
                lines.append(f"| {backbone}, {kind} | " + " | ".join(_cell(row[test]) for test in names) + " |")
        lines.append("")
    return lines


def _cell(row: dict[str, Any] | None) -> str:
    return "–" if row is None else f"{100 * row['accuracy']:.1f} ({100 * row['low']:.1f}–{100 * row['high']:.1f})"


if __name__ == "__main__":
    main(sys.argv[1:])
