"""How far predicted sentences are from true ones: MAE, RMSE, log distance, the CAIL2018, LawBench and JuDGE scores.

| name | of one case with true t and predicted p, in months |
|---|---|
| mae, rmse | |t - p|, and the root of the mean square |
| log_distance | v = |ln(t + 1) - ln(p + 1)| |
| cail | 1, 0.8, 0.6, 0.4, 0.2 for v up to 0.2, 0.4, 0.6, 0.8, 1, else 0; life and death must be met exactly |
| lawbench | (ln 216 - mean v) / ln 216; no answer costs ln 216 |
| judge | 1 - |t - p| / max(t, p); both 0 is 1; life is 240; only one death sentence is 0 |

A text in which no sentence can be read has the prediction None. MAE, RMSE and log distance are over the others, so the
parse rate stands beside them always: 0 months in their place would pollute them. The three scores count it as missed.

    python -c "from reasoning.legal.metrics import sentencing; print(sentencing([36, 36], [24, None]))"
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Sequence

import numpy as np

from launch.errors import DataError
from reasoning.legal.chains import DEATH, LIFE
from tasks.benchmarks.intervals import Estimate, bootstrap, wilson

LAWBENCH_WORST = math.log(216)
LIFE_MONTHS = 240
_CAIL_STEPS = ((0.2, 1.0), (0.4, 0.8), (0.6, 0.6), (0.8, 0.4), (1.0, 0.2))


def log_distance(true: float, predicted: float) -> float:
    """|ln(t + 1) - ln(p + 1)|. Raises DataError for a negative term."""
    if true < 0 or predicted < 0:
        raise DataError(f"log distance of {true} and {predicted} months: life and death are no number of months")
    return abs(math.log(true + 1) - math.log(predicted + 1))


def cail_score(true: float, predicted: float | None) -> float:
    """The term score of CAIL2018, 0 to 1. LIFE (-1) and DEATH (-2) must be met exactly."""
    if predicted is None:
        return 0.0
    if true < 0 or predicted < 0:
        return float(true == predicted)
    distance = log_distance(true, predicted)
    return next((score for limit, score in _CAIL_STEPS if distance <= limit), 0.0)


def lawbench_score(true: Sequence[float], predicted: Sequence[float | None]) -> float:
    """LawBench 3-4 and 3-5 over cases with a fixed true term; abstentions cost ln 216."""
    _paired(true, predicted)
    kept = [(t, p) for t, p in zip(true, predicted, strict=True) if t >= 0]
    costs = [LAWBENCH_WORST if p is None or p < 0 else log_distance(t, p) for t, p in kept]
    return (LAWBENCH_WORST - float(np.mean(costs))) / LAWBENCH_WORST


def judge_score(true: float | None, predicted: float | None) -> float | None:
    """JuDGE's score of a term or a fine, 0 to 1; None where neither text holds one (such a case is not counted)."""
    if true is None and predicted is None:
        return None
    if true is None or predicted is None or (true == DEATH) != (predicted == DEATH):
        return 0.0
    if true == predicted:
        return 1.0
    t, p = (LIFE_MONTHS if x == LIFE else x for x in (true, predicted))
    return 1 - abs(t - p) / max(t, p)


