"""A small model learns which tool to call: docs/results/agent.json and agent.md.

    python -m benchmarks.agent_tools                    # every seed, one after the other; continues what is there
    python -m benchmarks.agent_tools --seeds 1          # one seed
    python -m benchmarks.agent_tools --write            # only write what the finished seeds say

A seed is one run of ``configs/reasoning/agent_arithmetic.yaml``; it changes the first weights, the demonstrations, the
order of training and every sample. The held-out questions are the same for all. A finished seed is kept.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.over_seeds import commits, finished, interval, publish

ROOT = Path(__file__).resolve().parents[1]
CONFIG = "configs/reasoning/agent_arithmetic.yaml"
SHOWN = {
    "right_tool": "right tool, greedy",
    "sampled_right_tool": "right tool, sampled",
    "right_answer": "right answer, greedy",
    "sampled_right_answer": "right answer, sampled",
    "calls": "calls a chat, greedy",
    "sampled_failed": "failed calls a chat, sampled",
}


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Learning to call the right tool, over seeds")
    parser.add_argument("--seeds", type=int, nargs="*", default=[0, 1, 2, 3, 4])
    parser.add_argument("--folder", type=Path, default=ROOT / "runs" / "agent")
    parser.add_argument("--held-out", type=int, default=400, help="questions")
    parser.add_argument("--write", action="store_true", help="run nothing, only write the results")
    parser.add_argument("override", nargs="*", default=[], help="overrides of the config, after --")
    asked = parser.parse_args(arguments)
    for seed in [] if asked.write else asked.seeds:
        one_seed(asked.folder, seed, [f"held_out={asked.held_out}", *asked.override])
    write(asked.folder)
    return 0


def one_seed(folder: Path, seed: int, overrides: Sequence[str]) -> None:
    """Train and measure one seed, unless its result is there."""
    from launch import config
    from launch.report import build
    from launch.runfolder import RunFolder, environment, write_json

    target = folder / f"seed-{seed}.json"
    if target.exists():
        return
    start = time.monotonic()
    loaded = config.load(ROOT / CONFIG, [f"run.seed={seed}", f"run.folder={folder / f'seed-{seed}'}", *overrides])
    result = loaded.recipe.main(loaded.config)
    build(result.folder)
    steps = [row for row in RunFolder(result.folder).metrics() if row.get("stage") == "grpo" and "agent/right" in row]
    curve = [[row["step"], row["agent/right_tool"]] for row in steps]
    facts = {"seed": seed, "questions": loaded.config.held_out, "metrics": result.metrics, "curve": curve}
    write_json(target, {**facts, "seconds": time.monotonic() - start, "environment": environment(seed)})


# ---------------------------------------------------------------- results


def write(folder: Path) -> None:
    """Write both result files from the seeds that are finished in `folder`."""
    found = finished(folder)
    if not found:
        return
    environment = found[0]["environment"]
    data = {
        "command": "python -m benchmarks.agent_tools",
        "commits": commits(found),
        "threads": environment["threads"],
        "versions": environment["versions"],
        "questions": found[0]["questions"],
        "seeds": [one["seed"] for one in found],
        "seconds": [round(one["seconds"]) for one in found],
        "rows": [one["metrics"] for one in found],
        "curves": [one["curve"] for one in found],
    }
    publish("agent", data, page, f"{len(found)} seeds")


def page(data: dict[str, Any]) -> str:
    """docs/results/agent.md."""
    rows, seconds = data["rows"], data["seconds"]
    out = [
        "# Learning which tool to call",
        "",
        f"Seeds {', '.join(map(str, data['seeds']))}; `{data['command']}`; commits `{', '.join(data['commits'])}`; "
        f"two CPU cores, {data['threads']} thread, shared with other work; {min(seconds) / 60:.0f} to "
        f"{max(seconds) / 60:.0f} minutes a seed. {data['questions']} held-out questions, whose sentences and numbers "
        "do not occur in training; mean ± half of a 95 % interval over seeds (Student's t). What was trained: "
        "[agent](../agent.md).",
        "",
        "Three actions (add, multiply, no tool) are right equally often: always taking the same one, or any at random, "
        "is right in .333. The demonstrations take the right one in .6 of the chats.",
        "",
        "| held-out questions | after demonstrations | after GRPO |",
        "|---|---|---|",
    ]
    for key, label in SHOWN.items():
        before, after = ([row[f"{when}{key}"] for row in rows] for when in ("before_", ""))
        out.append(f"| {label} | {interval(before, 3)} | {interval(after, 3)} |")
    out += [
        "",
        "Right tool, seed by seed:",
        "",
        "| seed | greedy, before and after | sampled, before and after |",
        "|---|---|---|",
    ]
    for seed, row in zip(data["seeds"], rows, strict=True):
        pairs = [f"{row[f'before_{key}']:.3f}, {row[key]:.3f}" for key in ("right_tool", "sampled_right_tool")]
        out.append(f"| {seed} | {' | '.join(pairs)} |")
    out += ["", "Right tool among a step's samples, means of ten steps:", "", f"| seed | {_steps(data)} |"]
    out.append("|---" * (len(_tens(data["curves"][0])) + 1) + "|")
    for seed, curve in zip(data["seeds"], data["curves"], strict=True):
        out.append(f"| {seed} | {' | '.join(f'{mean:.2f}' for _, mean in _tens(curve))} |")
    return "\n".join([*out, ""])


def _tens(curve: Sequence[tuple[int, float]]) -> list[tuple[int, float]]:
    """Last step and mean of every ten steps."""
    parts = [curve[k : k + 10] for k in range(0, len(curve), 10)]
    return [(part[-1][0], float(np.mean([value for _, value in part]))) for part in parts]


def _steps(data: dict[str, Any]) -> str:
    return " | ".join(f"to {step}" for step, _ in _tens(data["curves"][0]))


if __name__ == "__main__":
    sys.exit(main())
