"""Graphs with wrong edges: random flips, and planted partitions whose parts are known."""

from __future__ import annotations

import numpy as np
from scipy import sparse

from launch.errors import DataError


def random_flips(edges: np.ndarray, n: int, rate: float, seed: int, spared: np.ndarray | None = None) -> np.ndarray:
    """Flip int(rate x E) different random pairs of nodes: an edge there is taken away, one not there is added.

    In sparse graphs nearly all flips add. The paper's random noise (arXiv 2302.05889); its sampler is not published.

    Args:
        edges: int [2, E], i < j, each once.
        n: nodes.
        rate: flips an edge, from 0.
        spared: int [2, S], i < j, each once: pairs that are not flipped.

    Returns:
        int64 [2, E'], i < j, ascending.

    Raises:
        DataError: more flips than pairs of nodes.
    """
    kept_out = np.zeros(0, dtype=np.int64) if spared is None else _keys(np.asarray(spared, dtype=np.int64), n)
    flips, pairs = int(rate * edges.shape[1]), n * (n - 1) // 2 - len(kept_out)
    if rate < 0 or flips > pairs:
        raise DataError(
            f"rate {rate:g} asks for {flips} flips among {pairs} pairs of nodes; choose it from 0 on, lower"
        )
    # Pairs come in random order: those left once some are struck out are as random as those drawn.
    drawn = _keys(_random_pairs(n, flips + len(kept_out), np.random.default_rng(seed)), n)
    flipped = drawn[~np.isin(drawn, kept_out)][:flips]
    kept = np.setxor1d(_keys(np.asarray(edges, dtype=np.int64), n), flipped, assume_unique=True)
    return np.stack([kept // n, kept % n])


def absent_pairs(edges: np.ndarray, n: int, count: int, rng: np.random.Generator) -> np.ndarray:
    """`count` different random pairs of nodes that no edge joins, int64 [2, count], i < j, in random order.

    Args:
        edges: int [2, E], i < j, each once.

    Raises:
        DataError: fewer such pairs than asked for.
    """
    free = n * (n - 1) // 2 - edges.shape[1]
    if count > free:
        raise DataError(f"{count} pairs without an edge are asked for, but {n} nodes have {free}; ask for fewer")
    drawn = _random_pairs(n, count + edges.shape[1], rng)
    joined = np.isin(_keys(drawn, n), _keys(np.asarray(edges, dtype=np.int64), n))
    return drawn[:, ~joined][:, :count]


def planted_partition(
    n: int, blocks: int, p_in: float, p_out: float, seed: int, features: int = 32, signal: float = 0.5
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A graph of equal blocks: nodes are joined with chance `p_in` within a block and `p_out` across.

    Features are standard normal around a block's centre, whose entries are normal with deviation `signal`. Memory and
    time are linear in edges.

    Returns:
        Edges int64 [2, E], i < j; features float32 [n, d]; blocks int64 [n].
    """
    rng = np.random.default_rng(seed)
    y = np.sort(np.arange(n) % blocks)
    starts = np.searchsorted(y, np.arange(blocks + 1))
    keys = []
    for a in range(blocks):
        for b in range(a, blocks):
            size_a, size_b = starts[a + 1] - starts[a], starts[b + 1] - starts[b]
            chance = p_in if a == b else p_out
            wanted = rng.binomial(size_a * (size_a - 1) // 2 if a == b else size_a * size_b, chance)
            if a == b:
                found = _random_pairs(int(size_a), int(wanted), rng)
            else:
                cells = _distinct(int(size_a * size_b), int(wanted), rng)
                found = np.stack([cells // size_b, cells % size_b])
            keys.append((found[0] + starts[a]) * n + found[1] + starts[b])
    edges = np.sort(np.concatenate(keys))
    X = rng.normal(size=(n, features)) + signal * rng.normal(size=(blocks, features))[y]
    return np.stack([edges // n, edges % n]), X.astype(np.float32), y


def largest_component(edges: np.ndarray, n: int) -> np.ndarray:
    """The nodes of the largest connected component, ascending."""
    A = sparse.coo_matrix((np.ones(edges.shape[1]), tuple(edges)), shape=(n, n))
    _, part = sparse.csgraph.connected_components(A, directed=False)
    return np.flatnonzero(part == np.bincount(part).argmax())


def _keys(pairs: np.ndarray, n: int) -> np.ndarray:
    return pairs[0] * n + pairs[1]


def _distinct(size: int, count: int, rng: np.random.Generator) -> np.ndarray:
    """`count` different numbers below `size`, int64."""
    if count > size // 2:
        return rng.permutation(size)[:count]
    drawn = np.unique(rng.integers(size, size=count))
    while len(drawn) < count:
        drawn = np.unique(np.concatenate([drawn, rng.integers(size, size=2 * (count - len(drawn)) + 16)]))
    return rng.permutation(drawn)[:count]


def _random_pairs(n: int, count: int, rng: np.random.Generator) -> np.ndarray:
    """`count` different pairs i < j, int64 [2, count]: number i n + j - ... of the upper triangle, row by row."""
    cell = _distinct(n * (n - 1) // 2, count, rng)
    i = (n - 2 - np.floor(np.sqrt(-8.0 * cell + 4.0 * n * (n - 1) - 7) / 2 - 0.5)).astype(np.int64)
    first = i * (2 * n - i - 1) // 2
    return np.stack([i, cell - first + i + 1])
