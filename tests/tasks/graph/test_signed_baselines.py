"""Splits, what leaks through reverse edges, trivial baselines, metrics."""

from __future__ import annotations

import numpy as np
import pytest

from launch.errors import DataError
from tasks.graph.signed.baselines import always_positive, six_feature_scores, six_features
from tasks.graph.signed.data import load_signed
from tasks.graph.signed.edges import SignedGraph
from tasks.graph.signed.evaluate import measured
from tasks.graph.signed.metrics import sign_metrics
from tasks.graph.signed.planted import two_factions
from tasks.graph.signed.splits import leakage, reverse_signs, split_edges

AUC = {
    ("bitcoin-alpha", "sga1"): (0.930, 0.901),
    ("bitcoin-otc", "sga1"): (0.950, 0.927),
    ("bitcoin-alpha", "csg1"): (0.954, 0.915),
    ("bitcoin-otc", "csg1"): (0.958, 0.926),
    ("wiki-elec", "csg1"): (0.911, 0.911),
    ("wiki-RfA", "csg1"): (0.906, 0.906),
}
ALWAYS = {"bitcoin-alpha": 0.967, "bitcoin-otc": 0.947, "wiki-elec": 0.883, "wiki-RfA": 0.876}


@pytest.mark.data
@pytest.mark.parametrize(("name", "split"), AUC)
def test_signed_acceptance_6_trivial_baselines(name: str, split: str) -> None:
    """AUC of the six counts, with and without the reverse edge, and F1-binary of always positive, within .005."""
    parts = load_signed(name, split)  # type: ignore[call-overload]
    signs = parts["test"][:, 2]
    for without, expected in zip((False, True), AUC[name, split], strict=True):
        scores = six_feature_scores(parts["train"], parts["test"], without)
        assert sign_metrics(scores, signs)["auc"] == pytest.approx(expected, abs=0.005)
    everywhere = sign_metrics(always_positive(parts["test"]), signs)
    assert everywhere["f1_binary"] == pytest.approx(ALWAYS[name], abs=0.005)
    assert everywhere["auc"] == 0.5


@pytest.mark.data
@pytest.mark.parametrize(("name", "share"), [("bitcoin-alpha", 0.670), ("bitcoin-otc", 0.630)])
def test_signed_acceptance_7_leakage(name: str, share: float) -> None:
    parts = load_signed(name, "sga1")
    found = leakage(parts["train"], parts["test"])
    assert found.reverse_in_train == pytest.approx(share, abs=0.0005)
    assert found.same_sign == pytest.approx(0.974, abs=0.0005)


@pytest.mark.data
def test_a_split_by_pairs_leaks_nothing() -> None:
    edges = load_signed("bitcoin-alpha")
    train, test = split_edges(edges, 0, by_pair=True)
    assert leakage(train, test).reverse_in_train == 0
    assert len(test) / len(edges) == pytest.approx(0.2, abs=0.01)


def test_leakage_derived_by_hand() -> None:
    """Two of three test edges have their reverse in training, one with the same sign."""
    train = np.array([[1, 2, 1], [3, 4, -1], [5, 6, 1]])
    test = np.array([[2, 1, 1], [4, 3, 1], [5, 7, -1]])
    assert reverse_signs(train, test).tolist() == [1, -1, 0]
    found = leakage(train, test)
    assert (found.reverse_in_train, found.same_sign) == (2 / 3, 0.5)


@pytest.mark.parametrize("by_pair", [False, True])
def test_a_split_keeps_all_edges_and_the_share_of_each_sign(by_pair: bool) -> None:
    edges = two_factions(40, 900, seed=3, noise=0.2)
    train, test = split_edges(edges, 5, by_pair=by_pair)
    assert sorted(np.concatenate([train, test]).tolist()) == sorted(edges.tolist())
    assert (test[:, 2] > 0).mean() == pytest.approx((edges[:, 2] > 0).mean(), abs=0.03)
    assert not np.array_equal(test, split_edges(edges, 6, by_pair=by_pair)[1])
    if by_pair:
        assert (reverse_signs(train, test) == 0).all()


def test_a_split_that_would_leave_a_part_empty() -> None:
    with pytest.raises(DataError, match=r"a test share of 0\.2 of 1 negative edges leaves a part empty"):
        split_edges(np.array([[i, i + 1, 1] for i in range(20)] + [[30, 31, -1]]), 0)


def test_six_counts_derived_by_hand() -> None:
    """Training 0->1 +, 0->2 -, 1->2 +, 1->0 +. Of 0->1 itself: reverse +; 0 has one other edge out, negative: .8 / 2;
    nothing else comes into 1: .8 / 1; the path 0-2-1 has S = -1; out-degree 1 and in-degree 0 without the edge itself.
    """
    train = np.array([[0, 1, 1], [0, 2, -1], [1, 2, 1], [1, 0, 1]])
    (own, *_) = six_features(SignedGraph.of(train), train, own=True)
    np.testing.assert_allclose(own, [1, 0.4, 0.8, -np.log(2), np.log(2), 0])
    (asked,) = six_features(SignedGraph.of(train), np.array([[2, 9, 1]]), own=False)  # nobody knows 9
    np.testing.assert_allclose(asked, [0, 0.8, 0.8, 0, 0, 0])


def test_a_training_edge_does_not_tell_its_own_sign() -> None:
    edges = two_factions(20, 200, seed=1)
    turned = edges.copy()
    turned[7, 2] *= -1
    before, after = (six_features(SignedGraph.of(e), e, own=True)[7] for e in (edges, turned))
    np.testing.assert_array_equal(before, after)


def test_metrics_derived_by_hand() -> None:
    """Labels + + + -, scores 2 1 -1 1.5: predicted + + - +. Of three pairs (+, -) one is in order: AUC 1/3. One of two
    classes: recall 2/3 and 0: hard AUC 1/3. F1 of +: 4/6; of -: 0; accuracy 2/4.
    """
    found = sign_metrics(np.array([2.0, 1.0, -1.0, 1.5]), np.array([1, 1, 1, -1]))
    assert found == pytest.approx(
        {"auc": 1 / 3, "hard_auc": 1 / 3, "f1_binary": 2 / 3, "f1_micro": 0.5, "f1_macro": 1 / 3}
    )


def test_metrics_of_one_sign_or_of_nothing_finite() -> None:
    with pytest.raises(DataError, match="all 3 test edges have one sign; an AUC needs both"):
        sign_metrics(np.zeros(3), np.ones(3))
    with pytest.raises(DataError, match="score 1 is not finite"):
        sign_metrics(np.array([1.0, np.nan]), np.array([1, -1]))


def test_measured_with_and_without_reverse_edges() -> None:
    train = np.array([[1, 2, 1], [3, 4, -1]])
    test = np.array([[2, 1, 1], [4, 3, -1], [5, 6, 1], [6, 7, -1]])
    found = measured(np.array([1.0, -1.0, -2.0, 2.0]), train, test)
    assert (found["edges"], found["edges_no_reverse"]) == (4, 2)
    assert found["all"]["auc"] == 1 / 4 and found["no_reverse"]["auc"] == 0
