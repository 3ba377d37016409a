"""Measuring sides of one piece of work: each side in a process of its own, in turn, smallest of n.

Process CPU time is quoted, since wall clock on a shared machine swings several-fold for the same code; wall time is
recorded beside it. Peak memory is the growth of the resident set while the work runs for the first time. Each side also
returns an *oracle*, numbers that must agree, and no ratio is formed unless they do.

A side is a function of a scratch folder that yields `Case`s; ``python -m MODULE --side NAME`` prints what `run_side`
measured of them as its last line.
"""

from __future__ import annotations

import gc
import json
import math
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from launch.runfolder import git_commit

TOLERANCE = 1e-4
"""Largest difference of two sides' oracles, relative to their size: float32 sums in another order."""
GRAPH_SIZES = (
    (100_000, 10_000),
    (1_000_000, 10_000),
    (1_000_000, 100_000),
    (10_000_000, 100_000),
    (10_000_000, 1_000_000),
)
"""Edges and nodes, for cost by size: ten edges a node, and as controls ten times the edges on as many nodes."""


@dataclass
class Case:
    """One piece of work, ready to run."""

    name: str
    work: Callable[[], Any]
    """What is timed; runs several times."""
    oracle: Callable[[Any], list[float]]
    """Numbers that both sides must agree on, from what `work` returned; not timed."""
    counters: dict[str, float] = field(default_factory=dict)
    """What is done, independent of the machine: tokens, FLOPs, prefilled tokens."""
    repeats: int = 2
    children: bool = False
    """Whether the work is done by child processes, whose CPU time counts then."""


@dataclass
class Measured:
    """One side's runs of one case."""

    cpu: list[float]
    """Process CPU seconds, one for each run."""
    wall: list[float]
    peak_bytes: int
    """Growth of the resident set in the first run."""
    oracle: list[float]
    counters: dict[str, float]


Side = Callable[[Path], Iterator[Case]]


def run_side(side: Side) -> dict[str, Measured]:
    """Measure every case of a side in this process."""
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        for case in side(Path(folder)):
            found[case.name] = measure(case)
            gc.collect()
    return found


def measure(case: Case) -> Measured:
    """Run a case `repeats` times."""
    cpu, wall, result = [], [], None
    gc.collect()
    before = resident("VmRSS")
    _forget_peak()
    peak = 0
    for n in range(case.repeats):
        started = _cpu(case.children), time.perf_counter()
        result = case.work()
        cpu.append(_cpu(case.children) - started[0])
        wall.append(time.perf_counter() - started[1])
        if n == 0:
            peak = max(0, resident("VmHWM") - before)
    return Measured(cpu, wall, peak, case.oracle(result), case.counters)


def side_process(module: str, name: str) -> dict[str, Measured]:
    """Measure a side in a fresh process.

    Raises:
        RuntimeError: it failed; with the end of what it said.
    """
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    command = [sys.executable, "-m", module, "--side", name]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if done.returncode:
        raise RuntimeError(f"{module} --side {name} failed:\n{done.stderr[-2000:]}")
    return {case: Measured(**facts) for case, facts in json.loads(done.stdout.strip().splitlines()[-1]).items()}


def alternate(module: str, names: tuple[str, ...], rounds: int = 2) -> dict[str, dict[str, Measured]]:
    """All sides in turn, `rounds` times; the runs of each case are put together, by side and case."""
    found: dict[str, dict[str, Measured]] = {name: {} for name in names}
    for _ in range(rounds):
        for name in names:
            for case, one in side_process(module, name).items():
                if case in found[name]:
                    known = found[name][case]
                    known.cpu += one.cpu
                    known.wall += one.wall
                    known.peak_bytes = min(known.peak_bytes, one.peak_bytes)
                else:
                    found[name][case] = one
    return found


def compare(ours: Measured, other: Measured, tolerance: float = TOLERANCE) -> dict[str, Any]:
    """Ratios other / ours of the smallest CPU times and of peaks, or the reason why there is none."""
    row: dict[str, Any] = {"ours": asdict(ours), "other": asdict(other)}
    if len(ours.oracle) != len(other.oracle):
        return {**row, "refused": f"{len(ours.oracle)} outputs against {len(other.oracle)}: no ratio"}
    pairs = zip(ours.oracle, other.oracle, strict=True)
    apart = [abs(a - b) / max(abs(a), abs(b), 1.0) for a, b in pairs]
    worst = max(apart) if apart and all(map(math.isfinite, apart)) else math.inf  # NaN agrees with nothing
    row["oracle_difference"] = worst
    if worst > tolerance:
        return {**row, "refused": f"outputs differ by {worst:.2g}, more than {tolerance:g}: no ratio"}
    row["cpu_ratio"] = min(other.cpu) / min(ours.cpu)
    row["memory_ratio"] = other.peak_bytes / max(ours.peak_bytes, 1)
    return row


def main(sides: Mapping[str, Side], module: str) -> None:
    """What ``python -m benchmarks.BENCH --side NAME`` does."""
    import argparse

    parser = argparse.ArgumentParser(description=f"one side of {module}; `python -m benchmarks.run` runs them all")
    parser.add_argument("--side", choices=sorted(sides), required=True)
    found = run_side(sides[parser.parse_args().side])
    print(json.dumps({case: asdict(one) for case, one in found.items()}))


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


def _cpu(children: bool) -> float:
    times = os.times()
    own = times.user + times.system
    return own + times.children_user + times.children_system if children else time.process_time()


def resident(what: str) -> int:
    """Bytes of a line of /proc/self/status: VmRSS (now), VmHWM (at most), RssAnon (the process's own)."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(what + ":"):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"no {what} in /proc/self/status")


def _forget_peak() -> None:
    """Let the high-water mark of the resident set begin anew at what is resident now."""
    Path("/proc/self/clear_refs").write_text("5")
