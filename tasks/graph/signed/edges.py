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

INT64 = range(-(2**63), 2**63)


@dataclass(frozen=True)
class Places:
    """What messages call the rows of a table: edges counted from 0, or the lines of a file."""

    file: str = ""
    lines: Sequence[int] | None = None
    """Of each row."""

    def __call__(self, *rows: int) -> str:
        word = "edge" if self.lines is None else "line"
        numbers = rows if self.lines is None else [self.lines[row] for row in rows]
        said = f"{word}{'s' if len(rows) > 1 else ''} {' and '.join(map(str, numbers))}"
        return f"{self.file}: {said}" if self.file else said


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
    def of(cls, edges: Any, nodes: Any = None, places: Places | None = None) -> SignedGraph:
        """The graph of some edges.

        Args:
            edges: integers [m, 3]: source, target, sign (1 or -1).
            nodes: ids of all nodes, where some have no edge; None: those of the edges.
            places: what messages call the edges; None: by their rows, counted from 0.

        Raises:
            DataError: no edges, a shape or type that fits none, a sign that is no sign, a self loop, an edge given
                twice, or an edge between nodes that `nodes` lacks.
        """
        places = places or Places()
        rows = whole_numbers(edges, "edges")
        if rows.size == 0:
            raise DataError("the graph has no edges; give at least one row of source, target, sign")
        if rows.ndim != 2 or rows.shape[1] != 3:
            raise DataError(f"edges have shape {rows.shape}; rows of source, target, sign are needed")
        _check_rows(rows, places)
        ids = np.unique(rows[:, :2]) if nodes is None else np.unique(whole_numbers(nodes, "nodes"))
        ends = find(ids, rows[:, :2])
        if (ends < 0).any():
            row = int((ends < 0).any(1).argmax())
            raise DataError(
                f"{places(row)} joins {rows[row, 0]} and {rows[row, 1]}, which `nodes` does not hold; add them"
            )
        graph = cls(ids, ends[:, 0], ends[:, 1], rows[:, 2])
        _check_once(graph, places)
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
    """`values` as int64, digit for digit; strings are read as whole numbers.

    Raises:
        DataError: something that is no whole number, NaN included, one beyond int64, or a float so large that its last
            digits are lost.
    """
    try:
        given = np.asarray(values)
    except (TypeError, ValueError, OverflowError) as error:
        raise DataError(f"{name} are no table of whole numbers ({error}); give rows of the same length") from error
    kind = given.dtype.kind
    if kind not in "iufbOSU":
        raise DataError(f"{name} are of type {given.dtype}; ids and signs are whole numbers")
    exact = kind in "ib"
    if kind == "f":
        exact = bool((np.isfinite(given) & (given == np.floor(given)) & (np.abs(given) < _lossless(given.dtype))).all())
    elif kind == "u":
        exact = bool((given <= np.uint64(INT64[-1])).all())
    if exact:
        return given.astype(np.int64)
    # One by one, of the values as they came: as float64, which numpy makes of mixed lists, ids above 2^53 are others.
    single = given if isinstance(values, np.ndarray) else np.asarray(values, dtype=object)
    numbers = [_whole_number(value, f"{name}, row {_row(single, k)}") for k, value in enumerate(single.flat)]
    return np.array(numbers, dtype=np.int64).reshape(given.shape)


def _lossless(kind: Any) -> float:
    """Whole numbers below this are all different floats of a type."""
    return 2.0 ** min(np.finfo(kind).nmant + 1, 63)


def _whole_number(value: Any, place: str) -> int:
    try:
        number = int(value)
        whole = isinstance(value, str | bytes) or bool(number == value)
    except (TypeError, ValueError, OverflowError):
        whole = False
    if not whole:
        raise DataError(f"{place}: {str(value)[:40]} is no whole number; ids and signs are whole numbers")
    if number not in INT64:
        raise beyond_int64(number, place)
    if isinstance(value, float | np.floating) and abs(number) >= _lossless(type(value)):
        raise DataError(f"{place}: {value} is too large for a float to keep its last digits; give integers")
    return number


def beyond_int64(number: int, place: str) -> DataError:
    said = str(number) if number.bit_length() <= 128 else f"a number of {number.bit_length()} bits"
    return DataError(f"{place}: {said} does not fit int64; number the nodes from 0")


def _row(table: np.ndarray, k: int) -> int:
    """The row of the k-th entry."""
    return int(np.unravel_index(k, table.shape)[0]) if table.ndim else 0


def check_signs(rows: np.ndarray, places: Places) -> None:
    """Raise DataError if a sign in the last column of `rows` [m, 3] is neither 1 nor -1."""
    wrong = np.flatnonzero((rows[:, 2] != 1) & (rows[:, 2] != -1))
    if len(wrong):
        row = wrong[0]
        raise DataError(
            f"{places(row)} has sign {rows[row, 2]}; signs are 1 and -1: reduce ratings to their sign first"
        )


def _check_rows(rows: np.ndarray, places: Places) -> None:
    check_signs(rows, places)
    loops = np.flatnonzero(rows[:, 0] == rows[:, 1])
    below = np.flatnonzero(rows[:, :2].min(1) < 0)
    if len(loops):
        row = loops[0]
        raise DataError(f"{places(row)} leads from {rows[row, 0]} to itself; leave self loops out")
    if len(below):
        row = below[0]
        raise DataError(f"{places(row)} has the id {rows[row, :2].min()}; ids are 0 or more")


def _check_once(graph: SignedGraph, places: Places) -> None:
    """No ordered pair has two edges."""
    key = graph.source * graph.n + graph.target
    order = np.argsort(key, kind="stable")
    again = np.flatnonzero(key[order][1:] == key[order][:-1])
    if len(again) == 0:
        return
    first, second = order[again[0]], order[again[0] + 1]
    u, v = graph.ids[graph.source[first]], graph.ids[graph.target[first]]
    if graph.sign[first] == graph.sign[second]:
        raise DataError(f"{places(first, second)} are both {u} to {v}; keep one of them")
    raise DataError(f"{places(first, second)} give {u} to {v} both signs; decide for one of them")


def concatenated(parts: Sequence[np.ndarray]) -> np.ndarray:
    """Ids of all nodes of several edge tables, ascending: what `SignedGraph.of` takes as `nodes`."""
    return np.unique(np.concatenate([np.asarray(part)[:, :2].ravel() for part in parts]))
