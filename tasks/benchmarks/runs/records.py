"""What stays of an evaluation beside its official files, in ``--out``.

    scores.json        one row for each (benchmark, model, judge): numbers, the judge's failures, and what they rest on
    environment.json   command, commit, versions, machine of the newest run
    metrics.jsonl      one row a run, with warnings
    report.html        the page (`tasks.benchmarks.report`)

A folder may hold several models, judges and benchmarks: it is then a leaderboard.
"""

from __future__ import annotations

import math
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from launch import report
from launch.manifest import file_hash
from launch.runfolder import RunFolder, environment, write_json
from tasks.benchmarks.files import read_rows, write_rows
from tasks.benchmarks.sources import Options

SCORES = "scores.json"
SETTINGS = (
    *("max_tokens", "temperature", "seed", "limit", "rules", "style", "ratings", "plain", "engine", "other_prompts"),
)
"""Options that numbers depend on beside model, judge and files."""
AGAINST = "compare_with"
"""Artifact: the model that the page compares the others with."""


def write(options: Options, result: dict[str, Any]) -> dict[str, Any]:
    """Add a run's numbers to the folder and build its page; returns the row of scores.json."""
    made = environment(options.seed)
    row = {"bench": options.bench, "model": options.name, "judge": result["provenance"].get("judge"), **_plain(result)}
    row["provenance"] |= {
        "files": {str(file.relative_to(options.out)): file_hash(file) for file in official_files(options)},
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "settings": {name: getattr(options, name) for name in SETTINGS},
        "environment": made,
    }
    folder = RunFolder(options.out)
    file = options.out / SCORES
    known = read_rows(file) if file.is_file() else []
    write_rows(file, [*(other for other in known if _name(other) != _name(row)), row])
    write_json(options.out / "environment.json", made)
    if options.against is not None:
        folder.artifact(AGAINST, {"model": options.against})
    for warning in _warnings(row):
        folder.log({"stage": options.bench, "warning": warning})
    folder.log({"stage": f"{options.bench} {options.name}"})
    row["report"] = str(report.build(options.out))
    return row


def official_files(options: Options) -> list[Path]:
    """The official files in the folder that are of this model and benchmark, answers and verdicts."""
    kinds = {
        "rewardbench": ("eval-set/*.json", "eval-set-scores/*.json"),
        "alpaca_eval": ("results/*/*.json", "results/*/*/*.json"),
        "arena_hard": ("data/arena-hard-*/**/*.jsonl",),
        "mt_bench": ("data/mt_bench/**/*.jsonl",),
    }
    return [file for kind in kinds[options.bench] for file in sorted(options.out.glob(kind))]


def _name(row: dict[str, Any]) -> tuple[Any, ...]:
    return tuple(row.get(key) for key in ("bench", "model", "judge", "mode"))


def _warnings(row: dict[str, Any]) -> list[str]:
    found = []
    if row.get("warning"):
        found.append(f"{row['model']}: {row['warning']}")
    lost = sum(row.get(key, 0) for key in ("judge/parse_failures", "judge/unanswered"))
    if lost:
        found.append(
            f"{row['bench']}, {row['model']}: {lost} of {row['judge/questions']} verdicts of {row['judge']} failed"
        )
    if row["provenance"]["settings"]["other_prompts"]:
        found.append(
            f"{row['bench']}, {row['model']}: other judge prompts were allowed; such numbers are no official ones"
        )
    return found


def _plain(value: Any) -> Any:
    """NaN is null in files, since JSON has none."""
    if isinstance(value, dict):
        return {key: _plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
