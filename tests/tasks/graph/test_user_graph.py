"""What USER's input refuses in one line, and the matrices that it makes of the rest."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
import torch
from scipy import sparse

from launch.errors import DataError
from tasks.graph.user.graph import Graph
from tasks.graph.user.network import LearnedGraph, gram, normalised, normalised_given, off_diagonal, propagation
from tasks.graph.user.noise import planted_partition, random_flips
from tasks.graph.user.objective import retention
from tasks.graph.user.sparse import SparseMatrix, constant

LINE = np.array([[0, 1], [1, 2]])
X3 = np.eye(3, dtype=np.float32)
NAN = np.array([[1.0, 0.0], [0.0, np.nan], [0.0, 1.0]])
INF = sparse.csr_matrix(np.array([[1.0, 0.0], [0.0, 1.0], [0.0, np.inf]]))


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda: Graph.of(np.zeros((2, 0), int), X3), "the graph has no edge"),
        (lambda: Graph.of(LINE[:1], X3), "edges have shape (1, 2); [2, E] is needed"),
        (lambda: Graph.of(LINE.astype(float), X3), "edges are of type float64; give whole numbers"),
        (lambda: Graph.of(LINE, np.zeros((0, 2))), "features have shape (0, 2); give at least one node"),
        (lambda: Graph.of(LINE, X3[:2]), "edge 1 names node 2, but there are features for nodes 0 to 1; list the ids"),
        (lambda: Graph.of(LINE - 1, X3), "edge 0 names node -1, but there are features for nodes 0 to 2"),
        (lambda: Graph.from_pairs([(0, 1), (1, 7)], X3),
         "edge 1 names node 7, but there are features for nodes 0 to 2"),
        (
            lambda: Graph.from_pairs([(3, 9), (9, 5)], X3, [3, 9, 40]),
            "edge 1 names node 5, which is not among the 3 nodes, such as 3; add it to nodes, or take the edge out",
        ),
        (lambda: Graph.from_pairs([("a", "b", "c")], X3, ["a", "b", "c"]),
         "edge 0 is ['a', 'b', 'c']; an edge has two"),
        (lambda: Graph.from_pairs([], X3), "the graph has no edge"),
        (lambda: Graph.of(LINE, X3, ["a", "b"]), "2 nodes and 3 rows of features; give one row a node"),
        (lambda: Graph.of(LINE, X3, ["a", "b", "a"]), "node 'a' is there twice"),
        (lambda: Graph.of(LINE, NAN), "node 1, feature 1 is nan; replace it by a number"),
        (lambda: Graph.of(LINE, INF, ["a", "b", "c"]), "node 'c', feature 1 is inf; replace it by a number"),
        (
            lambda: Graph.of(np.array([[0, 1, 2, 2], [1, 1, 2, 1]]), X3, ["a", "b", "c"]),
            "edge 1 joins node 'b' to itself (2 such in all); take it out, or pass loops='drop'",
        ),
        (lambda: Graph.of(np.array([[1], [1]]), X3, loops="drop"), "every edge joins a node to itself"),
        (
            lambda: Graph.of(np.array([[0], [2]]), np.eye(5), list("abcde")),
            "node 'b' has no edge (3 such in all); take it out, or pass isolated='keep'",
        ),
        # what nothing but the edges bounds would be allocated: 72.8 TiB here
        (lambda: Graph.of(np.array([[0], [10**13]])), "edge 0 names node 10000000000000, but 1 edges number"),
        (lambda: Graph.of(np.array([[0, 0], [1, 1041]])), "node 1041, but 2 edges number nodes up to 1040"),
        (lambda: Graph.of(np.array([[-7], [-5]])), "edge 0 names node -7; number nodes from 0"),
        (lambda: Graph.of(np.array([[0], [2**64 - 1]], dtype=np.uint64), X3), "edge 0 names node 18446744073709551615"),
        (lambda: Graph.of([[0, 1], [2]], X3), "edges are no matrix: row 1 has 1 numbers and row 0 has 2"),
        (lambda: Graph.of(LINE, [["a", "b"]] * 3), "node 0, feature 0 is 'a'; give numbers"),
        (lambda: Graph.of(LINE, [[1.0, 2.0], [3.0, "x"], [0.0, 0.0]]), "node 1, feature 1 is 'x'; give numbers"),
        (lambda: Graph.of(LINE, [[1.0], [None], [2.0]]), "node 1, feature 0 is None; give numbers"),
        (lambda: Graph.of(LINE, [[1.0, 2.0], [3.0], [1.0, 2.0]]), "features are no matrix: row 1 has 1 numbers and"),
        (lambda: Graph.of(LINE, np.zeros((3, 2, 2))), "features have shape (3, 2, 2); [n, d] is needed"),
        (lambda: Graph.from_pairs([(0, 1)], [1.0, 2.0]), "features have shape (2,); [n, d] is needed"),
        (lambda: Graph.of(LINE, np.full((3, 1), 1e39)), "node 0, feature 0 is inf; replace it by a number that"),
        (lambda: Graph.from_pairs([1, 2, 3]), "edge 0 is 1; an edge has two ends"),
        (lambda: Graph.from_pairs([("a", "b"), "ab"]), "edge 1 is 'ab'; an edge has two ends"),
        (lambda: Graph.from_pairs(np.arange(200).reshape(2, 100)),
         "edge 0 is [0, 1, 2, ...]; an edge has two ends; transpose edges [2, E] to one pair a row"),
        # ids that JSON would not give back
        (lambda: Graph.of(LINE, X3, np.array([1.0, 2.0, 3.0])), "nodes has 1.0 at 0, which is neither a whole number"),
        (lambda: Graph.of(LINE, X3, [("a", 1), ("b", 2), ("c", 3)]), "nodes has ('a', 1) at 0, which is neither"),
        (lambda: Graph.of(LINE, X3, [0, 1, True]), "nodes has True at 2, which is neither a whole number nor a string"),
        (lambda: Graph.from_pairs([("a", "b"), ("a", ["b"])]), "edge 1 names node ['b'], which is neither"),
    ],
)  # fmt: skip
def test_bad_graphs_are_refused_in_one_line(make: Any, told: str) -> None:
    with pytest.raises(DataError, match=re.escape(told)) as caught:
        make()
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 200


def test_features_of_several_kinds_of_numbers_are_fine() -> None:
    """As a table with whole numbers, truth values and fractions gives them."""
    mixed = np.array([[True, 1.5], [2, False], [0, 1]], dtype=object)
    assert Graph.of([[0, 1], [1, 2]], mixed).features.toarray().tolist() == [[1, 1.5], [2, 0], [0, 1]]


def test_ids_with_holes_are_fine_once_their_rows_are_named() -> None:
    """Ids 3, 40, 7603 of three rows; directions and repetitions fall together, loops and lone nodes as asked."""
    graph = Graph.from_pairs(
        [(40, 3), (3, 40), (7603, 40), (40, 7603), (3, 3)], np.eye(4), [3, 40, 7603, 8], loops="drop", isolated="keep"
    )
    assert graph.edges.tolist() == [[0, 1], [1, 2]] and list(graph.nodes) == [3, 40, 7603, 8]
    assert graph.adjacency().toarray().tolist() == [[0, 1, 0, 0], [1, 0, 1, 0], [0, 1, 0, 0], [0, 0, 0, 0]]


def test_without_features_every_node_has_one_of_its_own() -> None:
    graph = Graph.from_pairs([("b", "a"), ("b", "c")])
    assert list(graph.nodes) == ["a", "b", "c"] and (graph.features.toarray() == np.eye(3)).all()


def test_ids_of_arrays_are_plain_python_and_exact() -> None:
    """2**60 to 2**60 + 2 are one float64; NumPy's own integers are floats after a way through our JSON."""
    large = [2**60 + k for k in range(3)]
    for ids in (np.array(large), list(np.array(large)), np.array(large, dtype=object), large):
        nodes = Graph.of(LINE, X3, ids).nodes
        assert nodes == large and {type(node) for node in nodes} == {int}
    named = Graph.from_pairs(np.array([["b", "a"], ["b", "c"]]))
    assert named.nodes == ["a", "b", "c"] and {type(node) for node in named.nodes} == {str}
    assert Graph.from_pairs(np.array([[7, 5], [5, 6]]), X3, np.array([5, 6, 7])).edges.tolist() == [[0, 0], [1, 2]]


