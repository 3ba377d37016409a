"""The agent recipe: a model learns by GRPO which tool to call, from answers that come out right.

    arbiter run reasoning/agent_arithmetic                     the embedded world, minutes on two cores
    arbiter run reasoning/agent_qwen7b                         a real model on GPUs
    arbiter run reasoning/agent_qwen7b data=FILE tools='[predict_link_sign]'       on tools and questions of your own

1. Start: a small model made from the world's demonstrations (`policy` empty), which call well and choose at random, or
a given model. 2. GRPO (`launch.grpo_fit`, TRL's ``tools=``): the policy samples chats, its calls are run in a
`launch.tools_pool.Pool`, the answer is rewarded (`reasoning.agent.reward`). 3. Held-out questions asked before and
after, by the agent that will use the model (`reasoning.agent.Agent`), greedily and once at the training temperature.

The run folder holds the policy in checkpoints/grpo/final (adapters, with LoRA), ``agent/…`` per step in metrics.jsonl
(stage "grpo"), both evaluations in artifacts/agent-evaluation.json, and chats before and after in samples/.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from launch.contracts import Result
from launch.errors import ConfigError, DataError
from launch.options import GRPOOptions, RunOptions, TrainOptions
from reasoning.agent.reward import Rules
from tasks.worlds.arithmetic import ArithmeticWorld


@dataclass
class BaseOptions:
    """The small model, and how it learns the world's demonstrations."""

    hidden_size: int = 64
    """A multiple of 32, the size of an attention head."""
    layers: int = 2
    length: int = 256
    """Positions."""
    initializer_range: float = 0.1
    demonstrations: int = 20000
    """Turns, of which a chat with a tool has two."""
    cache: str = ".cache/arbiter"
    """Where base models are kept between runs."""
    train: TrainOptions = field(
        default_factory=lambda: TrainOptions(
            learning_rate=5e-3, weight_decay=0.01, warmup_ratio=0.05, batch_size=32, max_steps=800, save_steps=400
        )
    )


@dataclass
class Config:
    """Training of one policy that calls tools."""

    policy: str = ""
    """Folder or hub name of a causal language model; "" makes a small one from `world`."""
    world: ArithmeticWorld = field(default_factory=ArithmeticWorld)
    """The embedded questions, used where `data` is empty."""
    data: str = ""
    """JSON lines {"prompt": chat or text, "answer": text}, and "tool", the right one or "", where it is known."""
    tools: list[str] = field(default_factory=list)
    """Installed tools that may be called (`arbiter tools list`); none named: the world's."""
    tool_data: str = ""
    """Folder that tools may read; "": an empty one of the run."""
    workers: int = 1
    """Processes that run tools; TRL calls one after the other, the evaluation as many at once."""
    turns: int = 2
    """Turns of a chat: one less may call tools."""
    base: BaseOptions = field(default_factory=BaseOptions)
    reward: Rules = field(default_factory=Rules)
    grpo: GRPOOptions = field(default_factory=lambda: GRPOOptions(max_new_tokens=48))
    """Its max_new_tokens count a whole chat after the question, results included."""
    train: TrainOptions = field(default_factory=lambda: TrainOptions(learning_rate=1e-6, max_steps=200, log_steps=1))
    held_out: int = 200
    """Held-out questions to measure on; of `data` the last ones."""
    evaluation_batch: int = 64
    """Chats answered at once; changes no number."""
    run: RunOptions = field(default_factory=lambda: RunOptions(folder="runs/agent"))

    def __post_init__(self) -> None:
        if not self.policy and (self.data or self.tools):
            raise ConfigError("data and tools of your own need a model that knows them; name a policy", "policy")
        if self.data and not self.tools:
            raise ConfigError("data needs tools; name some of `arbiter tools list`", "tools")
        if self.turns < 2:
            raise ConfigError(f"turns {self.turns}: a call and an answer are two", "turns")


def main(config: Config) -> Result:
    """Train, measure before and after, and leave everything in the run folder.

    Returns:
        The folder; metrics `right_tool`, `right_answer`, `calls` and `failed` of greedy chats about held-out questions
        (the first two with 95 % Wilson intervals, `_low` and `_high`), the same sampled (`sampled_…`), and all of them
        before training (`before_…`).
    """
    from functools import partial

    from align.selfplay.rounds import start_processes
    from launch import runtime
    from launch.config import resolve
    from launch.grpo_fit import fit_grpo
    from launch.models import load_causal_lm, load_tokenizer
    from launch.runfolder import RunFolder
    from launch.tools_pool import Pool
    from reasoning.agent.reward import agent_rewards

    start_processes(config)
    seed = config.run.seed
    run = RunFolder(config.run.folder, config.run.fresh).open(resolve(config), seed)
    if config.policy:
        start: str | Path = config.policy
    else:
        with run.timing("base model"):
            start = from_scratch(config.world, config.base, seed)
    train, test = questions(config)
    run.fingerprint_data("train", train)
    run.fingerprint_data("test", test)
    with Pool(_tools(config), _tool_data(config, run), config.workers) as pool:
        before = _measured(config, run, pool, "before", start, start, test)
        frozen = config.train.lora is not None
        model = load_causal_lm(start, config.train.precision if frozen else "fp32", config.train.quantization)
        fitted = fit_grpo(
            model,
            load_tokenizer(start),
            partial(agent_rewards, rules=config.reward),
            train,
            options=config.train,
            grpo=config.grpo,
            run=run,
            name="grpo",
            seed=seed,
            report_to=config.run.report_to,
            tools=pool.functions(raising=False),
            tool_turns=config.turns - 1,
        )
        del model
        after = _measured(config, run, pool, "after", fitted.folder, start, test)
    run.artifact("agent-evaluation", {"before": before, "after": after})
    metrics = {**{f"before_{name}": value for name, value in before.items()}, **after}
    if runtime.is_main():
        run.log({"stage": "evaluation", "step": fitted.steps, **metrics})
    return Result(run.path, metrics)


