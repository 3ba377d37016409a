"""USER on real graphs whose edges are partly wrong, beside k-means, spectral clustering and a graph autoencoder.

    OMP_NUM_THREADS=1 python -m benchmarks.user_graph

Cora and Citeseer (largest components): clean, after Metattack, and with random flips (a noisy graph a seed). Clusters
are scored on all nodes with the classes' true number known, as the paper does. Intervals are 95 % t-intervals over
seeds. A finished cell is kept in runs/user_graph/cells.jsonl and not made again. At the end docs/results/user_graph.*
are written, with the numbers of `benchmarks.user_scaling` if they are there.
"""

from __future__ import annotations

import json
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.measure import machine, resident
from benchmarks.user_page import write_page
from launch.runfolder import read_rows, write_json
from tasks.graph.data import RATES, CitationGraph, load_citation, load_meta_attack
from tasks.graph.user.encoder import UserEncoder
from tasks.graph.user.graph import Graph
from tasks.graph.user.metrics import clustering_scores
from tasks.graph.user.noise import random_flips
from tasks.graph.user.options import Options
from tasks.graph.user.sparse import SparseMatrix

SEEDS = 5
NOISE = (0.2, 0.5)
AUTHORS = {  # the authors' values for each data set
    "cora": Options(alpha=0.5, beta=0.005, hidden=256, learning_rate=0.1),
    "citeseer": Options(alpha=0.22, beta=0.19, hidden=512, learning_rate=0.003),
}
LEARNED = (("cora", "clean"), ("citeseer", "clean"))
LEARNED_EPOCHS = 20
"""A whole fit with the learned graph takes tens of minutes: only its beginning is run."""
CELLS = Path("runs/user_graph/cells.jsonl")
BEGUN = Path("runs/user_graph/learned.json")
SCALING = Path("runs/user_graph/scaling.json")
OUT = Path(__file__).parents[1] / "docs" / "results" / "user_graph.json"


def main() -> None:
    measure()
    learned()
    write_results()


def measure() -> None:
    """Run what is not there yet, a cell at a time."""
    done = {key(row) for row in read_rows(CELLS, forgive_broken=True)}
    for name, graph, method, seed in cells():
        cell = {"data": name, "graph": graph, "method": method, "seed": seed}
        if key(cell) in done:
            continue
        started = time.process_time()
        scores = METHODS[method](name, graph, seed)
        cell |= {**scores, "cpu_seconds": round(time.process_time() - started, 1)}
        CELLS.parent.mkdir(parents=True, exist_ok=True)
        with CELLS.open("a", encoding="utf-8") as out:
            out.write(json.dumps(cell) + "\n")
        print(cell, flush=True)


def write_results() -> None:
    """The JSON and the page, from what there is."""
    results = {
        "command": "OMP_NUM_THREADS=1 python -m benchmarks.user_graph",
        "seeds": SEEDS,
        "machine": machine(),
        "cells": summary(read_rows(CELLS, forgive_broken=True)),
        "learned": json.loads(BEGUN.read_text(encoding="utf-8")) if BEGUN.exists() else [],
        "scaling": json.loads(SCALING.read_text(encoding="utf-8")) if SCALING.exists() else [],
    }
    write_json(OUT, results)
    write_page(results, OUT.with_suffix(".md"))


def cells() -> Iterator[tuple[str, str, str, int]]:
    """What is run, in an order that leaves whole seeds behind when it is cut short."""
    graphs = ["clean", *(f"attack {rate:g}" for rate in RATES), *(f"random {rate:g}" for rate in NOISE)]
    for seed in range(SEEDS):
        for name in AUTHORS:
            yield name, "clean", "k-means", seed
            for graph in graphs:
                yield name, graph, "spectral", seed
                yield name, graph, "gae", seed
                yield name, graph, "user", seed
                if graph != "clean":
                    yield name, graph, "cosine", seed


def key(cell: dict[str, Any]) -> tuple[str, str, str, int]:
    return cell["data"], cell["graph"], cell["method"], cell["seed"]


def summary(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Mean and t-interval over seeds of every number of every cell."""
    together: dict[tuple[str, str, str], list[dict[str, Any]]] = defaultdict(list)
    for row in rows:
        together[row["data"], row["graph"], row["method"]].append(row)
    found = []
    for (name, graph, method), runs in together.items():
        numbers = [what for what in runs[0] if what not in ("data", "graph", "method", "seed")]
        values = {what: interval([run[what] for run in runs]) for what in numbers}
        found.append({"data": name, "graph": graph, "method": method, "seeds": len(runs), **values})
    return found


def interval(values: list[float]) -> dict[str, float]:
    """Mean with its 95 % t-interval; one value has none."""
    from scipy.stats import t

    mean = float(np.mean(values))
    if len(values) < 2:
        return {"mean": mean}
    half = float(t.ppf(0.975, len(values) - 1) * np.std(values, ddof=1) / len(values) ** 0.5)
    return {"mean": mean, "low": mean - half, "high": mean + half}


# ---------------------------------------------------------------- graphs


@lru_cache
def clean(name: str) -> CitationGraph:
    return load_citation(name, "lcc")


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


def learned() -> None:
    """The first epochs with the learned graph, at full size."""
    rows = json.loads(BEGUN.read_text(encoding="utf-8")) if BEGUN.exists() else []
    for name, graph in LEARNED[len(rows) :]:
        held = clean(name)
        options = replace(AUTHORS[name], learn_graph=True, epochs=LEARNED_EPOCHS)
        started = time.process_time()
        encoder = UserEncoder(int(held.y.max()) + 1, options, 0).fit(Graph.of(edges_of(name, graph, 0), held.X))
        seconds = (time.process_time() - started) / LEARNED_EPOCHS
        cost = {"epoch_cpu_seconds": seconds, "peak_bytes": resident("VmHWM")}
        rows.append(
            {"data": name, "graph": graph, "epochs": LEARNED_EPOCHS, "loss": encoder.history[:, 4].tolist(), **cost}
        )
        write_json(BEGUN, rows)


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
    """PyTorch Geometric's graph autoencoder over a GCN (32 and 16 wide, Adam .01, 200 epochs), then k-means."""
    import torch
    from torch_geometric.nn import GAE, GCNConv, Sequential

    held = clean(name)
    edges = torch.from_numpy(edges_of(name, graph, seed).astype(np.int64))
    both = torch.cat([edges, edges.flip(0)], dim=1)
    X = SparseMatrix.of(held.X).csr
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
        return k_means(name, graph, seed, model.encode(X, both).numpy())


def cosine(name: str, graph: str, seed: int) -> dict[str, float]:
    """Do features alone tell the edges that were added? The cosine of both ends' words."""
    from sklearn.preprocessing import normalize

    X, edges = normalize(clean(name).X), edges_of(name, graph, seed)
    alike = np.asarray(X[edges[0]].multiply(X[edges[1]]).sum(1)).ravel()
    return found_out(name, edges, alike)


METHODS: dict[str, Callable[[str, str, int], dict[str, float]]] = {
    "k-means": k_means,
    "spectral": spectral,
    "gae": gae,
    "user": user,
    "cosine": cosine,
}


if __name__ == "__main__":
    main()
