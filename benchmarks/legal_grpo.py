"""A small model that learnt from demonstrations that err, before and after GRPO: docs/results/legal_grpo.json and .md.

    OMP_NUM_THREADS=1 python -m benchmarks.legal_grpo               # every seed that is not finished, then the page
    OMP_NUM_THREADS=1 python -m benchmarks.legal_grpo --seeds 1     # one seed
    OMP_NUM_THREADS=1 python -m benchmarks.legal_grpo --write       # only the page, of the finished seeds

A seed is one run of ``configs/reasoning/legal_grpo_cases.yaml``. All start from one supervised model; the order of
prompts and every sample are the seed's. Held-out cases are of charges that no training has seen, the same for all. A
finished seed is kept.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.over_seeds import commits, finished, interval, publish

ROOT = Path(__file__).resolve().parents[1]
CONFIG = "configs/reasoning/legal_grpo_cases.yaml"
SOME = 1000
"""Training cases on which the best fixed answer is chosen."""
SHOWN = {
    "reward": "reward (at most 1.6)",
    "right": "right term",
    "lawful": "term inside the law's range",
    "cail": "CAIL score of the term",
    "mae": "months off, mean",
    "mean_consistent": "reasons and term agree",
    "parse_rate": "parsed",
}


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="GRPO on opinions, over seeds")
    parser.add_argument("--seeds", type=int, nargs="*", default=[1, 2, 3], help="0 is what settings were found with")
    parser.add_argument("--folder", type=Path, default=ROOT / "runs" / "legal_grpo")
    parser.add_argument("--write", action="store_true", help="run nothing, only write the results")
    parser.add_argument("override", nargs="*", default=[], help="overrides of the config, after --")
    asked = parser.parse_args(arguments)
    for seed in [] if asked.write else asked.seeds:
        one_seed(asked.folder, seed, asked.override)
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
    start, cpu = time.monotonic(), time.process_time()
    said = [f"run.seed={seed}", f"run.folder={folder / f'seed-{seed}'}", *overrides]
    loaded = config.load(ROOT / CONFIG, said)
    result = loaded.recipe.main(loaded.config)
    build(result.folder)
    steps = [row for row in RunFolder(result.folder).metrics() if "legal/total" in row]
    facts = {
        "seed": seed,
        "metrics": result.metrics,
        "curve": [[row["step"], row["legal/total"]] for row in steps],
        "baselines": baselines(loaded.config),
        "cases": loaded.config.held_out,
        "seconds": time.monotonic() - start,
        "cpu_seconds": time.process_time() - cpu,
    }
    write_json(target, {**facts, "environment": environment(seed)})


def baselines(config: Any) -> dict[str, dict[str, float]]:
    """The same numbers of answers that nothing has learnt, and of the median, which has no reasons."""
    from reasoning.legal.grpo import rows_of, scored
    from reasoning.legal.metrics import sentencing
    from reasoning.legal.opinion import WORLD
    from tasks.worlds.cases import PLACES

    world = config.world
    train, test = rows_of(config)

    def answers(rows: list[dict[str, Any]], tier: int, place: str) -> dict[str, float]:
        texts = []
        for row in rows:
            low, high = world.read(row["fact"]).law.bounds[tier : tier + 2]
            months = {"middle": (low + high) // 2, "least": low, "most": high}[place]
            texts.append(world.render(low, high, place, months))
        return scored(texts, rows, world, WORLD[world.language], config.reward)[0]

    kinds = list(product(range(3), PLACES))
    every = {kind: answers(test, *kind) for kind in kinds}
    best = max(kinds, key=lambda kind: answers(train[:SOME], *kind)["reward"])
    median = float(np.median([row["months"] for row in train]))
    told = sentencing([row["months"] for row in test], [median] * len(test))
    return {
        "any tier and place": {name: float(np.mean([one[name] for one in every.values()])) for name in SHOWN},
        "best fixed tier and place": {name: every[best][name] for name in SHOWN},
        "median of all training terms": {name: told[name].value for name in ("cail", "mae")},
    }


# ---------------------------------------------------------------- results


def write(folder: Path) -> None:
    """Write both result files from the seeds that are finished in `folder`."""
    found = finished(folder)
    if not found:
        return
    environment = found[0]["environment"]
    data = {
        "command": "OMP_NUM_THREADS=1 python -m benchmarks.legal_grpo",
        "commits": commits(found),
        "threads": environment["threads"],
        "versions": environment["versions"],
        "cases": found[0]["cases"],
        "seeds": [one["seed"] for one in found],
        "seconds": [round(one["seconds"]) for one in found],
        "cpu_seconds": [round(one["cpu_seconds"]) for one in found],
        "baselines": found[0]["baselines"],
        "rows": [one["metrics"] for one in found],
        "curves": [one["curve"] for one in found],
    }
    publish("legal_grpo", data, page, f"{len(found)} seeds")


def page(data: dict[str, Any]) -> str:
    """docs/results/legal_grpo.md."""
    rows, minutes = data["rows"], [s / 60 for s in data["cpu_seconds"]]
    plain = data["baselines"]
    out = [
        "# GRPO on opinions: samples become as good as greedy answers",
        "",
        f"Seeds {', '.join(map(str, data['seeds']))}; `{data['command']}`; commits `{', '.join(data['commits'])}`; two "
        f"CPU cores, {data['threads']} thread, shared with other work; {min(minutes):.1f} to {max(minutes):.1f} CPU "
        f"minutes a seed. {data['cases']} held-out cases of charges that no training has seen, the law told "
        "in words; mean ± half of a 95 % interval over seeds (Student's t). What the world is: [legal](../legal.md).",
        "",
        "The model has less than a million parameters and learnt from nothing, from demonstrations of which .6 take "
        "the right tier and place; one start for all seeds, so that intervals are of GRPO alone. GRPO pays the "
        "verifiable reward, no demonstrations. *Best fixed* is the tier and place that pay most on training cases: "
        "what can be had without reading. Of these charges there is no training case, hence no median of the charge; "
        "the median of all has no reasons and no reward. Nothing here is a claim about real cases.",
        "",
    ]
    names = list(plain)
    for title, kind in (("Greedy answers", ""), ("Sampled answers, temperature 1", "sampled_")):
        out += [
            f"## {title}",
            "",
            f"| held-out cases | {' | '.join(names)} | after demonstrations | after GRPO |",
            "|---" * (len(names) + 3) + "|",
        ]
        for key, label in SHOWN.items():
            digits = 1 if key == "mae" else 2
            told = [format(plain[name][key], f".{digits}f") if key in plain[name] else "" for name in names]
            ends = [_over(rows, f"{when}{kind}{key}", digits) for when in ("before_", "")]
            out.append(f"| {label} | {' | '.join([*told, *ends])} |")
        out.append("")
    out += ["## Seed by seed, sampled, before and after", "", "| seed | reward | right term | months off |"]
    out.append("|---|---|---|---|")
    shown = (("sampled_reward", 2), ("sampled_right", 2), ("sampled_mae", 1))
    for seed, row in zip(data["seeds"], rows, strict=True):
        pairs = [f"{_over([row], f'before_{key}', digits)}, {_over([row], key, digits)}" for key, digits in shown]
        out.append(f"| {seed} | {' | '.join(pairs)} |")
    tens = [_tens(curve) for curve in data["curves"]]
    heads = " | ".join(f"to {step}" for step, _ in tens[0])
    out += ["", "Reward of a step's samples on training charges, means of ten steps:", "", f"| seed | {heads} |"]
    out.append("|---" * (len(tens[0]) + 1) + "|")
    for seed, found in zip(data["seeds"], tens, strict=True):
        out.append(f"| {seed} | {' | '.join(f'{mean:.2f}' for _, mean in found)} |")
    return "\n".join([*out, ""])


def _over(rows: Sequence[dict[str, float]], key: str, digits: int) -> str:
    """A number over seeds; of terms that were not read, nothing."""
    return interval([row[key] for row in rows], digits) if all(key in row for row in rows) else "–"


def _tens(curve: Sequence[tuple[int, float]]) -> list[tuple[int, float]]:
    """Last step and mean of every ten steps."""
    parts = [curve[k : k + 10] for k in range(0, len(curve), 10)]
    return [(part[-1][0], float(np.mean([value for _, value in part]))) for part in parts]


if __name__ == "__main__":
    import sys

    sys.exit(main())
