"""Exact games: the paper's bound, the price of the regression, and the anchored last iterate."""

from __future__ import annotations

import numpy as np
import pytest

from align import selfplay
from align.preference import game
from align.selfplay import tabular, winrate

CYCLE = np.array([[0.0, 1, -1], [-1, 0, 1], [1, -1, 0]])
LENGTHS = (16, 64, 256, 1024, 4096, 16384)


def rps() -> tuple[np.ndarray, np.ndarray]:
    r = np.array([0.3, 0.1, -0.1])
    return r[:, None] - r, 1.5 * CYCLE


def dom() -> tuple[np.ndarray, np.ndarray]:
    r = np.array([2.0, 0, 0, 0])
    C = np.zeros((4, 4))
    C[1:, 1:] = CYCLE
    return r[:, None] - r, C


def average_gap(parts: tuple[np.ndarray, np.ndarray], rounds: int, lam: float) -> float:
    """Gap of the average of pi_1 … pi_T, where pi_1 is the start."""
    run = tabular.play(*parts, rounds - 1, tabular.theory_eta(len(parts[0]), rounds), lam=lam)
    return float(run.gap_average[-1])


def test_dsppo_acceptance_4_equilibrium_of_rps() -> None:
    P = winrate.probabilities(sum(rps()))
    mixture, gap = selfplay.nash(P)
    assert mixture == pytest.approx([0.367, 0.266, 0.367], abs=1e-3)
    assert gap < 1e-6


@pytest.mark.parametrize(
    ("name", "lam", "expected"),
    [
        ("rps", 0.0, (0.0623, 0.0253, 0.0040, 0.0042, 0.0038, 0.0017)),
        ("rps", 1.0, (0.0706, 0.0733, 0.0352, 0.0200, 0.0108, 0.0037)),
        ("dom", 0.0, (0.2935, 0.1514, 0.0747, 0.0371, 0.0185, 0.0092)),
        ("dom", 1.0, (0.2565, 0.1321, 0.0667, 0.0339, 0.0172, 0.0088)),
        ("dom", -1.0, (0.4061, 0.2028, 0.0920, 0.0429, 0.0204, 0.0099)),
    ],
)
def test_dsppo_acceptance_4_gap_of_the_average(name: str, lam: float, expected: tuple[float, ...]) -> None:
    parts = {"rps": rps, "dom": dom}[name]()
    gaps = [average_gap(parts, rounds, lam) for rounds in LENGTHS]
    assert gaps == pytest.approx(expected, abs=1e-3)


@pytest.mark.filterwarnings("ignore:round")
@pytest.mark.parametrize("lam", [-1.0, -0.5, 0.0, 0.5, 1.0, 1.5, 2.0])
def test_dsppo_acceptance_4_rate(lam: float) -> None:
    """gap * sqrt(T) stays below 3, Theorem 5.3's O(1/sqrt T)."""
    for parts in (rps(), dom()):
        for rounds in LENGTHS[:4]:
            assert average_gap(parts, rounds, lam) * np.sqrt(rounds) < 3


def test_dsppo_acceptance_5_realisable_regression() -> None:
    """The fit equals multiplicative weights for small steps; at eta = 5 replacing log Z by eta/2 costs 4.5e-3."""
    P, start = winrate.probabilities(sum(rps())), np.array([0.5, 0.3, 0.2])
    distance = {}
    for eta in (0.1, 1.0, 5.0):
        exact = np.exp(tabular.step(np.log(start), P @ start - 0.5, eta))
        distance[eta] = 0.5 * np.abs(tabular.regress(P, start, eta) - exact).sum()
    assert distance[0.1] < 1e-6
    assert distance[1.0] == pytest.approx(6.6e-5, rel=0.01)
    assert distance[5.0] == pytest.approx(4.5e-3, rel=0.01)
    assert tabular.regress(P, start, 5.0) == pytest.approx([0.6151, 0.1736, 0.2113], abs=1e-4)
    assert exact == pytest.approx([0.6196, 0.1693, 0.2111], abs=1e-4)


# ---------------------------------------------------------------- the anchored update


@pytest.mark.parametrize(("eta", "gamma"), [(1.0, 0.3), (0.5, 0.07), (0.3, 0.02)])
def test_anchored_last_policy_converges_to_the_regularised_equilibrium(eta: float, gamma: float) -> None:
    """eta <= 2 sqrt(gamma (1 - gamma)) holds in each case, and the fixed point is found independently, by a root."""
    P, start = winrate.probabilities(sum(rps())), np.array([0.5, 0.3, 0.2])
    assert eta <= 2 * np.sqrt(gamma * (1 - gamma)) or eta * np.abs(P - 0.5).max() <= np.sqrt(gamma * (1 - gamma))
    limit = tabular.regularised_equilibrium(P, start, gamma / eta)
    run = tabular.play(*rps(), 3000, eta, start=start, gamma=gamma)
    assert run.policies[-1] == pytest.approx(limit, abs=1e-9)
    plain = tabular.play(*rps(), 3000, eta, start=start)
    assert run.gap_last[-1] < 0.25 * plain.gap_last[-1]
    assert run.gap_last[-1] == pytest.approx(game.duality_gap(P, limit), abs=1e-9)


def test_anchored_update_is_magnetic_mirror_descent() -> None:
    """pi^(1-gamma) pi_0^gamma exp(eta P pi) is [pi pi_0^(alpha eta') exp(eta' P pi)]^(1/(1 + alpha eta')) at
    gamma = alpha eta'/(1 + alpha eta'), eta = eta'/(1 + alpha eta')."""
    P, start, now = winrate.probabilities(sum(rps())), np.array([0.5, 0.3, 0.2]), np.array([0.2, 0.2, 0.6])
    alpha, eta_m = 0.2, 1.5
    magnetic = (now * start ** (alpha * eta_m) * np.exp(eta_m * (P @ now))) ** (1 / (1 + alpha * eta_m))
    gamma, eta = alpha * eta_m / (1 + alpha * eta_m), eta_m / (1 + alpha * eta_m)
    ours = np.exp(tabular.step(np.log(now), P @ now - 0.5, eta, gamma, np.log(start)))
    assert ours == pytest.approx(magnetic / magnetic.sum(), abs=1e-12)


def test_weaker_pull_ends_nearer_to_the_true_equilibrium() -> None:
    P, start = winrate.probabilities(sum(rps())), np.array([0.5, 0.3, 0.2])
    gaps = [game.duality_gap(P, tabular.regularised_equilibrium(P, start, a)) for a in (0.3, 0.1, 0.03, 0.01)]
    assert gaps == sorted(gaps, reverse=True) and gaps[-1] < 0.02


def test_prediction_shrinks_the_step_by_the_self_comparison() -> None:
    """Monte Carlo of the K-sample estimate: E[P_hat - 1/2] is (K-1)/K of the true advantage."""
    P, pi, k = winrate.probabilities(sum(rps())), np.array([0.5, 0.3, 0.2]), 5
    rng = np.random.default_rng(0)
    drawn = rng.choice(3, size=(60000, k), p=pi)
    rates = P[drawn[:, :, None], drawn[:, None, :]].mean(-1)  # [N, K]
    for y in range(3):
        assert (rates[drawn == y] - 0.5).mean() == pytest.approx(0.8 * (P[y] @ pi - 0.5), abs=3e-3)
    rows = tabular.predict(*rps(), pi, P, rounds=2, eta=1.0, k=5)
    assert rows[2]["policy"] == pytest.approx(tabular.play(*rps(), 2, 0.8, start=pi).policies[2].tolist())
    assert rows[0]["win_vs_start"] == pytest.approx(0.5)
