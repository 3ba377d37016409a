"""The graph that USER reads: undirected edges between nodes with features, checked where it enters."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any, Literal

import numpy as np
from scipy import sparse

from launch.errors import DataError

_WANTED = "which is neither a whole number nor a string; give one of them"
_IDS_AN_END, _IDS_SPARED = 10, 1000
"""Where only edges tell how many nodes there are: numbers up to so many an end, and so many beside, are believed."""


@dataclass(frozen=True)
class Graph:
    """Made by `Graph.of` or `Graph.from_pairs`, which check it."""

    edges: np.ndarray
    """int64 [2, E]: positions of nodes, i < j, each edge once, ascending."""
    features: sparse.csr_matrix
    """float32 [n, d]."""
    nodes: Sequence[Any]
    """n ids, whole numbers or strings of plain Python, in the order of the features."""

    def __len__(self) -> int:
        return self.features.shape[0]

    @classmethod
    def of(
        cls,
        edges: np.ndarray,
        features: np.ndarray | sparse.spmatrix | None = None,
        nodes: Sequence[int | str] | np.ndarray | None = None,
        loops: Literal["refuse", "drop"] = "refuse",
        isolated: Literal["refuse", "keep"] = "refuse",
    ) -> Graph:
        """A graph from positions of nodes. Directions and repetitions of edges are dropped, as USER does.

        Args:
            edges: int [2, E], rows of `features`.
            features: [n, d]; None gives every node a feature of its own.
            nodes: n ids, whole numbers or strings; None numbers them from 0.
            loops: what to do with an edge from a node to itself.
            isolated: what to do with nodes without edges: they are placed by their features alone.

        Raises:
            DataError: no node or edge, an unknown node, an id of another type, features that are no finite numbers or
                do not fit, numbers of nodes far beyond the edges where nothing says how many nodes there are, or what
                `loops` and `isolated` refuse; each in one line that names the first place and what to do.
        """
        edges = _array(edges, "edges")
        if edges.ndim != 2 or edges.shape[0] != 2:
            raise DataError(f"edges have shape {edges.shape}; [2, E] is needed, one column an edge")
        if edges.shape[1] == 0:
            raise DataError("the graph has no edge; USER needs at least one, cluster the features alone instead")
        if not np.issubdtype(edges.dtype, np.integer):
            raise DataError(f"edges are of type {edges.dtype}; give whole numbers, the positions of nodes")
        ids = None if nodes is None else _ids(nodes)
        if features is None:
            size = _numbered(edges) if ids is None else len(ids)
            features = sparse.identity(size, dtype=np.float32, format="csr")
        X = _matrix(features)
        names: Sequence[Any] = range(X.shape[0]) if ids is None else ids
        _check_nodes(names, X)
        _check_ends(edges, names)
        edges = edges.astype(np.int64)
        told = loop_told(edges, names)
        if told and loops == "refuse":
            raise DataError(f"{told}; take it out, or pass loops='drop'")
        edges = _simple(edges, len(names))
        told = isolated_told(edges, names)
        if told and isolated == "refuse":
            raise DataError(f"{told}; take it out, or pass isolated='keep' to place it by its features alone")
        return cls(edges, X, names)

    @classmethod
    def from_pairs(
        cls,
        pairs: Sequence[Sequence[int | str]] | np.ndarray,
        features: Any = None,
        nodes: Sequence[int | str] | np.ndarray | None = None,
        loops: Literal["refuse", "drop"] = "refuse",
        isolated: Literal["refuse", "keep"] = "refuse",
    ) -> Graph:
        """A graph from pairs of node ids; `nodes` says which id each row of `features` belongs to. See `of`.

        Without `nodes`, ids are the rows' numbers; without features too, the ids are those that the pairs name.
        """
        checked = pairs_of(pairs)
        for number, node in ((n, node) for n, pair in enumerate(checked) for node in pair if not is_id(node)):
            raise DataError(f"edge {number} names node {node!r}, {_WANTED}")
        X = None if features is None else _matrix(features)
        if nodes is None and X is None:
            nodes = sorted({node for pair in checked for node in _ids(pair)}, key=lambda id: (str(type(id)), id))
        names: Sequence[Any] = range(0 if X is None else X.shape[0]) if nodes is None else _ids(nodes)
        place = {node: n for n, node in enumerate(names)}
        for number, pair in enumerate(checked):
            for node in pair:
                if node not in place:
                    raise DataError(f"edge {number} names node {node!r}, {_unknown(names, nodes is None)}")
        edges = np.array([[place[a], place[b]] for a, b in checked], dtype=np.int64).reshape(-1, 2).T
        return cls.of(edges, X, None if nodes is None else names, loops, isolated)

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


def is_id(node: Any) -> bool:
    """Whether a node may be called so: a whole number or a string, NumPy's too. Others change on a way through JSON."""
    return isinstance(node, int | str | np.integer) and not isinstance(node, bool)


