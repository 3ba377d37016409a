"""GRPO on opinions: a policy that has the law in its prompt learns terms and reasons that the statute allows.

    arbiter run reasoning/legal_grpo_cases                     the embedded world, minutes on two cores
    arbiter run reasoning/legal_grpo_qwen7b data.path=FILE     a real model on real cases, chains as numbered lines

1. Start: a given policy, or a small one made from the world's demonstrations, of which `world.start_right` are right.
2. `launch.grpo_fit` on `reward.legal_rewards`, whose verdict of consistency is `check_opinion`'s. 3. Held-out cases
answered greedily before and after.

The law is told in words here (`law: text` of the supervised recipe, or none): TRL samples from a plain causal model,
and soft tokens were never put under it. Cases of charges without chains are left out: nothing can be verified there.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from launch.contracts import Result
from launch.errors import ConfigError
from launch.options import GRPOOptions, RunOptions, TrainOptions
from reasoning.legal.chains import Chain
from reasoning.legal.feed import DataOptions, Row
from reasoning.legal.reward import Weights
from reasoning.legal.scratch import BaseOptions
from tasks.worlds.cases import CasesWorld

ASKED = "先写判决理由，再写“判决如下：判处有期徒刑N个月。”，N为阿拉伯数字，此后不再写任何内容。"
"""The form of an answer, told to chat models."""


@dataclass
class Config:
    """Training of one policy."""

    policy: str = ""
    """Folder or hub name of a causal language model; "" makes a small one from `world`."""
    law: Literal["text", "none"] = "text"
    chat: bool = True
    """Whether prompts of real cases are chat messages; false gives plain text."""
    world: CasesWorld = field(default_factory=CasesWorld)
    """The embedded cases, used where data.path is empty."""
    data: DataOptions = field(default_factory=DataOptions)
    base: BaseOptions = field(default_factory=BaseOptions)
    reward: Weights = field(default_factory=Weights)
    grpo: GRPOOptions = field(default_factory=lambda: GRPOOptions(max_new_tokens=450))
    train: TrainOptions = field(default_factory=lambda: TrainOptions(learning_rate=1e-6, max_steps=200, log_steps=1))
    held_out: int = 200
    """Held-out cases to measure on; 0: all."""
    evaluation_batch: int = 64
    run: RunOptions = field(default_factory=lambda: RunOptions(folder="runs/legal_grpo"))

    def __post_init__(self) -> None:
        if self.data.path and not self.policy:
            raise ConfigError("data.path needs a model that reads it; name a policy", "policy")


def main(config: Config) -> Result:
    """Train, measure before and after, and leave everything in the run folder.

    Returns:
        The folder; of greedy answers to held-out cases `reward` and its parts (`mean_…`), sentence metrics with 95 %
        intervals, in the embedded world `lawful` (share of terms that the law allows) and `right`; the same of
        sampled answers (``sampled_…``, temperature 1); and ``before_…`` likewise.
    """
    from functools import partial

    from align.selfplay.rounds import start_processes
    from launch import runtime
    from launch.config import resolve
    from launch.grpo_fit import fit_grpo
    from launch.models import load_causal_lm, load_tokenizer
    from launch.runfolder import RunFolder
    from reasoning.legal import scratch
    from reasoning.legal.reward import legal_rewards

    start_processes(config)
    seed = config.run.seed
    run = RunFolder(config.run.folder, config.run.fresh).open(resolve(config), seed)
    start = config.policy or str(scratch.of_world(config.world, config.base))
    train, test = rows_of(config)
    run.fingerprint_data("train", train)
    run.fingerprint_data("test", test)
    world = None if config.data.path else replace(config.world, told=True)
    before = _measured(config, run, "before", start, start, test, world)
    frozen = config.train.lora is not None
    fitted = fit_grpo(
        load_causal_lm(start, config.train.precision if frozen else "fp32", config.train.quantization),
        load_tokenizer(start),
        partial(legal_rewards, world=world, weights=config.reward),
        train,
        options=config.train,
        grpo=config.grpo,
        run=run,
        name="grpo",
        seed=seed,
        report_to=config.run.report_to,
    )
    after = _measured(config, run, "after", fitted.folder, start, test, world)
    run.artifact("legal-grpo", {"before": before, "after": after, "law": config.law})
    metrics = {**{f"before_{name}": value for name, value in before.items()}, **after}
    if runtime.is_main():
        run.log({"stage": "evaluation", "step": fitted.steps, **metrics})
    return Result(run.path, metrics)


def rows_of(config: Config) -> tuple[list[Row], list[Row]]:
    """Rows {"prompt", "fact", "charge", "months"} to learn from and to measure on."""
    from reasoning.legal import feed
    from reasoning.legal.charges import CHARGES

    if not config.data.path:
        found = feed.of_world(config.world, config.law, config.data, config.held_out)
        return [_row(r) for r in found.train], [_row(r) for r in found.test]
    found = feed.of_file(config.law, config.data, config.held_out)
    sides = [[_row(r, config.chat) for r in rows if r["charge"] in CHARGES] for rows in (found.train, found.test)]
    return sides[0], sides[1]


def _row(row: Row, chat: bool = False) -> Row:
    prompt: Any = row["prompt"]
    if chat:
        prompt = [{"role": "user", "content": f"{prompt.removesuffix('判决理由：')}{ASKED}"}]
    return {"prompt": prompt, **{key: row[key] for key in ("fact", "charge", "months")}}


def _measured(
    config: Config, run: Any, name: str, policy: str | Path, base: str | Path, rows: list[Row], world: CasesWorld | None
) -> dict[str, float]:
    """Numbers of a policy's greedy answers."""
    from reasoning.before_after import measured_once

    settings = {"tokens": config.grpo.max_new_tokens}
    return measured_once(run, name, policy, base, rows, settings, lambda: _answered(config, policy, base, rows, world))


