"""`SignedGraph`: directed edges with signs, checked once where they come in.

Ids are whatever integers the caller uses, holes included; inside, nodes are numbered 0 to n - 1 in the order of their
ids. A pair may have opposite signs in its two directions (u trusts v, v does not trust u): both edges are kept. The
same direction twice is refused, with one sign or with two.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from launch.errors import DataError


@dataclass(frozen=True)
class SignedGraph:
    """A signed directed graph of n nodes and m edges. Make one with `of`, which checks."""

    ids: np.ndarray
    """int64 [n], ascending: the caller's names of the nodes."""
    source: np.ndarray
    """int64 [m], 0 to n - 1."""
    target: np.ndarray
    """int64 [m], 0 to n - 1."""
    sign: np.ndarray
    """int64 [m], 1 or -1."""

    @classmethod
    def of(cls, edges: Any, nodes: Any = None) -> SignedGraph:
        """The graph of some edges.

        Args:
            edges: integers [m, 3]: source, target, sign (1 or -1).
            nodes: ids of all nodes, where some have no edge; None: those of the edges.

        Raises:
            DataError: no edges, a shape or type that fits none, a sign that is no sign, a self loop, an edge given
                twice, or an edge between nodes that `nodes` lacks. Rows are counted from 0.
        """
        rows = whole_numbers(edges, "edges")
        if rows.size == 0:
            raise DataError("the graph has no edges; give at least one row of source, target, sign")
        if rows.ndim != 2 or rows.shape[1] != 3:
            raise DataError(f"edges have shape {rows.shape}; rows of source, target, sign are needed")
        _check_rows(rows)
        ids = np.unique(rows[:, :2]) if nodes is None else np.unique(whole_numbers(nodes, "nodes"))
        ends = find(ids, rows[:, :2])
        if (ends < 0).any():
            row = int((ends < 0).any(1).argmax())
            raise DataError(
                f"edge {row} joins {rows[row, 0]} and {rows[row, 1]}, which `nodes` does not hold; add them"
            )
        graph = cls(ids, ends[:, 0], ends[:, 1], rows[:, 2])
        _check_once(graph)
        return graph

    @property
    def n(self) -> int:
        return len(self.ids)

    @property
    def m(self) -> int:
        return len(self.sign)

    @property
    def rows(self) -> np.ndarray:
        """int64 [m, 3] with the caller's ids."""
        return np.stack([self.ids[self.source], self.ids[self.target], self.sign], axis=1)

    @cached_property
    def keys(self) -> np.ndarray:
        """int64 [m], ascending: source * n + target of every edge, to look edges up by."""
        return np.sort(self.source * self.n + self.target)

    def positions(self, ids: Any) -> np.ndarray:
        """Where nodes stand, int64 like `ids`.

        Raises:
            DataError: a node that the graph does not have.
        """
        asked = whole_numbers(ids, "nodes")
        found = find(self.ids, asked)
        if (found < 0).any():
            raise unknown_node(asked[found < 0].flat[0], self.ids)
        return found

    def one_sign(self) -> str | None:
        """The word for the only sign that edges have; None if both occur."""
        first = int(self.sign[0])
        return None if (self.sign != first).any() else ("positive" if first > 0 else "negative")


def find(ids: np.ndarray, asked: np.ndarray) -> np.ndarray:
    """Positions of `asked` in the ascending `ids`, -1 where there is none."""
    if len(ids) == 0:
        return np.full(asked.shape, -1)
    at = np.searchsorted(ids, asked).clip(max=len(ids) - 1)
    return np.where(ids[at] == asked, at, -1)


def unknown_node(node: Any, ids: np.ndarray) -> DataError:
    some = ", ".join(map(str, ids[:3].tolist()))
    return DataError(f"node {node} is not in the graph; it has {len(ids)} nodes, such as {some}, …")


def whole_numbers(values: Any, name: str) -> np.ndarray:
    """`values` as int64.

    Raises:
        DataError: something that is no whole number, NaN included.
    """
    try:
        given = np.asarray(values)
        if given.dtype.kind not in "iufb":
            given = given.astype(np.float64)
    except (TypeError, ValueError) as error:
        raise DataError(f"{name} are no table of whole numbers ({error}); give rows of the same length") from error
    if given.dtype.kind == "f":
        bad = ~np.isfinite(given) | (given != np.floor(given))
        if bad.any():
            row = int(np.argwhere(bad)[0][0]) if given.ndim else 0
            raise DataError(
                f"{name}, row {row}: {given[bad].flat[0]} is no whole number; ids and signs are whole numbers"
            )
    return given.astype(np.int64)


def _check_rows(rows: np.ndarray) -> None:
    signs, loops = np.flatnonzero(np.abs(rows[:, 2]) != 1), np.flatnonzero(rows[:, 0] == rows[:, 1])
    below = np.flatnonzero(rows[:, :2].min(1) < 0)
    if len(signs):
        row = signs[0]
        raise DataError(f"edge {row} has sign {rows[row, 2]}; signs are 1 and -1: reduce ratings to their sign first")
    if len(loops):
        row = loops[0]
        raise DataError(f"edge {row} leads from {rows[row, 0]} to itself; leave self loops out")
    if len(below):
        row = below[0]
        raise DataError(f"edge {row} has the id {rows[row, :2].min()}; ids are 0 or more")


def _check_once(graph: SignedGraph) -> None:
    """No ordered pair has two edges."""
    key = graph.source * graph.n + graph.target
    order = np.argsort(key, kind="stable")
    again = np.flatnonzero(key[order][1:] == key[order][:-1])
    if len(again) == 0:
        return
    first, second = order[again[0]], order[again[0] + 1]
    u, v = graph.ids[graph.source[first]], graph.ids[graph.target[first]]
    if graph.sign[first] == graph.sign[second]:
        raise DataError(f"edges {first} and {second} are both {u} to {v}; keep one of them")
    raise DataError(f"edges {first} and {second} give {u} to {v} both signs; decide for one of them")


def concatenated(parts: Sequence[np.ndarray]) -> np.ndarray:
    """Ids of all nodes of several edge tables, ascending: what `SignedGraph.of` takes as `nodes`."""
    return np.unique(np.concatenate([np.asarray(part)[:, :2].ravel() for part in parts]))
