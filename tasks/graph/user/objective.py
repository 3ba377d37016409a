"""USER's loss, term by term: L = NPSI(A', Y) + NPSI(B, Y) + beta DBI(X, Y) + alpha ||off(A' o B - B)||_F."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from tasks.graph.user.davies_bouldin import davies_bouldin
from tasks.graph.user.entropy import npsi
from tasks.graph.user.features import Features
from tasks.graph.user.network import off_diagonal
from tasks.graph.user.sparse import SparseMatrix


@dataclass(frozen=True)
class Terms:
    """The four terms before they are weighted, scalars. Without a learned graph two of them are 0."""

    npsi_learned: torch.Tensor
    npsi_given: torch.Tensor
    dbi: torch.Tensor
    retention: torch.Tensor

    def total(self, alpha: float, beta: float) -> torch.Tensor:
        return self.npsi_learned + self.npsi_given + beta * self.dbi + alpha * self.retention


def terms(
    Y: torch.Tensor,
    X: Features,
    B: SparseMatrix,
    edges: torch.Tensor,
    learned: torch.Tensor | None,
) -> Terms:
    """All terms of soft parts.

    Args:
        Y: [n, r].
        X: [n, d], of the raw features.
        B: [n, n], the given graph: 0 and 1, no diagonal.
        edges: int64 [2, E], the given edges, each once.
        learned: A', [n, n]; None where only the given graph is used.
    """
    nothing = Y.new_zeros(())
    given, dbi = npsi(B, Y), davies_bouldin(X, Y)
    if learned is None:
        return Terms(nothing, given, dbi, nothing)
    return Terms(npsi(off_diagonal(learned), Y), given, dbi, retention(learned, edges))


def retention(learned: torch.Tensor, edges: torch.Tensor) -> torch.Tensor:
    """||off(A' o B - B)||_F: how far A' is from 1 on the given edges, both directions counted; silent elsewhere."""
    return 2**0.5 * torch.linalg.vector_norm(learned[edges[0], edges[1]] - 1)
