"""What a charge's chains are worth to a small decoder: docs/results/legal.json and legal.md.

    OMP_NUM_THREADS=1 python -m benchmarks.legal_chains               # every cell that is not finished, then the page
    OMP_NUM_THREADS=1 python -m benchmarks.legal_chains --write       # only the page, of the finished cells

A cell is one run of ``configs/reasoning/legal_judge.yaml`` (JuDGE, 400 cases to learn, 101 to test) or
``legal_cases.yaml`` (the embedded world, tested on charges that training has not seen) at one seed and one `law`: the
case's own chains as soft tokens, those of another charge, or none. All cells of a config start from one decoder. A cell
with its own chains is also read with another charge's at test time ("swapped"). A finished cell is kept.
"""

from __future__ import annotations

import argparse
import json
import math
import shutil
import time
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.over_seeds import interval

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "docs" / "results"
FOLDER = ROOT / "runs" / "legal_chains"
CONFIGS = {"judge": "legal_judge", "world": "legal_cases"}
LAWS = ("soft", "shuffled", "none")
TITLES = {
    "soft": "own chains",
    "shuffled": "another charge's chains",
    "none": "no chains",
    "swapped": "own chains, swapped at test",
}


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Chains of the right charge, of another, and none")
    parser.add_argument("--seeds", type=int, nargs="*", default=[0, 1, 2])
    parser.add_argument("--folder", type=Path, default=FOLDER)
    parser.add_argument("--sets", nargs="*", choices=list(CONFIGS), default=list(CONFIGS))
    parser.add_argument("--write", action="store_true", help="run nothing, only write the results")
    parser.add_argument("override", nargs="*", default=[], help="overrides of the configs, after --")
    asked = parser.parse_args(arguments)
    for name, seed, law in [] if asked.write else product(asked.sets, asked.seeds, LAWS):
        cell(asked.folder, name, seed, law, asked.override)
    write(asked.folder)
    return 0


def cell(folder: Path, name: str, seed: int, law: str, overrides: Sequence[str]) -> None:
    """Train and measure one cell, unless its result is there."""
    from launch import config
    from launch.runfolder import environment, write_json

    target = folder / f"{name}-seed-{seed}-{law}.json"
    if target.exists():
        return
    begun = time.process_time()
    run = folder / target.stem
    said = [f"run.seed={seed}", f"run.folder={run}", f"law={law}", *overrides]
    loaded = config.load(ROOT / "configs" / "reasoning" / f"{CONFIGS[name]}.yaml", said)
    result = loaded.recipe.main(loaded.config)
    nats = {law: clause_nats(loaded.config, result.folder / "model", law)}
    bound = constrained(loaded.config, result.folder / "model")
    if law == "soft":
        nats["swapped"] = clause_nats(loaded.config, result.folder / "model", "shuffled")
    evaluation = json.loads((result.folder / "artifacts" / "legal-evaluation.json").read_text(encoding="utf-8"))
    write_json(
        target,
        {
            "set": name,
            "seed": seed,
            "law": law,
            **evaluation,
            "selected_step": result.metrics["selected_step"],
            "clause_nats": nats,
            "constrained": bound,
            "cpu_seconds": round(time.process_time() - begun, 1),
            "environment": environment(seed),
        },
    )
    shutil.rmtree(result.folder / "checkpoints")
    shutil.rmtree(result.folder / "selected")
    print(target.stem, {k: round(float(np.mean(v)), 3) for k, v in nats.items()}, flush=True)


def clause_nats(config: Any, model: Path, law: str) -> list[float]:
    """Nats of each test case's sentence clause under a saved model, its reasons given."""
    from dataclasses import replace

    from launch.models import load_tokenizer
    from reasoning.legal.encoder import ChainModel
    from reasoning.legal.evaluation import LOSSES, case_losses
    from reasoning.legal.objective import OpinionObjective, encode_opinions
    from reasoning.legal.train import feed_of

    loaded = ChainModel.from_pretrained(model)
    rows = feed_of(replace(config, law=law)).test
    examples = encode_opinions(rows, loaded.renderer(load_tokenizer(model), config.max_length))
    return case_losses(loaded, OpinionObjective(), examples)[:, LOSSES.index("clause_nats")].tolist()


def constrained(config: Any, model: Path) -> dict[str, float]:
    """Numbers of a saved model whose sentence clauses are chosen among those that parse."""
    from launch.models import load_tokenizer
    from reasoning.legal.encoder import ChainModel
    from reasoning.legal.evaluation import measured
    from reasoning.legal.train import feed_of

    loaded, feed = ChainModel.from_pretrained(model), feed_of(config)
    renderer = loaded.renderer(load_tokenizer(model), config.max_length)
    return measured(loaded, renderer, feed, feed.test, tokens=config.max_new_tokens, constrained=True, batch=101)[0]


# ---------------------------------------------------------------- results


