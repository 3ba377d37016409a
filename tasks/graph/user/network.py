"""USER's encoder: a GCN of two layers over the given graph, or over it and a learned one (arXiv 2302.05889).

    B~ = nrm(B)    A' = P P^T with P = LeakyReLU(R)    A = nrm(0.5 B~ + 0.5 nrm(A'))
    nrm(M) = D^-1/2 (off(M) + I) D^-1/2, D the row sums of off(M) + I
    H = BN(ReLU(A BN(X) W1 + b1))    Y = softmax(Drop(A Drop(H) W2 + b2))    Z = A H, rows of length 1

Without the learned graph A = B~, and everything is sparse. X does not change, so BN(X) is a fixed scaling of columns
and goes into W1: a bag of words stays sparse (`features`).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from scipy import sparse
from torch import nn
from torch.nn import functional as F

from launch.errors import LaunchError
from tasks.graph.user.features import Features
from tasks.graph.user.graph import Graph
from tasks.graph.user.sparse import SparseMatrix

SLOPE = 0.01
"""Of LeakyReLU."""
_TINY_DEGREE = 1e-12
_TINY_VARIANCE = 1e-5
"""Added to variances, as torch's BatchNorm1d does."""


class Network(nn.Module):
    """From features and a propagation matrix to soft parts and hidden states."""

    scale: torch.Tensor

    def __init__(self, X: Features, hidden: int, clusters: int, dropout: float = 0.5) -> None:
        super().__init__()
        self.dropout = dropout
        self.register_buffer("scale", (X.variance + _TINY_VARIANCE).rsqrt().to(X.mean.dtype))
        self.gain = nn.Parameter(torch.ones(X.shape[1]))
        self.shift = nn.Parameter(torch.zeros(X.shape[1]))
        self.first = nn.Linear(X.shape[1], hidden)
        self.norm = nn.BatchNorm1d(hidden)
        self.second = nn.Linear(hidden, clusters)
        for layer in (self.first, self.second):  # as GCN
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(self, X: Features, A: torch.Tensor | SparseMatrix) -> tuple[torch.Tensor, torch.Tensor]:
        """Y [n, r] and H [n, hidden]."""
        W = self.first.weight * (self.gain * self.scale)  # [hidden, d]
        normed = X.product(W.T, self.first.weight @ self.shift)  # BN(X) W1
        H = self.norm(F.relu(A @ normed + self.first.bias))
        logits = A @ (self._dropped(H) @ self.second.weight.T) + self.second.bias
        return F.softmax(self._dropped(logits), dim=1), H

    def _dropped(self, H: torch.Tensor) -> torch.Tensor:
        """Dropout; torch's own draws its mask by a generator that takes four times as long on a CPU."""
        if not self.training or not self.dropout:
            return H
        return H * (torch.rand_like(H) >= self.dropout) / (1 - self.dropout)


class LearnedGraph(nn.Module):
    """A' = P P^T of n x n free numbers: O(n^2) memory, O(n^3) time a step."""

    def __init__(self, n: int) -> None:
        super().__init__()
        self.R = nn.Parameter(torch.randn(n, n))

    def forward(self) -> torch.Tensor:
        """A', [n, n], its diagonal included."""
        return gram(F.leaky_relu(self.R, SLOPE))


class _Gram(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, P: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(P)
        return P @ P.T

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> torch.Tensor:
        (P,) = ctx.saved_tensors
        return (gradients[0] + gradients[0].T) @ P


def gram(P: torch.Tensor) -> torch.Tensor:
    """P P^T, whose gradient takes one product instead of autograd's two."""
    return _Gram.apply(P)


def off_diagonal(M: torch.Tensor) -> torch.Tensor:
    """M with zeros on its diagonal, M itself left as it is."""
    return M.clone().fill_diagonal_(0)


def normalised(M: torch.Tensor) -> torch.Tensor:
    """nrm(M) of a dense symmetric matrix; degrees that LeakyReLU made negative or zero count as 1e-12."""
    loops = M.clone().fill_diagonal_(1)
    d = loops.sum(1).clamp(min=_TINY_DEGREE).rsqrt()
    return d[:, None] * loops * d


def propagation(given: torch.Tensor, learned: torch.Tensor) -> torch.Tensor:
    """The matrix that features flow along: nrm(0.5 B~ + 0.5 nrm(A')), both [n, n]."""
    return normalised(0.5 * given + 0.5 * normalised(learned))


def normalised_given(graph: Graph) -> SparseMatrix:
    """B~ = nrm(B) by PyTorch Geometric, sparse.

    Raises:
        LaunchError: PyTorch Geometric is not installed.
    """
    try:
        from torch_geometric.nn.conv.gcn_conv import gcn_norm
    except ImportError as error:
        raise LaunchError("PyTorch Geometric is not installed; pip install 'arbiter-llm[graph]'") from error
    both = torch.from_numpy(np.concatenate([graph.edges, graph.edges[::-1]], axis=1))
    index, weight = gcn_norm(both, None, len(graph), dtype=torch.float32)
    entries = (weight.numpy(), (index[0].numpy(), index[1].numpy()))
    return SparseMatrix.of(sparse.coo_matrix(entries, shape=(len(graph), len(graph))), symmetric=True)
