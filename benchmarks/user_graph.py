"""USER on real graphs whose edges are partly wrong, beside k-means, spectral clustering and a graph autoencoder.

    OMP_NUM_THREADS=1 python -m benchmarks.user_graph

Cora and Citeseer (largest components) and Wiki: clean, with random flips (a noisy graph a seed), and the first two
after Metattack. Clusters are scored on all nodes with the classes' true number known, as the paper does. A cell that
docs/results/user_graph.json or runs/user_graph/cells.jsonl holds is not made again: to run everything anew, move both
away. At the end docs/results/user_graph.* are written, with what `benchmarks.user_learned`, `benchmarks.user_links` and
`benchmarks.user_scaling` have found.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from functools import lru_cache

import numpy as np
from scipy import sparse

from benchmarks.measure import machine
from benchmarks.user_cells import OUT, RUNS, Cell, published, run_cells, study_rows
from benchmarks.user_page import write_page
from launch.runfolder import write_json
from tasks.graph.data import RATES, CitationGraph, load_citation, load_meta_attack
from tasks.graph.user.encoder import UserEncoder
from tasks.graph.user.graph import Graph, min_max_l2
from tasks.graph.user.metrics import clustering_scores
from tasks.graph.user.noise import random_flips
from tasks.graph.user.options import Options
from tasks.graph.user.sparse import SparseMatrix, constant

SEEDS = 5
NOISE = {"cora": (0.1, 0.2, 0.3, 0.4, 0.5), "citeseer": (0.1, 0.2, 0.3, 0.4, 0.5), "wiki": (0.2, 0.5)}
"""Random flips an edge."""
AUTHORS = {  # the authors' values for each data set
    "cora": Options(alpha=0.5, beta=0.005, hidden=256, learning_rate=0.1),
    "citeseer": Options(alpha=0.22, beta=0.19, hidden=512, learning_rate=0.003),
    "wiki": Options(alpha=0.05, beta=4.2, hidden=256, learning_rate=0.001),
}


def main() -> None:
    done = {(row["data"], row["graph"], row["method"]) for row in published("earlier")}
    run_cells("cells", (cell for cell in cells() if cell[:3] not in done), cluster)
    write_results()


def cluster(name: str, graph: str, method: str, seed: int) -> dict[str, float]:
    return METHODS[method](name, graph, seed)


def write_results() -> None:
    """The JSON and the page, from what there is."""
    scaling = RUNS / "scaling.json"
    results = {
        "machine": machine(),
        "cells": study_rows("cells"),
        "earlier": published("earlier"),  # means of cells that were run before rows of single seeds were kept
        "learned": study_rows("learned"),
        "begun": published("begun"),  # the first epochs of two fits with the learned graph, not run again
        "links": study_rows("links"),
        "scaling": json.loads(scaling.read_text(encoding="utf-8")) if scaling.exists() else published("scaling"),
    }
    write_json(OUT, results)
    write_page(results, OUT.with_suffix(".md"))


def cells() -> Iterator[Cell]:
    """What is run, in an order that leaves whole seeds behind when it is cut short."""
    for seed in range(SEEDS):
        for name, rates in NOISE.items():
            attacks = [] if name == "wiki" else [f"attack {rate:g}" for rate in RATES]
            yield name, "clean", "k-means", seed
            for graph in ["clean", *attacks, *(f"random {rate:g}" for rate in rates)]:
                yield name, graph, "spectral", seed
                yield name, graph, "gae", seed
                yield name, graph, "user", seed
                if graph != "clean":
                    yield name, graph, "cosine", seed


# ---------------------------------------------------------------- graphs


@lru_cache
def clean(name: str, variant: str = "lcc") -> CitationGraph:
    """Without noise; of Wiki, which has no variant but "planetoid", the features scaled as the authors do."""
    if name == "wiki":
        held = load_citation(name)
        return held._replace(X=min_max_l2(held.X))
    return load_citation(name, variant)


def edges_of(name: str, graph: str, seed: int) -> np.ndarray:
    """[2, E] of "clean", "attack RATE" or "random RATE"; the last depends on the seed."""
    kind, _, rate = graph.partition(" ")
    if kind == "attack":
        return load_meta_attack(name, float(rate))
    held = clean(name)
    return random_flips(held.edges, len(held.y), float(rate), seed) if kind == "random" else held.edges


def found_out(name: str, edges: np.ndarray, confidence: np.ndarray) -> dict[str, float]:
    """How well low confidence tells edges that were added: area under the ROC curve, .5 by chance."""
    from sklearn.metrics import roc_auc_score

    n = len(clean(name).y)
    held = clean(name).edges.astype(np.int64)
    added = ~np.isin(edges[0].astype(np.int64) * n + edges[1], held[0] * n + held[1])
    return {"edge_auc": float(roc_auc_score(added, -confidence))} if added.any() else {}


# ---------------------------------------------------------------- methods


def user(name: str, graph: str, seed: int) -> dict[str, float]:
    """USER on the given graph alone, with the authors' values."""
    held = clean(name)
    edges = edges_of(name, graph, seed)
    encoder = UserEncoder(int(held.y.max()) + 1, AUTHORS[name], seed)
    encoder.fit(Graph.of(edges, held.X, isolated="keep"))
    told = found_out(name, edges, encoder.edge_confidence(edges.T.tolist()))
    return {**clustering_scores(encoder.labels, held.y), **told, "epochs": len(encoder.history)}


