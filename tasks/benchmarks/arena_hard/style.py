"""Style of an answer (length, headers, lists, bold) and ratings at equal style.

Style control adds to the Bradley-Terry regression how much longer and more marked up one answer is than the other, so
that the models' own coefficients no longer pay for it. v0.1 and v2.0 define features and fit differently:

    v0.1   (a - b)/(a + b + 1) of length and counts, a the baseline's; z-scored (population std);
           scikit-learn's logistic regression with its default penalty, L2 and C = 1
    v2.0   (m - b)/(m + b) of length, (x - y)/(x + y + 1) of the densities x = count/(tokens + 1), m the model's;
           z-scored (ddof 1); sum of cross-entropies, 50 steps of L-BFGS at rate 0.1 from 0.5, which stop before the
           minimum, so its settings are part of the score

Beyond the official scripts: a feature without spread is left out and said (they get NaN), two empty answers are equally
long (0/0), and controlling for one kind alone takes that kind's columns (v2.0's script takes others).
"""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from launch.errors import ConfigError, DataError
from tasks.benchmarks.files import Row, need

KINDS: dict[str, tuple[str, ...]] = {
    "length": ("token_len",),
    "markdown": ("header_count", "list_count", "bold_count"),
}
FEATURES = KINDS["length"] + KINDS["markdown"]
LN10 = math.log(10.0)
_BLOCK = re.compile("```([^`]*)```")
_PATTERNS: dict[str, dict[str, re.Pattern[str]]] = {
    "header_count": {f"h{k}": re.compile(rf"^#{{{k}}}\s", re.MULTILINE) for k in range(1, 7)},
    "list_count": {
        "ordered": re.compile(r"^\s*\d+\.\s", re.MULTILINE),
        "unordered": re.compile(r"^\s*[-*+]\s", re.MULTILINE),
    },
    "bold_count": {"**": re.compile(r"\*\*[^*\n]+\*\*"), "__": re.compile(r"__[^_\n]+__")},
}


def markdown_counts(answer: str) -> dict[str, dict[str, int]]:
    """Headers, list items and bold spans outside code blocks, by the official patterns.

    As the official counter does, what stands in a block is removed wherever else it occurs too.
    """
    for block in _BLOCK.findall(answer):
        answer = answer.replace(block, "") if block else answer
    return {
        name: {kind: len(pattern.findall(answer)) for kind, pattern in kinds.items()}
        for name, kinds in _PATTERNS.items()
    }


def metadata(answer: str, count_tokens: Callable[[str], int]) -> dict[str, Any]:
    """An answer's official ``metadata``. Officially `count_tokens` is tiktoken's encoding of gpt-4o (v2.0) or of
    gpt-3.5-turbo (v0.1); another tokenizer's will do if all answers are counted by it."""
    return {"token_len": count_tokens(answer), **markdown_counts(answer)}


def columns(style: Sequence[str]) -> list[int]:
    """Which of FEATURES to control for.

    Raises:
        ConfigError: a kind that is neither length nor markdown.
    """
    for kind in style:
        if kind not in KINDS:
            raise ConfigError(f"no style {kind!r}; control for length, markdown or both", field="style")
    return [i for i, name in enumerate(FEATURES) if any(name in KINDS[kind] for kind in style)]


def style_table(answers: Mapping[str, Sequence[Row]]) -> dict[str, dict[str, np.ndarray]]:
    """{model: {uid: float64 [4]}}: length and counts, from answers' ``metadata`` (v0.1: ``conv_metadata``).

    Raises:
        DataError: an answer without metadata.
    """
    table: dict[str, dict[str, np.ndarray]] = {}
    for model, rows in answers.items():
        table[model] = {}
        for number, row in enumerate(rows, 1):
            what = f"answers of {model} row {number}"
            found = row.get("metadata") or row.get("conv_metadata")
            if found is None:
                raise DataError(f"{what} has no 'metadata'; compute it first (arena_hard.metadata)")
            uid = str(row["question_id"] if "question_id" in row else need(row, "uid", what))
            numbers = [need(found, name, what) for name in FEATURES]
            table[model][uid] = np.array([sum(x.values()) if isinstance(x, Mapping) else x for x in numbers], float)
    return table


