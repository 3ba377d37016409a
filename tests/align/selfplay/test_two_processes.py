"""One round of self-play in two real processes over gloo: the same answers, data set and losses as in one."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import yaml

from align.selfplay import rounds
from launch.config import resolve
from launch.options import TrainOptions
from launch.runfolder import RunFolder
from tests.align.selfplay.test_rounds import config
from tests.launch.toy import REPOSITORY, launched


def test_two_processes_play_the_round_that_one_plays(char_policy: Path, tmp_path: Path) -> None:
    train = TrainOptions(learning_rate=1e-3, schedule="constant", warmup_ratio=0.0, batch_size=16, log_steps=1)
    changes = {"rounds": 1, "eval_prompts": "", "chunk": 16, "prompts_per_round": 72, "train": train}
    rounds.main(config(char_policy, tmp_path / "one", **changes))

    plain = resolve(config(char_policy, tmp_path / "two", **changes))
    plain["train"].update(batch_size=8, processes=2)
    file = tmp_path / "two.yaml"
    file.write_text(yaml.safe_dump(plain))
    cpu = str(REPOSITORY / "launch" / "accelerate" / "cpu.yaml")
    done = launched(["accelerate.commands.launch", "--config_file", cpu, "-m", "launch", "run", str(file)])
    assert done.returncode == 0, done.stderr[-3000:]

    one, two = (next((tmp_path / name).glob("stages/round-1-select-*/rows.jsonl")) for name in ("one", "two"))
    assert one.read_bytes() == two.read_bytes()
    losses = [
        [row["loss"] for row in RunFolder(tmp_path / name).metrics() if "loss" in row and "eval_loss" not in row]
        for name in ("one", "two")
    ]
    assert len(losses[0]) == len(losses[1]) >= 4 and all(map(math.isfinite, losses[0]))
    assert losses[1] == pytest.approx(losses[0], rel=1e-5, abs=1e-5)
    saved = json.loads((tmp_path / "two" / "mixture" / "mixture.json").read_text())
    assert len(saved["policies"]) == 1


def test_sampling_may_take_longer_than_the_process_group_waits(tmp_path: Path) -> None:
    """The main process samples for 10 s under collectives that give up after 4 s; both ranks then read its answers."""
    module = ["-m", "tests.align.selfplay.slow_engine", str(tmp_path / "policy"), str(tmp_path)]
    done = launched(["torch.distributed.run", "--nproc_per_node", "2", "--standalone", *module])
    assert done.returncode == 0, done.stderr[-3000:]
    assert [(tmp_path / f"seen-{rank}").read_text() for rank in (0, 1)] == ["a 0 a 1 b 0 b 1 c 0 c 1"] * 2
