"""What the demo starts from: a small language model made on the spot (`launch.scratch`), and votes on its answers."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from launch.contracts import Sampling
from launch.options import TrainOptions


@dataclass
class BaseOptions:
    """The supervised language model that every method starts from."""

    hidden_size: int = 96
    """A multiple of 32, the size of an attention head (vLLM's CPU attention takes no smaller one)."""
    layers: int = 2
    demonstrations: int = 20000
    """Rows drawn from the world."""
    cache: str = ".cache/arbiter"
    """Where base models are kept between runs."""
    train: TrainOptions = field(
        default_factory=lambda: TrainOptions(
            learning_rate=4e-3, weight_decay=0.01, warmup_ratio=0.05, batch_size=64, max_steps=500, save_steps=250
        )
    )


@dataclass
class VoteOptions:
    """The votes all preference models learn from: on the base model's own answers to training prompts."""

    lists: int = 1600
    """Prompts, drawn with replacement."""
    answers: int = 8
    """K, answers per prompt; all pairs of different answers are judged."""
    annotators: int = 5
    """Votes per pair."""


def base_policy(world: Any, options: BaseOptions, seed: int) -> Path:
    """Folder of the base model, trained now or found in the cache."""
    from launch.scratch import small_model

    return small_model(
        world.name,
        world.tokenizer(),
        world.demonstrations(options.demonstrations, seed),
        hidden_size=options.hidden_size,
        layers=options.layers,
        length=64,
        train=options.train,
        cache=options.cache,
        seed=seed,
    )


def sample(policy: Path | str, prompts: list[str], n: int, tokens: int, seed: int) -> list[list[str]]:
    """`n` answers of a policy folder to each prompt, at temperature 1."""
    from launch.generate import HFGenerator
    from launch.models import load_causal_lm, load_tokenizer

    generator = HFGenerator(load_causal_lm(policy), load_tokenizer(policy), batch_size=64)
    completions = generator.generate(prompts, n, Sampling(max_new_tokens=tokens, seed=seed))
    return [[completion.text for completion in row] for row in completions]


def vote_groups(world: Any, policy: Path, options: VoteOptions, tokens: int, seed: int) -> list[dict[str, Any]]:
    """Rows of `align.preference.data`'s normal form; a weight is the number of annotators who voted that way.

    Pairs of equal answers are left out: a vote on them says nothing.
    """
    rng = random.Random(f"vote-prompts-{seed}")
    questions = world.prompts("train")
    prompts = [rng.choice(questions) for _ in range(options.lists)]
    rows = []
    for number, (prompt, answers) in enumerate(
        zip(prompts, sample(policy, prompts, options.answers, tokens, seed), strict=True)
    ):
        votes = world.vote(prompt, answers, seed=seed * 1_000_003 + number, annotators=options.annotators)
        counts = Counter(
            (vote["winner"], vote["loser"]) for vote in votes if answers[vote["winner"]] != answers[vote["loser"]]
        )
        if counts:
            pairs = sorted(counts)
            rows.append(
                {
                    "prompt": prompt,
                    "responses": answers,
                    "winners": [w for w, _ in pairs],
                    "losers": [b for _, b in pairs],
                    "weights": [float(counts[pair]) for pair in pairs],
                    "ties": [],
                    "source": f"{world.name}:{number + 1}",
                }
            )
    return rows
