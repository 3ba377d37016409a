"""NPSI and the Davies-Bouldin index against their definitions. Acceptance items are those of USER's specification."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import sparse

from tasks.graph.user.davies_bouldin import centroids, davies_bouldin, scatter
from tasks.graph.user.entropy import npsi, npsi_by_counting
from tasks.graph.user.features import Features
from tasks.graph.user.noise import random_flips
from tasks.graph.user.sparse import SparseMatrix


def dense(edges: np.ndarray, n: int) -> torch.Tensor:
    A = torch.zeros(n, n, dtype=torch.float64)
    A[edges[0], edges[1]] = A[edges[1], edges[0]] = 1
    return A


def one_hot(labels: np.ndarray, r: int) -> torch.Tensor:
    return torch.eye(r, dtype=torch.float64)[torch.from_numpy(labels)]


def test_npsi_of_two_triangles_joined_by_an_edge() -> None:
    """By hand: |E| = 7; each triangle has volume 7 and one crossing edge: 2 x 6/14 x log2(7/14) = -6/7."""
    edges = np.array([[0, 0, 1, 3, 3, 4, 2], [1, 2, 2, 4, 5, 5, 3]])
    labels = np.array([0, 0, 0, 1, 1, 1])
    assert npsi_by_counting(edges, labels) == pytest.approx(-6 / 7)
    assert npsi(dense(edges, 6), one_hot(labels, 2)).item() == pytest.approx(-6 / 7)
    assert npsi(dense(edges, 6), one_hot(0 * labels, 2)).item() == pytest.approx(0, abs=1e-12)


def test_user_acceptance_1_matrix_form_equals_counting() -> None:
    """50 random graphs and hard partitions, some with empty parts: equal, at most 0, and free of A's scale."""
    rng = np.random.default_rng(0)
    for seed in range(50):
        n, r = int(rng.integers(5, 40)), int(rng.integers(2, 7))
        edges = random_flips(np.array([[0], [1]]), n, min(3 * n, n * (n - 1) // 2), seed)
        labels = rng.integers(r, size=n)
        A, Y = dense(edges, n), one_hot(labels, r)
        value = npsi(A, Y).item()
        assert abs(value - npsi_by_counting(edges, labels)) < 1e-6
        assert value <= 1e-12
        assert npsi(73.0 * A, Y).item() == pytest.approx(value, abs=1e-12)


def test_npsi_of_a_sparse_matrix_is_that_of_the_dense_one_and_so_is_its_gradient() -> None:
    edges = random_flips(np.array([[0], [1]]), 60, 200, seed=1)
    A = dense(edges, 60).float()
    logits = torch.randn(60, 4, generator=torch.Generator().manual_seed(0))
    values = []
    for M in (A, SparseMatrix.of(sparse.csr_matrix(A.numpy()), symmetric=True)):
        given = logits.clone().requires_grad_()
        value = npsi(M, given.softmax(1))
        value.backward()
        values.append((value.detach(), given.grad))
    torch.testing.assert_close(values[0], values[1], rtol=1e-5, atol=1e-7)


def test_user_acceptance_2_minimising_npsi_over_the_graph_gives_rank_r() -> None:
    """Theorem 2: with 4 balanced blocks fixed, a free non-negative symmetric A tends to NPSI -log2 4 and rank >= 4."""
    Y = one_hot(np.repeat(np.arange(4), 10), 4).float()
    S = torch.randn(40, 40, generator=torch.Generator().manual_seed(0)).requires_grad_()
    adam = torch.optim.Adam([S], lr=0.05)
    off = 1 - torch.eye(40)

    def graph() -> torch.Tensor:
        return torch.nn.functional.softplus(S + S.T) * off

    for _ in range(3000):
        adam.zero_grad()
        npsi(graph(), Y).backward()
        adam.step()
    A = graph().detach()
    assert npsi(A, Y).item() == pytest.approx(-2.0, abs=0.01)
    assert ((A * (Y @ Y.T)).sum() / A.sum()).item() > 0.99
    assert torch.linalg.matrix_rank(A, rtol=1e-3) >= 4


# ---------------------------------------------------------------- Davies-Bouldin


def naive(X: np.ndarray, labels: np.ndarray, r: int) -> float:
    """Centres, root mean square distances to them, and the worst neighbour of each part, in loops."""
    parts = [X[labels == k] for k in range(r)]
    centres = [part.mean(0) for part in parts]
    spread = [math.sqrt(np.mean([np.sum((x - c) ** 2) for x in part])) for part, c in zip(parts, centres, strict=True)]
    worst = []
    for k in range(r):
        others = [j for j in range(r) if j != k]
        worst.append(max((spread[k] + spread[j]) / math.dist(centres[k], centres[j]) for j in others))
    return float(np.mean(worst))


def test_davies_bouldin_of_two_pairs_on_a_line() -> None:
    """By hand: parts {0, 2} and {10, 14}: centres 1 and 12, scatters 1 and 2; both ratios are 3 / 11."""
    X = torch.tensor([[0.0], [2.0], [10.0], [14.0]], dtype=torch.float64)
    value = davies_bouldin(Features(X), one_hot(np.array([0, 0, 1, 1]), 2))
    assert value.item() == pytest.approx(3 / 11)


def test_user_acceptance_3_hard_parts_give_the_usual_index() -> None:
    rng = np.random.default_rng(1)
    for _ in range(10):
        X, labels = rng.normal(size=(30, 5)), rng.permutation(np.arange(30) % 4)
        value = davies_bouldin(Features(torch.from_numpy(X)), one_hot(labels, 4)).item()
        assert value == pytest.approx(naive(X, labels, 4))


def test_user_acceptance_3_gradient_of_soft_parts_is_that_of_finite_differences() -> None:
    generator = torch.Generator().manual_seed(2)
    X = torch.randn(12, 4, generator=generator, dtype=torch.float64)
    Y = torch.randn(12, 3, generator=generator, dtype=torch.float64).softmax(1).requires_grad_()
    assert torch.autograd.gradcheck(lambda Y: davies_bouldin(Features(X), Y), (Y,))


def test_user_acceptance_3_scatter_is_never_negative() -> None:
    """What the root is taken of, Y^2 |x - c|^2 + (Y - Y^2) |c|^2 summed, equals the scatter and is at least 0."""
    generator = torch.Generator().manual_seed(3)
    for _ in range(20):
        X = 5 * torch.randn(15, 3, generator=generator, dtype=torch.float64)
        Y = (3 * torch.randn(15, 4, generator=generator, dtype=torch.float64)).softmax(1)
        C = Y.T @ X / Y.sum(0)[:, None]
        apart = ((X[:, None] - C) ** 2).sum(-1)  # [n, r]
        mean = (Y**2 * apart + (Y - Y**2) * (C**2).sum(-1)).sum(0) / Y.sum(0)
        centred = centroids(Features(X), Y)
        torch.testing.assert_close(centred + X.mean(0), C)
        S = scatter(Features(X), Y, centred)
        assert (S >= 0).all()
        torch.testing.assert_close(S**2, mean)


def test_an_empty_part_gives_numbers() -> None:
    """The authors' code divides by the empty part's weight and ends in NaN."""
    X = torch.randn(6, 3, generator=torch.Generator().manual_seed(4))
    Y = one_hot(np.array([0, 0, 0, 1, 1, 1]), 3).float().requires_grad_()
    value = davies_bouldin(Features(X), Y)
    value.backward()
    assert value.isfinite() and Y.grad is not None and Y.grad.isfinite().all()


def test_davies_bouldin_of_sparse_features_is_that_of_dense_ones_and_so_is_its_gradient() -> None:
    generator = torch.Generator().manual_seed(5)
    X = (torch.rand(40, 20, generator=generator) < 0.2).float()
    logits = torch.randn(40, 3, generator=generator)
    values = []
    for features in (X, SparseMatrix.of(sparse.csr_matrix(X.numpy()))):
        given = logits.clone().requires_grad_()
        value = davies_bouldin(Features(features), given.softmax(1))
        value.backward()
        values.append((value.detach(), given.grad))
    torch.testing.assert_close(values[0], values[1], rtol=1e-4, atol=1e-6)
