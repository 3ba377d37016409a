"""What is no signed graph is refused in one line that says what to do; what is one is read as it is."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from launch.errors import ConfigError, DataError
from launch.options import RunOptions
from tasks.graph.signed.data import NAMES, describe, load_signed, read_edges, read_graph
from tasks.graph.signed.edges import SignedGraph
from tasks.graph.signed.recipe import DataOptions
from tasks.graph.signed.splits import reverse_signs, split_edges

REFUSED: dict[str, tuple[Any, str]] = {
    "empty": ([], "the graph has no edges; give at least one row"),
    "pairs": ([[1, 2], [2, 3]], r"shape \(2, 2\); rows of source, target, sign are needed"),
    "ragged": ([[1, 2, 1], [2, 3]], "no table of whole numbers"),
    "words": ([[1, 2, 1], ["a", "b", "1"]], "row 1: a is no whole number"),
    "decimal word": ([["1.0", "2", "1"]], r"row 0: 1\.0 is no whole number"),
    "none": ([[1, 2, 1], [1, None, 1]], "row 1: None is no whole number"),
    "half object": (np.array([[1, 2.5, 1]], dtype=object), r"row 0: 2\.5 is no whole number"),
    "dates": (np.zeros((1, 3), dtype="datetime64[D]"), r"edges are of type datetime64\[D\]"),
    "2^63": ([[1, 2, 1], [2**63, 1, 1]], "edges, row 1: 9223372036854775808 does not fit int64"),
    "2^63, unsigned": (np.array([[1, 2**63, 1]], dtype=np.uint64), "row 0: 9223372036854775808 does not fit int64"),
    "2^63, word": ([["9223372036854775808", "1", "1"]], "row 0: 9223372036854775808 does not fit int64"),
    "10^400": ([[10**400, 1, 1]], "row 0: a number of 1329 bits does not fit int64; number the nodes from 0"),
    "float": ([[1, float(2**53), 1]], r"row 0: 9007199254740992\.0 is too large for a float to keep its last digits"),
    "float32": (np.array([[1, 2**24 + 1, 1]], dtype=np.float32), r"row 0: 16777216\.0 is too large for a float"),
    "largest negative": ([[1, 2, -(2**63)]], "edge 0 has sign -9223372036854775808"),
    "nan": ([[1, 2, math.nan]], "row 0: nan is no whole number"),
    "half": ([[1, 2, 1], [1.5, 3, 1]], "row 1: 1.5 is no whole number"),
    "rating": ([[1, 2, 1], [2, 3, 10]], "edge 1 has sign 10; .* reduce ratings to their sign first"),
    "zero": ([[1, 2, 0]], "edge 0 has sign 0; signs are 1 and -1"),
    "self loop": ([[1, 2, 1], [3, 3, -1]], "edge 1 leads from 3 to itself; leave self loops out"),
    "negative id": ([[-1, 2, 1]], "edge 0 has the id -1; ids are 0 or more"),
    "duplicate": ([[1, 2, 1], [2, 1, 1], [1, 2, 1]], "edges 0 and 2 are both 1 to 2; keep one of them"),
    "contradiction": ([[1, 2, 1], [5, 6, 1], [1, 2, -1]], "edges 0 and 2 give 1 to 2 both signs; decide for one"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_bad_edges_are_one_line_with_the_remedy(name: str) -> None:
    edges, message = REFUSED[name]
    with pytest.raises(DataError, match=message) as caught:
        SignedGraph.of(edges)
    assert "\n" not in str(caught.value)


def test_holes_in_ids_and_both_ways_of_a_pair_are_fine() -> None:
    graph = SignedGraph.of([[7603, 2, 1], [2, 7603, -1], [90, 2, 1]])
    assert graph.ids.tolist() == [2, 90, 7603] and (graph.n, graph.m) == (3, 3)
    assert graph.source.tolist() == [2, 0, 1] and graph.target.tolist() == [0, 2, 0]
    assert graph.rows.tolist() == [[7603, 2, 1], [2, 7603, -1], [90, 2, 1]]


@pytest.mark.parametrize("kind", [np.int64, np.uint64, str, object])
def test_ids_keep_all_their_digits(kind: Any) -> None:
    """2^53 + 1 and 2^53 are two nodes, which float64 cannot tell apart; 2^63 - 1 is the largest id there is."""
    large = [2**53, 2**53 + 1, 2**63 - 1]
    rows = [[u, v, 1] for u, v in zip(large, large[1:] + large, strict=False)]
    graph = SignedGraph.of(np.array(rows, dtype=kind))
    assert graph.ids.tolist() == large and graph.m == 3
    mixed = SignedGraph.of([[*rows[0][:2], 1.0], [*map(str, rows[1])]]) if kind is object else graph
    assert mixed.ids.tolist() == large


def test_nodes_without_edges_are_there_if_they_are_named() -> None:
    assert SignedGraph.of([[1, 2, 1]], nodes=[1, 2, 9]).n == 3
    with pytest.raises(DataError, match="edge 0 joins 1 and 2, which `nodes` does not hold"):
        SignedGraph.of([[1, 2, 1]], nodes=[1, 9])


def test_an_unknown_node_is_named() -> None:
    graph = SignedGraph.of([[10, 20, 1]])
    assert graph.positions([[20, 10]]).tolist() == [[1, 0]]
    with pytest.raises(DataError, match=r"node 17 is not in the graph; it has 2 nodes, such as 10, 20"):
        graph.positions([10, 17])


# ---------------------------------------------------------------- files


def test_a_file_of_ones_own(tmp_path: Path) -> None:
    file = tmp_path / "edges.txt"
    file.write_bytes(b"1\t2\t1\r\n\r\n3 4 -1\r\n5,6,1\r\n")
    assert read_edges(file).tolist() == [[1, 2, 1], [3, 4, -1], [5, 6, 1]]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1,2,1\nsource,target,sign\n", r"edges\.csv:2: 'source,target,sign' is not source, target, sign"),
        ("1,2\n", r"edges\.csv:1: '1,2' is not source"),
        ("1,2,0.5\n", r"edges\.csv:1: '1,2,0\.5' is not source"),
        ("\n", r"edges\.csv: no edges"),
        ("1,2,1\n\n1" + "0" * 30 + ",2,1\n", r"edges\.csv:3: 10{30} does not fit int64; number the nodes from 0"),
    ],
)
def test_a_line_that_is_no_edge_is_named(text: str, message: str, tmp_path: Path) -> None:
    file = tmp_path / "edges.csv"
    file.write_text(text)
    with pytest.raises(DataError, match=message):
        read_edges(file)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1 2 1\n\n3 4 -10\n", r"edges\.csv: line 3 has sign -10; .* reduce ratings to their sign first"),
        ("1 2 1\n\n4 4 1\n", r"edges\.csv: line 3 leads from 4 to itself; leave self loops out"),
        ("1 2 1\n-3 4 1\n", r"edges\.csv: line 2 has the id -3; ids are 0 or more"),
        ("\n1 2 1\n3 4 1\n\n1 2 1\n", r"edges\.csv: lines 2 and 5 are both 1 to 2; keep one of them"),
        ("1 2 1\n3 4 1\n1 2 -1\n", r"edges\.csv: lines 1 and 3 give 1 to 2 both signs; decide for one of them"),
    ],
)
def test_a_file_that_makes_no_graph_is_refused_with_its_lines(text: str, message: str, tmp_path: Path) -> None:
    file = tmp_path / "edges.csv"
    file.write_text(text)
    with pytest.raises(DataError, match=message):
        read_graph(file)


def _rows(signs: Sequence[int] = (1, -1)) -> list[list[int]]:
    """Forty edges of a circle, by the signs in turn."""
    return [[u, (u + 1) % 40, signs[u % len(signs)]] for u in range(40)]


@pytest.mark.parametrize("split", ["drawn", "pairs", "csg"])
@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([*_rows(), [7, 8, -1]], r"edges\.csv: lines 8 and 41 are both 7 to 8"),
        ([*_rows(), [7, 8, 1]], r"edges\.csv: lines 8 and 41 give 7 to 8 both signs"),
        (_rows((10, -10, 3)), r"edges\.csv: line 1 has sign 10; .* reduce ratings to their sign"),
    ],
)
def test_the_recipe_checks_the_whole_file_before_it_splits(
    rows: list[list[int]], message: str, split: Any, tmp_path: Path
) -> None:
    """Whatever the seed: an edge given twice never lies on both sides, in training and in test."""
    from tasks.graph.signed.recipe import Config, _edges

    file = tmp_path / "edges.csv"
    file.write_text("".join(f"{u},{v},{s}\n" for u, v, s in rows))
    for seed in range(5):
        with pytest.raises(DataError, match=message):
            _edges(Config(DataOptions(path=str(file), split=split), run=RunOptions(seed=seed)))


def test_splits_refuse_ratings_and_take_ids_of_any_size() -> None:
    """Products of large ids would pass int64, and 0-to-5 would be taken for a pair with 4-to-1: 4 * 2^62 is 0 there."""
    with pytest.raises(DataError, match=r"edge 0 has sign 10; .* reduce ratings to their sign first"):
        split_edges(np.array(_rows((10, -10))), 0)
    large = 2**62 - 1  # the base of the products is 2^62
    rows = np.array([[0, 5, 1], [4, 5, -1], [large, 6, 1], [7, 8, -1]])
    assert reverse_signs(rows[:1], np.array([[5, 4], [5, 0], [large, 6]])).tolist() == [0, 1, 0]
    known, asked = split_edges(rows, 0, 0.5, by_pair=True)
    assert len(known) == len(asked) == 2


def test_a_file_that_is_no_text(tmp_path: Path) -> None:
    (tmp_path / "edges.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match="cannot be read as text"):
        read_edges(tmp_path / "edges.csv")


def test_names_and_splits_that_are_not_there() -> None:
    with pytest.raises(DataError, match="there is no signed graph 'epinions'; use one of bitcoin-alpha"):
        load_signed("epinions")
    with pytest.raises(DataError, match="wiki-elec has no split sga1; use csg1"):
        load_signed("wiki-elec", "sga1")
    with pytest.raises(ConfigError, match="split sga1 is of a published graph"):
        DataOptions(split="sga1")


def test_a_changed_file_is_refused_before_it_is_parsed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "graph" / "signed").mkdir(parents=True)
    (tmp_path / "graph" / "signed" / "wiki-elec.csv").write_text("not, even, edges\n")
    monkeypatch.setenv("ARBITER_DATA", str(tmp_path))
    with pytest.raises(DataError, match=r"wiki-elec\.csv: sha256 is .* copy the file again"):
        load_signed("wiki-elec")


# What specs/graph_data.md counts: edges, nodes, largest id, positive share, reciprocated edges in %.
COUNTS = {
    "bitcoin-alpha": (24186, 3783, 7603, 0.9365, 82),
    "bitcoin-otc": (35592, 5881, 6004, 0.8999, 80),
    "wiki-elec": (103689, 7115, 7117, 0.7845, 5),
    "wiki-RfA": (170335, 11017, 11016, 0.7828, 7),
}
CSG_PARTS = {
    "bitcoin-alpha": (20559, 1209, 2418),
    "bitcoin-otc": (30254, 1779, 3559),
    "wiki-elec": (88137, 5184, 10368),
    "wiki-RfA": (144786, 8516, 17033),
}


@pytest.mark.data
@pytest.mark.parametrize("name", NAMES)
def test_counts_of_the_real_graphs(name: str) -> None:
    edges, nodes, largest, positive, reciprocated = COUNTS[name]
    rows = load_signed(name)
    graph = SignedGraph.of(rows)
    assert (graph.m, graph.n, graph.ids.max()) == (edges, nodes, largest)
    assert (graph.sign > 0).mean() == pytest.approx(positive, abs=5e-5)
    back = np.isin(graph.target * graph.n + graph.source, graph.keys)
    assert round(100 * back.mean()) == pytest.approx(reciprocated, abs=1)
    assert describe(name)["edges"] == edges


@pytest.mark.data
@pytest.mark.parametrize("name", NAMES)
def test_the_parts_of_the_csg_split_are_the_whole_graph(name: str) -> None:
    parts = load_signed(name, "csg1")
    assert tuple(len(parts[part]) for part in ("train", "validation", "test")) == CSG_PARTS[name]
    together = np.concatenate(list(parts.values()))
    weights = np.array([2**40, 2, 1])  # each row as one number
    np.testing.assert_array_equal(np.sort(together @ weights), np.sort(load_signed(name) @ weights))


@pytest.mark.data
def test_the_parts_of_the_sga_split() -> None:
    parts = load_signed("bitcoin-alpha", "sga1")
    assert {part: len(rows) for part, rows in parts.items()} == {"train": 19349, "test": 4837, "augmented": 19534}
    assert set(load_signed("bitcoin-otc", "sga1")) == {"train", "test"}
