"""Balance of triangles, and what it says of an edge: the difficulty of SGA (arXiv 2310.09705) and CSG (2310.11083).

With S = A + A^T and Q = |A| + |A|^T, an edge (i, j, s) lies in (Q^2)_ij triangles, counted by their paths i - k - j, of
which s (S^2)_ij more are balanced (product of the three signs positive) than not. Reciprocal edges of one sign count
double, those of two signs cancel in S. Local balance degree D = s (S^2)_ij / (Q^2)_ij, 1 without triangles; difficulty
= (1 - D) / 2, the share of unbalanced triangles.

S^2 is never formed. `pair_counts` enumerates each triangle once from its node of lowest degree, O(m sqrt(m)) time
(Chiba and Nishizeki 1985), in blocks of bounded memory. `two_paths` gives the same for any pairs, edges or not, at
O(degree) a pair.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy import sparse

from tasks.graph.signed.edges import SignedGraph

BLOCK = 4_000_000
"""Entries of adjacency lists read at once: some 200 MB."""


@dataclass(frozen=True)
class Pairs:
    """The p unordered pairs of nodes that edges join."""

    low: np.ndarray
    """int64 [p]."""
    high: np.ndarray
    """int64 [p], above `low`."""
    signed: np.ndarray
    """S_ij, float64 [p]: 1, 2, -1, -2, or 0 where the two directions disagree."""
    total: np.ndarray
    """Q_ij, float64 [p]: 1 or 2."""
    of_edge: np.ndarray
    """int64 [m]: the pair that each edge joins."""
    n: int

    @classmethod
    def of(cls, graph: SignedGraph) -> Pairs:
        low, high = np.minimum(graph.source, graph.target), np.maximum(graph.source, graph.target)
        keys, of_edge = np.unique(low * graph.n + high, return_inverse=True)
        signed = np.bincount(of_edge, graph.sign, len(keys))
        total = np.bincount(of_edge, minlength=len(keys)).astype(np.float64)
        return cls(keys // graph.n, keys % graph.n, signed, total, of_edge, graph.n)

    @cached_property
    def signed_matrix(self) -> sparse.csr_array:
        """S = A + A^T, [n, n]; pairs in conflict are stored zeros."""
        return self._symmetric(self.signed)

    @cached_property
    def total_matrix(self) -> sparse.csr_array:
        """Q = |A| + |A|^T, [n, n]."""
        return self._symmetric(self.total)

    @cached_property
    def degree(self) -> np.ndarray:
        """int64 [n]: how many others a node is joined with."""
        return np.bincount(self.low, minlength=self.n) + np.bincount(self.high, minlength=self.n)

    def _symmetric(self, values: np.ndarray) -> sparse.csr_array:
        ends = np.concatenate([self.low, self.high]), np.concatenate([self.high, self.low])
        return sparse.csr_array((np.concatenate([values, values]), ends), shape=(self.n, self.n))


def pair_counts(pairs: Pairs) -> tuple[np.ndarray, np.ndarray]:
    """(S^2)_ij and (Q^2)_ij of all pairs that edges join: float64 [p] each."""
    p, n = len(pairs.low), pairs.n
    rank = np.empty(n, dtype=np.int64)
    rank[np.argsort(pairs.degree, kind="stable")] = np.arange(n)
    ends = np.sort(np.stack([rank[pairs.low], rank[pairs.high]]), axis=0)  # from the rarer node to the busier one
    upward = sparse.csr_array((np.arange(1.0, p + 1), (ends[0], ends[1])), shape=(n, n))  # entries: pair + 1
    upward.sort_indices()
    ones = sparse.csr_array((np.ones(p), upward.indices, upward.indptr), shape=(n, n))
    lists = np.diff(upward.indptr)

    signed, total = np.zeros(p), np.zeros(p)
    for block in blocks(lists[ends[0]] + lists[ends[1]]):
        a, b = ends[0, block], ends[1, block]
        first, second = upward[a].multiply(ones[b]).tocsr(), ones[a].multiply(upward[b]).tocsr()  # both on c
        ab = np.repeat(np.arange(block.start, block.stop), np.diff(first.indptr))
        ac, bc = first.data.astype(np.int64) - 1, second.data.astype(np.int64) - 1
        for weights, counts in ((pairs.signed, signed), (pairs.total, total)):
            np.add.at(counts, ab, weights[ac] * weights[bc])
            np.add.at(counts, ac, weights[ab] * weights[bc])
            np.add.at(counts, bc, weights[ab] * weights[ac])
    return signed, total


def two_paths(pairs: Pairs, i: np.ndarray, j: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(S^2)_ij and (Q^2)_ij of any pairs of nodes: float64, as many as `i` and `j` have."""
    S, Q = pairs.signed_matrix, pairs.total_matrix
    signed, total = np.zeros(len(i)), np.zeros(len(i))
    for block in blocks(pairs.degree[i] + pairs.degree[j]):
        a, b = i[block], j[block]
        signed[block] = S[a].multiply(S[b]).sum(axis=1)
        total[block] = Q[a].multiply(Q[b]).sum(axis=1)
    return signed, total


def difficulty(graph: SignedGraph, as_csg_code: bool = False) -> np.ndarray:
    """Share of unbalanced triangles of each edge, float64 [m] in 0 to 1; 0 for an edge in no triangle.

    Args:
        as_csg_code: count as CSG's published code does, to repeat its numbers: a negative edge has .5 if any of its
            triangles is balanced, else 0.
    """
    pairs = Pairs.of(graph)
    signed, total = (counts[pairs.of_edge] for counts in pair_counts(pairs))
    with np.errstate(invalid="ignore"):
        share = np.where(total > 0, (1 - graph.sign * signed / total) / 2, 0.0)
    if as_csg_code:
        balanced = total + graph.sign * signed > 0
        share = np.where(graph.sign > 0, share, np.where(balanced, 0.5, 0.0))
    return share


def in_triangle(graph: SignedGraph) -> np.ndarray:
    """Whether each edge lies in a triangle: bool [m]."""
    pairs = Pairs.of(graph)
    return pair_counts(pairs)[1][pairs.of_edge] > 0


def blocks(entries: np.ndarray) -> Iterator[slice]:
    """Slices of items whose `entries` add up to about `BLOCK`, at least one item each."""
    ends = np.cumsum(entries)
    start = 0
    while start < len(entries):
        before = ends[start - 1] if start else 0
        stop = max(start + 1, int(np.searchsorted(ends, before + BLOCK, side="right")))
        yield slice(start, stop)
        start = stop
