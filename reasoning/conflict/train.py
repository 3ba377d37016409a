"""The KCR recipe: a policy learns to follow the context that holds together, by GRPO on verifiable rewards.

    arbiter run reasoning/kcr_conflicts                       the embedded world, minutes on two cores
    arbiter run reasoning/kcr_qwen7b data.path=FILE           a real model on real conflicts

1. Start: a small model from the world's demonstrations (`policy` empty), or a given model, with a supervised warm-up on
   traces rendered from true contexts if `warmup.rows` says so. 2. GRPO (`launch.grpo_fit`) on `reward.kcr_rewards`,
   whose weights are the config's: logic and consistency at 0 is an answer-only reward. 3. Held-out conflicts answered
   before and after, greedily and once at the training temperature.

The run folder holds the policy in checkpoints/grpo/final (adapters, with LoRA), reward parts per step in metrics.jsonl
(stage "grpo"), both evaluations in artifacts/conflict-evaluation.json, and answers before and after in samples/.

Confirmed for KCR (arXiv 2508.01273): extraction, then RL with a logic and a consistency reward. All numbers are ours.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from launch.contracts import Result
from launch.errors import ConfigError
from launch.options import GRPOOptions, RunOptions, TrainOptions
from reasoning.conflict.feed import DataOptions, Feed, keep_short, of_file, of_world, training_rows
from reasoning.conflict.reward import Rules
from reasoning.conflict.warmup import BaseOptions, WarmupOptions, from_scratch, warmed_up
from tasks.worlds.conflicts import ConflictsWorld


@dataclass
class Config:
    """Training of one policy."""

    policy: str = ""
    """Folder or hub name of a causal language model; "" makes a small one from `world`."""
    world: ConflictsWorld = field(default_factory=ConflictsWorld)
    """The embedded conflicts, used where data.path is empty."""
    data: DataOptions = field(default_factory=DataOptions)
    base: BaseOptions = field(default_factory=BaseOptions)
    warmup: WarmupOptions = field(default_factory=WarmupOptions)
    reward: Rules = field(default_factory=Rules)
    grpo: GRPOOptions = field(default_factory=GRPOOptions)
    train: TrainOptions = field(default_factory=lambda: TrainOptions(learning_rate=1e-6, max_steps=200, log_steps=1))
    max_prompt: int = 8192
    """Tokens; longer prompts are left out and counted."""
    held_out: int = 200
    """Held-out questions to measure on; 0: all."""
    evaluation_batch: int = 64
    """Prompts answered at once; changes no number."""
    run: RunOptions = field(default_factory=lambda: RunOptions(folder="runs/kcr"))

    def __post_init__(self) -> None:
        if not self.policy and self.data.path:
            raise ConfigError(
                "data.path needs a model that reads it; name a policy, or leave data.path empty", "policy"
            )


def main(config: Config) -> Result:
    """Train, measure before and after, and leave everything in the run folder.

    Returns:
        The folder; metrics `accuracy` and `conflict_error` of greedy answers to held-out questions with 95 % Wilson
        intervals (`_low`, `_high`), `reward`, the mean reward of those answers, its parts, and `before_…` likewise.
    """
    from functools import partial

    from align.selfplay.rounds import start_processes
    from launch import runtime
    from launch.config import resolve
    from launch.grpo_fit import fit_grpo
    from launch.models import load_causal_lm, load_tokenizer
    from launch.runfolder import RunFolder
    from reasoning.conflict.reward import kcr_rewards

    start_processes(config)
    seed = config.run.seed
    run = RunFolder(config.run.folder, config.run.fresh).open(resolve(config), seed)
    if config.policy:
        start: str | Path = config.policy
    else:
        with run.timing("base model"):
            start = from_scratch(config.world, config.base, seed)
    feed = _feed(config, load_tokenizer(start), run)
    if config.policy:
        start = warmed_up(config.policy, feed.train, config.warmup, run, seed)

    before = _measured(config, run, "before", start, start, feed.test)
    frozen = config.train.lora is not None
    model = load_causal_lm(start, config.train.precision if frozen else "fp32", config.train.quantization)
    fitted = fit_grpo(
        model,
        load_tokenizer(start),
        partial(kcr_rewards, rules=config.reward),
        feed.train,
        options=config.train,
        grpo=config.grpo,
        run=run,
        name="grpo",
        seed=seed,
        report_to=config.run.report_to,
    )
    del model
    after = _measured(config, run, "after", fitted.folder, start, feed.test)
    run.artifact("conflict-evaluation", {"before": before, "after": after})
    metrics = {**{f"before_{name}": value for name, value in before.items()}, **after}
    if runtime.is_main():
        run.log({"stage": "evaluation", "step": fitted.steps, **metrics})
    return Result(run.path, {name: metrics[name] for name in metrics if "sampled" not in name})


def _feed(config: Config, tokenizer: Any, run: Any) -> Feed:
    """Rows whose prompts fit; what is odd about them goes to the report."""
    from launch.rendering import Renderer

    seed = config.run.seed
    feed = of_file(config.data, seed, config.held_out) if config.data.path else of_world(config.world, config.held_out)
    renderer = Renderer(tokenizer)
    short = [keep_short(rows, lambda p: len(renderer.prompt_ids(p)), config.max_prompt) for rows in feed[:2]]
    odd = dict(feed.odd)
    if left_out := len(feed.train) + len(feed.test) - sum(map(len, short)):
        odd["prompt_too_long"] = left_out
    run.fingerprint_data("train", short[0])
    run.fingerprint_data("test", short[1])
    run.artifact("conflict-data", {"train": len(short[0]), "test": len(short[1]), "odd": odd})
    return Feed(short[0], short[1], odd)


def _measured(
    config: Config, run: Any, name: str, policy: str | Path, base: str | Path, rows: list[dict[str, Any]]
) -> dict[str, float]:
    """Numbers of a policy on held-out rows."""
    from reasoning.before_after import measured_once
    from reasoning.conflict.answering import answered, load_policy

    precision = config.train.precision if config.train.lora is not None else "fp32"
    return measured_once(
        run,
        name,
        policy,
        base,
        rows,
        {"tokens": config.grpo.max_new_tokens, "seed": config.run.seed},
        lambda: answered(
            *load_policy(policy, base, precision),
            rows,
            tokens=config.grpo.max_new_tokens,
            temperature=config.grpo.temperature,
            batch=config.evaluation_batch,
            seed=config.run.seed,
            rules=config.reward,
        ),
    )


def estimate(config: Config) -> Any:
    """What ``--dry-run`` prints."""
    from launch.estimate import Estimate

    out, G, new = Estimate(), config.grpo.generations, config.grpo.max_new_tokens
    rows = _rows_for_estimate(config)
    if not config.policy:
        out.add("policy", f"{config.base.layers} layers of {config.base.hidden_size}", "made on the spot, then cached")
        return out
    length = min(config.max_prompt, 8192) + new
    out.training("grpo", config.policy, config.train, length, G, rows)
    per_step = config.train.batch_size * config.train.accumulation * max(1, config.train.processes)
    steps = config.train.max_steps if config.train.max_steps > 0 else max(1, (rows or per_step) // per_step)
    out.forward("rollouts", config.policy, steps * per_step * (config.max_prompt + G * new), length)
    if config.grpo.beta > 0:
        out.forward("reference", config.policy, steps * per_step * (config.max_prompt + G * new), length)
    return out


def _rows_for_estimate(config: Config) -> int | None:
    if not config.data.path:
        return config.world.train
    return training_rows(config.data, config.run.seed) if Path(config.data.path).exists() else None
