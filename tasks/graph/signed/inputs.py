"""What a graph network reads of each node when nodes have no features of their own.

*Spectral*: eigenvectors of the symmetric sign matrix for its k eigenvalues of largest magnitude (a truncated SVD up to
signs of columns), by Lanczos iterations on the sparse matrix. *Random*: uniform in [0, 1), a name tag for each node.
The choice matters more than augmentation or curriculum do (docs/signed_graphs.md).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.sparse.linalg import eigsh

from launch.errors import DataError
from tasks.graph.signed.edges import SignedGraph
from tasks.graph.signed.triangles import Pairs


def random_inputs(graph: SignedGraph, width: int, seed: int) -> np.ndarray:
    """float32 [n, width], uniform in [0, 1)."""
    return np.random.default_rng(seed).random((graph.n, width), dtype=np.float32)


def spectral_inputs(graph: SignedGraph, width: int, seed: int = 0) -> np.ndarray:
    """float32 [n, width]: unit eigenvectors as columns, by falling magnitude of their eigenvalues, the largest entry of
    each positive; columns of zeros where n does not give `width` of them. Nodes without edges have rows of zeros. All
    zeros where the two directions of every pair disagree, so that the matrix is zero.

    Where its rank is below `width`, the last columns are any orthonormal ones that it turns to zero: they repeat with
    the seed, and tell nothing.
    """
    found = np.zeros((graph.n, width), dtype=np.float32)
    pairs = Pairs.of(graph)
    matrix = pairs.signed_matrix.sign()
    if not matrix.count_nonzero():  # ARPACK has nowhere to start from
        return found
    k = min(width, graph.n - 1)
    generator = np.random.default_rng(seed)
    start = generator.standard_normal(graph.n)
    # Lanczos iterations that end in an invariant subspace, as on any graph of low rank, go on from a drawn vector.
    values, vectors = eigsh(matrix, k=k, which="LM", v0=start, rng=generator)
    vectors = vectors[:, np.argsort(-np.abs(values), kind="stable")]
    vectors *= np.sign(vectors[np.abs(vectors).argmax(0), np.arange(k)])
    vectors[pairs.degree == 0] = 0
    found[:, :k] = vectors
    return found


def own_inputs(graph: SignedGraph, features: Any) -> np.ndarray:
    """Features that nodes do have: float32 [n, d], in the order of their ids.

    Raises:
        DataError: another number of rows, or a value that is not finite.
    """
    given = np.asarray(features, dtype=np.float32)
    if given.ndim != 2 or len(given) != graph.n:
        raise DataError(f"features have shape {given.shape}, the graph {graph.n} nodes; give one row a node, by id")
    bad = ~np.isfinite(given).all(1)
    if bad.any():
        raise DataError(f"node {graph.ids[bad.argmax()]} has a feature that is not finite; fill it in or leave it out")
    return given
