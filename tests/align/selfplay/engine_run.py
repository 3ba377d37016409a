"""The recipe in a process of its own, so that vLLM can start its engine and the test can kill its owner.

python -m tests.align.selfplay.engine_run POLICY FOLDER
"""

from __future__ import annotations

import sys
from pathlib import Path

from align.selfplay import rounds
from launch.options import TrainOptions
from tests.align.selfplay.test_rounds import config


def tiny(policy: Path, folder: Path) -> rounds.Config:
    """One round of six prompts in chunks of two, one optimiser step."""
    train = TrainOptions(learning_rate=1e-3, batch_size=8, max_steps=1)
    settings = {"rounds": 1, "prompts_per_round": 6, "samples": 3, "chunk": 2, "eval_prompts": "", "generator": "vllm"}
    return config(policy, folder, train=train, **settings)


if __name__ == "__main__":
    rounds.main(tiny(Path(sys.argv[1]), Path(sys.argv[2])))
