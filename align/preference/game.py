"""The game that a prompt's K answers play: decomposition, equilibrium, duality gap, cyclicity.

Pure mathematics. Numpy arrays and torch tensors go in, the same kind comes out; nothing here knows a model.

A preference over K answers is a *skew-symmetric* matrix S of logits, S = -S^T, where ``S[i, j] > 0`` says that
answer i beats answer j, and P = sigmoid(S) is the chance that it does. Read S as the payoff of a game: two players
each name an answer, and the row player wins S[i, j] from the column player. Four questions follow.

1. How much of S is a ranking? Theorem 4.5 (HRC, arXiv 2605.17342, after Balduzzi et al. 2019) splits it uniquely
   into S = S_T + S_C: differences of a value f, and a rest whose every row averages to 0, i.e. pure cycles.
   -> `decompose`, `cyclicity`, `leak`, `rank_values`
2. Is there a best answer? One that beats all others is a Condorcet winner; a cycle at the top leaves none.
   -> `condorcet_winner`, `cycles`
3. What to answer if there is none? The equilibrium: the mixture of answers that no single answer beats.
   -> `nash`
4. How far is a mixture from that? By how much the best reply against it wins.
   -> `duality_gap`

Two games live on the same answers. With payoff S a win counts as much as its logit; with payoff P - 1/2 it counts
as much as its probability. Their rankings of pairs agree and so do their Condorcet winners, but their equilibria
differ: around a cycle a > b > c > a with payoffs x (a over b), y (b over c), z (c over a), answer a is played in
proportion to y, b to z, and c to x, and sigmoid bends the three payoffs differently. Policies are judged by how often
they win, so every mixture and gap that Arbiter reports is of P: ``nash(P - 1/2)`` and ``duality_gap(P, mixture)``.

    python -c "import numpy as np; from align.preference import game; \\
               print(game.nash(np.array([[0, 1, -2], [-1, 0, 1], [2, -1, 0.]])))"
"""

from __future__ import annotations

from itertools import combinations
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import numpy as np

from launch.errors import DataError

if TYPE_CHECKING:
    import torch

Matrix = TypeVar("Matrix", np.ndarray, "torch.Tensor")


# ---------------------------------------------------------------- what is a preference


def require_skew(S: Any, name: str = "S") -> None:
    """Raise DataError unless `S` [..., K, K] is finite and skew-symmetric to the precision of its dtype."""
    if S.ndim < 2 or S.shape[-1] != S.shape[-2] or S.shape[-1] == 0:
        raise DataError(f"{name} has shape {tuple(S.shape)}; a game over K answers needs [..., K, K] with K >= 1")
    values = _numpy(S)
    if not np.isfinite(values).all():
        where = tuple(int(i) for i in np.argwhere(~np.isfinite(values))[0])
        raise DataError(f"{name}{list(where)} is {values[where]}; scores must be finite")
    error = np.abs(values + values.swapaxes(-1, -2))
    allowed = _tolerance(S) * (1 + np.abs(values).max())
    if error.max() > allowed:
        *batch, i, j = np.unravel_index(int(error.argmax()), error.shape)
        a, b = values[(*batch, i, j)], values[(*batch, j, i)]
        raise DataError(
            f"{name} is not skew-symmetric: [{i}, {j}] is {a:.6g} but [{j}, {i}] is {b:.6g}; "
            "pass logits with S = -S^T (for probabilities P pass P - 1/2)"
        )


def probabilities(S: Matrix) -> Matrix:
    """P = sigmoid(S), the chance that row beats column: [..., K, K] in (0, 1), P + P^T = 1, diagonal 1/2."""
    if isinstance(S, np.ndarray):
        from scipy.special import expit

        return expit(S)
    return S.sigmoid()


# ---------------------------------------------------------------- 1. ranking and cycles


class Decomposition(NamedTuple):
    """S = S_T + S_C (Theorem 4.5)."""

    f: Any
    """[..., K]: value of each answer, its mean logit against the pool (itself included). Sums to 0."""
    S_T: Any
    """[..., K, K]: f_i - f_j, the part that a scalar reward explains."""
    S_C: Any
    """[..., K, K]: the rest. Its rows average to 0 and <S_T, S_C> = 0."""


def decompose(S: Matrix) -> Decomposition:
    """Split a skew-symmetric matrix into its ranking and its cycles, exactly.

    f_i = mean_j S_ij, S_T = f_i - f_j, S_C = S - S_T. There is only one such split: f sums to 0 because S is skew,
    and if g explained the ranking too, S_T's marginal would make f - g constant, so the differences agree.

    Args:
        S: [..., K, K], skew-symmetric.

    Raises:
        DataError: not square, not finite or not skew-symmetric.
    """
    require_skew(S)
    f = S.mean(-1)
    S_T = f[..., :, None] - f[..., None, :]
    return Decomposition(f, S_T, S - S_T)


def rank_values(S: Matrix) -> Matrix:
    """f [..., K] of `decompose`: the mean logit of each answer against the pool, the ranking of best fit."""
    return decompose(S).f


def cyclicity(S: Matrix) -> Any:
    """||S_C||^2 / ||S||^2 in [0, 1]: the share of the preference that no scalar reward can explain.

    0 for a perfect ranking (and for S = 0), 1 for pure cycles. A float for one matrix, an array [...] for a batch.
    """
    return _share(decompose(S).S_C, S)


def leak(cyclic_part: Matrix) -> Any:
    """Share of a learned cyclic part that is really ranking: 1 - cyclicity, and 0 for a zero matrix.

    The bilinear form v_i^T R v_j is purely cyclic only if the vectors average to 0 (Theorem 4.6), and nothing in
    training makes them, so a learned S_C carries some ranking. This says how much.
    """
    return _share(decompose(cyclic_part).S_T, cyclic_part)


