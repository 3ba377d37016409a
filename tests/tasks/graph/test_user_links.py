"""Links held out of a graph: what the split promises, noise that gives no answer away, and scores by hand."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from scipy import sparse
from scipy.sparse.csgraph import connected_components

from launch.errors import DataError
from tasks.graph.data import load_citation
from tasks.graph.user.encoder import UserEncoder
from tasks.graph.user.graph import Graph
from tasks.graph.user.link_prediction import LinkSplit, common_neighbours, link_scores, split_links
from tasks.graph.user.noise import absent_pairs, planted_partition, random_flips
from tasks.graph.user.options import Options


def pairs_of(pairs: np.ndarray) -> set[tuple[int, int]]:
    return {*zip(*pairs.tolist(), strict=True)}


def components(edges: np.ndarray, n: int) -> int:
    return int(connected_components(sparse.coo_matrix((np.ones(edges.shape[1]), tuple(edges)), (n, n)), False)[0])


def random_graph(n: int, share: float, seed: int) -> np.ndarray:
    """Each pair of n nodes is joined with the chance `share`."""
    i, j = np.triu_indices(n, 1)
    joined = np.random.default_rng(seed).random(len(i)) < share
    return np.stack([i[joined], j[joined]])


def split_one_by_one(edges: np.ndarray, n: int, seed: int, test: float, val: float) -> tuple[np.ndarray, np.ndarray]:
    """Test and validation edges by the definition: take each away in turn, and put it back if a component parts."""
    E = edges.shape[1]
    left, out, before = np.ones(E, dtype=bool), [], components(edges, n)
    for edge in np.random.default_rng(seed).permutation(E):
        if len(out) == int(test * E) + int(val * E):
            break
        left[edge] = False
        if components(edges[:, left], n) > before:
            left[edge] = True
        else:
            out.append(edge)
    return edges[:, out[: int(test * E)]], edges[:, out[int(test * E) :]]


@pytest.mark.parametrize("seed", range(30))
def test_what_every_split_promises(seed: int) -> None:
    """No edge is lost or in two parts, no component is parted, absent pairs are absent, and counts are as asked."""
    n = 8 + seed
    edges = random_graph(n, (0.15, 0.3, 0.6)[seed % 3], seed)
    E = edges.shape[1]
    try:
        split = split_links(edges, n, seed, test=0.2, val=0.1)
    except DataError as error:
        assert int(0.2 * E) + int(0.1 * E) > E - (n - components(edges, n)) or "at least one edge" in str(error)
        return
    parts = [pairs_of(part) for part in (split.train, split.val, split.test)]
    assert set.union(*parts) == pairs_of(edges) and sum(map(len, parts)) == E
    assert (split.test.shape[1], split.val.shape[1]) == (int(0.2 * E), int(0.1 * E))
    assert components(split.train, n) == components(edges, n)
    absent = [pairs_of(split.val_absent), pairs_of(split.test_absent)]
    assert [len(part) for part in absent] == [split.val.shape[1], split.test.shape[1]]
    assert not absent[0] & absent[1] and not (absent[0] | absent[1]) & pairs_of(edges)
    assert all((pairs[0] < pairs[1]).all() for pairs in vars(split).values())


@pytest.mark.parametrize("seed", range(5))
def test_the_forest_holds_out_what_asking_edge_by_edge_does(seed: int) -> None:
    """On graphs of several components, most of whose edges are bridges at the end."""
    edges = np.concatenate([random_graph(25, 0.14, seed), random_graph(20, 0.2, seed + 100) + 25], axis=1)
    split = split_links(edges, 45, seed, 0.2, 0.1)
    test, val = split_one_by_one(edges, 45, seed, 0.2, 0.1)
    assert pairs_of(split.test) == pairs_of(test) and pairs_of(split.val) == pairs_of(val)


def test_a_split_is_its_seeds() -> None:
    edges = random_graph(40, 0.3, 0)
    first, again, other = (split_links(edges, 40, seed) for seed in (0, 0, 1))
    assert all((a == b).all() for a, b in zip(vars(first).values(), vars(again).values(), strict=True))
    assert pairs_of(first.test) != pairs_of(other.test) and pairs_of(first.test_absent) != pairs_of(other.test_absent)


@pytest.mark.parametrize("rate", [0.0, 0.5, 3.0])
def test_noise_falls_on_the_training_graph_alone(rate: float) -> None:
    """As many flips as asked, at rate 3 half of all pairs, and not one of a held-out pair, edge or none."""
    edges = random_graph(40, 0.2, 3)
    split = split_links(edges, 40, 0)
    noisy, train = pairs_of(split.noisy(40, rate, 5)), pairs_of(split.train)
    assert len(noisy ^ train) == int(rate * len(train))
    assert not (noisy ^ train) & pairs_of(split.held_out) and not noisy & pairs_of(split.test)
    assert noisy == pairs_of(split.noisy(40, rate, 5))
    assert rate == 0 or noisy != pairs_of(split.noisy(40, rate, 6))


def test_spared_pairs_leave_the_others_alike() -> None:
    """2,000 draws of 3 of the 8 pairs not spared: each pair's share is 3/8, with deviation .011; six are allowed."""
    spared = np.array([[0, 3], [1, 4]])
    edges, counts = np.array([[0, 0, 0], [1, 2, 3]]), np.zeros((5, 5))
    for seed in range(2000):
        i, j = random_flips(edges, 5, 1, seed, spared)
        counts[i, j] += 1
    shares = counts / 2000
    assert shares[0, 1] == 1 and shares[3, 4] == 0
    others = [shares[i, j] for i, j in zip(*np.triu_indices(5, 1), strict=True) if (i, j) not in {(0, 1), (3, 4)}]
    flipped = np.array([1 - others[0], 1 - others[1], *others[2:]])  # (0, 2) and (0, 3) were there
    assert len(flipped) == 8 and np.abs(flipped - 3 / 8).max() < 0.066
    with pytest.raises(DataError, match="rate 3 asks for 9 flips among 8 pairs"):
        random_flips(edges, 5, 3, 0, spared)


