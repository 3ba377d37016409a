"""What a preference model says about K answers to one prompt: `Scores`, a game with everything read off it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import torch

from align.preference import game
from align.preference.heads import score_matrix


@dataclass(frozen=True)
class Scores:
    """K answers to one prompt as a game. ``S[i, j] > 0`` says that answer i beats answer j.

    Made from the two head parts; the rest is computed when asked for. All arrays are float64.
    """

    S_T: np.ndarray
    """[K, K] C1 (r_i - r_j) / tau: the ranking head's part, in logits."""
    S_C: np.ndarray
    """[K, K] C2 v_i^T D R D v_j / tau: the cyclic head's part, in logits. May carry some ranking: see `leak`."""
    tau: float = 1.0
    """The temperature that both parts were already divided by."""
    r: np.ndarray | None = field(default=None, repr=False)
    """[K] transitive values, or None."""
    vectors: np.ndarray | None = field(default=None, repr=False)
    """[K, 2d] cyclic embeddings, or None."""
    lambda_sq: np.ndarray | None = field(default=None, repr=False)
    """[d] weight of each plane for this prompt, or None."""

    @cached_property
    def S(self) -> np.ndarray:  # noqa: N802
        """[K, K] logits, S_T + S_C."""
        return self.S_T + self.S_C

    @cached_property
    def P(self) -> np.ndarray:  # noqa: N802
        """[K, K] sigmoid(S): chance that row beats column."""
        return game.probabilities(self.S)

    @cached_property
    def rank_value(self) -> np.ndarray:
        """[K] mean_j S_ij: the ranking of best fit (f of `game.decompose`), both heads counted."""
        return game.rank_values(self.S)

    @cached_property
    def win_rate(self) -> np.ndarray:
        """[K] mean_j P_ij: win rate against the pool, itself included."""
        return self.P.mean(-1)

    @cached_property
    def winner(self) -> int | None:
        """The answer that beats every other, or None: then answer from `nash`."""
        return game.condorcet_winner(self.S)

    @cached_property
    def _equilibrium(self) -> game.Equilibrium:
        return game.nash(self.P - 0.5)

    @property
    def nash(self) -> np.ndarray:
        """[K] equilibrium mixture of the game of win rates, nash(P - 1/2)."""
        return self._equilibrium.mixture

    @property
    def value(self) -> float:
        """What `nash` is sure to win, less 1/2: 0 to rounding."""
        return self._equilibrium.value

    def gap(self, mixture: Any = None) -> float:
        """Duality gap in win rates of a mixture over these answers; of the pool as it is (uniform) by default."""
        K = len(self.S)
        return game.duality_gap(self.P, np.full(K, 1 / K) if mixture is None else np.asarray(mixture, dtype=float))

    @cached_property
    def cyclicity(self) -> float:
        """Share of S that no scalar explains, in [0, 1], from `game.decompose(S)`: near 1, there is no single best."""
        return game.cyclicity(self.S)

    @cached_property
    def leak(self) -> float:
        """Share of the cyclic head's S_C that is really ranking, in [0, 1]."""
        return game.leak(self.S_C)

    def to_dict(self) -> dict[str, Any]:
        """Plain lists and numbers, for JSON and tools."""

        def plain(x: np.ndarray | None) -> Any:
            return None if x is None else x.tolist()

        return {
            "S": plain(self.S),
            "S_T": plain(self.S_T),
            "S_C": plain(self.S_C),
            "P": plain(self.P),
            "rank_value": plain(self.rank_value),
            "winner": self.winner,
            "nash": plain(self.nash),
            "cyclicity": self.cyclicity,
            "leak": self.leak,
            "gap": self.gap(),
            "vectors": plain(self.vectors),
            "lambda_sq": plain(self.lambda_sq),
            "tau": self.tau,
        }


def scores_of(
    r: np.ndarray,
    v: np.ndarray,
    lambda_sq: np.ndarray,
    answers: Sequence[Sequence[int]],
    c1: float = 1.0,
    c2: float = 1.0,
    tau: float = 1.0,
) -> list[Scores]:
    """Scores of G groups, those of K answers in one product [g, K, K]; `PreferenceModel.compare` is the twin for one.

    Args:
        r: float32 [N], of all sequences.
        v: float32 [N, 2d].
        lambda_sq: float32 [G, d].
        answers: per group, which sequence each of its answers is.
        c1: weight of the ranking part.
        c2: weight of the cyclic part.
        tau: temperature that divides both.
    """
    of_size: dict[int, list[int]] = {}
    for group, rows in enumerate(answers):
        of_size.setdefault(len(rows), []).append(group)
    found: dict[int, Scores] = {}
    for groups in of_size.values():
        at = np.array([answers[group] for group in groups])  # [g, K]
        parts = (r[at], v[at], lambda_sq[groups])
        r_K, v_K, weight = (torch.from_numpy(part).double() for part in parts)
        S_T, S_C = ((S / tau).numpy() for S in score_matrix(r_K, v_K, weight, c1, c2))
        for n, group in enumerate(groups):
            heads = {"r": r_K[n].numpy(), "vectors": v_K[n].numpy(), "lambda_sq": weight[n].numpy()}
            found[group] = Scores(S_T[n], S_C[n], tau, **heads)
    return [found[group] for group in range(len(answers))]


def best_of(scores: Scores, answers: Sequence[str], generator: np.random.Generator) -> str:
    """Best-of-n: the winner if there is one, else a draw from the equilibrium."""
    if scores.winner is not None:
        return answers[scores.winner]
    return answers[int(generator.choice(len(answers), p=scores.nash))]