def test_numbers_of_nodes_up_to_ten_an_end_and_1000_are_believed_and_said_ones_always() -> None:
    edges = np.array([[0, 0], [1, 1040]])
    assert len(Graph.of(edges, isolated="keep")) == 1041
    assert len(Graph.of(edges + 1000, nodes=range(5000), isolated="keep")) == 5000


# ---------------------------------------------------------------- matrices


def test_normalising_by_hand() -> None:
    """A path of three with loops has degrees 2, 3, 2."""
    expected = torch.tensor([[1 / 2, 6**-0.5, 0], [6**-0.5, 1 / 3, 6**-0.5], [0, 6**-0.5, 1 / 2]])
    graph = Graph.of(LINE, X3)
    torch.testing.assert_close(normalised(torch.from_numpy(graph.adjacency().toarray())), expected)
    torch.testing.assert_close(normalised_given(graph).csr.to_dense(), expected)


def test_normalising_leaves_its_input_alone_and_its_diagonal_out() -> None:
    M = torch.rand(6, 6, generator=torch.Generator().manual_seed(0))
    M = M + M.T
    before = M.clone()
    changed = M + 5 * torch.eye(6)
    torch.testing.assert_close(normalised(M), normalised(changed))
    assert torch.equal(M, before) and off_diagonal(M).diagonal().eq(0).all() and torch.equal(M, before)


