"""How sure a benchmark's number is: Wilson intervals, bootstraps of means, paired tests of two models.

None of these is part of an official score; they stand beside it. Wilson 1927 for shares; the percentile bootstrap
(Efron 1979) for means; for two models on the same items the paired bootstrap of the difference, and the exact sign test
on the items where they differ (McNemar 1947 with the binomial instead of its approximation).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from launch import shares
from launch.errors import DataError
from launch.shares import Z95

_CHUNK = 1 << 22
"""Draws made at once, so that memory stays small."""


@dataclass(frozen=True)
class Estimate:
    """A number with its 95 % interval and how many items it is of."""

    value: float
    low: float
    high: float
    n: int

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Paired:
    """Two models on the same items: mean difference (first minus second), its interval, and who differs where."""

    difference: float
    low: float
    high: float
    n: int
    discordant: int
    """Items on which the two differ; a test can only learn from these."""
    first_better: int
    p_value: float
    """Two-sided exact sign test on the discordant items."""

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def wilson(successes: float, n: int, z: float = Z95) -> Estimate:
    """Share of `n` items with Wilson's interval. `successes` may be fractional (shared credit).

    Raises:
        DataError: no items, or more successes than items.
    """
    if n < 1 or not 0 <= successes <= n:
        raise DataError(f"{successes} successes of {n} items is no share; give at least one item")
    p = successes / n
    low, high = shares.wilson(successes, n, z)
    return Estimate(p, min(p, low), max(p, high), n)


def bootstrap_means(values: Sequence[float] | np.ndarray, rounds: int, rng: np.random.Generator) -> np.ndarray:
    """Means of `rounds` resamples with replacement: float64 [rounds]."""
    x = np.asarray(values, dtype=np.float64)
    if x.ndim != 1 or not len(x) or not np.isfinite(x).all():
        raise DataError(
            f"{x.size} values with {int(np.sum(~np.isfinite(x)))} not finite; drop those, keep at least one"
        )
    step = max(1, _CHUNK // len(x))
    parts = [
        x[rng.integers(0, len(x), (min(step, rounds - done), len(x)))].mean(axis=1) for done in range(0, rounds, step)
    ]
    return np.concatenate(parts)


def bootstrap(values: Sequence[float] | np.ndarray, rounds: int = 1000, seed: int = 0, level: float = 0.95) -> Estimate:
    """Mean with the percentile interval of its bootstrap."""
    means = bootstrap_means(values, rounds, np.random.default_rng(seed))
    return percentile_interval(float(np.mean(values)), means, len(values), level)


def percentile_interval(value: float, draws: np.ndarray, n: int, level: float = 0.95) -> Estimate:
    """`value` of `n` items with the percentiles of its resamples `draws`; those that are not finite are left out."""
    low, high = np.nanquantile(draws, [(1 - level) / 2, (1 + level) / 2])
    return Estimate(value, float(low), float(high), n)


def paired(
    first: Sequence[float],
    second: Sequence[float],
    rounds: int = 1000,
    seed: int = 0,
    weights: tuple[Sequence[float], Sequence[float]] | None = None,
) -> Paired:
    """Compare two models item by item; `first[i]` and `second[i]` are their scores on item i.

    Args:
        weights: how much each item counts in either model's mean (a strong verdict counts three times, say), which is
            then sum(w x)/sum(w); the bootstrap resamples items and takes both means anew.

    Raises:
        DataError: not the same number of items, or weights of which nothing is left.
    """
    from scipy.stats import binomtest

    if len(first) != len(second):
        raise DataError(f"{len(first)} items against {len(second)}; a paired test needs the same items in both")
    x = np.stack([np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)], axis=1)
    w = np.ones_like(x) if weights is None else np.stack([np.asarray(w, dtype=np.float64) for w in weights], axis=1)
    if not len(x) or not np.isfinite(x).all() or not (w > 0).all():
        raise DataError(f"{len(x)} items to compare; each needs two finite scores and positive weights")
    difference = x[:, 0] - x[:, 1]
    means = _weighted_means(x, w, rounds, np.random.default_rng(seed))
    low, high = np.quantile(means[:, 0] - means[:, 1], [0.025, 0.975])
    value = (w * x).sum(axis=0) / w.sum(axis=0)
    better, discordant = int((difference > 0).sum()), int((difference != 0).sum())
    p_value = float(binomtest(better, discordant).pvalue) if discordant else 1.0
    return Paired(float(value[0] - value[1]), float(low), float(high), len(x), discordant, better, p_value)


def _weighted_means(x: np.ndarray, w: np.ndarray, rounds: int, rng: np.random.Generator) -> np.ndarray:
    """Means sum(w x)/sum(w) of `rounds` resamples of the rows of x and w [n, m] together: float64 [rounds, m]."""
    step, parts = max(1, _CHUNK // x.size), []
    for done in range(0, rounds, step):
        drawn = rng.integers(0, len(x), (min(step, rounds - done), len(x)))
        parts.append((w * x)[drawn].sum(axis=1) / w[drawn].sum(axis=1))
    return np.concatenate(parts)
