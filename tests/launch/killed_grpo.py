"""GRPO fits that end themselves with SIGKILL at a chosen reward call, in forked children of one process.

``python -m tests.launch.killed_grpo FOLDER`` imports TRL once, then for every case forks children that run the tiny fit
in FOLDER/CASE until one ends by itself, and prints ``{"case": [exit codes]}``.

Six prompts, two a step: epochs end at steps 3 and 6 of 8. One reward call is made a step.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from functools import partial
from pathlib import Path
from typing import Any

from tests.launch.forked import before_forks, in_child

# Reward calls at which successive runs are killed; the run after the last one is left alone.
CASES: dict[str, list[int]] = {
    "never": [],
    "within an epoch": [3],
    "in the first step of the second epoch, then in its last": [4, 3],
    "adapters, never": [],
    "adapters, in the second epoch": [6],
}
PROMPTS = ["ab", "abcd", "b", "dcba", "cc", "acac"]


def fit(folder: Path, kill_at: int | None = None, lora: bool = False, **changed: Any) -> Any:
    """Eight steps of two prompts with four completions each, rewarded for different characters."""
    from launch.grpo_fit import fit_grpo
    from launch.models import load_causal_lm, load_tokenizer
    from launch.options import GRPOOptions, LoraOptions, TrainOptions
    from launch.runfolder import RunFolder

    calls = [0]

    def reward(completions: list[str], **columns: Any) -> list[float]:
        calls[0] += 1
        if calls[0] == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)
        return [len(set(text)) / (1 + len(text)) for text in completions]

    model = os.environ["TINY_LLAMA"]
    options: dict[str, Any] = {"learning_rate": 1e-2, "max_steps": 8, "batch_size": 1, "accumulation": 2,
                               "save_steps": 2, "log_steps": 1}  # fmt: skip
    return fit_grpo(
        load_causal_lm(model),
        load_tokenizer(model),
        changed.pop("reward", reward),
        [{"prompt": prompt} for prompt in PROMPTS],
        options=TrainOptions(**(options | changed), lora=LoraOptions(rank=2) if lora else None),
        grpo=GRPOOptions(generations=4, max_new_tokens=5, beta=0.1),
        run=RunFolder(folder),
        name="grpo",
        seed=3,
    )


def main(folder: Path) -> None:
    from launch.grpo_fit import grpo_fit_trainer

    grpo_fit_trainer()  # imported once, before the forks
    before_forks()
    codes = {
        case: [in_child(partial(fit, folder / case, kill_at, "adapters" in case)) for kill_at in [*kills, None]]
        for case, kills in CASES.items()
    }
    print(json.dumps(codes))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
