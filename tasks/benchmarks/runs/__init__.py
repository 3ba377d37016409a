"""One evaluation from answers to score: answer, judge, score, and write the official files at every step.

    rewardbench, alpaca_eval, arena_hard, mt_bench   a benchmark each: ``run(options) -> numbers``
    records                                          what stays beside the official files: scores, sources, the page

A benchmark's function returns the numbers that ``scores.json`` holds and what they rest on (``provenance``). With a dry
run it returns what would be asked for, and asks for nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from launch.errors import ConfigError
from tasks.benchmarks.runs import alpaca_eval, arena_hard, mt_bench, records, rewardbench
from tasks.benchmarks.sources import Options

RUNS: dict[str, Callable[[Options], dict[str, Any]]] = {
    "rewardbench": rewardbench.run,
    "alpaca_eval": alpaca_eval.run,
    "arena_hard": arena_hard.run,
    "mt_bench": mt_bench.run,
}


def run(options: Options) -> dict[str, Any]:
    """Run a benchmark; unless dry, write ``out/scores.json`` and ``out/report.html``."""
    if options.bench != "rewardbench" and options.judge is None and not options.dry_run:
        raise ConfigError(f"arbiter eval {options.bench} needs --judge", field="judge")
    result = RUNS[options.bench](options)
    return result if options.dry_run else records.write(options, result)