def test_absent_pairs_are_all_there_are_if_all_are_asked_for() -> None:
    edges = np.array([[0, 1], [1, 2]])
    assert pairs_of(absent_pairs(edges, 4, 4, np.random.default_rng(0))) == {(0, 2), (0, 3), (1, 3), (2, 3)}
    with pytest.raises(DataError, match="5 pairs without an edge are asked for, but 4 nodes have 4"):
        absent_pairs(edges, 4, 5, np.random.default_rng(0))


@pytest.mark.parametrize(
    ("edges", "shares", "told"),
    [
        (np.array([[0, 1, 2], [1, 2, 3]]), (0.4, 0.0), "1 edges are to be held out, but only 0 can go without parting"),
        (random_graph(10, 0.9, 0), (0.9, 0.0), "can go without parting a component; lower test=0.9 or val=0"),
        (np.array([[0, 1, 2], [1, 2, 3]]), (0.1, 0.05), "test=0.1 and val=0.05 of 3 edges; hold out at least one"),
        (random_graph(10, 0.5, 0), (0.2, -0.1), "test=0.2 and val=-0.1 of"),
        (random_graph(10, 1.0, 0), (0.2, 0.0), "9 pairs without an edge are asked for, but 10 nodes have 0"),
    ],
)
def test_splits_that_cannot_be_are_refused(edges: np.ndarray, shares: tuple[float, float], told: str) -> None:
    with pytest.raises(DataError, match=re.escape(told)):
        split_links(edges, 10, 0, *shares)


# ---------------------------------------------------------------- scores


def test_link_scores_by_hand() -> None:
    """Present .9 .7 .2, absent .8 .1 .1: 7 of 9 pairs are in order; precision 1, 2/3, 3/4 at the edges' ranks."""
    found = link_scores(np.array([0.9, 0.7, 0.2]), np.array([0.8, 0.1, 0.1]))
    assert found == pytest.approx({"auc": 7 / 9, "ap": (1 + 2 / 3 + 3 / 4) / 3})
    assert link_scores(np.ones(4), np.ones(4)) == {"auc": 0.5, "ap": 0.5}  # ties tell nothing
    with pytest.raises(DataError, match="0 edges and 2 pairs without one"):
        link_scores(np.zeros(0), np.ones(2))
    with pytest.raises(DataError, match="score 2 is not finite"):
        link_scores(np.ones(2), np.array([np.nan]))


def test_common_neighbours_by_hand() -> None:
    """A square 0-1-2-3 with the diagonal 0-2: opposite corners 1, 3 share two, and 0, 2 share two; 0, 1 share one."""
    square = np.array([[0, 1, 2, 0, 0], [1, 2, 3, 3, 2]])
    assert common_neighbours(square, 5, np.array([[1, 0, 0, 0], [3, 2, 1, 4]])).tolist() == [2, 2, 1, 0]


def test_user_tells_links_of_planted_blocks() -> None:
    """At least half-way from chance, .5, to what the blocks themselves tell: an area of .775 and a precision of .71.

    80 % of edges and 25 % of absent pairs lie within a block. Ties count half in the area, .8 x .75 + (.8 x .25 +
    .2 x .75) / 2; the precision is .8 / 1.05 up to a recall of .8, then .5.
    """
    edges, X, _ = planted_partition(240, 4, 0.12, 0.01, 0, features=32, signal=0.35)
    split = split_links(edges, 240, 0)
    graph = Graph.of(split.noisy(240, 0.2, 0), X, isolated="keep")
    encoder = UserEncoder(4, Options(hidden=64, learning_rate=0.003, epochs=150), 0).fit(graph)
    found = asked(encoder, split)
    assert found["auc"] > (0.5 + 0.775) / 2 and found["ap"] > (0.5 + 0.71) / 2


def asked(encoder: UserEncoder, split: LinkSplit) -> dict[str, float]:
    return link_scores(*(encoder.link_probability(pairs.T.tolist()) for pairs in (split.test, split.test_absent)))


def test_citeseer_can_be_split(data_dir: Path) -> None:
    """All 3,327 nodes, 438 components: 1,663 of 4,552 edges can go, 455 and 227 do."""
    held = load_citation("citeseer", folder=data_dir / "graph")
    n = len(held.y)
    split = split_links(held.edges, n, 0)
    assert (split.test.shape[1], split.val.shape[1], split.train.shape[1]) == (455, 227, 3870)
    assert components(split.train, n) == components(held.edges, n) == 438
    with pytest.raises(DataError, match="1820 edges are to be held out, but only 1663 can go"):
        split_links(held.edges, n, 0, test=0.4, val=0)