def k_means(name: str, graph: str, seed: int, vectors: np.ndarray | None = None) -> dict[str, float]:
    """k-means, ten starts, on `vectors` or on the features, which know no edges."""
    from sklearn.cluster import KMeans

    held = clean(name)
    means = KMeans(int(held.y.max()) + 1, n_init=10, random_state=seed)
    return clustering_scores(means.fit_predict(held.X if vectors is None else vectors), held.y)


def spectral(name: str, graph: str, seed: int) -> dict[str, float]:
    """Spectral clustering of the adjacency matrix, which knows no features."""
    import warnings

    from sklearn.cluster import SpectralClustering

    held = clean(name)
    A = Graph.of(edges_of(name, graph, seed), held.X, isolated="keep").adjacency()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Graph is not fully connected")
        method = SpectralClustering(int(held.y.max()) + 1, affinity="precomputed", random_state=seed)
        return clustering_scores(method.fit_predict(A), held.y)


def gae(name: str, graph: str, seed: int) -> dict[str, float]:
    """k-means on the vectors of a graph autoencoder."""
    return k_means(name, graph, seed, autoencoded(clean(name).X, edges_of(name, graph, seed), seed))


def autoencoded(features: sparse.csr_matrix, edges: np.ndarray, seed: int) -> np.ndarray:
    """[n, 16] of PyTorch Geometric's graph autoencoder over a GCN (32 and 16 wide, Adam .01, 200 epochs)."""
    import torch
    from torch_geometric.nn import GAE, GCNConv, Sequential

    given = torch.from_numpy(edges.astype(np.int64))
    both = torch.cat([given, given.flip(0)], dim=1)
    held = constant(features)
    X = held.csr if isinstance(held, SparseMatrix) else held
    torch.manual_seed(seed)
    layers = [(GCNConv(X.shape[1], 32), "x, e -> x"), torch.nn.ReLU(inplace=True), (GCNConv(32, 16), "x, e -> x")]
    model = GAE(Sequential("x, e", layers))
    adam = torch.optim.Adam(model.parameters(), lr=0.01)
    for _ in range(200):
        adam.zero_grad()
        loss = model.recon_loss(model.encode(X, both), both)
        loss.backward()
        adam.step()
    model.eval()
    with torch.no_grad():
        return model.encode(X, both).numpy()


def cosine(name: str, graph: str, seed: int) -> dict[str, float]:
    """Do features alone tell the edges that were added? The cosine of both ends' words."""
    edges = edges_of(name, graph, seed)
    return found_out(name, edges, alike(clean(name).X, edges))


def alike(features: sparse.csr_matrix, pairs: np.ndarray) -> np.ndarray:
    """Cosines of the features of both ends, [P] for pairs [2, P]."""
    from sklearn.preprocessing import normalize

    X = normalize(features)
    return np.asarray(X[pairs[0]].multiply(X[pairs[1]]).sum(1)).ravel()


METHODS: dict[str, Callable[[str, str, int], dict[str, float]]] = {
    "k-means": k_means,
    "spectral": spectral,
    "gae": gae,
    "user": user,
    "cosine": cosine,
}


if __name__ == "__main__":
    main()
