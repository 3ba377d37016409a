"""Terms over pairs of nodes without a row of vectors for every pair: memory O(n d + block d), whatever the edges.

`pair_dots` is the dot product of the two ends of each pair, with a backward pass that adds into the nodes block by
block; distances, products and bilinear forms are made of it. `NonEdges` draws pairs that no edge joins.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from tasks.graph.signed.edges import SignedGraph

BLOCK = 1 << 15
"""Pairs whose vectors are in memory at once."""
TRIES = 20
"""Draws for a pair that no edge joins."""


class _PairDots(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, y: torch.Tensor, i: torch.Tensor, j: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(x, y, i, j)
        blocks = [(x[a] * y[b]).sum(-1) for a, b in zip(i.split(BLOCK), j.split(BLOCK), strict=True)]
        return torch.cat(blocks) if blocks else x.new_zeros(0)

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[Any, ...]:
        x, y, i, j = ctx.saved_tensors
        into_x, into_y = torch.zeros_like(x), torch.zeros_like(y)
        felt = grad.nonzero().ravel()  # a hinge lets go of most pairs
        i, j, grad = i[felt], j[felt], grad[felt, None]
        for a, b, g in zip(i.split(BLOCK), j.split(BLOCK), grad.split(BLOCK), strict=True):
            into_x.index_add_(0, a, g * y[b])
            into_y.index_add_(0, b, g * x[a])
        return into_x, into_y, None, None


def pair_dots(x: torch.Tensor, y: torch.Tensor, i: torch.Tensor, j: torch.Tensor) -> torch.Tensor:
    """x_i . y_j of each pair: float [k] from float [n, d] twice and int64 [k] twice."""
    return _PairDots.apply(x, y, i, j)


class NonEdges:
    """Draws pairs that no edge joins, in either direction, by a generator that is passed in."""

    def __init__(self, graph: SignedGraph) -> None:
        self.n = graph.n
        both = [graph.source * graph.n + graph.target, graph.target * graph.n + graph.source]
        self.keys = torch.from_numpy(np.unique(np.concatenate(both)))

    def pairs(self, count: int, generator: torch.Generator) -> torch.Tensor:
        """int64 [2, at most count]; fewer only where nearly all pairs are joined."""
        i, j = torch.randint(self.n, (2, count), generator=generator)
        taken = self._taken(i, j)
        for _ in range(TRIES):
            again = taken.nonzero().ravel()
            if len(again) == 0:
                break
            i[again], j[again] = torch.randint(self.n, (2, len(again)), generator=generator)
            taken[again] = self._taken(i[again], j[again])
        return torch.stack([i, j])[:, ~taken]

    def thirds(self, i: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """For each node of `i` one that it is not joined with, int64 like `i`; itself where none was found."""
        k = torch.randint(self.n, i.shape, generator=generator)
        taken = self._taken(i, k)
        for _ in range(TRIES):
            again = taken.nonzero().ravel()
            if len(again) == 0:
                break
            k[again] = torch.randint(self.n, (len(again),), generator=generator)
            taken[again] = self._taken(i[again], k[again])
        return torch.where(taken, i, k)

    def _taken(self, i: torch.Tensor, j: torch.Tensor) -> torch.Tensor:
        """Joined by an edge, or one and the same."""
        key = i * self.n + j
        at = torch.searchsorted(self.keys, key).clamp(max=len(self.keys) - 1)
        return (self.keys[at] == key) | (i == j)
