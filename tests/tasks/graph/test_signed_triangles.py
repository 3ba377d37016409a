"""Triangles and difficulty against enumeration by hand; the curriculum's paces."""

from __future__ import annotations

from itertools import combinations, pairwise, permutations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from launch.errors import ConfigError, DataError
from tasks.graph.signed import triangles
from tasks.graph.signed.curriculum import Curriculum
from tasks.graph.signed.data import NAMES, load_signed
from tasks.graph.signed.edges import SignedGraph
from tasks.graph.signed.triads import balanced_triads, triad_counts
from tasks.graph.signed.triangles import Pairs, difficulty, in_triangle, pair_counts, two_paths
from tests.tasks.graph.signed_graphs import random_graph

MEANS = {"bitcoin-alpha": 0.080, "bitcoin-otc": 0.074, "wiki-elec": 0.228, "wiki-RfA": 0.245}
IN_TRIANGLE = {"bitcoin-alpha": 0.704, "bitcoin-otc": 0.701, "wiki-elec": 0.917, "wiki-RfA": 0.932}


def by_hand(graph: SignedGraph) -> np.ndarray:
    """Share of unbalanced ones among the triangles of each edge, all triples of nodes looked at."""
    sign = {}
    for u, v, s in zip(graph.source, graph.target, graph.sign, strict=True):
        sign[u, v] = sign[v, u] = int(s)
    good, bad = dict.fromkeys(sign, 0), dict.fromkeys(sign, 0)
    for triple in combinations(range(graph.n), 3):
        sides = [(a, b) for a, b in combinations(triple, 2) if (a, b) in sign]
        if len(sides) == 3:
            counts = good if np.prod([sign[side] for side in sides]) > 0 else bad
            for a, b in sides:
                counts[a, b] += 1
                counts[b, a] += 1
    edges = zip(graph.source, graph.target, strict=True)
    return np.array([bad[e] / (good[e] + bad[e]) if good[e] + bad[e] else 0.0 for e in edges])


@pytest.mark.parametrize("seed", range(5))
def test_signed_acceptance_1_difficulty_is_the_share_of_unbalanced_triangles(seed: int) -> None:
    graph = random_graph(30, 0.25, seed)
    found = difficulty(graph)
    np.testing.assert_allclose(found, by_hand(graph), atol=1e-12)
    assert found.min() >= 0 and found.max() <= 1 and len(np.unique(found)) > 5
    assert (found[~in_triangle(graph)] == 0).all()


@pytest.mark.data
@pytest.mark.parametrize("name", NAMES)
def test_signed_acceptance_1_means_of_the_real_graphs(name: str) -> None:
    graph = SignedGraph.of(load_signed(name))
    assert difficulty(graph).mean() == pytest.approx(MEANS[name], abs=0.002)
    assert in_triangle(graph).mean() == pytest.approx(IN_TRIANGLE[name], abs=0.0006)


def test_difficulty_derived_by_hand() -> None:
    """A square 0-1-2-3 with the diagonal 0-2: triangle 012 is + + - (unbalanced), 023 is - - + (balanced).

    The diagonal (-) lies in both: .5. A node that hangs on one edge is in no triangle: 0.
    """
    graph = SignedGraph.of([[0, 1, 1], [1, 2, 1], [0, 2, -1], [2, 3, -1], [3, 0, 1], [3, 4, -1]])
    assert difficulty(graph).tolist() == [1, 1, 0.5, 0, 0, 0]
    # CSG's code: positive edges as they are; a negative one .5 if any of its triangles is balanced, else 0.
    assert difficulty(graph, as_csg_code=True).tolist() == [1, 1, 0.5, 0.5, 0, 0]


def test_reciprocal_edges_count_double_or_cancel() -> None:
    """0-1 has + both ways (S = 2), 1-2 has + and - (S = 0, Q = 2). Of the edge 0-2: S^2 = 0 and Q^2 = 4, so .5."""
    graph = SignedGraph.of([[0, 1, 1], [1, 0, 1], [1, 2, 1], [2, 1, -1], [0, 2, 1]])
    pairs = Pairs.of(graph)
    signed, total = two_paths(pairs, np.array([0]), np.array([2]))
    assert (signed[0], total[0]) == (0, 4)
    assert difficulty(graph)[4] == 0.5


