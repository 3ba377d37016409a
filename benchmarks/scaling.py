"""How cost grows: pairs of data from 1,000 to 100,000, and one process to two.

- *data*: `load_groups` and a pass over all groups in an epoch's order, in CPU time per pair and in memory; CPU time per
  pair of the collator, which sees a micro-batch and not the data. Flat means that a pair costs the same, and all pairs
  together hold the same memory, whatever the size of the file. Memory is the process's own (RssAnon): pages of the
  mapped file are the system's, which takes them back when it needs room.
- *processes*: the same epoch in one process and, over gloo, in two with half the batch each. CPU time of the fit itself
  in every process, start-up left out; gradient norms of the last step agree. The machine has two cores, which others
  may use too, so that process time is the number to read.

    python -m benchmarks.run scaling
"""

from __future__ import annotations

import ctypes
import gc
import json
import os
import random
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.material import groups, preference_model, text
from benchmarks.measure import machine, resident

SIZES = (1_000, 10_000, 100_000)
WORDS, ANSWER_WORDS, COLLATED = 24, 12, 512
GROUPS, WINDOW = 16, 4
"""Groups of an epoch, and groups of a step over all processes."""


def run() -> dict[str, Any]:
    """Both parts."""
    with tempfile.TemporaryDirectory() as folder:
        data = [_child("--data", str(size), folder)[-1] for size in SIZES]
        fits = {str(n): processes(Path(folder), n) for n in (1, 2)}
    return {"machine": machine(), "data": data, "processes": fits}


def _child(*arguments: str) -> list[dict[str, Any]]:
    command = [sys.executable, "-m", "benchmarks.scaling", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} failed:\n{done.stderr[-2000:]}")
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]


def data_path(size: int, folder: Path) -> dict[str, Any]:
    """Write `size` pairs, read them, go over them in an epoch's order, collate some of them."""
    from align.preference.data import DataOptions, load_groups
    from align.preference.objective import PreferenceObjective
    from launch.order import Deal, EpochBatches

    draw = random.Random(size)
    file, few = folder / f"{size}.jsonl", folder / f"{size}-few.jsonl"
    for path, pairs in ((file, size), (few, 100)):
        with path.open("w") as out:
            for _ in range(pairs):
                row = {name: text(draw, ANSWER_WORDS) for name in ("chosen", "rejected")}
                out.write(json.dumps({"prompt": text(draw, WORDS), **row}) + "\n")
    model = preference_model(folder / "backbone", "bt")
    objective = PreferenceObjective(model.renderer, model.config)
    load_groups(DataOptions(path=str(few), test_fraction=0.0))  # what is imported at the first call
    give_back()
    before = resident("RssAnon")
    with highest() as peak:
        started = time.process_time()
        rows, _ = load_groups(DataOptions(path=str(file), test_fraction=0.0))
        load = time.process_time() - started
        started = time.process_time()
        seen = sum(len(rows[n]["winners"]) for batch in EpochBatches(size, Deal(8), seed=0) for n in batch)
        order = time.process_time() - started
    assert seen == size
    give_back()
    kept = resident("RssAnon") - before
    picked = [rows[i] for i in draw.sample(range(len(rows)), COLLATED)]
    started = time.process_time()
    for start in range(0, COLLATED, 8):
        objective.collate(picked[start : start + 8])
    collate = time.process_time() - started
    return {
        "pairs": size,
        "file_bytes": file.stat().st_size,
        "load_us_per_pair": 1e6 * load / size,
        "order_us_per_pair": 1e6 * order / size,
        "collate_us_per_pair": 1e6 * collate / COLLATED,
        "kept_bytes": max(0, kept),
        "peak_bytes": max(0, peak[0] - before),
    }


def give_back() -> None:
    """Return what the allocators hold for later to the system."""
    import pyarrow

    gc.collect()
    pyarrow.default_memory_pool().release_unused()
    ctypes.CDLL("libc.so.6").malloc_trim(0)


@contextmanager
def highest(every: float = 0.005) -> Iterator[list[int]]:
    """Inside, look at the process's own memory every 5 ms; the list's one number is the most that was seen, bytes."""
    most, done = [resident("RssAnon")], threading.Event()

    def look() -> None:
        while not done.wait(every):
            most[0] = max(most[0], resident("RssAnon"))

    watcher = threading.Thread(target=look, daemon=True)
    watcher.start()
    try:
        yield most
    finally:
        done.set()
        watcher.join()
        most[0] = max(most[0], resident("RssAnon"))


def processes(folder: Path, count: int) -> dict[str, Any]:
    """CPU seconds of the fit in each of `count` processes."""
    out = folder / f"fit-{count}"
    out.mkdir()
    launcher = [sys.executable, "-m", "benchmarks.scaling"]
    if count > 1:
        launcher = [
            sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", str(count), "--master_port", "0",
            "--rdzv_backend", "c10d", "--rdzv_endpoint", "localhost:0", "-m", "benchmarks.scaling",
        ]  # fmt: skip
    environment = {**os.environ, "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    command = [*launcher, "--fit", str(count), str(out)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if done.returncode:
        raise RuntimeError(f"{count} processes failed:\n{done.stderr[-2000:]}")
    ranks = [json.loads(file.read_text()) for file in sorted(out.glob("rank-*.json"))]
    if len(ranks) != count:
        raise RuntimeError(f"{len(ranks)} of {count} processes reported")
    return {
        "cpu_seconds": [rank["cpu"] for rank in ranks],
        "wall_seconds": max(rank["wall"] for rank in ranks),
        "grad_norm": ranks[0]["grad_norm"],
    }


def fit_here(count: int, folder: Path) -> None:
    """One epoch in this process, one of `count`."""
    from align.preference.objective import PreferenceObjective
    from launch import runtime
    from launch.options import TrainOptions
    from launch.runfolder import RunFolder
    from launch.trainer import fit

    rank = os.environ.get("RANK", "0")
    model = preference_model(folder / f"backbone-{rank}", "bt")
    run = RunFolder(folder / "run")
    options = TrainOptions(
        learning_rate=1e-4, batch_size=WINDOW // count, schedule="constant", log_steps=1, save_steps=10**6,
        processes=count,
    )  # fmt: skip
    objective = PreferenceObjective(model.renderer, model.config)
    rows = groups(GROUPS, 2, (128, 384), (32, 160))
    cpu, wall = time.process_time(), time.perf_counter()
    fit(model, objective, rows, options=options, run=run, name="fit", seed=0)
    facts = {"cpu": time.process_time() - cpu, "wall": time.perf_counter() - wall, "grad_norm": 0.0}
    if runtime.is_main():
        facts["grad_norm"] = [row["grad_norm"] for row in run.metrics() if "grad_norm" in row][-1]
    (folder / f"rank-{rank}.json").write_text(json.dumps(facts))
    runtime.leave()


if __name__ == "__main__":
    if sys.argv[1] == "--data":
        print(json.dumps(data_path(int(sys.argv[2]), Path(sys.argv[3]))))
    else:
        fit_here(int(sys.argv[2]), Path(sys.argv[3]))
