"""Preference models on real answers, backbones trained whole, through `launch.trainer.fit` with `PreferenceObjective`.

    OMP_NUM_THREADS=1 python -m benchmarks.real_finetuned [stories] [minilm]

Same sets, same split by prompt and same baselines as benchmarks.real_preferences, where the backbones stay frozen. What
is smaller here, so that two cores can pay for it, is in `Plan`: the length, the answers and groups trained on, and how
much of each test is read. A long prompt keeps its last tokens, so that the answers are seen.

One learning rate for each backbone and kind: of `Plan.rates`, the one with the lowest loss on validation prompts at
seed 0 (a tenth of the training prompts; no test is looked at). Every fit is a cell under runs/real_finetuned and is not
made again, so a run that is killed loses one cell at most. Writes docs/results/real_finetuned.{json,md}.

Left out: weight decay, choice of epoch, and rates for each seed; texts over the length are cut, not read in parts.
"""

from __future__ import annotations

import json
import shutil
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from align.preference.data import to_group
from align.preference.formats import Judged
from benchmarks import features
from benchmarks.features import Backbone
from benchmarks.frozen_heads import KINDS
from benchmarks.measure import machine
from benchmarks.real_preferences import (
    OUT,
    TRAIN_SETS,
    Items,
    Sides,
    arrange,
    baselines,
    correct,
    interval,
    shown_first,
    sides,
    size,
    tables,
)

WORK = Path(__file__).parents[1] / "runs" / "real_finetuned"
TAU, DELTA, LAMBDA_SQ_MAX = 1.0, 5.0, 9.0
"""As in configs/align/preference_*_small.yaml."""


@dataclass(frozen=True)
class Plan:
    """What one backbone's grid costs."""

    length: int
    """Tokens of prompt and answer together."""
    groups: int
    """Prompts trained on, of each of the three sets; arena's come round again, with other answers."""
    answers: int
    """Of one arena prompt, at most."""
    batch: int
    """Groups a step."""
    rates: tuple[float, ...]
    seeds: dict[str, int]
    """Kind: how many seeds."""
    valid: int = 40
    """Prompts of each set that a rate is chosen on, at most."""


PLANS = {
    "stories": Plan(128, 240, 4, 8, (1e-3, 3e-3), dict.fromkeys(KINDS, 5)),
    "minilm": Plan(64, 96, 4, 8, (5e-5, 2e-4), dict.fromkeys(KINDS, 5)),
}
TEST_PROMPTS, TEST_ANSWERS = 200, 6
"""At most so many prompts of a test, and answers of a prompt; the same draw for every model."""


def main(names: Sequence[str]) -> None:
    sets = features.corpora()
    train, _, tests, shape = arrange(sets)
    tests = {name: fewer(items) for name, items in tests.items()}
    results: dict[str, Any] = {
        "command": "OMP_NUM_THREADS=1 python -m benchmarks.real_finetuned",
        "machine": machine(),
        "settings": {"tau": TAU, "delta": DELTA, "lambda_sq_max": LAMBDA_SQ_MAX},
        "plans": {name: asdict(plan) for name, plan in PLANS.items()},
        "tests": {name: size(items) for name, items in tests.items()},
        "baselines": {
            name: {test: interval(items, right) for test, (items, right) in found.items()}
            for name, found in baselines(train, tests, shape, shown_first(sets)).items()
        },
    }
    write(results, tests)
    split = sides(sets)
    for name in names or PLANS:
        plan, backbone = PLANS[name], features.backbones()[name]
        for seed in range(max(plan.seeds.values())):  # seeds outside: a grid cut short is even over kinds
            for kind in (kind for kind, count in plan.seeds.items() if seed < count):
                cell = Cell(name, backbone, plan, kind, seed, best_rate(name, backbone, plan, kind, split))
                if not cell.tested.exists():
                    cell.test(split, sets, tests)
                    print(cell.folder.name, {test: round(float(r.mean()), 3) for test, r in cell.right().items()},
                          flush=True)  # fmt: skip
                    write(results, tests)


def best_rate(name: str, backbone: Backbone, plan: Plan, kind: str, split: dict[str, Sides]) -> float:
    """Of the plan's rates, the one with the lowest validation loss at seed 0."""
    return min(plan.rates, key=lambda rate: Cell(name, backbone, plan, kind, 0, rate).fitted(split)["valid_loss"])


