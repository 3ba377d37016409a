"""The linear programming behind ``game.nash``: all equilibria of a skew game, and the one of maximal entropy.

The equilibria of a skew payoff matrix A form the polytope {m >= 0, sum m = 1, A m <= 0}. Tucker (1956) shows that
it has a point with m_i > 0 or (A m)_i < 0, never both, for every i. That point names the answers in play, I; on the
others m is 0, and on I the equation (A m)_I = 0 holds for the whole polytope (complementary slackness). What is left
is a linear system, with one solution for almost every game, and a small concave maximisation where there are more.

Left out: exact rational arithmetic. Payoffs below 1e-9 of the largest one may be solved as if they were ties.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from launch.errors import ArbiterError

EXACT = 1e-9
"""How much the best reply may win against a returned mixture, relative to the largest payoff."""

LOOSE = 1e-7
"""The same for games whose payoffs span more than six orders of magnitude, where double precision ends."""


def solve(A: np.ndarray) -> np.ndarray:
    """Maximal-entropy equilibrium of a skew float64 [K, K] with max |A| = 1: float64 [K].

    Raises:
        ArbiterError: no mixture was found that holds even to 1e-7 (a matrix beyond double precision).
    """
    strict_winner = np.flatnonzero((A > 0).sum(-1) == len(A) - 1)
    if len(strict_winner):  # it beats every other answer strictly: the only equilibrium plays it alone
        return np.eye(len(A))[strict_winner[0]]
    best, best_gap = np.full(len(A), 1 / len(A)), np.inf
    for mixture in _candidates(A):
        gap = float((A @ mixture).max())
        if gap <= EXACT:
            return mixture
        if gap < best_gap:
            best, best_gap = mixture, gap
    if best_gap <= LOOSE:
        return best
    raise ArbiterError(f"no equilibrium to {LOOSE:g} of this {len(A)}x{len(A)} game (best {best_gap:.2g}); rescale it")


def _candidates(A: np.ndarray) -> Iterator[np.ndarray]:
    """Ever less canonical solutions; the first holds for all but badly scaled games."""
    start = tucker(A)
    if (mixture := _on_support(A, start > -(A @ start), start)) is not None:
        yield mixture
    yield start
    if (vertex := _vertex(A)) is not None:
        yield _clean(vertex)
        for rough in (start, vertex):
            for smallest in (1e-12, 1e-10, 1e-8, 1e-6, 1e-4):
                if (mixture := _on_support(A, rough > smallest, rough)) is not None:
                    yield mixture


def tucker(A: np.ndarray) -> np.ndarray:
    """A strictly complementary equilibrium: maximises t with A m <= 0, m - A m >= t, m >= 0, sum m = 1."""
    from scipy.optimize import linprog

    K = len(A)
    found = linprog(
        c=np.r_[np.zeros(K), -1.0],
        A_ub=np.block([[A, np.zeros((K, 1))], [A - np.eye(K), np.ones((K, 1))]]),
        b_ub=np.zeros(2 * K),
        A_eq=np.r_[np.ones(K), 0.0][None],
        b_eq=[1.0],
        bounds=[(0, None)] * K + [(None, None)],
        method="highs",
    )
    if not found.success:
        raise ArbiterError(f"the linear program of a {K}x{K} game failed: {found.message}")
    return _clean(found.x[:K])


def _on_support(A: np.ndarray, in_play: np.ndarray, start: np.ndarray) -> np.ndarray | None:
    """The maximal-entropy m >= 0 on the answers in play with A m = 0 there and A m <= 0 elsewhere; None if off."""
    inside = np.flatnonzero(in_play)
    if not len(inside):
        return None
    equal = np.vstack([A[np.ix_(inside, inside)], np.ones(len(inside))])  # equal @ m = (0, ..., 0, 1)
    target = np.r_[np.zeros(len(inside)), 1.0]
    _, sizes, axes = np.linalg.svd(equal)
    rank = int((sizes > 1e-10 * sizes[0]).sum())
    point = np.linalg.lstsq(equal, target, rcond=1e-10)[0]
    if np.abs(equal @ point - target).max() > 1e-10:
        return None
    free = axes[rank:].T  # directions in which equilibria differ
    if free.shape[1]:
        point = _max_entropy(point, free, A[np.ix_(~in_play, inside)], start[inside])
    if point.min() < -EXACT:
        return None
    mixture = np.zeros(len(A))
    mixture[inside] = point
    return _clean(mixture)


def _max_entropy(point: np.ndarray, free: np.ndarray, outside: np.ndarray, start: np.ndarray) -> np.ndarray:
    """Maximise entropy over {point + free z >= 0, outside m <= 0}, starting inside it."""
    from scipy.optimize import minimize

    def m(z: np.ndarray) -> np.ndarray:
        return point + free @ z

    def negative_entropy(z: np.ndarray) -> tuple[float, np.ndarray]:
        p = np.maximum(m(z), 1e-15)
        return float((p * np.log(p)).sum()), free.T @ (np.log(p) + 1)

    rows = np.vstack([free, -outside @ free])  # constraints: rows @ z + offset >= 0
    offset = np.r_[point, -outside @ point]
    found = minimize(
        negative_entropy,
        free.T @ (start - point),
        jac=True,
        method="SLSQP",
        constraints={"type": "ineq", "fun": lambda z: rows @ z + offset, "jac": lambda z: rows},
        options={"ftol": 1e-15, "maxiter": 500},
    )
    return m(found.x)


def _vertex(A: np.ndarray) -> np.ndarray | None:
    """One equilibrium from the plain minimax program by the simplex method, to its tolerance."""
    from scipy.optimize import linprog

    K = len(A)
    found = linprog(
        c=np.r_[np.zeros(K), 1.0],
        A_ub=np.c_[A, -np.ones(K)],
        b_ub=np.zeros(K),
        A_eq=np.r_[np.ones(K), 0.0][None],
        b_eq=[1.0],
        bounds=[(0, None)] * K + [(None, None)],
        method="highs-ds",
    )
    return found.x[:K] if found.success else None


def _clean(m: np.ndarray) -> np.ndarray:
    m = np.maximum(m, 0.0)
    return m / m.sum()
