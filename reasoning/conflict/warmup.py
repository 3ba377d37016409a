"""What reinforcement learning starts from: a small model made on the spot, or a given one taught the form of an answer.

`from_scratch` makes a small model in minutes, in two stages: the skill, from demonstrations that join every link, and
the habit, from fewer ones that are as brief as `world` says. So it begins as many a large model does: able to check
a chain, and not in the way of doing it. It is kept in a cache, addressed by what it was made from. In all
demonstrations the mark on contexts says nothing, so whatever a policy knows of the mark later, it has learnt by
reinforcement. `warmed_up` teaches a given model traces rendered from the paths of true contexts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from align.selfplay.inputs import policy_identity
from launch.options import TrainOptions
from launch.runfolder import RunFolder, content_hash
from reasoning.conflict.instance import Instance
from reasoning.conflict.paths import extract_paths
from reasoning.conflict.reward import kcr_reward
from tasks.worlds.conflicts import ConflictsWorld

if TYPE_CHECKING:
    from reasoning.conflict.instance import Path as Chain

LENGTH = 256
"""Positions of the small model."""
STEP_WORDS = 11
"""A step of a trace is cut here: longer runs from a passage would count as copied."""
GOOD_TRACE = 1.5
"""Reward that a rendered trace needs to be taught."""


@dataclass
class BaseOptions:
    """The small model, and how it learns the world's demonstrations."""

    hidden_size: int = 96
    """A multiple of 32, the size of an attention head."""
    layers: int = 2
    initializer_range: float = 0.1
    """1 / sqrt(hidden_size); at the usual 0.02 attention takes several times as long to find what to look at."""
    demonstrations: int = 64000
    """Questions with the answer demonstrated, for the skill."""
    habit_demonstrations: int = 6400
    """Others, for the habit."""
    cache: str = ".cache/arbiter"
    """Where base models are kept between runs."""
    train: TrainOptions = field(
        default_factory=lambda: TrainOptions(
            learning_rate=3e-3, weight_decay=0.01, warmup_ratio=0.05, batch_size=64, save_steps=100
        )
    )
    habit: TrainOptions = field(
        default_factory=lambda: TrainOptions(learning_rate=1e-3, warmup_ratio=0.1, batch_size=64)
    )


@dataclass
class WarmupOptions:
    """Supervised traces before reinforcement, for a given model."""

    rows: int = 0
    """Traces taught; 0 for no warm-up."""
    max_length: int = 8192
    """Tokens of prompt and trace."""
    train: TrainOptions = field(default_factory=lambda: TrainOptions(learning_rate=1e-5, batch_size=4))


def skilled(world: ConflictsWorld, options: BaseOptions, seed: int) -> Path:
    """Folder of a small Llama that joins every link of `world`'s chains, trained now or found in the cache."""
    from launch.scratch import small_model

    fair = _fair(world)
    return small_model(
        world.name,
        fair.tokenizer(),
        replace(fair, brief=0.0).demonstrations(options.demonstrations, seed),
        hidden_size=options.hidden_size,
        layers=options.layers,
        length=LENGTH,
        train=options.train,
        cache=options.cache,
        seed=seed,
        initializer_range=options.initializer_range,
    )


def from_scratch(world: ConflictsWorld, options: BaseOptions, seed: int) -> Path:
    """Folder of a small Llama that has the skill and the habit, trained now or found in the cache."""
    from launch.models import load_causal_lm, load_tokenizer
    from launch.rendering import Renderer
    from launch.supervised import SupervisedObjective, encode_rows
    from launch.trainer import fit

    start = skilled(world, options, seed)
    tokenizer = load_tokenizer(start)
    rows = _fair(world).demonstrations(options.habit_demonstrations, seed + 1)
    key = {"from": policy_identity(start), "rows": content_hash(rows), "train": asdict(options.habit), "seed": seed}
    result = fit(
        load_causal_lm(start),
        SupervisedObjective(tokenizer.pad_token_id),
        encode_rows(rows, Renderer(tokenizer, LENGTH)),
        options=options.habit,
        run=RunFolder(Path(options.cache) / f"{world.name}-habit-{content_hash(key)[:16]}"),
        name="habit",
        seed=seed,
        tokenizer=tokenizer,
    )
    return result.folder


def _fair(world: ConflictsWorld) -> ConflictsWorld:
    """`world` with a mark that says nothing."""
    return replace(world, cue=1 / world.contexts)


def warmed_up(
    policy: str, rows: Sequence[dict[str, Any]], options: WarmupOptions, run: RunFolder, seed: int
) -> str | Path:
    """Folder of `policy` after the warm-up; adapters are folded in, so that they are part of what RL starts from."""
    from launch import runtime
    from launch.models import load_causal_lm, load_tokenizer
    from launch.rendering import Renderer
    from launch.supervised import SupervisedObjective, encode_rows
    from launch.trainer import fit

    if options.rows == 0:
        return policy
    taught = traces(rows, options.rows)
    stage = run.stage(
        "warm", {"policy": policy, "rows": content_hash(taught), "options": asdict(options), "seed": seed}
    )
    if not stage.done:
        tokenizer = load_tokenizer(policy)
        frozen = options.train.lora is not None
        model = load_causal_lm(policy, options.train.precision if frozen else "fp32")
        fit(
            model,
            SupervisedObjective(tokenizer.pad_token_id),
            encode_rows(taught, Renderer(tokenizer, options.max_length)),
            options=options.train,
            run=run,
            name="warmup",
            seed=seed,
            tokenizer=tokenizer,
        )
        if run.writes:
            with stage.write() as folder:
                model.save_pretrained(folder)
                tokenizer.save_pretrained(folder)
    runtime.barrier()
    return stage.path


def traces(rows: Sequence[dict[str, Any]], most: int) -> list[dict[str, Any]]:
    """Rows {"prompt", "response"} that tell the true context's best path, those that the reward itself likes."""
    found = []
    for row in rows:
        response = trace_of(Instance.from_json(row["instance"]))
        if response and kcr_reward(response, row["instance"])["total"] >= GOOD_TRACE:
            found.append({"prompt": row["prompt"], "response": response})
        if len(found) == most:
            break
    return found


def trace_of(instance: Instance) -> str:
    """The completion that tells the best path of the first true context, link by link; "" where there is none."""
    for number, context in enumerate(instance.contexts, 1):
        if context.true and context.answer.strip():
            paths = context.paths or extract_paths(instance.question, context.text, context.answer)
            if paths.paths:
                told = " ".join(f"[Context {number}] {step}" for step in _steps(paths.paths[0]))
                return f"<think>{told} So the answer is {context.answer}.</think> <answer>{context.answer}</answer>"
    return ""


def _steps(path: Chain) -> list[str]:
    told = [f"{t.head} {t.relation} {t.tail}" for t in path.triples] or list(path.sentences)
    return [" ".join(text.split()[:STEP_WORDS]).rstrip(".,;: ") + "." for text in told]