def test_user_acceptance_4_propagation_is_symmetric_with_spectral_radius_at_most_1() -> None:
    """For A' without negative entries; and negative ones, which LeakyReLU leaks, give numbers all the same."""
    for seed in range(10):
        edges, _, _ = planted_partition(30, 3, 0.3, 0.1, seed)
        given = normalised(torch.from_numpy(Graph.of(edges, np.eye(30), isolated="keep").adjacency().toarray()))
        R = torch.randn(30, 30, generator=torch.Generator().manual_seed(seed))
        A = propagation(given, gram(R.relu()))
        torch.testing.assert_close(A, A.T)
        assert torch.linalg.eigvalsh(A).abs().max() <= 1 + 1e-5
        assert propagation(given, -3 * gram(R)).isfinite().all()


def test_user_acceptance_4_retention_is_0_exactly_where_every_given_edge_is_1() -> None:
    """A' is free elsewhere, its diagonal too; off by 0.5 on one edge it is sqrt(2) x 0.5, both directions counted."""
    edges = torch.tensor([[0, 1], [1, 2]])
    learned = torch.tensor([[9.0, 1.0, 7.0], [1.0, -4.0, 1.0], [7.0, 1.0, 0.0]]).requires_grad_()
    value = retention(learned, edges)
    value.backward()
    assert value.item() == 0 and learned.grad is not None and learned.grad.isfinite().all()
    with torch.no_grad():
        learned[0, 1] = learned[1, 0] = 1.5
    assert retention(learned, edges).item() == pytest.approx(0.5 * 2**0.5)
    B = torch.tensor([[0.0, 1, 0], [1, 0, 1], [0, 1, 0]])
    assert retention(learned, edges).item() == pytest.approx(off_diagonal(learned * B - B).norm().item())


