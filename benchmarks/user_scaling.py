"""What an epoch of USER without the learned graph costs as the graph grows: 1x, 10x, 100x, up to ten million edges.

    OMP_NUM_THREADS=1 python -m benchmarks.user_scaling

Planted partitions of 16 blocks with 10 edges a node, 32 features, width 64, and as controls ten times the edges on as
many nodes; each size in a process of its own. Seconds are CPU time, the smallest of the epochs; memory is the peak of
the whole process, graph and imports included. Written to runs/user_graph/scaling.json, which `benchmarks.user_graph`
puts on its page.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

from benchmarks.measure import GRAPH_SIZES, machine, resident
from launch.runfolder import write_json

EPOCHS = {100_000: 10, 1_000_000: 5, 10_000_000: 3}
BLOCKS, FEATURES, WIDTH = 16, 32, 64
OUT = Path("runs/user_graph/scaling.json")


def main() -> None:
    rows = json.loads(OUT.read_text(encoding="utf-8")) if OUT.exists() else []
    for edges, nodes in GRAPH_SIZES:
        if any((row["asked"], row["nodes"]) == (edges, nodes) for row in rows):
            continue
        command = [sys.executable, "-m", "benchmarks.user_scaling", str(edges), str(nodes)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(f"{edges} edges on {nodes} nodes failed:\n{done.stderr[-2000:]}")
        rows.append(json.loads(done.stdout.strip().splitlines()[-1]))
        write_json(OUT, rows)
        print(rows[-1], flush=True)


def measure(asked: int, n: int) -> dict[str, Any]:
    """One size: nodes, edges, CPU seconds of set-up and of an epoch, peak of resident memory."""
    import torch

    from tasks.graph.user.encoder import Learner
    from tasks.graph.user.graph import Graph
    from tasks.graph.user.noise import planted_partition
    from tasks.graph.user.options import Options

    within = n // BLOCKS * (n // BLOCKS - 1) / 2 * BLOCKS
    across = n * (n - 1) / 2 - within
    edges, X, _ = planted_partition(n, BLOCKS, 0.8 * asked / within, 0.2 * asked / across, 0, FEATURES)
    graph = Graph.of(edges, X, isolated="keep")
    del edges, X
    started = time.process_time()
    torch.manual_seed(0)
    learner = Learner(graph, BLOCKS, Options(hidden=WIDTH, learning_rate=0.01, epochs=EPOCHS[asked]))
    set_up = time.process_time() - started
    clock = [time.process_time()]
    history = learner.run(lambda row: clock.append(time.process_time()))
    seconds = [b - a for a, b in pairwise(clock)]
    return {
        "asked": asked,
        "nodes": n,
        "edges": graph.edges.shape[1],
        "set_up_cpu_seconds": round(set_up, 2),
        "epoch_cpu_seconds": [round(s, 3) for s in seconds],
        "peak_bytes": resident("VmHWM"),
        "loss": history[:, 4].tolist(),
        "machine": machine(),
    }


if __name__ == "__main__":
    if len(sys.argv) > 1:
        print(json.dumps(measure(int(sys.argv[1]), int(sys.argv[2]))))
    else:
        main()
