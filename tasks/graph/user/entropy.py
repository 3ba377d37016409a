"""Structural entropy of a partition: NPSI, network partition structural information (USER, arXiv 2302.05889).

    NPSI = sum_k (vol_k - g_k) / 2|E| x log2(vol_k / 2|E|)

vol_k is the sum of degrees in part k, g_k the number of edges with exactly one end in it. At most 0; the lower, the
more of the edges lie within parts, and the evener the parts. In matrices, with M = A without its diagonal and s the sum
of its entries:

    NPSI(A, Y) = sum_k [Y^T M Y / s]_kk x log2([1^T M Y / s]_k + 1e-20)

The paper's poster divides by 2s; the authors' code, and the definition, by s, which is 2|E| already.
"""

from __future__ import annotations

import math

import numpy as np
import torch

from tasks.graph.user.sparse import SparseMatrix

_TINY = 1e-20


def npsi(M: torch.Tensor | SparseMatrix, Y: torch.Tensor) -> torch.Tensor:
    """NPSI of soft parts, a scalar that gradients flow through.

    Args:
        M: [n, n], symmetric, zero diagonal, weights of edges; the cost is linear in its entries.
        Y: [n, r], rows sum to 1.
    """
    MY = M @ Y  # [n, r]
    volume = MY.sum(0)  # 1^T M Y, [r]
    inside = (Y * MY).sum(0)  # diagonal of Y^T M Y
    total = volume.sum()  # s, for the rows of Y sum to 1
    return (inside / total * torch.log2(volume / total + _TINY)).sum()


def npsi_by_counting(edges: np.ndarray, labels: np.ndarray) -> float:
    """NPSI of a hard partition from its definition, edge by edge: the slow twin of `npsi`.

    Args:
        edges: [2, E], each undirected edge once.
        labels: [n], the part of every node.
    """
    part_of = labels.tolist()
    ends = [(part_of[i], part_of[j]) for i, j in zip(*edges.tolist(), strict=True)]
    value = 0.0
    for part in set(part_of):
        volume = sum((a == part) + (b == part) for a, b in ends)
        crossing = sum((a == part) != (b == part) for a, b in ends)
        if volume:
            value += (volume - crossing) / (2 * len(ends)) * math.log2(volume / (2 * len(ends)))
    return value
