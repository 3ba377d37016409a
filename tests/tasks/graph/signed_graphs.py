"""Small signed graphs for tests."""

from __future__ import annotations

import numpy as np

from tasks.graph.signed.edges import SignedGraph


def random_graph(n: int, density: float, seed: int, reciprocal: bool = False) -> SignedGraph:
    """A random signed digraph on ids 0 to n - 1, most edges positive; both ways of a pair only if `reciprocal`."""
    generator = np.random.default_rng(seed)
    taken = generator.random((n, n)) < density
    np.fill_diagonal(taken, False)
    if not reciprocal:
        taken &= ~np.tril(taken.T)
    source, target = np.nonzero(taken)
    sign = np.where(generator.random(len(source)) < 0.7, 1, -1)
    return SignedGraph.of(np.stack([source, target, sign], axis=1), np.arange(n))


def two_factions(n: int, edges: int, seed: int, noise: float = 0.0) -> np.ndarray:
    """int64 [edges, 3]: even and odd nodes are friends among themselves and foes across; `noise` of signs turned."""
    generator = np.random.default_rng(seed)
    every = [(u, v) for u in range(n) for v in range(n) if u != v]
    some = np.array(every)[generator.permutation(len(every))[:edges]]
    sign = np.where(some[:, 0] % 2 == some[:, 1] % 2, 1, -1) * np.where(generator.random(edges) < noise, -1, 1)
    return np.concatenate([some, sign[:, None]], axis=1)
