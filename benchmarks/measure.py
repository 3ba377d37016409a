"""Measuring two sides of one piece of work: each side in a process of its own, in turn, smallest of n.

Process CPU time is quoted, since wall clock on a shared machine swings several-fold for the same code; wall time is
recorded beside it. Peak memory is the growth of the process's high-water mark during the work. Each side also returns
an *oracle*, numbers that must agree, and no ratio is formed unless they do.
"""

from __future__ import annotations

import json
import os
import platform
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

from launch.runfolder import git_commit

TOLERANCE = 1e-4
"""Largest difference of two sides' oracles, relative to their size: float32 sums in another order."""


@dataclass
class Measured:
    """One run of one side."""

    cpu_seconds: float
    wall_seconds: float
    peak_bytes: int
    """Growth of the resident set's high-water mark during the work."""
    oracle: list[float]
    counters: dict[str, float]
    """What was done, independent of the machine: steps, tokens, forwards."""


def measure(work: Callable[[], tuple[list[float], dict[str, float]]]) -> Measured:
    """Run `work` once in this process; it returns (oracle, counters)."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    cpu, wall = time.process_time(), time.perf_counter()
    oracle, counters = work()
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    return Measured(cpu, wall, peak * 1024, oracle, counters)


def side(module: str, name: str) -> Measured:
    """Measure one side in a fresh process: ``python -m MODULE --side NAME`` prints `Measured` as its last line."""
    done = subprocess.run([sys.executable, "-m", module, "--side", name], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{module} --side {name} failed:\n{done.stderr[-2000:]}")
    return Measured(**json.loads(done.stdout.strip().splitlines()[-1]))


def compare(module: str, ours: str, other: str, repeats: int = 3) -> dict[str, Any]:
    """Both sides alternately, `repeats` times each; the ratio is other / ours of the smallest CPU times."""
    runs: dict[str, list[Measured]] = {ours: [], other: []}
    for _ in range(repeats):
        for name in (ours, other):
            runs[name].append(side(module, name))
    best = {name: min(found, key=lambda m: m.cpu_seconds) for name, found in runs.items()}
    worst = max(
        (abs(a - b) / max(abs(a), abs(b), 1.0) for a, b in zip(best[ours].oracle, best[other].oracle, strict=True)),
        default=float("inf"),
    )
    row: dict[str, Any] = {
        "ours": {"name": ours, **asdict(best[ours])},
        "other": {"name": other, **asdict(best[other])},
        "all_cpu_seconds": {name: [round(m.cpu_seconds, 3) for m in found] for name, found in runs.items()},
        "oracle_difference": worst,
    }
    if worst <= TOLERANCE:
        row["cpu_ratio"] = best[other].cpu_seconds / best[ours].cpu_seconds
        row["memory_ratio"] = best[other].peak_bytes / max(best[ours].peak_bytes, 1)
    else:
        row["refused"] = f"outputs differ by {worst:.2g}, more than {TOLERANCE:g}: no ratio"
    return row


def machine() -> dict[str, Any]:
    """What the numbers were taken on."""
    import torch
    import transformers
    import trl

    with open("/proc/cpuinfo") as info:  # noqa: PTH123
        names = [line.split(":")[1].strip() for line in info if line.startswith("model name")]
    return {
        "cpu": names[0] if names else platform.processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "trl": trl.__version__,
        "commit": git_commit(),
        "date": datetime.now(UTC).date().isoformat(),
        "load": round(os.getloadavg()[0], 2),
    }