def test_the_gram_matrix_has_autograds_gradient() -> None:
    P = torch.randn(7, 5, generator=torch.Generator().manual_seed(1), dtype=torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(gram, (P,))
    weights = torch.randn(7, 7, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    (ours,) = torch.autograd.grad((weights * gram(P)).sum(), P)
    (theirs,) = torch.autograd.grad((weights * (P @ P.T)).sum(), P)
    torch.testing.assert_close(ours, theirs)


def test_a_learned_graph_is_symmetric_and_nearly_non_negative() -> None:
    torch.manual_seed(0)
    A = LearnedGraph(20)()
    torch.testing.assert_close(A, A.T)
    assert A.min() > -0.01 * A.max()


def test_sparse_products_are_those_of_the_dense_matrix() -> None:
    rng = np.random.default_rng(0)
    M = np.where(rng.random((9, 5)) < 0.3, rng.normal(size=(9, 5)), 0).astype(np.float32)
    held, full = SparseMatrix.of(sparse.csr_matrix(M)), torch.from_numpy(M)
    for left, right in ((held, full), (held.T, full.T)):
        H = torch.randn(left.shape[1], 4, generator=torch.Generator().manual_seed(0)).requires_grad_()
        W = torch.randn(left.shape[0], 4, generator=torch.Generator().manual_seed(1))
        torch.testing.assert_close(left @ H, right @ H)
        (ours,) = torch.autograd.grad((W * (left @ H)).sum(), H)
        torch.testing.assert_close(ours, right.T @ W)


def test_features_that_are_not_sparse_stay_dense_and_are_the_same_matrix() -> None:
    """From 10 entries in 100; the dense form is the twin of the sparse one tested above, gradients included."""
    for entries, kind in ((9, SparseMatrix), (10, torch.Tensor)):
        M = np.zeros((10, 10), dtype=np.float64)
        M.flat[: 7 * entries : 7] = np.arange(1, entries + 1)
        held, H = constant(sparse.csr_matrix(M)), torch.randn(10, 3, generator=torch.Generator().manual_seed(0))
        assert isinstance(held, kind)
        torch.testing.assert_close(held @ H, torch.from_numpy(M).float() @ H)


# ---------------------------------------------------------------- noise


def test_flips_are_as_many_as_asked_and_differ_by_seed() -> None:
    edges, _, _ = planted_partition(50, 2, 0.2, 0.05, seed=0)
    before = {*zip(*edges.tolist(), strict=True)}
    made = []
    for seed in (0, 0, 1):
        flipped = random_flips(edges, 50, 0.5, seed)
        after = {*zip(*flipped.tolist(), strict=True)}
        assert len(before ^ after) == int(0.5 * len(before)) and len(after) == flipped.shape[1]
        assert (flipped[0] < flipped[1]).all() and flipped.max() < 50
        made.append(after)
    assert made[0] == made[1] != made[2]
    assert random_flips(edges, 50, 0, 0).tolist() == edges.tolist()


def test_flipping_every_pair_gives_the_complement() -> None:
    """Four nodes have six pairs; one edge and rate 6 flip them all."""
    assert random_flips(np.array([[1], [2]]), 4, 6, 0).T.tolist() == [[0, 1], [0, 2], [0, 3], [1, 3], [2, 3]]
    with pytest.raises(DataError, match="rate 7 asks for 7 flips among 6 pairs"):
        random_flips(np.array([[1], [2]]), 4, 7, 0)


def test_flips_fall_on_every_pair_alike() -> None:
    """2,000 draws of 3 of 10 pairs: each pair's share is .3, with deviation .010; six of those are allowed."""
    counts = np.zeros((5, 5))
    for seed in range(2000):
        i, j = random_flips(np.array([[0, 0, 0], [1, 2, 3]]), 5, 1, seed)
        counts[i, j] += 1
    kept = counts[0, 1:4] / 2000
    came = counts[np.triu_indices(5, 1)][3:] / 2000
    assert np.abs(kept - 0.7).max() < 0.06 and np.abs(came - 0.3).max() < 0.06


def test_planted_blocks_have_their_densities() -> None:
    """4 x 50 nodes: 4,900 pairs within at .2, 15,000 across at .02; five deviations of a binomial are allowed."""
    edges, X, y = planted_partition(200, 4, 0.2, 0.02, seed=3, features=8, signal=1.0)
    inside = int((y[edges[0]] == y[edges[1]]).sum())
    assert abs(inside - 980) < 5 * 28 and abs(edges.shape[1] - inside - 300) < 5 * 17.2
    assert (edges[0] < edges[1]).all() and len(np.unique(edges, axis=1).T) == edges.shape[1]
    assert X.shape == (200, 8) and X.dtype == np.float32 and np.bincount(y).tolist() == [50] * 4
