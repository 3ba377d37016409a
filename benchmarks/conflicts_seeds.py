"""What is learnt from which reward, with a mark that lies at test time: docs/results/conflicts.json and conflicts.md.

    python -m benchmarks.conflicts_seeds                    # every cell, one after the other; continues what is there
    python -m benchmarks.conflicts_seeds --seeds 1          # one seed
    python -m benchmarks.conflicts_seeds --write            # only write what the finished cells say

A cell is one run of ``configs/reasoning/kcr_conflicts.yaml``: a reward (full, or the answer alone) times the training
data (the mark stands on the true context in 95 %, or in 50 %). All cells of a seed start from one supervised model, to
which the mark says nothing; it is measured too, and so is what it was before it learnt to be brief. Every policy
answers the same held-out questions three times: with the mark kept (95 % on the truth), said nothing (50 %), reversed
(5 %); so do four choosers that learn nothing. A finished cell is kept.
"""

from __future__ import annotations

import argparse
import platform
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.over_seeds import commits, finished, interval, publish

if TYPE_CHECKING:
    from reasoning.conflict import Instance

ROOT = Path(__file__).resolve().parents[1]
CONFIG = "configs/reasoning/kcr_conflicts.yaml"
SKILL, START = "supervised skill alone", "supervised only"
REWARDS = {"full": [], "answer only": ["reward.logic=0", "reward.consistency=0"]}
CUES = {"marked": 0.95, "balanced": 0.5}
TESTS = {"kept": 0.05, "nothing": 0.5, "reversed": 0.95}
"""A world's test split has its mark on the truth with 1 - cue."""
METHODS = (SKILL, START, *(f"{reward}, {data}" for data, reward in product(CUES, REWARDS)))


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Rewards and a mark that lies, over seeds")
    parser.add_argument("--seeds", type=int, nargs="*", default=[1, 2, 3], help="0 is what settings were found with")
    parser.add_argument("--folder", type=Path, default=ROOT / "runs" / "conflicts")
    parser.add_argument("--held-out", type=int, default=400, help="questions per test")
    parser.add_argument("--write", action="store_true", help="run nothing, only write the results")
    parser.add_argument("override", nargs="*", default=[], help="overrides of the config, after --")
    asked = parser.parse_args(arguments)
    cells = [(seed, method) for data in CUES for seed, method in product(asked.seeds, METHODS) if belongs(method, data)]
    for seed, method in [] if asked.write else cells:
        cell(asked.folder, seed, method, asked.held_out, asked.override)
    write(asked.folder, asked.held_out)
    return 0


def belongs(method: str, data: str) -> bool:
    """Whether a cell is among those of some training data; what all start from goes with the first."""
    return method.endswith(data) or (method in (SKILL, START) and data == next(iter(CUES)))


def cell(folder: Path, seed: int, method: str, held_out: int, overrides: Sequence[str]) -> None:
    """Train and measure one cell, unless its result is there."""
    from launch import config
    from launch.report import build
    from launch.runfolder import environment, write_json
    from reasoning.conflict.warmup import from_scratch, skilled

    name = f"seed-{seed}-{method.replace(', ', '-').replace(' ', '-')}"
    target = folder / f"{name}.json"
    if target.exists():
        return
    start, cpu = time.monotonic(), time.process_time()
    reward, _, data = method.partition(", ")
    said = [f"run.seed={seed}", f"run.folder={folder / name}", *overrides]
    if data:
        said += [f"world.cue={CUES[data]}", *REWARDS[reward]]
    loaded = config.load(ROOT / CONFIG, said)
    supervised = skilled if method == SKILL else from_scratch
    policy = supervised(loaded.config.world, loaded.config.base, seed)
    if data:
        result = loaded.recipe.main(loaded.config)
        build(result.folder)
        policy = result.folder / "checkpoints" / "grpo" / "final"
    spent = {"seconds": time.monotonic() - start, "cpu_seconds": time.process_time() - cpu}
    rows = [{"seed": seed, "method": method, **row} for row in measured(loaded.config, seed, policy, held_out)]
    write_json(target, {"method": method, "rows": rows, **spent, "environment": environment(seed)})


def measured(config: Any, seed: int, policy: Path, held_out: int) -> Iterator[dict[str, Any]]:
    """Numbers of one policy on each test."""
    from reasoning.conflict.answering import answered, load_policy

    model, tokenizer = load_policy(policy, policy)
    for test, questions in tests(config.world, held_out):
        numbers, _ = answered(
            model, tokenizer, questions, tokens=config.grpo.max_new_tokens, temperature=1.0, batch=100, seed=seed
        )
        yield {"test": test, **numbers}


def tests(world: Any, held_out: int) -> Iterator[tuple[str, list[dict[str, str]]]]:
    """The held-out questions, with the mark as each test has it."""
    for test, cue in TESTS.items():
        yield test, list(replace(world, cue=cue, test=held_out).rows("test"))


# ---------------------------------------------------------------- baselines


