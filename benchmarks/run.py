"""Everything side by side with its peers: ``make bench`` writes docs/results/bench.json and bench.md.

    python -m benchmarks.run              all benchmarks, one after another
    python -m benchmarks.run b1 b10       these again; the others' numbers stay
    python -m benchmarks.run --missing    those that have no number of the present code yet (after an interruption)
    python -m benchmarks.run --page       the page alone, from bench.json

Each benchmark is one file that says what is compared and what must agree (`benchmarks.bench`); each side runs in a
process of its own, in turn, on one thread, and CPU time is quoted (`benchmarks.measure`). A ratio is printed only where
both sides' outputs agree. A benchmark that fails is reported, the others go on, and the exit code says so.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

from benchmarks import (
    grpo_update,
    heads,
    matrices,
    one_round,
    reference_values,
    reward_training,
    sampling,
    scaling,
    scoring,
)
from benchmarks.bench import Bench
from benchmarks.measure import alternate, compare, machine
from benchmarks.page import write_page
from launch.runfolder import git_commit, write_json

BENCHES: dict[str, Bench] = {
    bench.key: bench
    for bench in (
        reward_training.BENCH,
        scoring.RANKING,
        matrices.BENCH,
        scoring.PAIRWISE,
        heads.HEAD,
        heads.STEP,
        reference_values.BENCH,
        sampling.BENCH,
        one_round.BENCH,
        grpo_update.BENCH,
    )
}
RESULTS = Path("docs/results/bench.json")


def run_bench(bench: Bench) -> dict[str, Any]:
    """Both sides of every case, compared."""
    found = alternate(bench.module, (bench.ours, bench.other), bench.rounds)
    ours, other = found[bench.ours], found[bench.other]
    if ours.keys() != other.keys():
        raise RuntimeError(f"{bench.key}: cases {sorted(ours)} against {sorted(other)}")
    return {"machine": machine(), "cases": {n: compare(ours[n], other[n], bench.tolerance) for n in ours}}


def main() -> None:
    parser = argparse.ArgumentParser(description="measure this project beside its peers")
    parser.add_argument(
        "benchmarks", nargs="*", metavar="NAME", help=f"of {', '.join(BENCHES)}, scaling; all by default"
    )
    parser.add_argument("--missing", action="store_true", help="only what has no result of the present commit")
    parser.add_argument("--page", action="store_true", help="measure nothing, write the page")
    asked = parser.parse_args()
    unknown = set(asked.benchmarks) - {*BENCHES, "scaling"}
    if unknown:
        parser.error(f"no benchmark {', '.join(sorted(unknown))}; there are {', '.join(BENCHES)}, scaling")
    results: dict[str, Any] = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    results = {key: value for key, value in results.items() if key in {*BENCHES, "scaling"}}
    # Before anything is written: results are tracked files, which would mark the code as changed.
    commit, began = git_commit(), time.monotonic()
    failed = []
    for key in [] if asked.page else asked.benchmarks or [*BENCHES, "scaling"]:
        if asked.missing and results.get(key, {}).get("machine", {}).get("commit") == commit:
            continue
        started = time.monotonic()
        try:
            results[key] = run_bench(BENCHES[key]) if key in BENCHES else scaling.run()
            results[key]["machine"]["commit"] = commit
        except RuntimeError as error:  # a side that failed: the others still count
            print(f"{key} FAILED: {error}", file=sys.stderr)
            failed.append(key)
            continue
        write_json(RESULTS, results)  # an interruption loses one benchmark at most
        print(f"{key}: {time.monotonic() - started:.0f} s", file=sys.stderr)
    print(f"{time.monotonic() - began:.0f} s in all", file=sys.stderr)
    print(write_page(results, BENCHES))
    if failed:
        sys.exit(f"failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
