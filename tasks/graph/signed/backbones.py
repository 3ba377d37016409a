"""Backbones with a three-class head: SGCN on the signed graph, and GCN and GAT, which see no signs.

The networks are PyTorch Geometric's `SignedGCN`, `GCN` and `GAT`, on sparse adjacency matrices (its fused path: no
vector for each edge). Head and loss are SGCN's (Derr et al. 2018, arXiv 1808.06354, eqs. 9 to 11), the same numbers as
the library's (`SignedGCN.loss`) on the same draws, with two changes: draws come from a generator and leave out pairs
joined in either direction, and pairs are taken in blocks (`pairs.pair_dots`).

Every backbone is a module with ``forward() -> z`` [n, d] for its own graph, ``loss(z, positive, negative, generator)``
for edges int64 [2, k], and ``pair_head()``, which scores pairs. Imports of PyTorch Geometric stay inside functions.
"""

from __future__ import annotations

import warnings
from typing import Any, Literal

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from launch.errors import ConfigError, check_choice
from tasks.graph.signed.edges import SignedGraph
from tasks.graph.signed.options import Head
from tasks.graph.signed.pairs import NonEdges, pair_dots
from tasks.graph.signed.scorer import PairHead


class LinkHead(nn.Module):
    """Classes of a pair: positive, negative, none.

    *Linear* on [z_i, z_j], as published: what i gives plus what j gets, so that no agreement between the two can be
    seen. *Bilinear* adds z_i^T M_c z_j for each class c.
    """

    def __init__(self, dim: int, kind: Head = "linear") -> None:
        super().__init__()
        check_choice("head", kind, Head)
        self.linear = nn.Linear(2 * dim, 3)
        self.bilinear = nn.Parameter(torch.randn(3, dim, dim) / dim**1.5) if kind == "bilinear" else None

    def forward(self, z: torch.Tensor, i: torch.Tensor, j: torch.Tensor) -> torch.Tensor:
        """Log-probabilities [k, 3] of the pairs (i, j), int64 [k] each."""
        first, second = self.sides(z)
        logits = first.index_select(0, i) + second.index_select(0, j)
        if self.bilinear is not None:
            logits = logits + torch.stack([pair_dots(z @ M, z, i, j) for M in self.bilinear], dim=1)
        return logits.log_softmax(dim=1)

    def sides(self, z: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The linear part of the logits, split by the two ends: [n, 3] each, the bias with the first."""
        first, second = self.linear.weight.chunk(2, dim=1)
        return z @ first.T + self.linear.bias, z @ second.T

    @torch.no_grad()
    def pair_head(self) -> PairHead:
        """Log-odds of positive against negative."""
        weight, bias = ((t[0] - t[1]).cpu() for t in (self.linear.weight, self.linear.bias))
        product = None if self.bilinear is None else (self.bilinear[0] - self.bilinear[1]).cpu().numpy()
        return PairHead(weight.numpy(), float(bias), product)


def three_class_loss(
    head: LinkHead,
    z: torch.Tensor,
    positive: torch.Tensor,
    negative: torch.Tensor,
    none: torch.Tensor,
    thirds: tuple[torch.Tensor, torch.Tensor],
    weight: float,
) -> torch.Tensor:
    """SGCN's loss: mean over the classes of their NLL, plus `weight` times the two triplet terms.

    Args:
        z: float [n, d].
        positive: int64 [2, p] edges; `negative` int64 [2, q], `none` int64 [2, r] likewise. Empty classes add nothing.
        thirds: for each positive and each negative edge (i, j) a node k that i is not joined with.
        weight: lambda.
    """
    nll = z.new_zeros(())
    for label, pairs in enumerate((positive, negative, none)):
        if pairs.shape[1]:
            nll = nll - head(z, *pairs)[:, label].mean()
    return nll / 3 + weight * (_triplet(z, positive, thirds[0], 1) + _triplet(z, negative, thirds[1], -1))


def _triplet(z: torch.Tensor, edges: torch.Tensor, k: torch.Tensor, sign: int) -> torch.Tensor:
    """Mean of relu(sign (|z_i - z_j|^2 - |z_i - z_k|^2)), without |z_i|^2, which falls out."""
    if edges.shape[1] == 0:
        return z.new_zeros(())
    i, j = edges
    size = z.square().sum(1)
    near = size.index_select(0, j) - 2 * pair_dots(z, z, i, j)
    far = size.index_select(0, k) - 2 * pair_dots(z, z, i, k)
    return F.relu(sign * (near - far)).mean()


class ThreeClasses(nn.Module):
    """A network over one graph, under a `LinkHead`."""

    x: torch.Tensor

    def __init__(self, graph: SignedGraph, x: np.ndarray, dim: int, head: Head, weight: float) -> None:
        super().__init__()
        self.head, self.weight = LinkHead(dim, head), weight
        self.non_edges = NonEdges(graph)
        self.register_buffer("x", torch.from_numpy(x), persistent=False)

    def loss(
        self, z: torch.Tensor, positive: torch.Tensor, negative: torch.Tensor, generator: torch.Generator
    ) -> torch.Tensor:
        none = self.non_edges.pairs(positive.shape[1] + negative.shape[1], generator).to(z.device)
        likes, dislikes = (self.non_edges.thirds(edges[0].cpu(), generator) for edges in (positive, negative))
        thirds = likes.to(z.device), dislikes.to(z.device)
        return three_class_loss(self.head, z, positive, negative, none, thirds, self.weight)

    def pair_head(self) -> PairHead:
        return self.head.pair_head()


class SGCN(ThreeClasses):
    """Signed graph convolutions: messages go from source to target, positive and negative ones apart."""

    def __init__(
        self,
        graph: SignedGraph,
        x: np.ndarray,
        dim: int = 64,
        layers: int = 2,
        head: Head = "linear",
        weight: float = 5.0,
    ) -> None:
        super().__init__(graph, x, dim, head, weight)
        self.net: Any = library().SignedGCN(x.shape[1], dim, layers)
        self.net.lin = nn.Identity()  # its head gives way to ours
        for name, sign in (("positive", 1), ("negative", -1)):
            of_sign = graph.sign == sign
            matrix = adjacency(graph.source[of_sign], graph.target[of_sign], graph.n)
            self.register_buffer(name, matrix, persistent=False)

    def forward(self) -> torch.Tensor:
        found: torch.Tensor = self.net(self.x, self.positive, self.negative)
        return found


UnsignedKind = Literal["GCN", "GAT"]


class Unsigned(ThreeClasses):
    """GCN or GAT on the union of all edges, in both directions."""

    def __init__(
        self,
        kind: UnsignedKind,
        graph: SignedGraph,
        x: np.ndarray,
        dim: int = 64,
        layers: int = 2,
        head: Head = "linear",
        weight: float = 5.0,
    ) -> None:
        super().__init__(graph, x, dim, head, weight)
        check_choice("kind", kind, UnsignedKind)
        self.net: Any = getattr(library().models, kind)(x.shape[1], dim, layers, dim)
        ends = np.concatenate([graph.source, graph.target]), np.concatenate([graph.target, graph.source])
        keys = np.unique(ends[0] * graph.n + ends[1])
        matrix: Any = torch.from_numpy(np.stack([keys // graph.n, keys % graph.n]))
        if kind == "GCN":
            matrix = adjacency(keys // graph.n, keys % graph.n, graph.n)
        self.register_buffer("union", matrix, persistent=False)

    def forward(self) -> torch.Tensor:
        found: torch.Tensor = self.net(self.x, self.union)
        return found


def adjacency(source: np.ndarray, target: np.ndarray, n: int) -> torch.Tensor:
    """Sparse CSR [n, n], 1 at (target, source): what PyTorch Geometric propagates along."""
    from torch_geometric.utils import to_torch_csr_tensor

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Sparse")  # torch says once a process that CSR is in beta, and unchecked
        return to_torch_csr_tensor(torch.from_numpy(np.stack([target, source])), size=(n, n))


def library() -> Any:
    """`torch_geometric.nn`. Raises ConfigError where it is not installed."""
    try:
        import torch_geometric.nn
    except ImportError as error:
        raise ConfigError("graph methods need PyTorch Geometric; pip install 'arbiter-llm[graph]'") from error
    return torch_geometric.nn
