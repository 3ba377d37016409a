"""Constant sparse matrices in products that gradients flow through, at a cost linear in their entries both ways.

torch multiplies CSR matrices too, but turns them round anew in every backward pass, which costs a hundred times the
product itself on bags of words. Here the transpose is made once. Features that are not sparse stay dense: `constant`.
"""

from __future__ import annotations

import warnings
from typing import Any

import torch
from scipy import sparse

DENSE_FROM = 0.1
"""Share of entries from which matrices stay dense. At .13 (Wiki) an epoch took .5 CPU seconds against .6 to .9."""


class SparseMatrix:
    """A float32 matrix [n, m] that is no parameter. ``M @ H`` and ``M.T @ H`` take dense H."""

    def __init__(self, csr: torch.Tensor, transposed: torch.Tensor) -> None:
        self.csr, self.transposed = csr, transposed

    @classmethod
    def of(cls, matrix: sparse.spmatrix, symmetric: bool = False) -> SparseMatrix:
        """The same matrix; `symmetric` spares the memory of its transpose."""
        csr = _csr_tensor(matrix)
        return cls(csr, csr if symmetric else _csr_tensor(matrix.T))

    @property
    def shape(self) -> torch.Size:
        return self.csr.shape

    @property
    def T(self) -> SparseMatrix:  # noqa: N802
        return SparseMatrix(self.transposed, self.csr)

    def __matmul__(self, H: torch.Tensor) -> torch.Tensor:
        return _Product.apply(self.csr, self.transposed, H)


def constant(matrix: sparse.spmatrix) -> torch.Tensor | SparseMatrix:
    """A matrix that is no parameter, float32 [n, m], in the form whose products are the faster."""
    if matrix.nnz < DENSE_FROM * matrix.shape[0] * matrix.shape[1]:
        return SparseMatrix.of(matrix)
    return torch.from_numpy(matrix.toarray().astype("float32", copy=False))


class _Product(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, csr: torch.Tensor, transposed: torch.Tensor, H: torch.Tensor) -> torch.Tensor:
        ctx.transposed = transposed
        return csr @ H

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[None, None, torch.Tensor]:
        return None, None, ctx.transposed @ gradients[0].contiguous()


def _csr_tensor(matrix: sparse.spmatrix) -> torch.Tensor:
    csr = sparse.csr_matrix(matrix, dtype="float32")
    with warnings.catch_warnings():  # torch calls its CSR layout beta, once a process
        warnings.simplefilter("ignore", UserWarning)
        return torch.sparse_csr_tensor(
            torch.from_numpy(csr.indptr), torch.from_numpy(csr.indices), torch.from_numpy(csr.data), size=csr.shape
        )