@dataclass(frozen=True, eq=False)
class Cell:
    """One fit, kept in one folder."""

    name: str
    backbone: Backbone
    plan: Plan
    kind: str
    seed: int
    rate: float

    @property
    def folder(self) -> Path:
        from launch.runfolder import content_hash

        of = {**asdict(self.plan), "rates": 0, "seeds": 0, "settings": [TAU, DELTA, LAMBDA_SQ_MAX]}
        kind = self.kind.replace(" ", "").replace("+", "p")
        return WORK / f"{self.name}-{content_hash(of)[:6]}" / f"{kind}-rate{self.rate:g}-seed{self.seed}"

    @property
    def tested(self) -> Path:
        return self.folder / "right.json"

    def fitted(self, split: dict[str, Sides]) -> dict[str, float]:
        """Train, or find it done: validation loss and accuracy, and what it cost."""
        from align.preference import PreferenceModel
        from align.preference.objective import PreferenceObjective
        from launch.options import TrainOptions
        from launch.runfolder import RunFolder, write_json
        from launch.trainer import fit

        done = self.folder / "fitted.json"
        if done.exists():
            return json.loads(done.read_text(encoding="utf-8"))
        shutil.rmtree(self.folder, ignore_errors=True)
        begun = time.process_time()
        kind, dims = KINDS[self.kind]
        model = PreferenceModel.from_backbone(
            self.backbone.path, kind=kind, dims=dims or 4, tau=TAU, delta=DELTA, lambda_sq_max=LAMBDA_SQ_MAX,
            max_length=self.plan.length, seed=self.seed,
        )  # fmt: skip
        groups = training_groups(model.renderer.tokenizer, split, self.plan, self.seed)
        options = TrainOptions(
            learning_rate=self.rate, batch_size=self.plan.batch, epochs=1, warmup_ratio=0.1, schedule="linear",
            save_steps=10**6,
        )  # fmt: skip
        run = RunFolder(self.folder / "run").open({"cell": self.folder.name}, self.seed)
        objective = PreferenceObjective(model.renderer, model.config)
        result = fit(
            model, objective, groups, options=options, run=run, name="preference", seed=self.seed,
            tokenizer=model.renderer.tokenizer,
        )  # fmt: skip
        watched = valid_groups(model.renderer.tokenizer, split, self.plan)
        logits = [pair_logits(model, group) for group in watched]
        weight = np.concatenate([group["weights"] for group in watched])
        s = np.concatenate(logits)
        found = {
            "steps": result.steps,
            "train_loss": result.metrics["loss"],
            "valid_loss": float((weight * np.logaddexp(0, -s)).sum() / weight.sum()),
            "valid_accuracy": float((weight * correct(s)).sum() / weight.sum()),
            "cpu_seconds": round(time.process_time() - begun, 1),
        }
        model.save_pretrained(self.folder / "model")
        shutil.rmtree(self.folder / "run" / "checkpoints")
        write_json(done, found)
        print(self.folder.name, found, flush=True)
        return found

    def test(self, split: dict[str, Sides], sets: dict[str, list[Judged]], tests: dict[str, Items]) -> None:
        """Read every test and keep which of its pairs came out right, in halves (a score of 0 is one half)."""
        from align.preference import PreferenceModel
        from launch.runfolder import write_json

        self.fitted(split)
        begun = time.process_time()
        model = PreferenceModel.from_pretrained(self.folder / "model").eval()
        scored = score_rows(model, sets, tests)
        right = {
            name: [scored[pair] for pair in zip(items.winner.tolist(), items.loser.tolist(), strict=True)]
            for name, items in tests.items()
        }
        halves = {name: (2 * correct(np.array(found))).astype(int).tolist() for name, found in right.items()}
        write_json(self.tested, {"right": halves, "cpu_seconds": round(time.process_time() - begun, 1)})
        shutil.rmtree(self.folder / "model")

    def right(self) -> dict[str, np.ndarray]:
        """Per test, 1, 1/2 or 0 for every pair."""
        found = json.loads(self.tested.read_text(encoding="utf-8"))["right"]
        return {name: np.array(halves) / 2 for name, halves in found.items()}


# ---------------------------------------------------------------- what is read


