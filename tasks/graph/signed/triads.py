"""The 16 kinds of triads that a directed signed edge (u, v) closes: direction and sign of u - w times those of w - v.

Counted as sparse products of adjacency rows, in blocks of edges: O(degree) an edge.
"""

from __future__ import annotations

import numpy as np
from scipy import sparse

from tasks.graph.signed.edges import SignedGraph
from tasks.graph.signed.triangles import blocks

# What an edge between a node and w says of w's standing (status theory): +1 where w stands above the node.
_SIDES = (("out", 1), ("out", -1), ("in", 1), ("in", -1))


def triad_counts(graph: SignedGraph) -> np.ndarray:
    """How many w there are of each kind: int64 [16, m]. Kind 4 a + b: u's edge with w is of side a, v's of side b; the
    sides are out +, out -, in +, in -.
    """
    out = {sign: _rows(graph, sign) for sign in (1, -1)}
    sides = [out[sign] if way == "out" else out[sign].T.tocsr() for way, sign in _SIDES]
    lists = np.sum([np.diff(side.indptr) for side in sides], axis=0)
    counts = np.zeros((16, graph.m), dtype=np.int64)
    for block in blocks(lists[graph.source] + lists[graph.target]):
        of_u = [side[graph.source[block]] for side in sides]
        of_v = [side[graph.target[block]] for side in sides]
        for kind in range(16):
            counts[kind, block] = of_u[kind // 4].multiply(of_v[kind % 4]).sum(axis=1)
    return counts


def balanced_triads(graph: SignedGraph) -> np.ndarray:
    """How many triads of each edge agree with balance theory without contradicting status theory: int64 [m].

    Balance: the product of the three signs is positive. Status: a positive edge points upwards, a negative one
    downwards; a triad contradicts it where w's standing puts v below u on a positive edge, above it on a negative one.
    """
    counts, total = triad_counts(graph), np.zeros(graph.m, dtype=np.int64)
    for kind in range(16):
        (way_u, sign_u), (way_v, sign_v) = _SIDES[kind // 4], _SIDES[kind % 4]
        above_u, above_v = (s if way == "out" else -s for way, s in ((way_u, sign_u), (way_v, sign_v)))
        balanced = graph.sign * sign_u * sign_v > 0
        contradicted = graph.sign * (above_u - above_v) < 0
        total += np.where(balanced & ~contradicted, counts[kind], 0)
    return total


def _rows(graph: SignedGraph, sign: int) -> sparse.csr_array:
    of_sign = graph.sign == sign
    ends = graph.source[of_sign], graph.target[of_sign]
    return sparse.csr_array((np.ones(of_sign.sum(), dtype=np.int64), ends), shape=(graph.n, graph.n))
