"""The graph that USER reads: undirected edges between nodes with features, checked where it enters."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from scipy import sparse

from launch.errors import DataError


@dataclass(frozen=True)
class Graph:
    """Made by `Graph.of` or `Graph.from_pairs`, which check it."""

    edges: np.ndarray
    """int64 [2, E]: positions of nodes, i < j, each edge once, ascending."""
    features: sparse.csr_matrix
    """float32 [n, d]."""
    nodes: Sequence[Any]
    """n ids, in the order of the features."""

    def __len__(self) -> int:
        return self.features.shape[0]

    @classmethod
    def of(
        cls,
        edges: np.ndarray,
        features: np.ndarray | sparse.spmatrix | None = None,
        nodes: Sequence[Hashable] | None = None,
        loops: Literal["refuse", "drop"] = "refuse",
        isolated: Literal["refuse", "keep"] = "refuse",
    ) -> Graph:
        """A graph from positions of nodes. Directions and repetitions of edges are dropped, as USER does.

        Args:
            edges: int [2, E], rows of `features`.
            features: [n, d]; None gives every node a feature of its own.
            nodes: n ids; None numbers them from 0.
            loops: what to do with an edge from a node to itself.
            isolated: what to do with nodes without edges: they are placed by their features alone.

        Raises:
            DataError: no node or edge, an unknown node, features that are not finite or do not fit, or what `loops` and
                `isolated` refuse; each in one line that names the first place and what to do.
        """
        edges = np.asarray(edges)
        if edges.ndim != 2 or edges.shape[0] != 2:
            raise DataError(f"edges have shape {edges.shape}; [2, E] is needed, one column an edge")
        if edges.shape[1] == 0:
            raise DataError("the graph has no edge; USER needs at least one, cluster the features alone instead")
        if not np.issubdtype(edges.dtype, np.integer):
            raise DataError(f"edges are of type {edges.dtype}; give whole numbers, the positions of nodes")
        edges = edges.astype(np.int64)
        if features is None:
            size = int(edges.max()) + 1 if nodes is None else len(nodes)
            features = sparse.identity(size, dtype=np.float32, format="csr")
        features = sparse.csr_matrix(features, dtype=np.float32)
        names: Sequence[Any] = range(features.shape[0]) if nodes is None else list(nodes)
        _check_nodes(names, features)
        _check_ends(edges, names)
        edges = _simple(edges, len(names), names, loops)
        _check_isolated(edges, names, isolated)
        return cls(edges, features, names)

    @classmethod
    def from_pairs(
        cls,
        pairs: Sequence[Sequence[Hashable]],
        features: Any = None,
        nodes: Sequence[Hashable] | None = None,
        loops: Literal["refuse", "drop"] = "refuse",
        isolated: Literal["refuse", "keep"] = "refuse",
    ) -> Graph:
        """A graph from pairs of node ids; `nodes` says which id each row of `features` belongs to. See `of`.

        Without `nodes`, ids are the rows' numbers; without features too, the ids are those that the pairs name.
        """
        if nodes is None and features is None:
            nodes = sorted({node for pair in pairs for node in pair}, key=lambda node: (str(type(node)), node))
        names: Sequence[Any] = range(np.shape(features)[0]) if nodes is None else nodes
        place = {node: n for n, node in enumerate(names)}
        ends = []
        for number, pair in enumerate(pairs):
            if len(pair) != 2:
                raise DataError(f"edge {number} is {list(pair)}; an edge has two ends")
            for node in pair:
                if node not in place:
                    raise DataError(f"edge {number} names node {node!r}, {_unknown(names, nodes is None)}")
            ends.append([place[pair[0]], place[pair[1]]])
        edges = np.array(ends, dtype=np.int64).reshape(-1, 2).T
        return cls.of(edges, features, nodes, loops, isolated)

    def adjacency(self) -> sparse.csr_matrix:
        """B, float32 [n, n]: symmetric, 0 and 1, no diagonal."""
        i, j = self.edges
        ones = np.ones(2 * len(i), dtype=np.float32)
        both = (np.concatenate([i, j]), np.concatenate([j, i]))
        return sparse.coo_matrix((ones, both), shape=(len(self), len(self))).tocsr()


def min_max_l2(X: np.ndarray | sparse.spmatrix) -> sparse.csr_matrix:
    """Columns of features brought to 0 to 1, then rows to length 1, float32 [n, d]: the authors' scaling for Wiki."""
    dense = np.asarray(X if isinstance(X, np.ndarray) else X.toarray(), dtype=np.float32)
    low, high = dense.min(0), dense.max(0)
    scaled = (dense - low) / np.where(high > low, high - low, 1)
    lengths = np.linalg.norm(scaled, axis=1, keepdims=True)
    return sparse.csr_matrix(scaled / np.where(lengths > 0, lengths, 1))


def _unknown(names: Sequence[Any], numbered: bool) -> str:
    if not len(names):
        return "and the graph has no nodes; give features or nodes"
    if numbered:
        return f"but there are features for nodes 0 to {len(names) - 1}; list the ids of the rows in nodes, or mend it"
    return f"which is not among the {len(names)} nodes, such as {names[0]!r}; add it to nodes, or take the edge out"


def _check_nodes(names: Sequence[Any], features: sparse.csr_matrix) -> None:
    if len(names) != features.shape[0]:
        raise DataError(f"{len(names)} nodes and {features.shape[0]} rows of features; give one row a node")
    if not len(names) or not features.shape[1]:
        raise DataError(f"features have shape {features.shape}; give at least one node and one feature")
    if not isinstance(names, range) and len(set(names)) < len(names):
        seen: set[Any] = set()
        twice = next(name for name in names if name in seen or seen.add(name))  # type: ignore[func-returns-value]
        raise DataError(f"node {twice!r} is there twice; give every node one row of features")
    bad = np.flatnonzero(~np.isfinite(features.data))
    if len(bad):
        row = int(np.searchsorted(features.indptr, bad[0], side="right")) - 1
        place = f"node {names[row]!r}, feature {features.indices[bad[0]]}"
        raise DataError(f"{place} is {features.data[bad[0]]}; replace it by a number, or take the feature out")


def _check_ends(edges: np.ndarray, names: Sequence[Any]) -> None:
    outside = (edges < 0) | (edges >= len(names))
    if outside.any():
        number = int(outside.any(0).argmax())
        node = int(edges[:, number][outside[:, number]][0])
        raise DataError(f"edge {number} names node {node}, {_unknown(names, True)}")


def _simple(edges: np.ndarray, n: int, names: Sequence[Any], loops: str) -> np.ndarray:
    """i < j, each once, ascending."""
    own = edges[0] == edges[1]
    if own.any() and loops == "refuse":
        first = int(own.argmax())
        told = f"edge {first} joins node {names[edges[0, first]]!r} to itself"
        raise DataError(f"{told} ({int(own.sum())} such in all); take it out, or pass loops='drop'")
    if own.all():
        raise DataError("every edge joins a node to itself; USER needs edges between nodes")
    low, high = np.sort(edges[:, ~own], axis=0)
    keys = np.unique(low * n + high)
    return np.stack([keys // n, keys % n])


def _check_isolated(edges: np.ndarray, names: Sequence[Any], isolated: str) -> None:
    alone = np.ones(len(names), dtype=bool)
    alone[edges] = False
    if alone.any() and isolated == "refuse":
        told = f"node {names[int(alone.argmax())]!r} has no edge ({int(alone.sum())} such in all)"
        raise DataError(f"{told}; take it out, or pass isolated='keep' to place it by its features alone")
