"""What is learnt from which reward, with a mark that lies at test time: docs/results/conflicts.json and conflicts.md.

    python -m benchmarks.conflicts_seeds                    # every cell, one after the other; continues what is there
    python -m benchmarks.conflicts_seeds --seeds 1          # one seed
    python -m benchmarks.conflicts_seeds --write            # only write what the finished cells say

A cell is one run of ``configs/reasoning/kcr_conflicts.yaml``: a reward (full, or the answer alone) times the training
data (the mark stands on the true context in 95 %, or in 50 %). All cells of a seed start from one supervised model, to
which the mark says nothing. Every policy answers the same held-out questions three times: with the mark kept (95 % on
the truth), said nothing (50 %), reversed (5 %). A finished cell is kept.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from collections.abc import Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "docs" / "results"
CONFIG = "configs/reasoning/kcr_conflicts.yaml"
STUDENT = {2: 12.706, 3: 4.303, 4: 3.182, 5: 2.776}
"""Two-sided 95 % points of Student's t for n means."""
REWARDS = {"full": [], "answer only": ["reward.logic=0", "reward.consistency=0"]}
CUES = {"marked": 0.95, "balanced": 0.5}
TESTS = {"kept": 0.05, "nothing": 0.5, "reversed": 0.95}
"""A world's test split has its mark on the truth with 1 - cue."""
METHODS = ("supervised only", *(f"{reward}, {data}" for data, reward in product(CUES, REWARDS)))


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Rewards and a mark that lies, over seeds")
    parser.add_argument("--seeds", type=int, nargs="*", default=[0, 1, 2])
    parser.add_argument("--folder", type=Path, default=ROOT / "runs" / "conflicts")
    parser.add_argument("--held-out", type=int, default=400, help="questions per test")
    parser.add_argument("--write", action="store_true", help="run nothing, only write the results")
    parser.add_argument("override", nargs="*", default=[], help="overrides of the config, after --")
    asked = parser.parse_args(arguments)
    for seed, data, reward in [] if asked.write else product(asked.seeds, CUES, REWARDS):
        cell(asked.folder, seed, data, reward, asked.held_out, asked.override)
        write(asked.folder)
    if asked.write:
        write(asked.folder)
    return 0


def cell(folder: Path, seed: int, data: str, reward: str, held_out: int, overrides: Sequence[str]) -> None:
    """Train and measure one cell, unless its result is there."""
    from launch import config
    from launch.report import build
    from launch.runfolder import environment, write_json

    name = f"seed-{seed}-{data}-{reward.replace(' ', '-')}"
    target = folder / f"{name}.json"
    if target.exists():
        return
    start = time.monotonic()
    said = [f"run.seed={seed}", f"run.folder={folder / name}", f"world.cue={CUES[data]}", *REWARDS[reward], *overrides]
    loaded = config.load(ROOT / CONFIG, said)
    result = loaded.recipe.main(loaded.config)
    build(result.folder)
    rows = []
    for method, policy in (("supervised only", None), (f"{reward}, {data}", result.folder / "checkpoints/grpo/final")):
        rows += measured(loaded.config, seed, method, policy, held_out)
    write_json(target, {"rows": rows, "seconds": time.monotonic() - start, "environment": environment(seed)})


def measured(config: Any, seed: int, method: str, policy: Path | None, held_out: int) -> list[dict[str, Any]]:
    """Numbers of one policy on each test."""
    from reasoning.conflict.answering import answered, load_policy
    from reasoning.conflict.feed import of_world
    from reasoning.conflict.warmup import from_scratch

    base = from_scratch(config.world, config.base, seed)
    model, tokenizer = load_policy(policy or base, base)
    rows = []
    for test, cue in TESTS.items():
        questions = of_world(replace(config.world, cue=cue, test=held_out)).test
        numbers, _ = answered(
            model, tokenizer, questions, tokens=config.grpo.max_new_tokens, temperature=1.0, batch=100, seed=seed
        )
        rows.append({"seed": seed, "method": method, "test": test, **numbers})
    return rows


