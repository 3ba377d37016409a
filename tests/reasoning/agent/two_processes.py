"""The agent recipe on a small world, whole or as one rank of two.

``python -m torch.distributed.run --nproc_per_node 2 --standalone -m tests.reasoning.agent.two_processes F C P``, with
F the run's folder, C a cache for base models and P the policy to start from.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from launch import config
from launch.runtime import leave, prepare_environment
from reasoning.agent.train import from_scratch

STEPS = 3
BRIEF = ["base.demonstrations=64", "base.train.max_steps=1", "base.train.batch_size=4"]
"""Of a base model that nobody uses."""


def recipe(folder: Path, cache: Path, *more: str) -> Any:
    """Three steps from a model that has seen so few demonstrations that it calls, but seldom with the right numbers."""
    loaded = load(f"run.folder={folder}", f"base.cache={cache}", *more)
    return loaded.recipe.main(loaded.config)


def base(cache: Path) -> Path:
    """Folder of a base model of one step."""
    asked = load(f"base.cache={cache}", *BRIEF).config
    return from_scratch(asked.world, asked.base, 0)


def load(*more: str) -> Any:
    said = ["world.largest=9", "world.train=40", "world.test=20", "base.demonstrations=400", "base.train.max_steps=60",
            "base.train.learning_rate=1e-2", "held_out=10", f"train.max_steps={STEPS}", "train.batch_size=4",
            "grpo.generations=4", "train.save_steps=1"]  # fmt: skip
    return config.load("reasoning/agent_arithmetic", [*said, *more])


def main(folder: Path, cache: Path, policy: Path) -> None:
    prepare_environment()
    recipe(folder, cache, f"policy={policy}", "train.batch_size=2", "train.processes=2")
    base(cache)


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
    leave()