def training_groups(tokenizer: Any, split: dict[str, Sides], plan: Plan, seed: int) -> list[dict[str, Any]]:
    """`plan.groups` groups of each set, each of weight 1, so that the three count alike; drawn by `seed`."""
    found = []
    for number, name in enumerate(TRAIN_SETS):
        draw = np.random.default_rng([seed, number])
        rows = [row for row in split[name].train if any(not vote.tie for vote in row.votes)]
        order: list[int] = []
        while len(order) < plan.groups:
            order += draw.permutation(len(rows)).tolist()
        found += [small_group(tokenizer, rows[n], plan, draw) for n in order[: plan.groups]]
    return found


def valid_groups(tokenizer: Any, split: dict[str, Sides], plan: Plan) -> list[dict[str, Any]]:
    """The groups that a rate is chosen on: the same for every kind and seed."""
    draw, found = np.random.default_rng(0), []
    for name in TRAIN_SETS:
        rows = [row for row in split[name].valid if any(not vote.tie for vote in row.votes)]
        found += [small_group(tokenizer, rows[n], plan, draw) for n in draw.permutation(len(rows))[: plan.valid]]
    return found


def small_group(tokenizer: Any, row: Judged, plan: Plan, draw: np.random.Generator) -> dict[str, Any]:
    """At most `plan.answers` answers of one prompt, among them one strict pair at least; its pairs weigh 1 together."""
    whole = to_group(row, "majority")
    pairs = list(zip(whole["winners"], whole["losers"], strict=True))
    kept = list(pairs[draw.integers(len(pairs))])
    others = [k for k in draw.permutation(len(row.responses)).tolist() if k not in kept]
    kept += others[: plan.answers - 2]
    place = {k: n for n, k in enumerate(kept)}
    inside = [(place[w], place[b]) for w, b in pairs if w in place and b in place]
    texts = [row.responses[k] for k in kept]
    return {
        "prompt": ending(tokenizer, row.prompt, texts, plan.length),  # type: ignore[arg-type]
        "responses": texts,
        "winners": [w for w, _ in inside],
        "losers": [b for _, b in inside],
        "weights": [1.0 / len(inside)] * len(inside),
        "ties": [],
        "source": row.source,
    }