# ---------------------------------------------------------------- results


def write(folder: Path) -> None:
    """Write both result files from the cells that are finished in `folder`."""
    found = [json.loads(file.read_text()) for file in sorted(folder.glob("seed-*.json"))]
    if not found:
        print(f"no finished cell in {folder}")
        return
    rows = list({(r["seed"], r["method"], r["test"]): r for f in found for r in f["rows"]}.values())
    environments = [f["environment"] for f in found]
    data = {
        "command": "python -m benchmarks.conflicts_seeds",
        "commits": sorted({str(e["commit"])[:10] for e in environments}),
        "machine": {
            "system": platform.system(),
            "cores": environments[0]["cores"],
            "threads": environments[0]["threads"],
        },
        "versions": environments[0]["versions"],
        "seeds": sorted({row["seed"] for row in rows}),
        "seconds": [round(f["seconds"]) for f in found],
        "rows": rows,
    }
    RESULTS.mkdir(parents=True, exist_ok=True)
    (RESULTS / "conflicts.json").write_text(json.dumps(data, indent=1))
    (RESULTS / "conflicts.md").write_text(page(data))
    print(f"{RESULTS / 'conflicts.md'}: {len(found)} cells")


def interval(values: Sequence[float]) -> str:
    """Mean and half the width of its 95 % interval (Student's t over seeds)."""
    n, mean = len(values), float(np.mean(values))
    return f"{mean:.2f}" if n < 2 else f"{mean:.2f} ± {STUDENT[n] * float(np.std(values, ddof=1)) / n**0.5:.2f}"


def page(data: dict[str, Any]) -> str:
    """docs/results/conflicts.md, up to what is written by hand below its last line."""
    rows = data["rows"]
    questions = data.get("questions", 400)
    out = [
        "# Conflicts: which reward learns what, when a mark lies at test time",
        "",
        f"Seeds {', '.join(map(str, data['seeds']))}; `{data['command']}`; commits `{', '.join(data['commits'])}`; "
        f"two CPU cores, one thread; {min(data['seconds']) / 60:.0f} to {max(data['seconds']) / 60:.0f} minutes a cell "
        f"(shared machine). {questions} held-out questions a test, mean ± half of a 95 % interval over seeds "
        "(Student's t). What the world is: [conflict](../conflict.md).",
        "",
        "In *marked* training the mark stands on the true context in 95 % of questions, in *balanced* in 50 %. Tests: "
        "the mark kept (95 % on the truth), saying nothing (50 %), reversed (5 %). Following the mark alone scores "
        ".95, .50 and .05; the first context .50 in each.",
        "",
    ]
    for title, right, wrong in (
        ("Greedy answers", "accuracy", "conflict_error"),
        ("Sampled answers, temperature 1", "sampled_accuracy", "sampled_conflict_error"),
    ):
        out += [
            f"## {title}",
            "",
            "| policy | " + " | ".join(f"right, {t}" for t in TESTS) + " | wrong candidate, reversed |",
        ]
        out.append("|---" * (len(TESTS) + 2) + "|")
        for method in METHODS:
            of = {t: [r for r in rows if r["method"] == method and r["test"] == t] for t in TESTS}
            if all(of.values()):
                cells = [interval([r[right] for r in of[t]]) for t in TESTS]
                out.append(f"| {method} | {' | '.join(cells)} | {interval([r[wrong] for r in of['reversed']])} |")
        out.append("")
    out += [
        "## Traces, greedy, mark reversed",
        "",
        "| policy | logic | consistency | reward | words |",
        "|---|---|---|---|---|",
    ]
    for method in METHODS:
        mine = [r for r in rows if r["method"] == method and r["test"] == "reversed"]
        if mine:
            keys = ("mean_logic", "mean_consistency", "reward", "mean_tokens")
            out.append(f"| {method} | {' | '.join(interval([r[key] for r in mine]) for key in keys)} |")
    return "\n".join([*out, ""])


if __name__ == "__main__":
    import sys

    sys.exit(main())
