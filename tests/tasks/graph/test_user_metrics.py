"""Clusters against classes."""

from __future__ import annotations

import math

import numpy as np
import pytest

from launch.errors import DataError
from tasks.graph.user.metrics import aligned, clustering_scores


def test_renamed_clusters_are_perfect() -> None:
    true = np.array([0, 0, 1, 1, 2, 2])
    assert clustering_scores(np.array([2, 2, 0, 0, 1, 1]), true) == {"accuracy": 1.0, "nmi": 1.0, "f1": 1.0}


def test_scores_by_hand() -> None:
    """Clusters {0,0,0,1}, {1,1} of classes 0, 1: accuracy 5/6; F1 6/7 and 4/5; I = ln 2 - (4/6) H(1/4)."""
    true, found = np.array([0, 0, 0, 1, 1, 1]), np.array([1, 1, 1, 1, 0, 0])
    scores = clustering_scores(found, true)
    assert scores["accuracy"] == pytest.approx(5 / 6)
    assert scores["f1"] == pytest.approx((6 / 7 + 4 / 5) / 2)
    within = -4 / 6 * (0.25 * math.log(0.25) + 0.75 * math.log(0.75))
    clusters = -(4 / 6 * math.log(4 / 6) + 2 / 6 * math.log(2 / 6))
    assert scores["nmi"] == pytest.approx((math.log(2) - within) / ((math.log(2) + clusters) / 2))


def test_more_clusters_than_classes_and_the_other_way_round() -> None:
    """The confusion matrix is square: a cluster too many gets a name that no class has, a class too many no cluster."""
    many = aligned(np.array([0, 0, 1, 2]), np.array([0, 0, 1, 1]))
    assert many[:2].tolist() == [0, 0] and sorted(many[2:].tolist()) == [1, 2]
    few = clustering_scores(np.array([0, 0, 0, 0]), np.array([0, 0, 1, 2]))
    assert few["accuracy"] == 0.5 and few["f1"] == pytest.approx(2 / 3 / 3) and few["nmi"] == pytest.approx(0)


@pytest.mark.parametrize(("found", "true"), [([0, 1], [0]), ([], []), ([[0]], [[0]])])
def test_what_cannot_be_compared_is_told(found: list, true: list) -> None:
    with pytest.raises(DataError, match="give one of each a node"):
        clustering_scores(np.array(found, dtype=int), np.array(true, dtype=int))


@pytest.mark.parametrize(
    ("labels", "told"),
    [
        ([0, 0, 1, -1], "have -1 for node 3; number them from 0"),
        ([0.0, 0.5, 1.0, 1.0], "are of type float64; give every node a whole number from 0"),
        (["a", "a", "b", "b"], "are of type <U1; give every node a whole number from 0"),
    ],
)
def test_labels_that_are_no_numbers_from_0_are_told(labels: list, told: str) -> None:
    for pair in ((labels, [0, 0, 1, 1]), ([0, 0, 1, 1], labels)):
        with pytest.raises(DataError, match=told):
            clustering_scores(*map(np.array, pair))