def from_scratch(world: ArithmeticWorld, options: BaseOptions, seed: int) -> Path:
    """Folder of a small Llama that calls tools well and chooses as `world` demonstrates; trained now, or cached."""
    from launch.scratch import small_model

    return small_model(
        world.name,
        world.tokenizer(),
        world.demonstrations(options.demonstrations, seed),
        hidden_size=options.hidden_size,
        layers=options.layers,
        length=options.length,
        train=options.train,
        cache=options.cache,
        seed=seed,
        initializer_range=options.initializer_range,
    )


def questions(config: Config) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Rows to train on and rows held out.

    Raises:
        DataError: no file, a row without prompt or answer, or too few rows.
    """
    if not config.data:
        test = config.world.rows("test")
        return config.world.rows("train"), test[: config.held_out or None]
    from launch import jsonlines

    rows = [_row(config.data, number, row) for number, row in jsonlines.rows(config.data)]
    if len(rows) <= config.held_out:
        raise DataError(f"{config.data} has {len(rows)} questions, {config.held_out} are held out; lower held_out")
    cut = len(rows) - config.held_out
    return rows[:cut], rows[cut:]


def _row(path: str, number: int, row: Any) -> dict[str, Any]:
    prompt, answer = row.get("prompt"), row.get("answer")
    if not prompt or not isinstance(answer, str | int | float):
        raise DataError(f'{path}, line {number}: give "prompt" and "answer"; it has {", ".join(row) or "nothing"}')
    chat = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
    return {"prompt": chat, "answer": str(answer), "tool": row.get("tool")}


def _tools(config: Config) -> dict[str, Any]:
    from launch.tools import available

    return available(config.tools) if config.tools else config.world.tools()


def _tool_data(config: Config, run: Any) -> Path:
    if config.tool_data:
        return Path(config.tool_data)
    folder: Path = run.path / "tool-data"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _measured(
    config: Config, run: Any, pool: Any, name: str, policy: str | Path, base: str | Path, rows: list[dict[str, Any]]
) -> dict[str, float]:
    """Numbers of a policy on held-out questions."""
    from reasoning.agent.loop import Budget
    from reasoning.agent.measure import measured
    from reasoning.before_after import measured_once
    from reasoning.conflict.answering import load_policy

    budget = Budget(turns=config.turns, calls=4 * config.turns)
    settings = {"tools": sorted(pool.tools), "budget": asdict(budget), "seed": config.run.seed}
    settings |= {"tokens": config.grpo.max_new_tokens, "temperature": config.grpo.temperature}
    precision = config.train.precision if config.train.lora is not None else "fp32"
    return measured_once(
        run,
        name,
        policy,
        base,
        rows,
        settings,
        lambda: measured(
            *load_policy(policy, base, precision),
            pool,
            rows,
            budget=budget,
            tokens=config.grpo.max_new_tokens,
            temperature=config.grpo.temperature,
            batch=config.evaluation_batch,
            seed=config.run.seed,
        ),
        what="chats",
    )


def estimate(config: Config) -> Any:
    """What ``--dry-run`` prints."""
    from launch.estimate import Estimate

    out, G, new = Estimate(), config.grpo.generations, config.grpo.max_new_tokens
    if not config.policy:
        out.add("policy", f"{config.base.layers} layers of {config.base.hidden_size}", "made on the spot, then cached")
        return out
    length = PROMPT + new
    known = not config.data or Path(config.data).exists()
    rows = len(questions(config)[0]) if known else None
    out.training("grpo", config.policy, config.train, length, G, rows)
    per_step = config.train.batch_size * config.train.accumulation * max(1, config.train.processes)
    steps = config.train.max_steps if config.train.max_steps > 0 else max(1, (rows or per_step) // per_step)
    read = config.turns * (PROMPT + G * new)
    out.forward("rollouts", config.policy, steps * per_step * read, length)
    if config.grpo.beta > 0:
        out.forward("reference", config.policy, steps * per_step * (PROMPT + G * new), length)
    return out


PROMPT = 512
"""Tokens of a question with its tools, for the estimate."""
