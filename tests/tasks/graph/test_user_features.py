"""Features far from 0: batch normalisation and the Davies-Bouldin index keep their digits, and what cannot is told."""

from __future__ import annotations

import logging
import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import sparse
from torch import nn

from launch.errors import ArbiterError
from tasks.graph.user.davies_bouldin import davies_bouldin
from tasks.graph.user.encoder import UserEncoder
from tasks.graph.user.features import Features
from tasks.graph.user.graph import Graph
from tasks.graph.user.network import Network
from tasks.graph.user.noise import planted_partition
from tasks.graph.user.options import Options
from tasks.graph.user.sparse import SparseMatrix, constant
from tests.tasks.graph.test_user_entropy import naive

QUICK = Options(hidden=16, learning_rate=0.05, epochs=12)


@pytest.mark.parametrize(("far", "spread"), [(0.0, 1.0), (-73.98, 0.05), (1e4, 1.0), (1e6, 10.0)])
def test_columns_far_from_0_are_normalised_as_by_torch_in_float64(far: float, spread: float) -> None:
    """Longitudes, years in days and the like: dense, and a full column in a sparse matrix of zeros and ones.

    X0 W + 0 of an identity W is X less its means; times the scale it is BN(X). Numbers near 1e6 are in float32 known to
    .03, here .003 deviations, so that a sparse product, which does not centre them first, is too.
    """
    generator = torch.Generator().manual_seed(0)
    dense = far + spread * torch.randn(300, 20, generator=generator)
    mixed = (torch.rand(300, 20, generator=generator) < 0.03).float()
    mixed[:, 3] = dense[:, 3]
    assert isinstance(constant(sparse.csr_matrix(mixed.numpy())), SparseMatrix)
    for X in (dense, mixed):
        features = Features(constant(sparse.csr_matrix(X.numpy())))
        got = features.product(torch.eye(20)) * Network(features, 8, 3).scale
        expected = nn.BatchNorm1d(20, affine=False).double()(X.double()).float()
        rounding = 0.0 if X is dense else 2 * torch.finfo(torch.float32).eps * abs(far) / spread
        torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5 + rounding)
        assert got.std(0, correction=0)[3].item() == pytest.approx(1, abs=0.01)


def test_a_shift_of_the_features_changes_no_label() -> None:
    """BN(X) does not know it; rounded first to what float32 holds near 1e4, both fits see the same differences.

    The Davies-Bouldin index is left out: of soft parts it is by definition no function of differences.
    """
    edges, X, _ = planted_partition(60, 3, 0.3, 0.02, seed=1)
    X = (X + np.float32(1e4)) - np.float32(1e4)
    options = replace(QUICK, beta=0.0, dropout=0.0)
    near, far = (
        UserEncoder(3, options).fit(Graph.of(edges, X + shift, isolated="keep")) for shift in np.float32([0, 1e4])
    )
    np.testing.assert_allclose(near.soft_assignment, far.soft_assignment, atol=1e-3)
    assert near.labels.tolist() == far.labels.tolist()


def test_features_far_from_0_are_told_where_the_index_takes_that_for_scatter(caplog: pytest.LogCaptureFixture) -> None:
    """Deviations by hand: rows 100 and 102 lie 1 from their mean 101."""
    assert Features(torch.tensor([[100.0], [102.0]])).deviations_from_0 == pytest.approx(101)
    edges, X, _ = planted_partition(60, 3, 0.3, 0.02, seed=1)
    with caplog.at_level(logging.WARNING):
        for shift, beta in ((0.0, 0.1), (100.0, 0.0)):
            graph = Graph.of(edges, X + np.float32(shift), isolated="keep")
            UserEncoder(3, replace(QUICK, beta=beta, epochs=1)).fit(graph)
        assert "deviations from 0" not in caplog.text
        UserEncoder(3, replace(QUICK, beta=0.1, epochs=1)).fit(graph)
    assert re.search(
        r"features lie \d+(\.\d+)? deviations from 0, .*; subtract the means of their columns", caplog.text
    )


@pytest.mark.parametrize("far", [-73.98, 1e4])
def test_davies_bouldin_of_columns_far_from_0_keeps_its_digits(far: float) -> None:
    """The definition in float64, on the same float32 numbers: dense, and one full column beside a sparse matrix.

    Hard parts, so that the index is the usual one, which no shift changes. Numbers near 1e4 are themselves known to
    5e-4 only.
    """
    generator = torch.Generator().manual_seed(6)
    spread = torch.randn(60, 20, generator=generator)
    mixed = torch.where(torch.rand(60, 20, generator=generator) < 0.05, spread, 0.0)
    mixed[:, 0] = far + spread[:, 0]
    labels = np.arange(60) % 3
    for X, held in ((far + spread,) * 2, (mixed, SparseMatrix.of(sparse.csr_matrix(mixed.numpy())))):
        value = davies_bouldin(Features(held), torch.eye(3)[torch.from_numpy(labels)])
        assert value.item() == pytest.approx(naive(X.double().numpy(), labels, 3), rel=2e-3)


def test_features_whose_squares_float32_cannot_hold_are_told_so() -> None:
    """Before any step no learning rate can be at fault."""
    edges, X, _ = planted_partition(60, 3, 0.3, 0.02, seed=1)
    large = Graph.of(edges, X * np.float32(1e20), isolated="keep")
    with pytest.raises(ArbiterError, match=r"the loss is not finite in epoch 0: .*; scale the features$"):
        UserEncoder(3, QUICK).fit(large)
