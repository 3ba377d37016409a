"""What studies over seeds share: reading the seeds or cells that are finished, writing both result files, intervals."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

RESULTS = Path(__file__).resolve().parents[1] / "docs" / "results"

STUDENT = {2: 12.706, 3: 4.303, 4: 3.182, 5: 2.776, 6: 2.571, 7: 2.447, 8: 2.365}
"""Two-sided 95 % points of Student's t for n means."""


def interval(values: Sequence[float], digits: int = 2) -> str:
    """Mean and half the width of its 95 % interval (Student's t over seeds); of one value, the value."""
    n, mean = len(values), float(np.mean(values))
    if n < 2:
        return f"{mean:.{digits}f}"
    return f"{mean:.{digits}f} ± {STUDENT[n] * float(np.std(values, ddof=1)) / n**0.5:.{digits}f}"


def finished(folder: Path, what: str = "seed") -> list[dict[str, Any]]:
    """What the files seed-*.json of a study's folder hold, in the order of their names; says so where there is none."""
    found = [json.loads(file.read_text()) for file in sorted(folder.glob("seed-*.json"))]
    if not found:
        print(f"no finished {what} in {folder}")
    return found


def commits(found: Sequence[dict[str, Any]]) -> list[str]:
    """The commits that seeds or cells were run at, shortened, each once."""
    return sorted({str(one["environment"]["commit"])[:10] for one in found})


def publish(name: str, data: dict[str, Any], page: Callable[[dict[str, Any]], str], said: str) -> None:
    """Write docs/results/NAME.json and NAME.md, and `said` of them."""
    RESULTS.mkdir(parents=True, exist_ok=True)
    (RESULTS / f"{name}.json").write_text(json.dumps(data, indent=1))
    (RESULTS / f"{name}.md").write_text(page(data))
    print(f"{RESULTS / f'{name}.md'}: {said}")
