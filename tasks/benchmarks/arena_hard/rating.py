"""Ratings from battles: Bradley-Terry by logistic regression, its closed form against one baseline, bootstraps.

The official fit is logistic regression without intercept or penalty on +-ln 10 one-hot differences, every battle
doubled and a tie one win and one loss; Elo = 400 coef + 1000 with the baseline at 1000, and a model's score

    100 / (1 + 10^((1000 - R)/400)).

Where every model has met only the baseline, the likelihood falls apart into one term per model and the score is simply
the mean of its outcomes (win 1, tie 1/2, loss 0): `win_rates`. `bradley_terry` is the general fit, and its cross-check.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from launch.errors import DataError
from tasks.benchmarks.arena_hard.verdicts import Battle

SCALE, BASE, ANCHOR = 400.0, 10.0, 1000.0
EDGE = 1e-6
"""Win rates are kept this far from 0 and 1 where they become Elo: a model that won everything has no finite one."""


def win_rates(battles: Sequence[Battle], baseline: str) -> dict[str, float]:
    """Mean outcome of each model against the baseline, 0 to 1; the baseline's is 0.5.

    Raises:
        DataError: a battle between two other models (use `bradley_terry`).
    """
    names, model, outcome = against(battles, baseline)
    means = np.bincount(model, outcome, len(names)) / np.bincount(model, minlength=len(names))
    return {baseline: 0.5, **dict(zip(names, means.tolist(), strict=True))}


def against(battles: Sequence[Battle], baseline: str) -> tuple[list[str], np.ndarray, np.ndarray]:
    """(names, model index int [n], outcome float64 [n]: 1 the model won, 0.5 tie) of battles against one baseline."""
    for number, battle in enumerate(battles, 1):
        if baseline not in (battle.model_a, battle.model_b) or battle.model_a == battle.model_b:
            raise DataError(
                f"battle {number}: {battle.model_a} against {battle.model_b} is not against {baseline}; "
                "name another baseline or fit bradley_terry"
            )
    others = [battle.model_a if battle.model_b == baseline else battle.model_b for battle in battles]
    names = sorted(set(others))
    at = {name: i for i, name in enumerate(names)}
    won = [
        0.5 if battle.winner == "tie" else float(getattr(battle, battle.winner) == other)
        for battle, other in zip(battles, others, strict=True)
    ]
    return names, np.array([at[other] for other in others], dtype=np.int64), np.array(won)


def bradley_terry(battles: Sequence[Battle], baseline: str) -> dict[str, float]:
    """Elo of every model by the official logistic regression, on a table of wins instead of rows (the same optimum).

    Raises:
        DataError: no battle, or none with the baseline.
    """
    names = sorted({name for battle in battles for name in (battle.model_a, battle.model_b)})
    if baseline not in names:
        raise DataError(f"none of {len(battles)} battles is with {baseline}; name a baseline that played")
    at = {name: i for i, name in enumerate(names)}
    wins = np.zeros((len(names), len(names)))
    for battle in battles:
        a, b = at[battle.model_a], at[battle.model_b]
        share = {"model_a": 1.0, "tie": 0.5, "model_b": 0.0}[battle.winner]
        wins[a, b] += share
        wins[b, a] += 1 - share
    return dict(zip(names, elo_of_wins(wins, at[baseline]).tolist(), strict=True))


def elo_of_wins(wins: np.ndarray, baseline: int) -> np.ndarray:
    """Elo float64 [m] from wins [m, m] (row beat column), the baseline at 1000."""
    from sklearn.linear_model import LogisticRegression

    winner, loser = np.nonzero(wins)
    rows = np.arange(len(winner))
    X = np.zeros((len(winner), len(wins)))
    X[rows, winner], X[rows, loser] = math.log(BASE), -math.log(BASE)
    # The same games from the loser's side: both labels must occur.
    X, labels = np.concatenate([X, -X]), np.repeat([1, 0], len(winner))
    model = LogisticRegression(C=np.inf, fit_intercept=False, tol=1e-8, max_iter=1000)
    coef = model.fit(X, labels, sample_weight=np.tile(wins[winner, loser], 2)).coef_[0]
    return SCALE * (coef - coef[baseline]) + ANCHOR


def score_of_elo(elo: np.ndarray) -> np.ndarray:
    """Win rate in percent against a baseline at 1000."""
    return 100 / (1 + BASE ** ((ANCHOR - elo) / SCALE))


def elo_of_rate(rate: np.ndarray) -> np.ndarray:
    """Elo of a win rate, 0 to 1, against a baseline at 1000."""
    rate = np.clip(rate, EDGE, 1 - EDGE)
    return ANCHOR + SCALE * np.log10(rate / (1 - rate))


def bootstrap_elo(battles: Sequence[Battle], baseline: str, rounds: int, seed: int) -> tuple[list[str], np.ndarray]:
    """(names, Elo float64 [rounds, m]) of resampled battles, all models pooled.

    Rows are drawn as the official script draws them (numpy's legacy generator), so the same seed on the same rows in
    the same order takes the same resamples. A model that a resample misses has NaN there.
    """
    generator = np.random.RandomState(seed)
    n = len(battles)
    alone = all(baseline in (battle.model_a, battle.model_b) for battle in battles)
    if alone:
        names, model, outcome = against(battles, baseline)
        elo = np.empty((rounds, len(names)))
        for i in range(rounds):
            drawn = generator.choice(n, n, replace=True)
            count = np.bincount(model[drawn], minlength=len(names))
            with np.errstate(invalid="ignore"):
                elo[i] = elo_of_rate(np.bincount(model[drawn], outcome[drawn], len(names)) / count)
        return [baseline, *names], np.concatenate([np.full((rounds, 1), ANCHOR), elo], axis=1)
    names = sorted({name for battle in battles for name in (battle.model_a, battle.model_b)})
    rows = []
    for _ in range(rounds):
        found = bradley_terry([battles[i] for i in generator.choice(n, n, replace=True)], baseline)
        rows.append([found.get(name, math.nan) for name in names])
    return names, np.array(rows)
