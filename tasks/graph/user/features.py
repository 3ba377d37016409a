"""Features of nodes less the means of their columns: what batch normalisation and distances are made of.

A longitude of -73.98 +- .05 has a square of 5,473 and a variance of .0025: in float32, E[x^2] - E[x]^2 is noise. So
means, variances and squares are summed in float64, once. Dense features are held centred; sparse ones stay as they
are, and the means are taken off their products.
"""

from __future__ import annotations

import numpy as np
import torch

from tasks.graph.user.sparse import SparseMatrix

_ROWS = 8192
"""Rows that are held in float64 at a time."""


class Features:
    """X [n, d], no parameter, of float32 or what it is given in; X0 below is X less `mean`."""

    mean: torch.Tensor
    """[d], of each column of X."""
    variance: torch.Tensor
    """float64 [d], of each column: the mean of squares of X0."""
    squares: torch.Tensor
    """|x_i - mean|^2, [n]."""

    def __init__(self, X: torch.Tensor | SparseMatrix) -> None:
        self.shape = X.shape
        if isinstance(X, SparseMatrix):
            self._held: torch.Tensor | SparseMatrix = X
            mean, self.variance, squares = _sparse_moments(X.csr)
            dtype = X.csr.dtype
        else:
            self._held, mean, self.variance, squares = _centred(X)
            dtype = X.dtype
        self.mean, self.squares = mean.to(dtype), squares.to(dtype)

    @property
    def deviations_from_0(self) -> float:
        """How far the mean of the rows is from 0, in root mean square distances of rows to it."""
        spread = max(self.variance.sum().item(), torch.finfo(torch.float64).tiny)
        return (self.mean.double().square().sum().item() / spread) ** 0.5

    def product(self, W: torch.Tensor, bias: torch.Tensor | float = 0.0) -> torch.Tensor:
        """X0 W + bias, [n, h] of W [d, h] and bias [h]."""
        return self._held @ W + (bias - self.mean @ W if isinstance(self._held, SparseMatrix) else bias)

    def weighted_sums(self, Y: torch.Tensor) -> torch.Tensor:
        """X0^T Y, [d, r] of Y [n, r]."""
        sums = self._held.T @ Y
        return sums - self.mean[:, None] * Y.sum(0) if isinstance(self._held, SparseMatrix) else sums


def _centred(X: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """X0, and float64 mean [d], variance [d] and squares [n]."""
    n, d = X.shape
    mean, variance = torch.zeros(2, d, dtype=torch.float64)
    for part in X.split(_ROWS):
        mean += part.double().sum(0) / n
    X0, squares = torch.empty_like(X), []
    for rows, part in zip(X0.split(_ROWS), X.split(_ROWS), strict=True):
        apart = part.double() - mean
        rows.copy_(apart)
        variance += (apart**2).sum(0) / n
        squares.append((apart**2).sum(1))
    return X0, mean, variance, torch.cat(squares)


def _sparse_moments(csr: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The same of a CSR matrix, whose entries that are not stored are 0."""
    n, d = csr.shape
    values, columns = csr.values().double().numpy(), csr.col_indices().numpy()
    rows = np.repeat(np.arange(n), np.diff(csr.crow_indices().numpy()))
    mean = np.bincount(columns, values, d) / n
    apart, zeros = values - mean[columns], n - np.bincount(columns, minlength=d)
    variance = (np.bincount(columns, apart**2, d) + zeros * mean**2) / n
    squares = np.bincount(rows, apart**2 - mean[columns] ** 2, n) + (mean**2).sum()
    return torch.from_numpy(mean), torch.from_numpy(variance), torch.from_numpy(squares)
