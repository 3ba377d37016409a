"""One rank of two: the KCR recipe on a given policy, then the fit of `tests.launch.killed_grpo`.

``python -m torch.distributed.run --nproc_per_node 2 --standalone -m tests.reasoning.two_processes FOLDER``
"""

from __future__ import annotations

import gc
import os
import sys
from pathlib import Path

from launch import config
from launch.runtime import leave, prepare_environment
from tests.launch.killed_grpo import fit

SAID = ["world.train=24", "world.test=20", "train.max_steps=2", "grpo.generations=2", "grpo.max_new_tokens=24",
        "held_out=4"]  # fmt: skip


def recipe(folder: Path, *more: str) -> None:
    """Two steps of four prompts."""
    said = [*SAID, f"policy={os.environ['TINY_LLAMA']}", f"run.folder={folder}", *more]
    loaded = config.load("reasoning/kcr_conflicts", said)
    loaded.recipe.main(loaded.config)


def main(folder: Path) -> None:
    prepare_environment()
    recipe(folder / "recipe-two", "train.batch_size=2", "train.processes=2")
    fit(folder / "fit-two", batch_size=1, accumulation=1, processes=2)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
    gc.collect()
    print(f"trainers left: {sum(type(one).__name__ == 'GRPOFitTrainer' for one in gc.get_objects())}")
    leave()
