"""Laws of the game, and numbers that can be checked by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from align.preference import game
from launch.errors import DataError

LN3 = math.log(3)


def skew(rng: np.random.Generator, K: int = 7) -> np.ndarray:
    A = rng.normal(size=(K, K))
    return A - A.T


def cycle(x: float, y: float, z: float) -> np.ndarray:
    """0 beats 1 by x, 1 beats 2 by y, 2 beats 0 by z."""
    return np.array([[0, x, -z], [-x, 0, y], [z, -y, 0.0]])


def test_hrc_acceptance_1_decompose() -> None:
    rng = np.random.default_rng(0)
    for _ in range(100):
        S = skew(rng)
        f, S_T, S_C = game.decompose(S)
        assert np.abs(S_T + S_C - S).max() < 1e-12
        assert np.abs(S_C.mean(-1)).max() < 1e-12
        assert abs((S_T * S_C).sum()) < 1e-10
        # The split is unique: any other f that is not this one plus a constant leaves a marginal in the rest.
        other = f + rng.normal(size=7)
        assert np.abs((S - (other[:, None] - other[None])).mean(-1)).max() > 1e-3
        shifted = f + 3.0
        assert np.abs((S - (shifted[:, None] - shifted[None])).mean(-1)).max() < 1e-12


def test_decompose_by_hand() -> None:
    """S = ranking (2, 0, -2)/… plus a unit cycle. f = row means of [[0, 3, 3], [-3, 0, 3], [-3, -3, 0]] = (2, 0, -2);
    S_T = [[0, 2, 4], [-2, 0, 2], [-4, -2, 0]]; S_C = [[0, 1, -1], [-1, 0, 1], [1, -1, 0]]; energies 54 = 48 + 6."""
    S = np.array([[0, 3, 3], [-3, 0, 3], [-3, -3, 0.0]])
    f, S_T, S_C = game.decompose(S)
    assert f.tolist() == [2, 0, -2]
    assert S_T.tolist() == [[0, 2, 4], [-2, 0, 2], [-4, -2, 0]]
    assert S_C.tolist() == [[0, 1, -1], [-1, 0, 1], [1, -1, 0]]
    assert game.cyclicity(S) == pytest.approx(6 / 54)
    assert game.leak(S_C) == 0
    assert game.leak(S) == pytest.approx(48 / 54)


def test_numpy_and_torch_agree_and_batches_are_elementwise() -> None:
    rng = np.random.default_rng(1)
    S = np.stack([skew(rng, 5) for _ in range(4)])
    T = torch.tensor(S)
    for mine, theirs in zip(game.decompose(S), game.decompose(T), strict=True):
        assert isinstance(theirs, torch.Tensor)
        assert np.allclose(mine, theirs.numpy(), atol=1e-15)
    assert np.allclose(game.probabilities(S), game.probabilities(T).numpy())
    assert np.allclose(game.cyclicity(S), [game.cyclicity(s) for s in S])
    assert np.allclose(game.cyclicity(T).numpy(), game.cyclicity(S))
    P = game.probabilities(S)
    m = rng.dirichlet(np.ones(5), size=4)
    gaps = [game.duality_gap(p, q) for p, q in zip(P, m, strict=True)]
    assert np.allclose(game.duality_gap(P, m), gaps)
    assert np.allclose(game.duality_gap(torch.tensor(P), torch.tensor(m)).numpy(), gaps)
    mixture, value = game.nash(T[0])
    assert isinstance(mixture, torch.Tensor)
    assert abs(value) < 1e-9


def test_decompose_is_differentiable() -> None:
    """d cyclicity / dS exists, so the leak can be watched or penalised during training."""
    A = torch.randn(4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0), requires_grad=True)
    game.decompose(A - A.T).S_C.square().sum().backward()
    assert A.grad is not None
    assert A.grad.abs().sum() > 0


def test_cyclicity_ends() -> None:
    f = np.array([3.0, 1.0, -2.0, 0.5])
    assert game.cyclicity(f[:, None] - f[None]) < 1e-30
    assert game.cyclicity(cycle(1, 1, 1)) == pytest.approx(1)
    assert game.cyclicity(np.zeros((3, 3))) == 0
    assert game.leak(np.zeros((3, 3))) == 0


def test_equilibria_of_s_and_p_differ() -> None:
    """Around the cycle 0 > 1 > 2 > 0 with logits ln 3, ln 3, ln 9 the odds are 3, 3, 9.

    An equilibrium m makes every answer win 0: row 0 says m1 x = m2 z, row 1 m2 y = m0 x, so m ~ (y, z, x).
    In logits (x, y, z) ~ (1, 1, 2): m = (1, 2, 1)/4. In win rates less 1/2: x = y = 3/4 - 1/2 = 1/4,
    z = 9/10 - 1/2 = 2/5, so m ~ (1/4, 2/5, 1/4) = (5, 8, 5)/18.
    """
    S = cycle(LN3, LN3, 2 * LN3)
    P = game.probabilities(S)
    in_logits, in_rates = game.nash(S).mixture, game.nash(P - 0.5).mixture
    assert np.allclose(in_logits, np.array([1, 2, 1]) / 4, atol=1e-12)
    assert np.allclose(in_rates, np.array([5, 8, 5]) / 18, atol=1e-12)
    assert game.duality_gap(P, in_rates) < 1e-12
    # Against (1, 2, 1)/4, answer 2 wins 9/10/4 + 1/4/2 + 1/2/4 = .475; 0 wins 1/8 + 3/8 + 1/40 = .525: gap .05.
    assert game.duality_gap(P, in_logits) == pytest.approx(0.05)


def test_nash_of_probabilities_has_no_gap() -> None:
    rng = np.random.default_rng(2)
    for K in (1, 2, 3, 5, 8, 16):
        for scale in (0.1, 1, 10):
            P = game.probabilities(scale * skew(rng, K))
            mixture, value = game.nash(P - 0.5)
            assert mixture.min() >= 0
            assert mixture.sum() == pytest.approx(1, abs=1e-12)
            assert abs(value) < 1e-9
            assert game.duality_gap(P, mixture) < 1e-6


@settings(max_examples=60, deadline=None, derandomize=True)
@given(arrays(np.float64, (5, 5), elements=st.sampled_from([-2.0, -1.0, 0.0, 1.0, 2.0, 1e-4, -3e-7])), st.randoms())
def test_nash_of_tied_games(A: np.ndarray, random: object) -> None:
    """Games full of ties have many equilibria: one is found to 1e-7, and reordering the answers reorders it."""
    A = A - A.T
    mixture, value = game.nash(A)
    scale = max(1.0, np.abs(A).max())
    assert (A @ mixture).max() <= 1e-7 * scale
    assert abs(value) <= 1e-7 * scale
    order = list(range(5))
    random.shuffle(order)  # type: ignore[attr-defined]
    if np.abs(A[A != 0]).min(initial=1) > 1e-3:
        assert np.allclose(game.nash(A[np.ix_(order, order)]).mixture, mixture[order], atol=1e-5)


def test_nash_takes_the_most_even_of_many() -> None:
    """No preference at all: uniform. Two equal answers: equal shares, whatever else there is."""
    assert np.allclose(game.nash(np.zeros((4, 4))).mixture, 0.25)
    twins = np.array([[0, 0, 1], [0, 0, 1], [-1, -1, 0.0]])
    assert np.allclose(game.nash(twins).mixture, [0.5, 0.5, 0], atol=1e-7)
    doubled = cycle(1, 1, 1)[np.ix_([0, 0, 1, 2], [0, 0, 1, 2])]
    assert np.allclose(game.nash(doubled).mixture, [1 / 6, 1 / 6, 1 / 3, 1 / 3], atol=1e-6)


def test_nash_by_fictitious_play() -> None:
    """A slow independent solver agrees: the value against its average is 0 and supports match on generic games."""
    rng = np.random.default_rng(3)
    A = game.probabilities(skew(rng, 5)) - 0.5
    weights, average = np.zeros(5), np.zeros(5)
    for _ in range(60_000):  # regret matching
        strategy = np.maximum(weights, 0)
        strategy = strategy / strategy.sum() if strategy.sum() > 0 else np.full(5, 0.2)
        payoff = A @ strategy
        weights = np.maximum(weights + payoff - strategy @ payoff, 0)
        average += strategy
    average /= average.sum()
    assert np.allclose(average, game.nash(A).mixture, atol=5e-3)


def test_duality_gap_by_hand() -> None:
    """Rock, paper, scissors won 9 times of 10: playing one of them loses .9, gap 2 (.9 - .5) = .8; uniform 0. For two
    players, a pure 0 against a pure 1 which 0 beats: the best reply to 1 wins .9, 0 is sure of .1 only: .9 - .1."""
    P = game.probabilities(cycle(2 * LN3, 2 * LN3, 2 * LN3))
    pure = np.eye(3)
    assert game.duality_gap(P, pure[0]) == pytest.approx(0.8)
    assert game.duality_gap(P, np.full(3, 1 / 3)) == pytest.approx(0)
    assert game.duality_gap(P, pure[0], pure[1]) == pytest.approx(0.8)


def test_condorcet_winner_and_cycles() -> None:
    dominant = np.zeros((4, 4))
    dominant[1:, 1:] = cycle(1, 1, 1)
    dominant[0, 1:], dominant[1:, 0] = 2, -2
    assert game.condorcet_winner(dominant) == 0
    assert game.cycles(dominant) == [(1, 2, 3)]
    assert game.condorcet_winner(cycle(1, 1, 1)) is None
    assert game.cycles(-cycle(1, 1, 1)) == [(0, 2, 1)]
    assert game.condorcet_winner(np.zeros((1, 1))) == 0
    assert game.condorcet_winner(np.zeros((2, 2))) is None  # a tie has no winner
    assert game.rank_values(dominant).argmax() == 0


@pytest.mark.parametrize(
    ("matrix", "words"),
    [
        (np.full((3, 3), 0.5), "P - 1/2"),
        (np.zeros((2, 3)), r"shape \(2, 3\)"),
        (np.zeros((0, 0)), "K >= 1"),
        (np.array([[0, np.nan], [0, 0]]), r"S\[0, 1\] is nan"),
        (np.array([[0, 1.0], [1.0, 0]]), r"\[0, 1\] is 1 but \[1, 0\] is 1"),
    ],
)
def test_what_is_no_game_is_refused(matrix: np.ndarray, words: str) -> None:
    for ask in (game.decompose, game.cyclicity, game.rank_values):
        with pytest.raises(DataError, match=words) as raised:
            ask(matrix)
        assert "\n" not in str(raised.value)


def test_a_mixture_that_is_none_is_refused() -> None:
    with pytest.raises(DataError, match="sum to 1"):
        game.duality_gap(np.full((2, 2), 0.5), np.array([0.7, 0.7]))
    with pytest.raises(DataError, match="one game"):
        game.nash(np.zeros((2, 3, 3)))