def sentencing(true: Sequence[float], predicted: Sequence[float | None]) -> dict[str, Estimate]:
    """All sentence metrics with 95 % intervals: bootstrap for means, Wilson for the parse rate.

    Args:
        true: months, or LIFE and DEATH.
        predicted: the same, or None where no sentence was read.

    Raises:
        DataError: no case, or lists of unequal length.
    """
    _paired(true, predicted)
    read = [(t, p) for t, p in zip(true, predicted, strict=True) if p is not None]
    fixed = [(t, p) for t, p in read if t >= 0 and p >= 0]
    found = {"parse_rate": wilson(len(read), len(true))}
    if fixed:
        errors = np.array([abs(t - p) for t, p in fixed], dtype=float)
        squares = bootstrap(errors**2)
        found["mae"] = bootstrap(errors)
        low, high = math.sqrt(squares.low), math.sqrt(squares.high)
        found["rmse"] = Estimate(math.sqrt(squares.value), low, high, squares.n)
        found["log_distance"] = bootstrap([log_distance(t, p) for t, p in fixed])
    found["cail"] = bootstrap([cail_score(t, p) for t, p in zip(true, predicted, strict=True)])
    costs = [_lawbench_cost(t, p) for t, p in zip(true, predicted, strict=True) if t >= 0]
    if costs:
        found["lawbench"] = bootstrap([1 - cost / LAWBENCH_WORST for cost in costs])
    judged = [judge_score(t, p) for t, p in zip(true, predicted, strict=True)]
    found["judge"] = bootstrap([j for j in judged if j is not None])
    return found


def set_f1(true: Sequence[Hashable], predicted: Sequence[Hashable]) -> tuple[float, float, float]:
    """Precision, recall and F1 of two sets, as LawBench takes it per case: 0 where nothing is shared."""
    shared = len(set(true) & set(predicted))
    precision = shared / len(set(predicted)) if predicted else 0.0
    recall = shared / len(set(true)) if true else 0.0
    return precision, recall, 2 * precision * recall / (precision + recall) if shared else 0.0


def cail_labels(true: Sequence[set[str]], predicted: Sequence[set[str]], classes: Sequence[str]) -> float:
    """CAIL2018's score of charges or articles: the mean of micro and macro F1; a class nobody names counts 1.

    Args:
        true, predicted: labels of each case.
        classes: all labels (202 charges, 183 articles).
    """
    _paired(true, predicted)

    def f1(hits: int, wrong: int, missed: int) -> float:
        return 2 * hits / (2 * hits + wrong + missed) if hits + wrong + missed else 1.0

    counts = []
    for name in classes:
        hits = sum(name in t and name in p for t, p in zip(true, predicted, strict=True))
        wrong = sum(name in p and name not in t for t, p in zip(true, predicted, strict=True))
        missed = sum(name in t and name not in p for t, p in zip(true, predicted, strict=True))
        counts.append((hits, wrong, missed))
    micro = f1(*(int(total) for total in np.sum(counts, axis=0)))
    return (micro + float(np.mean([f1(*c) for c in counts]))) / 2


def predict_by_group(
    groups: Sequence[Hashable],
    terms: Sequence[float],
    folds: int = 5,
    seed: int | None = 0,
    centre: Callable[[Sequence[float]], float] = lambda values: float(np.mean(values)),
) -> list[float]:
    """The trivial predictor, cross-validated: the centre of the terms of one's group in the other folds.

    Args:
        groups: what is known of each case, e.g. its charge or its charge and tier.
        seed: of the shuffle that deals the cases to folds; None deals them in their order, every `folds`-th together.

    A group that the other folds do not hold gets the centre of all their terms.
    """
    _paired(groups, terms)
    order = np.arange(len(terms)) if seed is None else np.random.default_rng(seed).permutation(len(terms))
    dealt = order % folds
    predictions = [0.0] * len(terms)
    for fold in range(folds):
        outside = [k for k in range(len(terms)) if dealt[k] != fold]
        known: dict[Hashable, list[float]] = {}
        for k in outside:
            known.setdefault(groups[k], []).append(terms[k])
        rest = [terms[k] for k in outside]
        for k in range(len(terms)):
            if dealt[k] == fold:
                predictions[k] = centre(known.get(groups[k], rest))
    return predictions


def _lawbench_cost(true: float, predicted: float | None) -> float:
    return LAWBENCH_WORST if predicted is None or predicted < 0 else log_distance(true, predicted)


def _paired(true: Sequence[object], predicted: Sequence[object]) -> None:
    if not true or len(true) != len(predicted):
        raise DataError(f"{len(true)} true values and {len(predicted)} predictions: give one prediction for each case")