@pytest.mark.parametrize("block", [1, 7, 10**6])
def test_enumeration_and_row_products_agree(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two ways to (S^2)_ij and (Q^2)_ij, in blocks of any size, and the dense square as the third."""
    monkeypatch.setattr(triangles, "BLOCK", block)
    pairs = Pairs.of(random_graph(25, 0.4, 3, reciprocal=True))
    by_edges, by_rows = pair_counts(pairs), two_paths(pairs, pairs.low, pairs.high)
    S, Q = pairs.signed_matrix.toarray(), pairs.total_matrix.toarray()
    for found, again, dense in zip(by_edges, by_rows, (S @ S, Q @ Q), strict=True):
        np.testing.assert_array_equal(found, again)
        np.testing.assert_array_equal(found, dense[pairs.low, pairs.high])


def test_triad_counts_are_those_of_sets() -> None:
    """Each of the 16 kinds counted with Python sets, edge by edge, as SiGAT's authors do."""
    graph = random_graph(14, 0.4, 1, reciprocal=True)
    signs = {(u, v): s for u, v, s in zip(graph.source, graph.target, graph.sign, strict=True)}
    sides = [("out", 1), ("out", -1), ("in", 1), ("in", -1)]

    def neighbours(node: int, way: str, sign: int) -> set[int]:
        return {w for w in range(graph.n) if signs.get((node, w) if way == "out" else (w, node)) == sign}

    found = triad_counts(graph)
    for e, (u, v) in enumerate(zip(graph.source, graph.target, strict=True)):
        expected = [len(neighbours(u, *a) & neighbours(v, *b)) for a in sides for b in sides]
        assert found[:, e].tolist() == expected


@pytest.mark.parametrize(
    ("uw", "wv", "edge", "counts"),
    [
        # u - w, w - v as (from, to, sign); u = 0, v = 1, w = 2
        ((0, 2, 1), (2, 1, 1), 1, 1),  # u below w below v: a positive edge agrees with both theories
        ((0, 2, -1), (2, 1, -1), 1, 0),  # balanced, but u above w above v
        ((0, 2, -1), (1, 2, 1), -1, 1),  # v below w below u, as a negative edge says
        ((0, 2, 1), (1, 2, -1), -1, 0),  # the other way round: contradicts status
        ((0, 2, 1), (1, 2, 1), -1, 0),  # + + -: unbalanced
    ],
)
def test_triads_that_agree_with_balance_and_status(uw: tuple, wv: tuple, edge: int, counts: int) -> None:
    graph = SignedGraph.of([(0, 1, edge), uw, wv])
    assert balanced_triads(graph)[0] == counts


# ---------------------------------------------------------------- curriculum


@given(st.floats(0.01, 1.0), st.integers(1, 50))
def test_signed_acceptance_2_paces(start: float, stages: int) -> None:
    paces = {}
    for pacing in ("geometric", "linear", "root"):
        plan = Curriculum(np.arange(7), pacing=pacing, start=start, stages=stages)  # type: ignore[arg-type]
        values = [plan.fraction(t) for t in range(stages + 1)]
        assert values[0] == pytest.approx(start) and values[-1] == pytest.approx(1)
        assert all(a <= b + 1e-12 for a, b in pairwise(values))
        assert plan.fraction(stages + 9) == pytest.approx(1)
        paces[pacing] = np.array(values)
    assert (paces["geometric"] <= paces["linear"] + 1e-9).all()
    assert (paces["linear"] <= paces["root"] + 1e-9).all()


def test_csg_counts_derived_by_hand() -> None:
    """T = 20, lambda_0 = .25, 200 edges: 50 in stage 0, 125 in stage 10, all in stage 20, 101 epochs each."""
    plan = Curriculum.csg(np.zeros(200))
    assert [plan.count(101 * t) for t in (0, 10, 20)] == [50, 125, 200]
    assert plan.count(100) == 50 and plan.count(101) == 57  # floor(.2875 * 200)
    assert plan.epochs == 21 * 101


def test_sga_counts_derived_by_hand() -> None:
    """T = 30, 300 epochs: stages of 10; epoch 0 uses 25 + 75 / 30 of 100 edges, epoch 290 all of them."""
    plan = Curriculum.sga(np.zeros(100), epochs=300)
    assert [plan.count(e) for e in (0, 9, 10, 290, 299, 5000)] == [27, 27, 30, 100, 100, 100]
    assert plan.epochs == 300


def test_the_order_is_stable_and_knows_no_graph() -> None:
    assert Curriculum.of(np.array([0.5, 0.0, 0.5, 0.25])).order.tolist() == [1, 3, 0, 2]


def test_a_curriculum_that_cannot_be() -> None:
    with pytest.raises(ConfigError, match=r"start 0 is no share; give one above 0"):
        Curriculum(np.arange(3), start=0)
    with pytest.raises(DataError, match="example 1 has no finite difficulty"):
        Curriculum.of(np.array([0.0, np.nan]))


def test_every_order_of_the_same_edges_gives_the_same_difficulties() -> None:
    rows = random_graph(6, 0.7, 2).rows
    whole = {tuple(row): d for row, d in zip(rows.tolist(), difficulty(SignedGraph.of(rows)), strict=True)}
    for order in list(permutations(range(4))):
        mixed = np.concatenate([rows[:4][list(order)], rows[4:]])
        found = difficulty(SignedGraph.of(mixed))
        assert {tuple(row): d for row, d in zip(mixed.tolist(), found, strict=True)} == whole
