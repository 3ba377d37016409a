"""Exact self-play on a finite answer set: what the theory says a round does, with no model and no sampling.

One round of SPPO, GPO or DSPPO with full support and an exact fit is multiplicative weights (Freund and Schapire 1999):

    pi_{t+1}(y)  proportional to  pi_t(y) * exp(eta * (P_t(y > pi_t) - 1/2)),      P_t = sigmoid(s_t)

and Theorem 5.3 of arXiv 2605.17342 bounds the gap of the AVERAGE (1/T) sum_t pi_t by O(1/sqrt T). The last policy goes
round the cycle. `anchor` (gamma) adds the pull of `align.selfplay.objective` toward the starting policy, under which
the last policy converges. The demo prints `predict` beside what sampled training did.

Left out: prompts (each is its own game) and the sampling noise of K answers, except for its mean effect (`k`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from align.preference import game
from align.selfplay.schedule import mixed_scores
from align.selfplay.winrate import probabilities, skew


@dataclass
class TabularRun:
    """Policies pi_1 … pi_{T+1} of a tabular game of n answers, and what they are worth in the true game."""

    policies: np.ndarray
    """float64 [T+1, n]; row 0 is the start."""
    gap_last: np.ndarray
    """[T+1], 2 (max_y P(y > pi_t) - 1/2), of each policy."""
    gap_average: np.ndarray
    """[T+1], the same of the average of pi_1 … pi_t, the theorem's."""
    gap_mixture: np.ndarray
    """[T+1], the same of the average of pi_2 … pi_t: the trained policies alone, which a `PolicyMixture` deploys."""
    win_vs_start: np.ndarray
    """[T+1], P(pi_t > pi_1)."""


def uniform(n: int) -> np.ndarray:
    """The uniform policy over n answers."""
    return np.full(n, 1.0 / n)


def step(
    log_policy: np.ndarray, payoff: np.ndarray, eta: float, gamma: float = 0.0, log_start: np.ndarray | None = None
) -> np.ndarray:
    """One exact round in logs [n]: + eta * payoff - gamma * (log pi_t - log pi_0), normalised again."""
    new = log_policy + eta * payoff
    if gamma:
        assert log_start is not None
        new = new - gamma * (log_policy - log_start)
    new = new - new.max()
    return new - np.log(np.exp(new).sum())


def play(
    S_T: np.ndarray,
    S_C: np.ndarray,
    rounds: int,
    eta: float,
    *,
    start: np.ndarray | None = None,
    lam: float = 0.0,
    schedule: str = "inv_sqrt",
    gamma: float = 0.0,
    payoff: Literal["sppo", "gpo"] = "sppo",
    truth: np.ndarray | None = None,
) -> TabularRun:
    """Play `rounds` exact rounds on the game with logits S_T + S_C, [n, n] each.

    Args:
        eta: step size (1 / beta), in nats per unit of win rate (sppo) or of score (gpo).
        start: pi_1, positive [n]; uniform when left out.
        gamma: pull toward `start` per round, in [0, 1).
        truth: P [n, n] of the game that gaps and win rates are measured in; the played one when left out.
    """
    start = uniform(len(S_T)) if start is None else np.asarray(start, dtype=np.float64)
    P = probabilities(S_T + S_C) if truth is None else truth
    if rounds:
        scores = np.stack([mixed_scores(S_T, S_C, t, lam, schedule) for t in range(1, rounds + 1)])  # [T, n, n]
        games = probabilities(scores) - 0.5 if payoff == "sppo" else skew(scores)
    log_start = np.log(start)
    log_policy = log_start
    policies = np.empty((rounds + 1, len(start)))
    policies[0] = start
    for t in range(1, rounds + 1):
        log_policy = step(log_policy, games[t - 1] @ policies[t - 1], eta, gamma, log_start)
        policies[t] = np.exp(log_policy)
    averages = np.cumsum(policies, axis=0) / np.arange(1, rounds + 2)[:, None]
    trained = np.cumsum(policies[1:], axis=0) / np.arange(1, rounds + 1)[:, None]
    return TabularRun(
        policies,
        game.duality_gap(P, policies),
        game.duality_gap(P, averages),
        game.duality_gap(P, np.concatenate([policies[:1], trained])),
        policies @ P @ start,
    )


