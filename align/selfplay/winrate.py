"""From a table of scores among K samples to each sample's win rate against the policy that made them.

P(y > pi | x) = E_{y' ~ pi} P(y > y' | x) is estimated by the mean over the K samples of the same prompt, the sample
itself included with 1/2 (SPPO, arXiv 2405.00675). Including itself shrinks every P_hat - 1/2 by (K-1)/K in
expectation: at K = 5 the step is 0.8 of what eta says (docs/selfplay.md). All functions take numpy arrays or torch
tensors [..., K, K] and return the same kind; nothing here looks at text.

The predecessor pipelines turn the table into probabilities with S_ij - S_ji. That is right for a comparer whose two
orders are independent estimates; an exactly skew table gives 2 S_ij, that is, half the temperature. Here the table is
symmetrised as (S - S^T)/2, and `legacy_double=True` gives the old number for comparison.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from align.preference import game
from launch.errors import DataError

TARGET_CLAMP = 1000.0
"""Largest |target log-ratio| in nats; GPO's public pipeline calls the same number its clamp threshold."""


def skew(S: Any, legacy_double: bool = False) -> Any:
    """(S - S^T)/2, the skew part of a score table [..., K, K]; S - S^T when `legacy_double`.

    Raises:
        DataError: not square, or a score that is not finite.
    """
    if S.ndim < 2 or S.shape[-1] != S.shape[-2]:
        raise DataError(f"a score table must be [..., K, K], got {tuple(S.shape)}; score all pairs of one prompt")
    if not bool(abs(S).max() < float("inf")):  # NaN compares false too
        raise DataError("a score table holds NaN or infinity; look at the preference model's outputs for this prompt")
    difference = S - S.swapaxes(-1, -2)
    return difference if legacy_double else difference / 2


def probabilities(S: Any, legacy_double: bool = False) -> Any:
    """P = sigmoid(skew S): P[i, j] is how often answer i is preferred to answer j; P + P^T = 1, diagonal 1/2."""
    return game.probabilities(skew(S, legacy_double))


def win_rates(P: Any) -> Any:
    """P_hat(y_k > pi), [..., K]: row means of P [..., K, K], the diagonal's 1/2 included."""
    return P.mean(-1)


def mean_scores(S: Any, legacy_double: bool = False) -> Any:
    """s_hat(y_k > pi), [..., K], GPO's estimate (arXiv 2410.02197): row means of the skew table, in logits.

    Skew-symmetry makes their mean over the K samples zero, so GPO needs no normaliser.
    """
    return skew(S, legacy_double).mean(-1)


def rank_values(S: Any) -> Any:
    """mean_j (S_ij - S_ji), [..., K]: what selection sorts by (not P_hat: the sigmoid may reorder a cyclic table)."""
    return skew(S, legacy_double=True).mean(-1)


def histogram(values: Any, bins: int = 20, limit: float = 0.5) -> dict[str, list[float]]:
    """Counts of `values` (P_hat - 1/2) in equal bins on [-limit, limit]; values outside count in the end bins.

    Mass at the ends means saturated targets: at lambda = 1 the first round doubles logits that tau has already
    sharpened.
    """
    flat = np.clip(np.asarray(values, dtype=np.float64).ravel(), -limit, limit)
    counts, edges = np.histogram(flat, bins=bins, range=(-limit, limit))
    return {"edges": [float(edge) for edge in edges], "counts": [int(count) for count in counts]}