def ending(tokenizer: Any, prompt: str, answers: Sequence[str], length: int) -> str:
    """The end of a prompt: a quarter of `length` tokens, or more where the longest answer leaves room."""

    def tokens(text: str) -> list[tuple[int, int]]:
        return tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]

    longest = max(len(tokens(answer)) for answer in answers)
    room = max(length // 4, length - longest) - 2  # the tokenizer's own tokens at both ends
    spans = tokens(prompt)
    return prompt if len(spans) <= room else prompt[spans[-room][0] :]


def fewer(items: Items, prompts: int = TEST_PROMPTS, answers: int = TEST_ANSWERS) -> Items:
    """The pairs of at most so many prompts, and among so many answers of each, drawn once and for all."""
    draw = np.random.default_rng(0)
    chosen = draw.permutation(np.unique(items.prompt))[:prompts]
    rows = []
    for prompt in np.sort(chosen):
        here = np.unique(np.concatenate([side[items.prompt == prompt] for side in (items.winner, items.loser)]))
        rows.append(draw.permutation(here)[:answers])
    kept = np.isin(items.winner, np.concatenate(rows)) & np.isin(items.loser, np.concatenate(rows))
    return Items(items.winner[kept], items.loser[kept], items.prompt[kept])


def score_rows(model: Any, sets: dict[str, list[Judged]], tests: dict[str, Items]) -> dict[tuple[int, int], float]:
    """Logits of every (winner, loser) of all tests, by rows of the table of all answers. Each text is read once."""
    every = [row for rows in sets.values() for row in rows]
    starts = np.cumsum([0, *(len(row.responses) for row in every)])
    pairs = {
        (int(w), int(b), int(p)) for i in tests.values() for w, b, p in zip(i.winner, i.loser, i.prompt, strict=True)
    }
    found: dict[tuple[int, int], float] = {}
    groups, places = [], []
    for prompt in sorted({p for _, _, p in pairs}):
        here = sorted({row for w, b, p in pairs if p == prompt for row in (w, b)})
        texts = [every[prompt].responses[row - starts[prompt]] for row in here]
        short = ending(model.renderer.tokenizer, every[prompt].prompt, texts, model.renderer.max_length)  # type: ignore[arg-type]
        groups.append((short, texts))
        places.append({row: n for n, row in enumerate(here)})
    at = {prompt: n for n, prompt in enumerate(sorted({p for _, _, p in pairs}))}
    scores = model.score_many(groups, batch_size=32)
    for w, b, p in pairs:
        place = places[at[p]]
        found[w, b] = float(scores[at[p]].S[place[w], place[b]])
    return found


def pair_logits(model: Any, group: dict[str, Any]) -> np.ndarray:
    """S of the pairs of one group, [Q]."""
    return model.score(group["prompt"], group["responses"]).S[group["winners"], group["losers"]]


# ---------------------------------------------------------------- the page


def write(results: dict[str, Any], tests: dict[str, Items]) -> None:
    """JSON and Markdown of whatever cells there are."""
    results["backbones"], cost = {}, 0.0
    for name, plan in PLANS.items():
        backbone = features.backbones()[name]
        for kind, count in plan.seeds.items():
            cells = [Cell(name, backbone, plan, kind, seed, rate) for seed in range(count) for rate in plan.rates]
            fits = {
                cell: json.loads((cell.folder / "fitted.json").read_text()) for cell in _those(cells, "fitted.json")
            }
            done = _those(cells, "right.json")
            if not done:
                continue
            rows = [cell.right() for cell in done]
            found: dict[str, Any] = {t: interval(i, np.stack([row[t] for row in rows])) for t, i in tests.items()}
            found["fits"] = [{"seed": cell.seed, "rate": cell.rate, **fit} for cell, fit in fits.items()]
            found["tested"] = [{"seed": cell.seed, "rate": cell.rate} for cell in done]
            cost += sum(fit["cpu_seconds"] for fit in fits.values())
            cost += sum(json.loads(cell.tested.read_text())["cpu_seconds"] for cell in done)
            label = f"{kind} ({len(done)} seed{'s'[: len(done) > 1]})"
            results["backbones"].setdefault(backbone.name, {})[label] = found
    results["cpu_seconds"] = round(cost)
    OUT.mkdir(parents=True, exist_ok=True)
    (OUT / "real_finetuned.json").write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    (OUT / "real_finetuned.md").write_text(page(results), encoding="utf-8")


def _those(cells: Sequence[Cell], file: str) -> list[Cell]:
    return [cell for cell in cells if (cell.folder / file).exists()]


def page(results: dict[str, Any]) -> str:
    """The results as Markdown."""
    lines = [
        "# Preference models on real answers (whole backbones trained)",
        "",
        "`PreferenceModel` over two real pretrained backbones, all weights trained for one short epoch through",
        "`launch.trainer.fit`; sets, split and baselines as on the page of the [frozen ones](real_preferences.md), but",
        f"read in part: at most {TEST_PROMPTS} prompts of a test and {TEST_ANSWERS} answers of a prompt. tau {TAU:g},",
        f"delta {DELTA:g}. Accuracy over pairs in per cent, with 95 % intervals over prompts and seeds; a dash: the",
        "set does not say which answer was shown first.",
        "",
        "| backbone | tokens | groups of each set | answers | steps | rates tried | rate kept by kind |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, plan in results["plans"].items():
        title = features.backbones()[name].name
        kinds = results["backbones"].get(title, {})
        if kinds:
            kept = ", ".join(f"{kind.split(' (')[0]} {row['tested'][0]['rate']:g}" for kind, row in kinds.items())
            steps = next(iter(kinds.values()))["fits"][0]["steps"]
            numbers = (
                plan["length"],
                plan["groups"],
                plan["answers"],
                steps,
                ", ".join(f"{r:g}" for r in plan["rates"]),
            )
            lines.append(f"| {title} | " + " | ".join(map(str, numbers)) + f" | {kept} |")
    lines += [
        "",
        "The rate is the one with the lowest loss on validation prompts at seed 0, for each kind apart. One step is 8",
        "groups; the three sets count alike.",
        "",
        f"`{results['command']}` ({results['cpu_seconds']} CPU seconds on one core of {results['machine']['cpu']},",
        f"torch {results['machine']['torch']}, commit {results['machine']['commit']}).",
        "",
    ]
    return "\n".join([*lines, *tables(results)])


if __name__ == "__main__":
    main(sys.argv[1:])
