"""One rank whose main process samples for longer than the process group would wait; run by test_two_processes.py.

torchrun --standalone --nproc_per_node 2 -m tests.align.selfplay.slow_engine POLICY FOLDER
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path

import torch.distributed as dist

from align.selfplay.stages import Stages
from launch import runtime
from launch.contracts import Completion, Generator, Prompt, Sampling
from launch.runfolder import RunFolder
from tests.align.selfplay.test_rounds import config

PATIENCE, WORK = 4.0, 6.5
"""Seconds that collectives wait, and that sampling takes."""


class Slow:
    """An engine of the main process."""

    def generate(self, prompts: Sequence[Prompt], n: int, sampling: Sampling) -> list[list[Completion]]:
        assert runtime.is_main()
        time.sleep(WORK)
        return [
            [Completion(f"{prompt} {k}", (5, 2), (-1.0, -1.0), "stop", (1, 3)) for k in range(n)] for prompt in prompts
        ]


class SlowStages(Stages):
    def _generator(self, policy: str) -> Generator:
        return Slow()


def main(policy: str, folder: str) -> None:
    dist.init_process_group("gloo", timeout=timedelta(seconds=PATIENCE))
    settings = config(Path(policy), Path(folder), generator="vllm")
    samples, _ = SlowStages(settings, RunFolder(folder)).generate("round-1", policy, ["a", "b", "c"], 2)
    Path(folder, f"seen-{runtime.rank()}").write_text(" ".join(c.text for row in samples for c in row))
    runtime.leave()


if __name__ == "__main__":
    main(*sys.argv[1:])
