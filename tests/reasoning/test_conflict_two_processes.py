"""GRPO in two real processes over gloo: the same samples, rewards, losses and weights as in one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from launch.runfolder import RunFolder
from tests.launch.killed_grpo import fit
from tests.launch.toy import launched
from tests.reasoning.two_processes import recipe


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, tiny_llama: Path) -> Path:
    """A folder with the same two runs by one process (here) and by two."""
    folder = tmp_path_factory.mktemp("processes")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TINY_LLAMA", str(tiny_llama))
        recipe(folder / "recipe-one", "train.batch_size=4")
        fit(folder / "fit-one")
        module = ["-m", "tests.reasoning.two_processes", str(folder)]
        done = launched(["torch.distributed.run", "--nproc_per_node", "2", "--standalone", *module])
    assert done.returncode == 0, done.stderr[-3000:]
    (folder / "said").write_text(done.stdout)
    return folder


def rows(folder: Path) -> list[dict[str, Any]]:
    """What every step logged, but for times, and for KL, which TRL logs as a mean over micro-batches' means."""
    kept = [row for row in RunFolder(folder).metrics() if row.get("stage") == "grpo" and "loss" in row]
    measured = ("loss", "grad_norm", "reward", "reward_std", "frac_reward_zero_std", "completions/mean_length")
    return [{k: v for k, v in row.items() if k in (*measured, "step") or k.startswith("kcr/")} for row in kept]


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "checkpoints" / "grpo" / "final" / "model.safetensors")


def test_two_processes_end_with_the_weights_of_one(runs: Path, tiny_llama: Path) -> None:
    """Eight steps of two prompts, past the ends of epochs; the reward differs between completions of a group."""
    one, two = rows(runs / "fit-one"), rows(runs / "fit-two")
    assert [row["step"] for row in one] == list(range(1, 9)) and len({row["reward"] for row in one}) > 4
    assert min(row["reward_std"] for row in one) > 0
    for mine, theirs in zip(one, two, strict=True):
        assert theirs == pytest.approx(mine, rel=1e-4, abs=1e-6)
    first, second, start = (
        weights(runs / "fit-one"),
        weights(runs / "fit-two"),
        load_file(tiny_llama / "model.safetensors"),
    )
    assert max(float((first[name] - start[name]).abs().max()) for name in first) > 1e-2
    assert max(float((first[name] - second[name]).abs().max()) for name in first) < 1e-4


def test_the_recipe_measures_and_trains_in_two_processes(runs: Path) -> None:
    """Every part of the reward, by step, and the evaluations that the main process alone makes."""
    one, two = rows(runs / "recipe-one"), rows(runs / "recipe-two")
    assert [row["step"] for row in one] == [1, 2] and "kcr/verdict_no_think" in one[0]
    for mine, theirs in zip(one, two, strict=True):
        assert theirs == pytest.approx(mine, rel=1e-4, abs=1e-6)
    found = [RunFolder(runs / name).metrics()[-1] for name in ("recipe-one", "recipe-two")]
    assert found[0]["stage"] == "evaluation" and "before_accuracy" in found[0]
    same = [name for name in found[0] if name.startswith(("before_", "accuracy", "mean_"))]
    assert {n: found[1][n] for n in same} == pytest.approx({n: found[0][n] for n in same})


def test_no_trainer_outlives_its_fit(runs: Path) -> None:
    """Policy, reference and optimizer go when the fit is over, though the process imported TRL and vLLM within it."""
    assert (runs / "said").read_text().count("trainers left: 0") == 2
