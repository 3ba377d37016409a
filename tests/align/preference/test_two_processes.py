"""Preference training in two real processes over gloo: the losses, the scores and the accuracy of one process."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import yaml

from align.preference.train import main
from launch.config import resolve
from launch.options import LoraOptions
from launch.runfolder import RunFolder
from tests.align.preference.test_train import config
from tests.launch.toy import REPOSITORY, launched


@pytest.mark.parametrize("adapted", [False, True])
def test_two_processes_train_what_one_trains(tiny_llama: Path, tmp_path: Path, adapted: bool) -> None:
    """Six rows a step with shared prompts, in one process or as three and three; the held-out games are dealt over
    both. With adapters, gradient checkpointing is on as well. Nothing is left of the groups that each process read."""
    one = config(tiny_llama, tmp_path, "hrc", LoraOptions(rank=4) if adapted else None)
    one.train.log_steps, one.train.max_steps, one.train.gradient_checkpointing = 1, 6, adapted
    result = main(one)

    plain = resolve(one)
    plain["run"]["folder"] = str(tmp_path / "two")
    plain["train"].update(batch_size=3, processes=2)
    file = tmp_path / "two.yaml"
    file.write_text(yaml.safe_dump(plain))
    cpu = str(REPOSITORY / "launch" / "accelerate" / "cpu.yaml")
    done = launched(["accelerate.commands.launch", "--config_file", cpu, "-m", "launch", "run", str(file)])
    assert done.returncode == 0, done.stderr[-3000:]

    logs = [RunFolder(folder).metrics() for folder in (result.folder, tmp_path / "two")]
    losses = [[row["loss"] for row in rows if row["stage"] == "preference" and "loss" in row] for rows in logs]
    assert len(losses[0]) == len(losses[1]) == 6 and all(map(math.isfinite, losses[0]))
    assert losses[1] == pytest.approx(losses[0], rel=1e-5, abs=1e-5)
    ends = [next(row for row in rows if row["stage"] == "evaluation") for rows in logs]
    for key in ("accuracy", "accuracy_count", "eval_loss", "cyclicity"):
        assert ends[1][key] == pytest.approx(ends[0][key], rel=1e-4, abs=1e-5)
    work = json.loads((tmp_path / "two" / "artifacts" / "work-preference.json").read_text())
    assert work["wire_bytes"] == 4 * work["trained"] and work["wire_speed"] > 1e6  # 2 (2 - 1) / 2 of 4 bytes
    assert not list((tmp_path / "two").glob(".rows-*"))
    for number in range(6):
        games = [json.loads((folder / "artifacts" / f"scores-{number}.json").read_text())
                 for folder in (result.folder, tmp_path / "two")]  # fmt: skip
        assert games[0]["prompt"] == games[1]["prompt"]
        assert np.abs(np.array(games[0]["S"]) - games[1]["S"]).max() < 1e-4