# ---------------------------------------------------------------- 2. is there a best answer


def condorcet_winner(S: Any) -> int | None:
    """Index of the answer that beats every other (S_ij > 0 for all j != i), or None. S is [K, K]."""
    _require_one(S)
    require_skew(S)
    values = _numpy(S)
    beaten = (values > 0).sum(-1)
    best = int(beaten.argmax())
    return best if beaten[best] == len(values) - 1 else None


def cycles(S: Any) -> list[tuple[int, int, int]]:
    """Every strict cyclic triad i > j > k > i of S [K, K], each once, starting at its smallest index."""
    _require_one(S)
    require_skew(S)
    beats = _numpy(S) > 0
    found = []
    for i, j, k in combinations(range(len(beats)), 3):
        if beats[i, j] and beats[j, k] and beats[k, i]:
            found.append((i, j, k))
        elif beats[j, i] and beats[k, j] and beats[i, k]:
            found.append((i, k, j))
    return found


# ---------------------------------------------------------------- 3. the equilibrium


class Equilibrium(NamedTuple):
    """A mixture that no answer beats."""

    mixture: Any
    """[K], non-negative, sums to 1."""
    value: float
    """What the mixture is sure to win, min_j (m^T A)_j. The value of a symmetric game is 0."""


def nash(A: Matrix) -> Equilibrium:
    """Equilibrium of the symmetric zero-sum game whose payoff is the skew matrix `A` [K, K], exact to 1e-9.

    Where several mixtures are equilibria (ties, duplicated answers), the one of maximal entropy is returned, so that
    equal answers get equal weight and the result does not depend on the solver or on the order of the answers.

    It solves the matrix it is given: ``nash(S)`` is the equilibrium in logits, ``nash(P - 1/2)`` the one in win rates.

    Method: Tucker's theorem gives every skew game a solution m with m >= 0, -A m >= 0 and m - A m > 0. Maximising
    the smallest entry of m - A m is one linear program; it tells the answers that some equilibrium plays (m_i > 0)
    from those that none does ((A m)_i < 0). On the former A m = 0 holds for every equilibrium, a linear system that
    is then solved to machine precision.

    Raises:
        DataError: not one square finite skew-symmetric matrix.
    """
    _require_one(A)
    require_skew(A, "A")
    exact = _numpy(A).astype(np.float64)
    exact = (exact - exact.T) / 2
    scale = np.abs(exact).max()
    if scale == 0:
        mixture = np.full(len(exact), 1 / len(exact))
    else:
        from align.preference.equilibrium import solve

        mixture = solve(exact / scale)
    value = float((mixture @ exact).min())
    return Equilibrium(mixture if isinstance(A, np.ndarray) else A.new_tensor(mixture), value)


# ---------------------------------------------------------------- 4. how far from it


def duality_gap(P: Any, mixture: Any, opponent: Any = None) -> Any:
    """How exploitable a mixture is in the game of win rates: 2 (max_i (P m)_i - 1/2), in [0, 1].

    P[i, j] is the chance that i beats j. Against m, the best single answer wins max_i (P m)_i of the time; an
    equilibrium leaves it 1/2. The factor 2 counts both players: for a pair (m, o) the gap is
    max_i (P o)_i - min_j (m^T P)_j, which is the formula above when o = m. Average over rounds: pass the average.

    Args:
        P: [..., K, K], P + P^T = 1.
        mixture: [..., K], non-negative, sums to 1.
        opponent: the other player's mixture [..., K]; `mixture` itself by default.

    Returns:
        A float for one matrix, an array or tensor [...] for a batch.

    Raises:
        DataError: P + P^T is not 1, or a mixture is not a probability vector.
    """
    require_skew(P - 0.5, "P - 1/2")
    opponent = mixture if opponent is None else opponent
    for m in (mixture, opponent):
        values = _numpy(m)
        if values.min() < -1e-6 or np.abs(values.sum(-1) - 1).max() > 1e-4:
            raise DataError(f"a mixture has entries from {values.min():.4g} and sum {values.sum(-1)}; it must sum to 1")
    best_reply = (P * opponent[..., None, :]).sum(-1)  # [..., K]: chance that i beats the opponent
    floor = (P * mixture[..., :, None]).sum(-2)  # [..., K]: chance that the mixture beats j
    if isinstance(best_reply, np.ndarray):
        gap = best_reply.max(-1) - floor.min(-1)
        return float(gap) if gap.ndim == 0 else gap
    gap = best_reply.amax(-1) - floor.amin(-1)
    return float(gap) if gap.ndim == 0 else gap


# ---------------------------------------------------------------- small print


def _numpy(x: Any) -> np.ndarray:
    return x if isinstance(x, np.ndarray) else x.detach().cpu().double().numpy()


def _tolerance(x: Any) -> float:
    return 1e-9 if str(x.dtype).endswith("float64") else 1e-5 if str(x.dtype).endswith("float32") else 1e-2


def _require_one(S: Any) -> None:
    if S.ndim != 2:
        raise DataError(f"one game [K, K] is needed here, got shape {tuple(S.shape)}; loop over the batch")


def _share(part: Any, whole: Any) -> Any:
    """||part||^2 / ||whole||^2 over the last two axes, 0 where the whole is 0."""
    energy = (whole * whole).sum((-1, -2))
    share = (part * part).sum((-1, -2)) / (energy + (energy == 0))
    return float(share) if share.ndim == 0 else share