def of(table: Mapping[str, Mapping[str, np.ndarray]], model: str, uid: str) -> np.ndarray:
    """Style of a model's answer, float64 [4]."""
    if model not in table or uid not in table[model]:
        what = f"answer of {model} to {uid}" if model in table else f"answers of {model}"
        raise DataError(f"style control: no {what}; give the answers of every model judged and of the baseline")
    return table[model][uid]


def features_v01(baseline: np.ndarray, model: np.ndarray) -> np.ndarray:
    """[n, 4] of styles [n, 4] each."""
    return (baseline - model) / (baseline + model + 1)


def features_v2(model: np.ndarray, baseline: np.ndarray) -> np.ndarray:
    """[n, 4] of styles [n, 4] each."""
    total = model[:, :1] + baseline[:, :1]
    length = np.divide(model[:, :1] - baseline[:, :1], total, out=np.zeros_like(total), where=total != 0)
    x, y = model[:, 1:] / (model[:, :1] + 1), baseline[:, 1:] / (baseline[:, :1] + 1)
    return np.concatenate([length, (x - y) / (x + y + 1)], axis=1)


def standardise(features: np.ndarray, names: Sequence[str], ddof: int) -> tuple[np.ndarray, list[str]]:
    """(z-scores [n, f'], their names); a feature without spread is left out with a warning."""
    spread = features.std(axis=0, ddof=ddof) if len(features) > ddof else np.zeros(features.shape[1])
    keep = spread > 1e-12
    for name in (name for name, kept in zip(names, keep, strict=True) if not kept):
        warnings.warn(f"style feature {name} is the same in all battles; left out", stacklevel=2)
    z = (features[:, keep] - features[:, keep].mean(axis=0)) / spread[keep]
    return z, [name for name, kept in zip(names, keep, strict=True) if kept]


def fit_v01(X: np.ndarray, outcome: np.ndarray, count: np.ndarray) -> np.ndarray:
    """Coefficients of scikit-learn's default logistic regression, every battle doubled (a tie: one win, one loss).

    Args:
        X: [n, m + f]; outcome: [n], what model_a earns; count: [n], how often a resample holds each row.
    """
    from sklearn.linear_model import LogisticRegression

    both, labels = np.concatenate([X, X]), np.repeat([1, 0], len(X))
    weight = np.concatenate([2 * count * outcome, 2 * count * (1 - outcome)])
    kept = weight > 0
    return LogisticRegression(fit_intercept=False).fit(both[kept], labels[kept], sample_weight=weight[kept]).coef_[0]


def fit_v2(X: np.ndarray, outcome: np.ndarray, count: np.ndarray) -> np.ndarray:
    """Coefficients [m + f] of v2.0's fit, float32 as there (module header). Arguments as `fit_v01`, for the model."""
    import torch

    features, target, weight = (torch.tensor(array, dtype=torch.float32) for array in (X, outcome, count))
    coef = torch.full((X.shape[1],), 0.5, requires_grad=True)
    optimizer = torch.optim.LBFGS([coef], lr=0.1, max_iter=50, tolerance_grad=1e-9, tolerance_change=1e-9)

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = torch.nn.functional.binary_cross_entropy_with_logits(features @ coef, target, weight, reduction="sum")
        loss.backward()
        return loss

    optimizer.step(closure)
    return coef.detach().double().numpy()


def one_hot(models: Sequence[str], names: Sequence[str], baseline: str, size: float = 1.0) -> np.ndarray:
    """[n, m]: `size` at the model, minus `size` at the baseline."""
    at = {name: i for i, name in enumerate(names)}
    X = np.zeros((len(models), len(names)))
    X[np.arange(len(models)), [at[model] for model in models]] = size
    X[:, at[baseline]] = -size
    return X