def theory_eta(n: int, rounds: int) -> float:
    """2 sqrt(ln n) / sqrt(T): the Theta(1/sqrt T) step of Theorem 5.3 for n answers and T rounds."""
    return 2.0 * float(np.sqrt(np.log(n)) / np.sqrt(rounds))


def regress(P: np.ndarray, policy: np.ndarray, eta: float) -> np.ndarray:
    """The policy [n] that minimises sum_y pi_t(y) (log pi(y)/pi_t(y) - eta (P(y > pi_t) - 1/2))^2 over all policies.

    This is what training does with infinite samples and an exact fit. It differs from multiplicative weights because
    log Z is replaced by eta/2: the target log-ratios are not those of a normalised policy once eta is large.
    """
    from scipy.optimize import least_squares

    log_policy = np.log(policy)
    target = log_policy + eta * (P @ policy - 0.5)
    weight = np.sqrt(policy)

    def residual(logits: np.ndarray) -> np.ndarray:
        return weight * (_log_softmax(logits) - target)

    fit = least_squares(residual, target, xtol=1e-15, ftol=1e-15, gtol=1e-15)
    return np.exp(_log_softmax(fit.x))


def regularised_equilibrium(
    P: np.ndarray, start: np.ndarray, temperature: float, tolerance: float = 1e-12
) -> np.ndarray:
    """The policy [n] with log pi = log pi_0 + (P pi - 1/2) / temperature + const: the anchored update's fixed point.

    It is the equilibrium of P(pi > pi') - temperature KL(pi || pi_0) + temperature KL(pi' || pi_0). Found by the root
    of the fixed-point equation, independently of `play`, so that one can check the other.
    """
    from scipy.optimize import root

    log_start = np.log(start)

    def residual(logits: np.ndarray) -> np.ndarray:
        log_policy = _log_softmax(logits)
        return logits - log_start - (P @ np.exp(log_policy) - 0.5) / temperature

    solution = root(residual, log_start, method="hybr", tol=tolerance)
    return np.exp(_log_softmax(solution.x))


def predict(
    S_T: np.ndarray,
    S_C: np.ndarray,
    start: np.ndarray,
    truth: np.ndarray,
    *,
    rounds: int,
    eta: float,
    k: int | None = None,
    lam: float = 0.0,
    schedule: str = "inv_sqrt",
    gamma: float = 0.0,
    payoff: Literal["sppo", "gpo"] = "sppo",
) -> list[dict[str, Any]]:
    """What exact training would reach, per round, on a game over kinds of answers (e.g. right/wrong x style).

    Args:
        S_T, S_C: the preference model's parts averaged over kinds, [n, n].
        start: how often round 0 gives each kind, [n].
        truth: P of the true game over kinds, [n, n].
        k: samples per prompt; each sample's own 1/2 in its mean shrinks eta by (k-1)/k.

    Returns:
        One dict per round 0 … T: ``round, policy, gap_last, gap_average, win_vs_start``; the average is over the
        trained policies, as in `PolicyMixture`.
    """
    scale = 1.0 if k is None else (k - 1) / k
    run = play(S_T, S_C, rounds, eta * scale, start=start, lam=lam, schedule=schedule, gamma=gamma,
               payoff=payoff, truth=truth)  # fmt: skip
    return [
        {
            "round": t,
            "policy": run.policies[t].tolist(),
            "gap_last": float(run.gap_last[t]),
            "gap_average": float(run.gap_mixture[t]),
            "win_vs_start": float(run.win_vs_start[t]),
        }
        for t in range(rounds + 1)
    ]


def _log_softmax(logits: np.ndarray) -> np.ndarray:
    shifted = logits - logits.max()
    return shifted - np.log(np.exp(shifted).sum())


def nash(P: np.ndarray) -> tuple[np.ndarray, float]:
    """An equilibrium mixture of a preference matrix P [K, K] (P + P^T = 1) and its gap, zero up to the solver.

    Chooses among candidate answers or tools when preferences go in circles: drawn from the mixture, no alternative
    beats the choice more than half the time.
    """
    P = np.asarray(P, dtype=np.float64)
    mixture = np.asarray(game.nash(P - 0.5)[0])
    return mixture, float(game.duality_gap(P, mixture))