def write(folder: Path) -> None:
    """Write both result files from the cells that are finished in `folder`."""
    cells = [json.loads(file.read_text(encoding="utf-8")) for file in sorted(folder.glob("*-seed-*-*.json"))]
    if not cells:
        print(f"no finished cell in {folder}")
        return
    environments = [c["environment"] for c in cells]
    data = {
        "command": "OMP_NUM_THREADS=1 python -m benchmarks.legal_chains",
        "commits": sorted({str(e["commit"])[:10] for e in environments}),
        "versions": environments[0]["versions"],
        "cpu_seconds": round(sum(c["cpu_seconds"] for c in cells)),
        "cells": [_kept(c) for c in cells],
        "differences": {name: differences([c for c in cells if c["set"] == name]) for name in CONFIGS},
    }
    RESULTS.mkdir(parents=True, exist_ok=True)
    (RESULTS / "legal.json").write_text(json.dumps(data, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    (RESULTS / "legal.md").write_text(page(data), encoding="utf-8")
    print(f"{RESULTS / 'legal.md'}: {len(cells)} cells")


def _kept(cell: dict[str, Any]) -> dict[str, Any]:
    """A cell without its numbers of single cases: nothing of the data row by row is published."""
    nats = {law: float(np.mean(values)) for law, values in cell["clause_nats"].items()}
    return {k: v for k, v in cell.items() if k != "environment"} | {"clause_nats": nats}


def page(data: dict[str, Any]) -> str:
    """docs/results/legal.md."""
    out = [
        "# Legal chains: the right charge's, another's, none",
        "",
        f"`{data['command']}`; commits `{', '.join(data['commits'])}`;",
        "two CPU cores, one thread, "
        f"{data['cpu_seconds'] / 60:.0f} CPU minutes in all. Models have less than two million parameters and began",
        "from nothing: nothing here is a claim about large ones, and none may be used to decide a case.",
        "",
        "*Clause*: nats of the whole sentence clause, the court's reasons given; for predictors without a model the",
        "surprise at the term under smoothed training frequencies. *Consistent*: reasons and sentence agree",
        "(`check_opinion`), of cases whose charge has chains. *Parsed* and *free*: greedy text as it comes. All other",
        "numbers: sentence clauses chosen among those that parse, so that every law answers every case. Mean over",
        "seeds ± half of a 95 % interval (Student's t).",
        "",
    ]
    titles = {
        "judge": "## JuDGE: 101 court cases, 400 to learn from",
        "world": "## The embedded cases: 400 cases of 30 charges that training has not seen",
    }
    for name, title in titles.items():
        cells = [c for c in data["cells"] if c["set"] == name]
        if cells:
            out += [title, "", *_table(cells), "", *_differences(data["differences"][name]), ""]
    return "\n".join(out)


COLUMNS = {"mae": "MAE, months", "rmse": "RMSE", "log_distance": "log distance", "cail": "CAIL score",
           "consistency": "consistent"}  # fmt: skip
FREE = {"parse_rate": "parsed", "consistency": "consistent, free"}


def _table(cells: Sequence[dict[str, Any]]) -> list[str]:
    titles = [*COLUMNS.values(), *FREE.values()]
    lines = ["| law | seeds | clause | " + " | ".join(titles) + " |", "|---" * (len(titles) + 3) + "|"]
    for law in (*LAWS, "swapped"):
        mine = [c for c in cells if law in c["clause_nats"]]
        if mine:
            nats = interval_of_known([c["clause_nats"][law] for c in mine])
            rest = [interval_of_known([c["constrained"].get(k) for c in mine]) for k in COLUMNS]
            rest += [interval_of_known([c["model"].get(k) for c in mine]) for k in FREE]
            rest = [""] * len(titles) if law == "swapped" else rest
            lines.append(f"| {TITLES[law]} | {len(mine)} | {nats} | {' | '.join(rest)} |")
    for name, numbers in cells[0]["trivial"].items():
        rest = ["" if k not in numbers else f"{numbers[k]:.2f}" for k in COLUMNS] + [""] * len(FREE)
        lines.append(f"| {name} | – | {numbers['loss_clause']:.2f} | {' | '.join(rest)} |")
    return lines


def differences(cells: Sequence[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """Clause nats of each control minus those of the own chains, paired by case, with a bootstrap over cases."""
    by = {law: {c["seed"]: c["clause_nats"][law] for c in cells if law in c["clause_nats"]} for law in TITLES}
    found = {}
    for law in ("shuffled", "none", "swapped"):
        seeds = sorted(set(by["soft"]) & set(by[law]))
        if seeds:
            each = np.array([np.subtract(by[law][s], by["soft"][s]) for s in seeds])  # [seeds, cases]
            draw = np.random.default_rng(0).integers(each.shape[1], size=(2000, each.shape[1]))
            low, high = np.percentile(each.mean(0)[draw].mean(1), [2.5, 97.5]).tolist()
            better = int((each.mean(1) > 0).sum())
            found[law] = {"mean": float(each.mean()), "low": low, "high": high, "better": better, "seeds": len(seeds)}
    return found


def _differences(found: dict[str, dict[str, float]]) -> list[str]:
    lines = [
        "| nats lost without the own chains | mean | 95 % over cases | seeds in which they help |",
        "|---|---|---|---|",
    ]
    for law, d in found.items():
        helped = f"{d['better']} of {d['seeds']}"
        lines.append(f"| {TITLES[law]} | {d['mean']:+.3f} | {d['low']:+.3f} to {d['high']:+.3f} | {helped} |")
    return lines


def interval_of_known(values: Sequence[float | None]) -> str:
    """`interval` of what was measured; "" where nothing was."""
    known = [v for v in values if v is not None and math.isfinite(v)]
    return interval(known) if known else ""


if __name__ == "__main__":
    import sys

    sys.exit(main())
