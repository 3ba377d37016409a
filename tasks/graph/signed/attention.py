"""SiGAT (arXiv 1906.10958) and SDGNN (arXiv 2101.02390): attention heads over lists of signed, directed neighbours.

Each list has a `GATConv` of PyTorch Geometric; its results and the node's own vector go through Linear-Tanh-Linear.
SiGAT: 38 lists (per sign: neighbours in any direction, out, in, and 16 kinds of triads), one layer. SDGNN: 4 lists
(per sign: out, in), two layers, and losses on direction and triangles. Node vectors are learned. Pairs are scored by a
logistic regression on [z_u, z_v] (`scorer.PairHead.fitted`).

The package torch-geometric-signed-directed has both as well; it makes the triad lists with Python sets, edge by edge,
and trains on all edges of the graph it was built with. Here the lists are sparse products (`triads`), and a curriculum
says which edges a loss is taken over.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from tasks.graph.signed.backbones import library
from tasks.graph.signed.edges import SignedGraph
from tasks.graph.signed.pairs import pair_dots
from tasks.graph.signed.triads import balanced_triads, triad_counts

Edges = tuple[np.ndarray, np.ndarray]


class Attention(nn.Module):
    """One layer: a GAT head for each list of edges, then an MLP on all of them and the node's own vector."""

    def __init__(self, lists: int, width: int) -> None:
        super().__init__()
        self.heads = nn.ModuleList(library().GATConv(width, width) for _ in range(lists))
        self.mlp = nn.Sequential(nn.Linear((lists + 1) * width, width), nn.Tanh(), nn.Linear(width, width))
        for layer in self.mlp:
            if isinstance(layer, nn.Linear):
                nn.init.kaiming_normal_(layer.weight)

    def forward(self, x: torch.Tensor, lists: list[torch.Tensor]) -> torch.Tensor:
        """float [n, d] from float [n, d] and lists of int64 [2, k], neighbour first."""
        found = [head(x, edges) for head, edges in zip(self.heads, lists, strict=True)]
        out: torch.Tensor = self.mlp(torch.cat([x, *found], dim=1))
        return out


class _OnLists(nn.Module):
    """Learned node vectors and layers of `Attention` over fixed lists of neighbours."""

    def __init__(self, graph: SignedGraph, x: np.ndarray, layers: int, lists: list[Edges]) -> None:
        super().__init__()
        self.x = nn.Parameter(torch.from_numpy(x).clone())
        self.layers = nn.ModuleList(Attention(len(lists), x.shape[1]) for _ in range(layers))
        for number, (node, neighbour) in enumerate(lists):
            self.register_buffer(f"list{number}", torch.from_numpy(np.stack([neighbour, node])), persistent=False)
        self.lists = len(lists)

    def forward(self) -> torch.Tensor:
        lists = [getattr(self, f"list{number}") for number in range(self.lists)]
        z = self.x
        for layer in self.layers:
            z = layer(z, lists)
        return z

    def pair_head(self) -> None:
        """None: to be fitted on the embeddings."""


class SiGAT(_OnLists):
    """Loss: -sum log sigma(z_i . z_j) over positive edges, and -C sum log sigma(-z_i . z_j) over negative ones, with C
    the number of positive edges over that of negative ones.
    """

    def __init__(self, graph: SignedGraph, x: np.ndarray, layers: int = 1) -> None:
        super().__init__(graph, x, layers, sigat_lists(graph))

    def loss(
        self, z: torch.Tensor, positive: torch.Tensor, negative: torch.Tensor, generator: torch.Generator
    ) -> torch.Tensor:
        share = positive.shape[1] / max(1, negative.shape[1])
        likes, dislikes = pair_dots(z, z, *positive), pair_dots(z, z, *negative)
        return -F.logsigmoid(likes).sum() - share * F.logsigmoid(-dislikes).sum()


class SDGNN(_OnLists):
    """Loss: sign entropy + `direction` times the direction loss + `triangle` times the triangle loss."""

    def __init__(
        self, graph: SignedGraph, x: np.ndarray, layers: int = 2, direction: float = 5.0, triangle: float = 1.0
    ) -> None:
        super().__init__(graph, x, layers, sdgnn_lists(graph))
        self.direction, self.triangle = direction, triangle
        width = x.shape[1]
        self.giver, self.getter, self.pair = nn.Linear(width, 1), nn.Linear(width, 1), nn.Linear(2 * width, 1)
        order = np.argsort(graph.source * graph.n + graph.target)
        self.n = graph.n
        self.weights: torch.Tensor
        self.keys: torch.Tensor
        self.register_buffer("keys", torch.from_numpy(graph.keys), persistent=False)
        self.register_buffer("weights", torch.from_numpy(balanced_triads(graph)[order]).float(), persistent=False)

    def loss(
        self, z: torch.Tensor, positive: torch.Tensor, negative: torch.Tensor, generator: torch.Generator
    ) -> torch.Tensor:
        total = z.new_zeros(())
        for edges, sign in ((positive, 1), (negative, -1)):
            total = total - F.logsigmoid(sign * pair_dots(z, z, *edges)).sum()
            total = total + self.direction * self._direction(z, edges, sign)
            total = total + self.triangle * self._triangle(z, edges, sign)
        return total

    def _direction(self, z: torch.Tensor, edges: torch.Tensor, sign: int) -> torch.Tensor:
        """Squares of what s1(z_u) - s2(z_v) is above -.5 for positive edges, below .5 for negative ones."""
        u, v = edges
        above = self.giver(z).sigmoid().ravel().index_select(0, u) - self.getter(z).sigmoid().ravel().index_select(0, v)
        return F.relu(sign * above + 0.5).square().sum()

    def _triangle(self, z: torch.Tensor, edges: torch.Tensor, sign: int) -> torch.Tensor:
        """Entropy of the sign by a linear head, each edge weighted by its `balanced_triads`."""
        u, v = edges
        first, second = self.pair.weight.chunk(2, dim=1)
        logits = (z @ first.T + self.pair.bias).ravel().index_select(0, u) + (z @ second.T).ravel().index_select(0, v)
        weights = self.weights[torch.searchsorted(self.keys, u * self.n + v)]
        return -(weights * F.logsigmoid(sign * logits)).sum()


def sdgnn_lists(graph: SignedGraph) -> list[Edges]:
    """(node, neighbour) of each list: positive out, positive in, negative out, negative in."""
    lists = []
    for sign in (1, -1):
        of_sign = graph.sign == sign
        u, v = graph.source[of_sign], graph.target[of_sign]
        lists += [(u, v), (v, u)]
    return lists


def sigat_lists(graph: SignedGraph) -> list[Edges]:
    """(node, neighbour) of the 38 lists: both directions, out and in for each sign, then the triads of each sign."""
    counts = triad_counts(graph)
    lists: list[Edges] = []
    triads: list[Edges] = []
    for sign in (1, -1):
        of_sign = graph.sign == sign
        u, v = graph.source[of_sign], graph.target[of_sign]
        keys = np.unique(np.concatenate([u * graph.n + v, v * graph.n + u]))
        lists += [(keys // graph.n, keys % graph.n), (u, v), (v, u)]
        for kind in counts:
            some = of_sign & (kind > 0)
            triads.append((graph.source[some], graph.target[some]))
    return lists + triads
