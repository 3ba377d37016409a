"""Splitting edges into what is learned from and what is asked, and how much the one tells of the other.

Two people who rate each other mostly agree: with 80/20 splits, two of three test edges of the bitcoin graphs have
their reverse in the training part, with the same sign in 97 of 100. `leakage` measures that; ``by_pair=True`` keeps
both directions of a pair on one side.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from launch.errors import DataError
from tasks.graph.signed.edges import Places, check_signs


def split_edges(
    edges: np.ndarray, seed: int, test: float = 0.2, by_pair: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """Training and test edges, each int64 [., 3], with the same share of each sign in both.

    Args:
        edges: int64 [m, 3]: source, target, sign.
        seed: of the drawing.
        test: share of the test edges.
        by_pair: keep both directions of a pair together; shares are then those of pairs, by the sign of their first
            edge in `edges`.

    Raises:
        DataError: a sign that is none, or a share that leaves one side without edges of a sign.
    """
    check_signs(edges, Places())
    generator = np.random.default_rng(seed)
    keys = np.arange(len(edges))
    if by_pair:
        ends, n = _positions(edges[:, :2])
        keys = ends.min(1) * n + ends.max(1)
    _, first, unit = np.unique(keys, return_index=True, return_inverse=True)
    asked = np.zeros(len(first), dtype=bool)
    for sign in (1, -1):
        units = np.flatnonzero(edges[first, 2] == sign)
        count = round(test * len(units))
        if not 0 < count < len(units):
            word = "positive" if sign > 0 else "negative"
            raise DataError(f"a test share of {test} of {len(units)} {word} edges leaves a part empty; give more edges")
        asked[generator.permutation(units)[:count]] = True
    return edges[~asked[unit]], edges[asked[unit]]


def split_validated(
    edges: np.ndarray, seed: int, validation: float = 0.05, test: float = 0.1, by_pair: bool = False
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Training, validation and test edges, 85/5/10 as CSG splits them; each int64 [., 3], see `split_edges`."""
    rest, asked = split_edges(edges, seed, test, by_pair)
    known, chosen = split_edges(rest, seed, validation / (1 - test), by_pair)
    return known, chosen, asked


@dataclass(frozen=True)
class Leakage:
    """What a training part says of test edges through their reverse."""

    reverse_in_train: float
    """Share of test edges whose reverse is a training edge."""
    same_sign: float
    """Share of those whose sign is that of the reverse; NaN if there are none."""


def leakage(train: np.ndarray, test: np.ndarray) -> Leakage:
    """How many `test` edges have their reverse in `train`, and how often the signs agree; both int64 [., 3]."""
    known = reverse_signs(train, test)
    leaks = known != 0
    agree = float((known == test[:, 2])[leaks].mean()) if leaks.any() else float("nan")
    return Leakage(float(leaks.mean()), agree)


def reverse_signs(train: np.ndarray, asked: np.ndarray) -> np.ndarray:
    """Sign of the reverse of each of `asked` [k, 2 or more] among `train` [m, 3], 0 where there is none: int64 [k]."""
    if len(train) == 0 or len(asked) == 0:
        return np.zeros(len(asked), dtype=np.int64)
    ends, n = _positions(np.concatenate([train[:, :2], asked[:, :2]]))
    keys, wanted = ends[: len(train)] @ [n, 1], ends[len(train) :] @ [1, n]
    order = np.argsort(keys)
    at = np.searchsorted(keys[order], wanted).clip(max=len(keys) - 1)
    return np.where(keys[order][at] == wanted, train[order[at], 2], 0)


def _positions(ends: np.ndarray) -> tuple[np.ndarray, int]:
    """`ends` [k, 2] as positions among their ids, and how many ids those are: n times an id could pass int64."""
    ids, places = np.unique(ends, return_inverse=True)
    return places.reshape(ends.shape), len(ids)
