"""Links held out of Citeseer and Wiki while the rest of the graph gets noisier: USER beside plain scores.

    OMP_NUM_THREADS=1 python -m benchmarks.user_links

All nodes. A tenth of the edges is asked for beside as many pairs without one; the training graph is clean or has random
flips (`tasks.graph.user.link_prediction`). Split, noise and fit are drawn anew for each seed. A cell that
docs/results/user_graph.json or runs/user_graph/links.jsonl holds is not made again; at the end the page is written.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import lru_cache

import numpy as np

from benchmarks.user_cells import Cell, run_cells
from benchmarks.user_graph import AUTHORS, SEEDS, alike, autoencoded, clean, write_results
from tasks.graph.user.encoder import UserEncoder
from tasks.graph.user.graph import Graph
from tasks.graph.user.link_prediction import LinkSplit, common_neighbours, link_scores, split_links

RATES = (0.0, 0.2, 0.5)
"""Random flips a training edge."""
DATA = ("citeseer", "wiki")


def main() -> None:
    run_cells("links", cells(), predict)
    write_results()


def cells() -> Iterator[Cell]:
    """Seed by seed, so that a study cut short leaves whole seeds behind."""
    for seed in range(SEEDS):
        for name in DATA:
            yield name, "clean", "cosine", seed
            for rate in RATES:
                graph = f"random {rate:g}" if rate else "clean"
                for method in ("neighbours", "gae", "user"):
                    yield name, graph, method, seed


def predict(name: str, graph: str, method: str, seed: int) -> dict[str, float]:
    """ROC-AUC and average precision of the test pairs; USER's and the autoencoder's validation pairs are not used."""
    split, n = split_of(name, seed), len(clean(name, "planetoid").y)
    train = split.noisy(n, float(graph.partition(" ")[2] or 0), seed)
    score = METHODS[method](name, train, seed)
    return link_scores(score(split.test), score(split.test_absent))


@lru_cache
def split_of(name: str, seed: int) -> LinkSplit:
    held = clean(name, "planetoid")
    return split_links(held.edges, len(held.y), seed)


Score = Callable[[np.ndarray], np.ndarray]
"""From pairs [2, P] to [P]."""


def user(name: str, train: np.ndarray, seed: int) -> Score:
    """USER on the given graph alone, with the authors' values."""
    held = clean(name, "planetoid")
    encoder = UserEncoder(int(held.y.max()) + 1, AUTHORS[name], seed)
    encoder.fit(Graph.of(train, held.X, isolated="keep"))
    return lambda pairs: encoder.link_probability(pairs.T.tolist())


def gae(name: str, train: np.ndarray, seed: int) -> Score:
    """The autoencoder's own decoder, but for the sigmoid, which changes no order."""
    Z = autoencoded(clean(name, "planetoid").X, train, seed)
    return lambda pairs: (Z[pairs[0]] * Z[pairs[1]]).sum(1)


def neighbours(name: str, train: np.ndarray, seed: int) -> Score:
    """How many neighbours a pair shares."""
    return lambda pairs: common_neighbours(train, len(clean(name, "planetoid").y), pairs)


def cosine(name: str, train: np.ndarray, seed: int) -> Score:
    """How alike the features are; knows no edge, so noise changes nothing."""
    return lambda pairs: alike(clean(name, "planetoid").X, pairs)


METHODS: dict[str, Callable[[str, np.ndarray, int], Score]] = {
    "user": user,
    "gae": gae,
    "neighbours": neighbours,
    "cosine": cosine,
}


if __name__ == "__main__":
    main()
