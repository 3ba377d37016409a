"""Loaders of the citation graphs: Cora, Citeseer, Polblogs, Wiki, and the first two under Metattack.

    graph = load_citation("cora", "lcc")
    attacked = load_meta_attack("cora", 0.05)

Plain numpy and scipy. Edges are undirected, each once as i < j, without self loops. "lcc" is the largest connected
component that the attacks are defined on; it is not the planetoid graph with some nodes left out: never mix labels.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import NamedTuple

import numpy as np
from scipy import sparse

from launch.errors import DataError
from tasks.graph.data_files import data_file, pick

RATES = (0.05, 0.1, 0.15, 0.2, 0.25)
"""Shares of the edges that Metattack changed."""
_SPLITS = {"idx_train": "train", "idx_val": "val", "idx_test": "test"}


class CitationGraph(NamedTuple):
    """An attributed graph with known classes."""

    edges: np.ndarray
    """int32 [2, E], i < j."""
    X: sparse.csr_matrix
    """float32 [n, d]; the identity where the graph has no features."""
    y: np.ndarray
    """int64 [n], classes from 0."""
    splits: dict[str, np.ndarray]
    """Node numbers by "train", "val", "test" (int64), as far as there are any; planetoid also has "labelled"."""


def load_citation(name: str, variant: str = "planetoid", folder: str | Path | None = None) -> CitationGraph:
    """A citation graph.

    Args:
        name: "cora", "citeseer"; "polblogs" (no features, "lcc" alone); "wiki" (no splits, "planetoid" alone).
        variant: "planetoid" is all nodes, "lcc" the component that `load_meta_attack` shares its node order with.
        folder: instead of ``graph/`` of the data folder.

    Raises:
        DataError: an unknown name or variant, or a file that is missing or changed.
    """
    pick(name, ("cora", "citeseer", "polblogs", "wiki"), "citation graph")
    variants = {"polblogs": ("lcc",), "wiki": ("planetoid",)}.get(name, ("planetoid", "lcc"))
    pick(variant, variants, f"variant of {name}")
    if name == "wiki":
        return _wiki(data_file("wiki/wiki.mat", folder))
    with np.load(data_file(f"derived/{name}_{variant}.npz", folder), allow_pickle=False) as held:
        stored = {key: held[key] for key in held.files}
    y = stored["labels"]
    X = sparse.identity(len(y), dtype=np.float32, format="csr")
    if "feat_data" in stored:
        parts = (stored["feat_data"], stored["feat_indices"], stored["feat_indptr"])
        X = sparse.csr_matrix(parts, shape=tuple(stored["feat_shape"]))
    if variant == "lcc":
        splits = _json_splits(data_file(f"meta_attack/{name}_prognn_splits.json", folder))
    else:
        splits = {ours: stored[theirs] for theirs, ours in _SPLITS.items()}
        splits["labelled"] = np.flatnonzero(stored["has_label"])
    return CitationGraph(stored["edges"], X, y, splits)


def load_meta_attack(name: str, rate: float, folder: str | Path | None = None) -> np.ndarray:
    """The edges of a "lcc" graph after Metattack changed floor(rate x E) of them.

    Args:
        name: "cora", "citeseer" or "polblogs".
        rate: one of `RATES`.
        folder: instead of ``graph/`` of the data folder.

    Returns:
        int32 [2, E], i < j, nodes numbered as in ``load_citation(name, "lcc")``.

    Raises:
        DataError: unknown name or rate, a file that is missing or changed, or a matrix that is no undirected graph.
    """
    pick(name, ("cora", "citeseer", "polblogs"), "attacked graph")
    pick(f"{rate:g}", tuple(f"{known:g}" for known in RATES), "attack rate")
    source = data_file(f"meta_attack/{name}_meta_adj_{rate:g}.npz", folder)
    with np.load(source, allow_pickle=False) as held:
        A = sparse.csr_matrix((held["data"], held["indices"], held["indptr"]), shape=tuple(held["shape"]))
    A.eliminate_zeros()
    if (A != A.T).nnz or A.diagonal().any() or not np.all(A.data == 1):
        raise DataError(f"{source}: not a symmetric 0/1 matrix without diagonal; copy the file again from its source")
    return upper_edges(A)


def upper_edges(A: sparse.spmatrix) -> np.ndarray:
    """The edges i < j of a symmetric sparse matrix, int32 [2, E], in the order of rows."""
    upper = sparse.triu(A, k=1).tocsr()
    upper.sort_indices()
    return np.stack(upper.nonzero()).astype(np.int32)


def homophily(edges: np.ndarray, y: np.ndarray) -> float:
    """The share of `edges` [2, E] whose ends have the same class."""
    return float((y[edges[0]] == y[edges[1]]).mean())


def _wiki(source: Path) -> CitationGraph:
    """W is weighted and has a diagonal, labels start at 1."""
    from scipy.io import loadmat

    stored = loadmat(str(source))
    W = sparse.csr_matrix(stored["W"])
    both = sparse.csr_matrix(((W + W.T) != 0).astype(np.float32))
    y = stored["gnd"].ravel().astype(np.int64) - 1
    return CitationGraph(upper_edges(both), sparse.csr_matrix(stored["fea"]).astype(np.float32), y, {})


def _json_splits(source: Path) -> dict[str, np.ndarray]:
    held = json.loads(source.read_text(encoding="utf-8"))
    return {ours: np.array(held[theirs], dtype=np.int64) for theirs, ours in _SPLITS.items()}
