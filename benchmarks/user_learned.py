"""USER with its learned graph at full size, run to its end, beside USER on the given graph alone.

    OMP_NUM_THREADS=1 python -m benchmarks.user_learned

Cora and Citeseer (largest components), clean and after Metattack 20 %, the authors' values: a fit goes on until its
learning rate has been cut to nothing or 400 epochs are over. Both fits of a seed see the same graph. A fit that
docs/results/user_graph.json or runs/user_graph/learned.jsonl holds is not made again; at the end the page is written.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from benchmarks.measure import resident
from benchmarks.user_cells import Cell, run_cells
from benchmarks.user_graph import AUTHORS, clean, edges_of, found_out, write_results
from tasks.graph.user.encoder import HISTORY, UserEncoder
from tasks.graph.user.graph import Graph
from tasks.graph.user.metrics import clustering_scores

SEEDS = 5
GRAPHS = (("cora", "clean"), ("cora", "attack 0.2"), ("citeseer", "clean"), ("citeseer", "attack 0.2"))
EVERY = 20
"""Epochs between those whose terms are kept."""


def main() -> None:
    run_cells("learned", fits(), fit)
    write_results()


def fits() -> Iterator[Cell]:
    """Seed by seed, so that a study cut short leaves whole seeds behind."""
    for seed in range(SEEDS):
        for data, graph in GRAPHS:
            yield data, graph, "user", seed
            yield data, graph, "learned", seed


def fit(data: str, graph: str, method: str, seed: int) -> dict[str, Any]:
    """One fit: scores, how well it tells added edges, its length, its cost and its terms."""
    held, edges = clean(data), edges_of(data, graph, seed)
    options = replace(AUTHORS[data], learn_graph=method == "learned")
    encoder = UserEncoder(int(held.y.max()) + 1, options, seed)
    encoder.fit(Graph.of(edges, held.X, isolated="keep"))
    history = encoder.history
    return {
        **clustering_scores(encoder.labels, held.y),
        **found_out(data, edges, encoder.edge_confidence(edges.T.tolist())),
        "epochs": len(history),
        "rate_left": float(history[-1, 5] / history[0, 5]),
        "peak_bytes": resident("VmHWM"),
        "terms": [dict(zip(HISTORY, row, strict=True)) | {"epoch": n} for n, row in sampled(history)],
    }


def sampled(history: Any) -> list[tuple[int, list[float]]]:
    """Every `EVERY`th row of a history and its last one."""
    chosen = sorted({*range(0, len(history), EVERY), len(history) - 1})
    return [(n, [round(float(value), 6) for value in history[n]]) for n in chosen]


if __name__ == "__main__":
    main()
