"""Cells of USER's studies: one row for each data set, graph, method and seed, kept as soon as it is there.

A study's rows stand in a JSON-lines file of the run folder while it goes on, and in the section of the results' JSON
that bears its name afterwards. What is in either is not run again.
"""

from __future__ import annotations

import json
import time
from collections import defaultdict
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from launch.runfolder import git_commit, read_rows

Cell = tuple[str, str, str, int]
"""Data set, graph, method, seed."""
NAMES = ("data", "graph", "method", "seed")
RUNS = Path("runs/user_graph")
OUT = Path(__file__).parents[1] / "docs" / "results" / "user_graph.json"


def run_cells(study: str, cells: Iterable[Cell], work: Callable[[str, str, str, int], dict[str, Any]]) -> None:
    """Run what is not there yet, a cell at a time; CPU seconds, commit and day are added to what `work` found."""
    done, commit = {key(row) for row in study_rows(study)}, git_commit()
    for cell in cells:
        if cell in done:
            continue
        started = time.process_time()
        row = {**dict(zip(NAMES, cell, strict=True)), **work(*cell)}
        row["cpu_seconds"] = round(time.process_time() - started, 1)
        row |= {"commit": commit, "date": datetime.now(UTC).date().isoformat()}
        RUNS.mkdir(parents=True, exist_ok=True)
        with (RUNS / f"{study}.jsonl").open("a", encoding="utf-8") as out:
            out.write(json.dumps({what: _short(value) for what, value in row.items()}) + "\n")
        print({what: _short(value) for what, value in row.items() if not isinstance(value, list)}, flush=True)


def study_rows(study: str) -> list[dict[str, Any]]:
    """A study's rows: those of the results' JSON, then those of the run folder, which take the place of the former."""
    rows = {key(row): row for row in published(study)}
    rows |= {key(row): row for row in read_rows(RUNS / f"{study}.jsonl", forgive_broken=True)}
    return list(rows.values())


def published(section: str) -> list[dict[str, Any]]:
    """A section of the results' JSON; [] if there is none."""
    return json.loads(OUT.read_text(encoding="utf-8")).get(section, []) if OUT.exists() else []


def key(row: dict[str, Any]) -> Cell:
    return row["data"], row["graph"], row["method"], row["seed"]


def summary(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Mean and t-interval over seeds of every number of every data set, graph and method."""
    together: dict[tuple[str, str, str], list[dict[str, Any]]] = defaultdict(list)
    for row in rows:
        together[row["data"], row["graph"], row["method"]].append(row)
    found = []
    for (data, graph, method), runs in together.items():
        numbers = [what for what, value in runs[0].items() if what != "seed" and isinstance(value, (int, float))]
        values = {what: interval([run[what] for run in runs]) for what in numbers}
        found.append({"data": data, "graph": graph, "method": method, "seeds": len(runs), **values})
    return found


def interval(values: list[float]) -> dict[str, float]:
    """Mean with its 95 % t-interval; one value has none."""
    from scipy.stats import t

    mean = float(np.mean(values))
    if len(values) < 2:
        return {"mean": mean}
    half = float(t.ppf(0.975, len(values) - 1) * np.std(values, ddof=1) / len(values) ** 0.5)
    return {"mean": mean, "low": mean - half, "high": mean + half}


def _short(value: Any) -> Any:
    """Six digits are more than the seeds agree on; the rest only makes files long."""
    return float(f"{value:.6g}") if isinstance(value, float) else value
