"""Cost of signed graphs by their number of edges: docs/results/signed_scaling.json and docs/results/signed_scaling.md.

    python -m benchmarks.signed_scaling                   # 100 thousand, 1 million, 10 million edges
    python -m benchmarks.signed_scaling --edges 100000    # one size

Random graphs of ten edges a node, four in five positive. Each size runs in a process of its own: difficulties of all
edges, then SGCN (width 64, two layers, random inputs) for some epochs, each over all edges, forward and backward. As
controls, ten times the edges on as many nodes: the edges grow, the table of node vectors does not.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.measure import GRAPH_SIZES, machine, resident
from launch.runfolder import write_json, write_text
from tasks.graph.signed.edges import SignedGraph
from tasks.graph.signed.options import published
from tasks.graph.signed.training import SignedLinks, build, inputs
from tasks.graph.signed.triangles import difficulty

RESULTS = Path(__file__).resolve().parents[1] / "docs" / "results"
EPOCHS = 2
LIMIT = 16e9
"""Bytes that the largest graph must stay under."""


def random_edges(m: int, n: int, seed: int = 0) -> np.ndarray:
    """int64 [m, 3] on n nodes, each ordered pair at most once."""
    generator = np.random.default_rng(seed)
    keys = np.unique(generator.integers(n * n, size=m + m // 8))
    keys = generator.permutation(keys[keys // n != keys % n])[:m]
    sign = np.where(generator.random(m) < 0.8, 1, -1)
    return np.stack([keys // n, keys % n, sign], axis=1)


def measure(m: int, n: int, epochs: int = EPOCHS) -> dict[str, Any]:
    """CPU seconds and the peak of resident memory, in this process."""
    found: dict[str, Any] = {"edges": m}
    with _timed(found, "graph"):
        graph = SignedGraph.of(random_edges(m, n))
    found["nodes"] = graph.n
    with _timed(found, "difficulty"):
        hard = difficulty(graph)
    found["mean_difficulty"] = float(hard.mean())
    options = published("sgcn", inputs="random")
    with _timed(found, "model"):
        model = build(graph, inputs(graph, options, 0), options)
        objective = SignedLinks(graph, None, options.weight_decay, 0)
    each = []
    for objective.epoch in range(epochs):
        started = time.process_time()
        loss = objective.loss(model, {"count": 1.0})
        loss.total.backward()
        each.append(time.process_time() - started)
    found |= {"epoch_seconds": min(each), "loss": float(loss.total.detach()), "peak_bytes": resident("VmHWM")}
    return found


@contextmanager
def _timed(into: dict[str, Any], name: str) -> Iterator[None]:
    """CPU seconds of a block into a dict."""
    started = time.process_time()
    yield
    into[f"{name}_seconds"] = time.process_time() - started


def page(rows: Sequence[dict[str, Any]]) -> str:
    same = [row for row in rows if row["nodes"] == row["edges"] // 10]  # ten edges a node
    control = [row for row in rows if row not in same]
    first = same[0]
    lines = [
        "# Signed graphs by size",
        "",
        "`OMP_NUM_THREADS=1 python -m benchmarks.signed_scaling`; random graphs of ten edges a node, and as controls",
        "ten times the edges on as many nodes; four in five positive. SGCN of width 64 and two layers, random inputs,",
        f"loss over all edges, forward and backward; the smaller of {EPOCHS} epochs (one at ten million edges). CPU",
        "seconds of one thread; *peak* is resident memory",
        f"with Python and its libraries. {where(first['machine'])}",
        "",
        "| edges | nodes | graph, s | difficulty, s | model, s | epoch, s | epoch, µs an edge | peak, GB |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        cells = [
            f"{row[name]:.1f}" for name in ("graph_seconds", "difficulty_seconds", "model_seconds", "epoch_seconds")
        ]
        an_edge, peak = 1e6 * row["epoch_seconds"] / row["edges"], row["peak_bytes"] / 1e9
        lines.append(f"| {row['edges']:,} | {row['nodes']:,} | {' | '.join(cells)} | {an_edge:.2f} | {peak:.2f} |")
    last = same[-1]
    growth = (last["epoch_seconds"] / last["edges"]) / (first["epoch_seconds"] / first["edges"])
    lines += [
        "",
        f"From {first['edges']:,} to {last['edges']:,} edges the time an edge grows by a factor of {growth:.2f}.",
        "The work is the same for each edge up to the logarithm of looking drawn pairs up; what grows is the way to",
        "memory, as the table of node vectors leaves the caches.",
        *_controls(control, same),
        "",
        f"The peak at {last['edges']:,} edges is {last['peak_bytes'] / 1e9:.2f} GB, "
        f"{'under' if last['peak_bytes'] < LIMIT else 'NOT under'} the {LIMIT / 1e9:.0f} GB asked for.",
    ]
    return "\n".join(lines) + "\n"


def _controls(control: Sequence[dict[str, Any]], same: Sequence[dict[str, Any]]) -> list[str]:
    """Ten times the edges on as many nodes, where only the number of edges differs."""
    said = []
    for row in control:
        beside = next((other for other in same if other["nodes"] == row["nodes"]), None)
        if beside is not None:
            few, many = (1e6 * r["epoch_seconds"] / r["edges"] for r in (beside, row))
            said.append(
                f"On {row['nodes']:,} nodes (their vectors: {row['nodes'] * 64 * 4 / 1e6:.1f} MB) an edge takes "
                f"{few:.2f} µs where there are {beside['edges']:,} and {many:.2f} where there are {row['edges']:,}."
            )
    return said


def where(facts: dict[str, Any]) -> str:
    commit = (facts["commit"] or "unknown")[:10]
    return (
        f"{facts['cpu']}, {facts['cores']} cores, torch {facts['torch']}, commit `{commit}`, {facts['date']}, "
        f"load {facts['load']}."
    )


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Cost of signed graphs by their number of edges")
    parser.add_argument("--edges", type=int, help="measure one size in this process, and print it")
    parser.add_argument("--nodes", type=int, help="of that size; a tenth of its edges, if not said")
    parser.add_argument("--kept", type=Path, default=Path("runs/signed_scaling.jsonl"), help="finished sizes")
    asked = parser.parse_args(arguments)
    if asked.edges:
        epochs = 1 if asked.edges > 5_000_000 else EPOCHS
        print(json.dumps(measure(asked.edges, asked.nodes or asked.edges // 10, epochs)))
        return
    rows = [json.loads(line) for line in asked.kept.read_text().splitlines()] if asked.kept.exists() else []
    for m, n in GRAPH_SIZES:
        if (m, n) in [(row["edges"], row["nodes"]) for row in rows]:
            continue
        command = [sys.executable, "-m", "benchmarks.signed_scaling", "--edges", str(m), "--nodes", str(n)]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
        rows.append({**json.loads(done.stdout.splitlines()[-1]), "machine": machine()})
        asked.kept.parent.mkdir(parents=True, exist_ok=True)
        with asked.kept.open("a", encoding="utf-8") as out:
            out.write(json.dumps(rows[-1]) + "\n")
    rows.sort(key=lambda row: (row["edges"], row["nodes"]))
    write_json(RESULTS / "signed_scaling.json", rows)
    write_text(RESULTS / "signed_scaling.md", page(rows))
    print(page(rows))


if __name__ == "__main__":
    main()
