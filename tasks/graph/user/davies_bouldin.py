"""The soft Davies-Bouldin index of parts in feature space, with root-mean-square scatter (USER, arXiv 2302.05889).

    w_k = sum_i Y_ik          c_k = sum_i Y_ik x_i / w_k
    S_k = sqrt(1/w_k sum_i (Y_ik |c_k|^2 - 2 Y_ik^2 x_i.c_k + Y_ik^2 |x_i|^2))
    DBI = 1/r sum_k max_{l != k} (S_k + S_l) / |c_k - c_l|

Y^2 stands in two of three terms, as in the authors' code: S_k^2 w_k = sum_i (Y^2 |x - c|^2 + (Y - Y^2) |c|^2), never
negative, and the usual mean of squares where Y is hard. scikit-learn's index takes the mean distance: another number.
It is computed in that second form, from features less their means, so that columns far from 0 keep their digits. The
last term still says how far from 0 the parts lie, as the authors' does: soft parts of features far from 0 cost more.
"""

from __future__ import annotations

import torch

from tasks.graph.user.features import Features

_TINY = 1e-12
"""Weights, squares and distances are at least this: an empty part gives no NaN, and no gradient."""


def davies_bouldin(X: Features, Y: torch.Tensor) -> torch.Tensor:
    """The index, a scalar that gradients of Y flow through; the lower, the tighter and farther apart the parts.

    Args:
        X: [n, d], of the raw features.
        Y: [n, r], r at least 2.
    """
    C = centroids(X, Y)
    S = scatter(X, Y, C)
    apart = torch.cdist(C, C, compute_mode="donot_use_mm_for_euclid_dist").clamp(min=_TINY)
    ratio = (S[:, None] + S) / apart  # [r, r]
    own = torch.eye(len(S), dtype=torch.bool)
    return ratio.masked_fill(own, -torch.inf).amax(1).mean()


def centroids(X: Features, Y: torch.Tensor) -> torch.Tensor:
    """c_k less the mean of the features, [r, d]; 0 for an empty part."""
    return (X.weighted_sums(Y) / Y.sum(0).clamp(min=_TINY)).T


def scatter(X: Features, Y: torch.Tensor, C: torch.Tensor) -> torch.Tensor:
    """S_k, [r], of `centroids`."""
    Y2 = Y * Y
    near = Y2.sum(0) * (C * C).sum(1) - 2 * (Y2 * X.product(C.T)).sum(0) + Y2.T @ X.squares  # Y^2 |x - c|^2
    squares = near + (Y - Y2).sum(0) * ((C + X.mean) ** 2).sum(1)
    return (squares / Y.sum(0).clamp(min=_TINY)).clamp(min=_TINY).sqrt()