def baselines(held_out: int) -> list[dict[str, Any]]:
    """Right and wrong answers of choosers that learn nothing."""
    from launch import config
    from reasoning.conflict import Instance, resolve
    from tasks.worlds.conflicts import CUE

    def structural(case: Instance) -> int | None:
        return resolve(case.question, [c.text for c in case.contexts])["followed"]

    choosers: dict[str, Callable[[Instance], int | None]] = {
        "first context": lambda case: 0,
        "the marked context": lambda case: next(j for j, c in enumerate(case.contexts) if c.source == CUE),
        "structural resolver": structural,
    }
    rows = []
    for test, questions in tests(config.load(ROOT / CONFIG, []).config.world, held_out):
        cases = [Instance.from_json(row["instance"]) for row in questions]
        for name, choose in choosers.items():
            chosen = [(case, choose(case)) for case in cases]
            right = sum(at in case.true_indices for case, at in chosen) / len(cases)
            wrong = sum(at is not None and at not in case.true_indices for case, at in chosen) / len(cases)
            rows.append({"method": name, "test": test, "accuracy": right, "conflict_error": wrong})
        even = sum(1 / len(case.contexts) for case in cases) / len(cases)
        rows.append({"method": "any context (chance)", "test": test, "accuracy": even, "conflict_error": 1 - even})
    return rows


# ---------------------------------------------------------------- results


def write(folder: Path, held_out: int) -> None:
    """Write both result files from the cells that are finished in `folder`."""
    found = finished(folder, "cell")
    if not found:
        return
    environment = found[0]["environment"]
    data = {
        "command": "python -m benchmarks.conflicts_seeds",
        "commits": commits(found),
        "machine": {
            "system": platform.system(),
            "cores": environment["cores"],
            "threads": environment["threads"],
        },
        "versions": environment["versions"],
        "seeds": sorted({row["seed"] for f in found for row in f["rows"]}),
        "questions": held_out,
        "cells": [{key: f[key] for key in ("method", "seconds", "cpu_seconds")} for f in found],
        "rows": [row for f in found for row in f["rows"]],
        "baselines": baselines(held_out),
    }
    publish("conflicts", data, page, f"{len(found)} cells")


def page(data: dict[str, Any]) -> str:
    """docs/results/conflicts.md."""
    rows = data["rows"]
    minutes = {
        kind: max(c[key] for c in data["cells"]) / 60
        for kind, key in (("wall", "seconds"), ("processor", "cpu_seconds"))
    }
    out = [
        "# Conflicts: which reward learns what, when a mark lies at test time",
        "",
        f"Seeds {', '.join(map(str, data['seeds']))}; `{data['command']}`; commits `{', '.join(data['commits'])}`; "
        f"two CPU cores, one thread; at most {minutes['processor']:.1f} minutes of processor time a cell, "
        f"{minutes['wall']:.0f} on the clock (shared machine; the first cell of a seed makes its start). "
        f"{data['questions']} held-out questions a test; mean ± half of a 95 % interval over seeds (Student's t), so "
        "that ends beyond 0 and 1 mean only that three seeds are few. What the world is: [conflict](../conflict.md).",
        "",
        "In *marked* training the mark stands on the true context in 95 % of questions, in *balanced* in 50 %. Tests: "
        "the mark kept (95 % on the truth), saying nothing (50 %), reversed (5 %). *Supervised only* is what GRPO "
        "starts from: a model that can check a chain (*supervised skill alone*: it always does) and hardly ever does.",
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
            "|---" * (len(TESTS) + 2) + "|",
        ]
        shown = [*rows, *data["baselines"]] if right == "accuracy" else rows
        for method in dict.fromkeys((*METHODS, *(row["method"] for row in shown))):
            of = {t: [r for r in shown if r["method"] == method and r["test"] == t] for t in TESTS}
            if all(of.values()):
                cells = [interval([r[right] for r in of[t]]) for t in TESTS]
                out.append(f"| {method} | {' | '.join(cells)} | {interval([r[wrong] for r in of['reversed']])} |")
        out.append("")
    out += [
        "## Traces, greedy, mark reversed",
        "",
        "Two links told take 19 words, with a rejection before them 33, a home alone 12.",
        "",
        "| policy | logic | consistency | reward | words |",
        "|---|---|---|---|---|",
    ]
    for method in METHODS:
        mine = [r for r in rows if r["method"] == method and r["test"] == "reversed"]
        if mine:
            keys = ("mean_logic", "mean_consistency", "reward", "mean_tokens")
            out.append(f"| {method} | {' | '.join(interval([r[key] for r in mine]) for key in keys)} |")
    out += ["", "## Seeds, greedy, right with the mark reversed", "", "| policy | each seed |", "|---|---|"]
    for method in METHODS:
        mine = [r for r in rows if r["method"] == method and r["test"] == "reversed"]
        if mine:
            out.append(f"| {method} | {', '.join(format(r['accuracy'], '.3f') for r in mine)} |")
    return "\n".join([*out, ""])


if __name__ == "__main__":
    import sys

    sys.exit(main())