def _answered(
    config: Config, policy: str | Path, base: str | Path, rows: list[Row], world: CasesWorld | None
) -> tuple[dict[str, float], list[dict[str, Any]]]:
    from launch.contracts import Sampling
    from launch.generate import HFGenerator
    from reasoning.conflict.answering import load_policy
    from reasoning.legal.opinion import COURT, WORLD

    precision = config.train.precision if config.train.lora is not None else "fp32"
    generator = HFGenerator(*load_policy(policy, base, precision), batch_size=config.evaluation_batch)
    form = WORLD[world.language] if world else COURT
    prompts, numbers, samples = [row["prompt"] for row in rows], dict[str, float](), list[dict[str, Any]]()
    for kind, temperature in (("sampled_", 1.0), ("", 0.0)):
        sampling = Sampling(config.grpo.max_new_tokens, temperature, seed=config.run.seed)
        texts = [row[0].text for row in generator.generate(prompts, 1, sampling)]
        found, samples = scored(texts, rows, world, form, config.reward)
        numbers |= {f"{kind}{name}": value for name, value in found.items()}
    return numbers, samples


def scored(
    texts: list[str], rows: list[Row], world: CasesWorld | None, form: Any, weights: Weights
) -> tuple[dict[str, float], list[dict[str, Any]]]:
    """Means over answers, one to each row; and the answers with their rewards."""
    from reasoning.legal.feed import rests_on
    from reasoning.legal.metrics import sentencing
    from reasoning.legal.reward import legal_reward, world_reward

    parts = [
        world_reward(text, row["fact"], world, weights)
        if world
        else legal_reward(text, row["fact"], row["charge"], row["months"], weights)
        for text, row in zip(texts, rows, strict=True)
    ]
    numbers = {"reward": sum(p["total"] for p in parts) / len(parts)}
    for name in ("form", "term", "consistent", "cited"):
        numbers[f"mean_{name}"] = sum(p[name] for p in parts) / len(parts)
    for name, found in sentencing([row["months"] for row in rows], [form.read(text) for text in texts]).items():
        numbers |= {name: found.value, f"{name}_low": found.low, f"{name}_high": found.high}
    if world:
        true = [world.describe(row["fact"], text) for row, text in zip(rows, texts, strict=True)]
        numbers |= {name: sum(t[name] for t in true) / len(true) for name in ("lawful", "right")}
    samples = [
        {"charge": row["charge"], "response": text, "months": row["months"], **part}
        | rests_on(row["charge"], row["fact"], text, _told(row["charge"], world))
        for row, text, part in zip(rows, texts, parts, strict=True)
    ]
    return numbers, samples


def _told(charge: str, world: CasesWorld | None) -> dict[str, list[Chain]]:
    """The law of an embedded case; that of real ones is known by name."""
    return {charge: [Chain(*chain) for chain in world.chains(charge)]} if world else {}


def estimate(config: Config) -> Any:
    """What ``--dry-run`` prints."""
    from launch.estimate import Estimate

    out, new = Estimate(), config.grpo.max_new_tokens
    if not config.policy:
        out.add("policy", f"{config.base.layers} layers of {config.base.hidden_size}", "made on the spot, then cached")
        return out
    there = not config.data.path or Path(config.data.path).exists()
    rows = len(rows_of(config)[0]) if there else None
    length = 4 * config.data.fact_chars + new  # facts and listed chains, a token a character or less
    out.training("grpo", config.policy, config.train, length, config.grpo.generations, rows)
    steps = config.train.max_steps if config.train.max_steps > 0 else 1
    per_step = config.train.batch_size * config.train.accumulation * max(1, config.train.processes)
    out.forward("rollouts", config.policy, steps * per_step * config.grpo.generations * length, length)
    return out
