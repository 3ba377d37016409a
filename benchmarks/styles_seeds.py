"""The demo over five seeds: docs/results/styles.json and docs/results/styles.md.

    python -m benchmarks.styles_seeds                       # every seed, one after the other; continues what is there
    python -m benchmarks.styles_seeds --seeds 3             # one seed, say beside another
    python -m benchmarks.styles_seeds --write               # only write what the finished seeds say

A seed is one run of ``configs/align/demo.yaml`` in a process of its own, in runs/styles/seed-N; it changes the base
model's weights, the demonstrations, the votes, the order of training and every sample. A finished seed is kept.
"""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.over_seeds import interval

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "docs" / "results"
AIMS = ("right", "half", "below_bt", "below_anchored_bt")
NUMBERS = ("right", "win_vs_start", "gap_last", "gap_average", "malformed")


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="The demo over several seeds")
    parser.add_argument("--seeds", type=int, nargs="*", default=[0, 1, 2, 3, 4])
    parser.add_argument("--folder", type=Path, default=ROOT / "runs" / "styles")
    parser.add_argument("--write", action="store_true", help="run nothing, only write the results")
    parser.add_argument("override", nargs="*", default=[], help="overrides of the config, after --")
    asked = parser.parse_args(arguments)
    for seed in [] if asked.write else asked.seeds:
        folder = asked.folder / f"seed-{seed}"
        command = ["-m", "launch", "run", "configs/align/demo.yaml", f"run.seed={seed}", f"run.folder={folder}"]
        command.append("threads=1")  # so that two seeds may run beside each other on two cores
        code = subprocess.run([sys.executable, *command, *asked.override], cwd=ROOT, check=False).returncode
        if code:
            return code
    write(asked.folder)
    return 0


def write(folder: Path) -> None:
    """Write both result files from the seeds that are finished in `folder`."""
    finished = sorted(folder.glob("seed-*/artifacts/judges.json"))
    if not finished:
        print(f"no finished seed in {folder}")
        return
    rows = [row for file in finished for row in json.loads(file.with_name("rounds.json").read_text())["rows"]]
    judges = [json.loads(file.read_text()) for file in finished]
    environments = [json.loads((file.parents[1] / "environment.json").read_text()) for file in finished]
    environment = environments[0]
    seconds = [_seconds(file.parents[1]) for file in finished]
    data = {
        "command": "python -m benchmarks.styles_seeds",
        "commits": sorted({str(e["commit"])[:10] for e in environments}),
        "machine": {"system": platform.system(), "cores": environment["cores"], "python": environment["python"]},
        "versions": environment["versions"],
        "seeds": sorted({row["seed"] for row in rows}),
        "seconds": seconds,
        "judges": judges,
        "rows": rows,
        "aim": aim(rows),
    }
    RESULTS.mkdir(parents=True, exist_ok=True)
    (RESULTS / "styles.json").write_text(json.dumps(data, indent=1))
    (RESULTS / "styles.md").write_text(page(data))
    print(f"{RESULTS / 'styles.md'}: {len(finished)} seeds")


def aim(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Per method and seed: is there a deployable policy (last or average of T) that meets each part of the aim?

    ``right``: the last policy is right above .85. ``half``: the better of last and average has a gap below half of
    round 0's. ``below_bt``: and below the better of BT's two. ``below_anchored_bt``: the same, BT anchored as well.
    """
    last = max(row["round"] for row in rows)
    best = {(r["method"], r["seed"]): min(r["gap_last"], r["gap_average"]) for r in rows if r["round"] == last}
    right = {(r["method"], r["seed"]): r["right"] for r in rows if r["round"] == last}
    start = {r["seed"]: r["gap_last"] for r in rows if r["round"] == 0}
    return [
        {
            "method": method,
            "seed": seed,
            "gap": gap,
            "right": right[method, seed] > 0.85,
            "half": gap < start[seed] / 2,
            "below_bt": gap < best.get(("bt+sppo", seed), float("inf")),
            "below_anchored_bt": gap < best.get(("bt+sppo+anchor", seed), float("inf")),
        }
        for (method, seed), gap in best.items()
    ]


def page(data: dict[str, Any]) -> str:
    """docs/results/styles.md."""
    rows, seeds = data["rows"], data["seeds"]
    methods = list(dict.fromkeys(row["method"] for row in rows))
    styles = list(rows[0]["styles"])
    out = [
        f"# The styles world: {len(methods)} methods, held-out prompts",
        "",
        f"Seeds {', '.join(map(str, seeds))}; `{data['command']}`; last commits `{', '.join(data['commits'])}`; "
        f"{data['machine']['system']}, {data['machine']['cores']} cores; "
        f"{min(data['seconds']) / 60:.0f} to {max(data['seconds']) / 60:.0f} minutes a seed (shared machine). "
        "Mean ± half of a 95 % interval over seeds. Gaps are exact over the seven types of answers. What the numbers "
        "mean is in [worlds](../worlds.md).",
        "",
        "## Policies",
        "",
        "In brackets what exact play on the preference model's own table predicts.",
        "",
        f"| method | round | right | {' / '.join(styles)} | win over 0 | gap | gap of average | malformed |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for method in methods:
        for number in sorted({row["round"] for row in rows}):
            mine = [row for row in rows if row["method"] == method and row["round"] == number]
            cells = {key: interval([row[key] for row in mine]) for key in NUMBERS}
            told = {key: np.mean([row["tabular"][key] for row in mine]) for key in NUMBERS}
            mix = " / ".join(f"{np.mean([row['styles'][style] for row in mine]):.2f}" for style in styles)
            both = {key: f"{cells[key]} ({told[key]:.2f})" for key in NUMBERS}
            out.append(
                f"| {method} | {number} | {both['right']} | {mix} | {both['win_vs_start']} | {both['gap_last']} | "
                f"{both['gap_average']} | {np.mean([row['malformed'] for row in mine]):.3f} |"
            )
    out += [
        "",
        "## Was the aim met?",
        "",
        "Seeds in which the last policy is right above .85; in which the better of last and average policy has a gap "
        "below half of round 0's; in which that gap is below BT's better one; and below that of BT anchored.",
        "",
        "| method | right | half the gap | below BT | below BT anchored |",
        "|---|---|---|---|---|",
    ]
    for method in methods:
        mine = [entry for entry in data["aim"] if entry["method"] == method]
        counts = [f"{sum(entry[key] for entry in mine)} of {len(mine)}" for key in AIMS]
        out.append(f"| {method} | {' | '.join(counts)} |")
    names = list(next(iter(data["judges"][0].values())))
    out += ["", "## Preference models", "", f"| model | {' | '.join(names)} |", "|---" * (len(names) + 1) + "|"]
    for kind in data["judges"][0]:
        cells_of = [interval([judge[kind][name] for judge in data["judges"]]) for name in names]
        out.append(f"| {kind.upper()} | {' | '.join(cells_of)} |")
    return "\n".join([*out, ""])


def _seconds(run: Path) -> float:
    """Seconds of all timed stages of a run, the base model's and those of its methods included."""
    files = [run / "timings.jsonl"]
    return sum(json.loads(line)["seconds"] for file in files for line in file.read_text().splitlines())


if __name__ == "__main__":
    sys.exit(main())
