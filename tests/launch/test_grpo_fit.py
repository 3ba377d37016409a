"""GRPO over the runtime: what is killed goes on to the same weights, groups come from (seed, epoch), guards hold."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from launch import checkpoint
from launch.errors import DataError, LaunchError
from launch.grpo_fit import GroupBatches, grpo_fit_trainer
from launch.guard import NonFiniteError
from launch.order import Deal, permutation
from launch.runfolder import RunFolder
from tests.launch.killed_grpo import CASES, fit

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module", autouse=True)
def tiny(tiny_llama: Path) -> None:
    os.environ["TINY_LLAMA"] = str(tiny_llama)


# ---------------------------------------------------------------- kill -9


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory, tiny: None) -> tuple[Path, dict[str, list[int]]]:
    folder = tmp_path_factory.mktemp("killed")
    command = [sys.executable, "-W", "ignore", "-m", "tests.launch.killed_grpo", str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return folder, json.loads(done.stdout.splitlines()[-1])


def weights(folder: Path) -> dict[str, torch.Tensor]:
    (file,) = folder.glob("checkpoints/grpo/final/*model.safetensors")
    return load_file(file)


def rows(folder: Path) -> list[dict[str, Any]]:
    timed = ("time", "eta_seconds", "step_time")
    kept = [row for row in RunFolder(folder).metrics() if "loss" in row]
    return [{k: v for k, v in row.items() if k not in timed and not k.startswith("profiling")} for row in kept]


@pytest.mark.parametrize("case", [case for case in CASES if "never" not in case])
def test_a_killed_run_ends_as_the_one_that_was_left_alone(killed: tuple[Path, dict[str, list[int]]], case: str) -> None:
    """Weights bit by bit, and every step's loss, rewards and lengths, also past the ends of epochs."""
    folder, codes = killed
    whole = "adapters, never" if "adapters" in case else "never"
    assert codes[case] == [-9] * len(CASES[case]) + [0] and codes[whole] == [0]
    mine, wanted = weights(folder / case), weights(folder / whole)
    assert mine.keys() == wanted.keys()
    assert all(torch.equal(mine[name], wanted[name]) for name in wanted)
    assert rows(folder / case) == rows(folder / whole)
    assert [row["step"] for row in rows(folder / case)] == list(range(1, 9))


def test_the_weights_moved_and_the_reference_did_not(killed: tuple[Path, dict[str, list[int]]]) -> None:
    """KL to the start is 0 at the first step and grows."""
    found = rows(killed[0] / "never")
    assert found[0]["kl"] == pytest.approx(0.0, abs=1e-6) and found[-1]["kl"] > 1e-4
    assert len({row["reward"] for row in found}) > 4
    assert checkpoint.finished(killed[0] / "never" / "checkpoints" / "grpo") is not None


# ---------------------------------------------------------------- order


@pytest.mark.parametrize("processes", [1, 2])
@pytest.mark.parametrize("accumulation", [1, 3])
def test_every_rank_samples_whole_groups_of_its_share_of_the_step(processes: int, accumulation: int) -> None:
    """20 prompts in steps of 2 x accumulation x processes; what does not fill a step is left out of that epoch."""
    ranks = [
        list(GroupBatches(20, Deal(2, accumulation, processes, rank), generations=3, seed=1))
        for rank in range(processes)
    ]
    window = 2 * accumulation * processes
    for rank in ranks:
        assert len(rank) == 20 // window * accumulation
        for step in range(0, len(rank), accumulation):
            assert all(batch == rank[step] for batch in rank[step : step + accumulation])
        assert all(len(list(group)) % 3 == 0 for batch in rank for _, group in itertools.groupby(batch))
    steps = [sorted({i for rank in ranks for i in rank[s]}) for s in range(0, len(ranks[0]), accumulation)]
    order = list(permutation(20, 1, 0))
    assert steps == [sorted(order[k : k + window]) for k in range(0, 20 - window + 1, window)]


def test_each_epoch_has_its_own_order() -> None:
    groups = GroupBatches(8, Deal(2), generations=2, seed=0)
    first = list(groups)
    groups.set_epoch(1)
    assert list(groups) != first
    groups.set_epoch(0)
    assert list(groups) == first


# ---------------------------------------------------------------- guards


def test_a_reward_that_is_not_finite_stops_the_run_before_the_weights_move(tmp_path: Path) -> None:
    def reward(completions: list[str], **_: Any) -> list[float]:
        return [float("inf")] + [0.0] * (len(completions) - 1)

    with pytest.raises(NonFiniteError, match="step 1: the reward of completion 0 is inf"):
        fit(tmp_path, reward=reward)
    assert not (tmp_path / "checkpoints" / "grpo" / "final").exists()


def test_equal_rewards_are_a_constant_group(tmp_path: Path) -> None:
    """2.1 has no exact float: the deviation of four of them would be a rounding, and no group would count."""
    fit(tmp_path, max_steps=2, reward=lambda completions, **_: [2.1] * len(completions))
    assert [(row["frac_reward_zero_std"], row["reward_std"]) for row in rows(tmp_path)] == [(1.0, 0.0)] * 2


def test_too_few_prompts_and_sharded_weights_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="a step takes 14 prompts, here are 6"):
        fit(tmp_path, batch_size=7)
    with pytest.raises(LaunchError, match="GRPO samples from whole weights"):
        fit(tmp_path, sharding="fsdp2")


def test_nothing_is_sent_anywhere(tiny_llama: Path) -> None:
    assert grpo_fit_trainer()._send_telemetry.__qualname__.startswith("_OverRuntime")