def pairs_of(pairs: Any) -> list[Sequence[Any]]:
    """The pairs of ids that `pairs` is made of: a sequence of them, or an array [k, 2].

    Two by two numbers are two pairs, a row each.

    Raises:
        DataError: one that has not two members; edges [2, E] are told to be transposed.
    """
    rows = pairs.tolist() if isinstance(pairs, np.ndarray) else list(pairs)
    for number, pair in enumerate(rows):
        listed = isinstance(pair, Sequence | np.ndarray) and not isinstance(pair, str)
        if not listed or len(pair) != 2:
            some = f"[{', '.join(map(repr, pair[:3]))}{', ...' * (len(pair) > 3)}]" if listed else repr(pair)
            turned = "; transpose edges [2, E] to one pair a row, as graph.edges.T" if len(rows) == 2 else ""
            raise DataError(f"edge {number} is {some}; an edge has two ends{turned}")
    return rows


def loop_told(edges: np.ndarray, names: Sequence[Any]) -> str | None:
    """What is wrong with the first edge [2, E] that joins a node to itself, and how many there are; None if none do."""
    own = edges[0] == edges[1]
    if not own.any():
        return None
    first = int(own.argmax())
    return f"edge {first} joins node {names[edges[0, first]]!r} to itself ({int(own.sum())} such in all)"


def isolated_told(edges: np.ndarray, names: Sequence[Any]) -> str | None:
    """The same of the first node that no edge [2, E] has."""
    alone = np.ones(len(names), dtype=bool)
    alone[edges] = False
    if not alone.any():
        return None
    return f"node {names[int(alone.argmax())]!r} has no edge ({int(alone.sum())} such in all)"


def _array(values: Any, name: str) -> np.ndarray:
    try:
        return np.asarray(values)
    except ValueError as error:  # rows of different lengths
        lengths = [len(row) if hasattr(row, "__len__") else 1 for row in values]
        odd = next((n for n, length in enumerate(lengths) if length != lengths[0]), None)
        told = str(error) if odd is None else f"row {odd} has {lengths[odd]} numbers and row 0 has {lengths[0]}"
        raise DataError(f"{name} are no matrix: {told}; give every row the same many") from error


def _matrix(features: Any) -> sparse.csr_matrix:
    """float32 [n, d], finite or not."""
    held = features if sparse.issparse(features) else _array(features, "features")
    if held.ndim != 2:
        raise DataError(f"features have shape {held.shape}; [n, d] is needed, one row a node")
    if held.dtype.kind not in "biuf":
        told = f"features are of type {held.dtype}"
        if not sparse.issparse(held):
            rows = ((n, k, value) for n, row in enumerate(features) for k, value in enumerate(row))
            wrong = next(((n, k, value) for n, k, value in rows if not isinstance(value, Real)), None)
            if wrong is None:  # numbers of several kinds
                return _matrix(held.astype(np.float64))
            told = f"node {wrong[0]}, feature {wrong[1]} is {wrong[2]!r}"
        raise DataError(f"{told}; give numbers")
    with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite, and is refused as that
        return sparse.csr_matrix(held, dtype=np.float32)


def _ids(nodes: Any) -> list[int | str]:
    """Ids as plain Python, which JSON gives back as they were."""
    listed = nodes.tolist() if isinstance(nodes, np.ndarray) else list(nodes)
    for number, node in enumerate(listed):
        if not is_id(node):
            raise DataError(f"nodes has {node!r} at {number}, {_WANTED}")
    return [node.item() if isinstance(node, np.generic) else node for node in listed]


def _numbered(edges: np.ndarray) -> int:
    """How many nodes there are where nothing but the edges' numbers says so."""
    if edges.min() < 0:
        number = int((edges < 0).any(0).argmax())
        raise DataError(f"edge {number} names node {int(edges[:, number].min())}; number nodes from 0")
    largest, most = int(edges.max()), _IDS_AN_END * edges.size + _IDS_SPARED
    if largest > most:
        number = int((edges == largest).any(0).argmax())
        told = f"edge {number} names node {largest}, but {edges.shape[1]} edges number nodes up to {most}"
        raise DataError(f"{told}; for ids with holes use Graph.from_pairs, or say how many there are: nodes=range(n)")
    return largest + 1


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
        raise DataError(
            f"{place} is {features.data[bad[0]]}; replace it by a number that float32 holds, or take the feature out"
        )


def _check_ends(edges: np.ndarray, names: Sequence[Any]) -> None:
    outside = (edges < 0) | (edges >= len(names))
    if outside.any():
        number = int(outside.any(0).argmax())
        node = int(edges[:, number][outside[:, number]][0])
        raise DataError(f"edge {number} names node {node}, {_unknown(names, True)}")


def _simple(edges: np.ndarray, n: int) -> np.ndarray:
    """i < j, each once, ascending; without loops."""
    own = edges[0] == edges[1]
    if own.all():
        raise DataError("every edge joins a node to itself; USER needs edges between nodes")
    low, high = np.sort(edges[:, ~own], axis=0)
    keys = np.unique(low * n + high)
    return np.stack([keys // n, keys % n])
