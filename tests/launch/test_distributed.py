"""Two real processes over gloo: the same trajectory as one process, sharded or not; and what a launch must refuse."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from launch import checkpoint
from tests.launch.toy import REPOSITORY, environment, fit_toy, flat, launched, llama, losses

LORA = {"rank": 2, "alpha": 4}
CPU_FILE = str(REPOSITORY / "launch" / "accelerate" / "cpu.yaml")


def jobs_file(folder: Path, jobs: list[dict[str, Any]]) -> str:
    file = folder / "jobs.json"
    file.write_text(json.dumps([{**job, "folder": str(folder / job["folder"])} for job in jobs]))
    return str(file)


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs of one `accelerate launch` of two processes with the shipped CPU file."""
    folder = tmp_path_factory.mktemp("two")
    base = {"batch_size": 2, "accumulation": 2, "processes": 2}
    jobs: list[dict[str, Any]] = [
        {"folder": "ddp", **base},
        {"folder": "fsdp2", **base, "sharding": "fsdp2"},
        {"folder": "fsdp2_stopped", **base, "sharding": "fsdp2", "epochs": 1},
        {"folder": "fsdp2_lora", **base, "sharding": "fsdp2", "lora": LORA},
        {"folder": "ddp_lora", **base, "lora": LORA},
    ]
    done = launched(
        ["accelerate.commands.launch", "--config_file", CPU_FILE, "-m", "tests.launch.toy", jobs_file(folder, jobs)]
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count("fitted") == len(jobs)
    return folder


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same job in this process: eight examples a step at once."""
    folder = tmp_path_factory.mktemp("one")
    fit_toy(folder)
    return folder


@pytest.mark.parametrize("name", ["ddp", "fsdp2"])
def test_two_processes_learn_as_one(one: Path, two: Path, name: str) -> None:
    """Losses of all 9 steps agree to 1e-5, final weights to 1e-4; the last step of an epoch has 6 examples, not 8."""
    expected, seen = losses(one), losses(two / name)
    assert len(seen) == len(expected) == 9
    assert max(abs(a - b) for a, b in zip(expected, seen, strict=True)) < 1e-5
    final = "checkpoints/toy/final/model.safetensors"
    weights, sharded = load_file(one / final), load_file(two / name / final)
    assert weights.keys() == sharded.keys()
    assert max(float((weights[k] - sharded[k]).abs().max()) for k in weights) < 1e-4


def test_sharded_final_folder_is_plain(two: Path) -> None:
    """Whole tensors under transformers' own names: plain transformers loads it, tied head included."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(two / "fsdp2" / "checkpoints" / "toy" / "final")
    assert torch.isfinite(flat(model)).all()
    assert model.lm_head.weight is model.model.embed_tokens.weight


def test_checkpoints_of_two_processes_continue_in_others(two: Path, tmp_path: Path) -> None:
    """DDP and FSDP2, killed after step 8 and continued in new processes, end where the undisturbed runs did."""
    import shutil

    jobs = []
    for name, sharding in (("ddp", "none"), ("fsdp2", "fsdp2")):
        shutil.copytree(two / name, tmp_path / name)
        shutil.rmtree(tmp_path / name / "checkpoints" / "toy" / "final")
        jobs.append({"folder": name, "batch_size": 2, "accumulation": 2, "processes": 2, "sharding": sharding})
    words = ["torch.distributed.run", "--nproc_per_node", "2", "-m", "tests.launch.toy", jobs_file(tmp_path, jobs)]
    done = launched(words)
    assert done.returncode == 0, done.stderr[-3000:]
    for name in ("ddp", "fsdp2"):
        final = f"{name}/checkpoints/toy/final/model.safetensors"
        before, after = load_file(two / final), load_file(tmp_path / final)
        assert all(torch.equal(before[k], after[k]) for k in before), name


def test_adapters_learn_in_two_processes_as_in_one(two: Path, tmp_path: Path) -> None:
    """LoRA under DDP: only the adapters have gradients to exchange. Losses to 1e-5, adapters to 1e-4."""
    fit_toy(tmp_path, lora=LORA)
    expected, seen = losses(tmp_path), losses(two / "ddp_lora")
    assert len(seen) == len(expected) and max(abs(a - b) for a, b in zip(expected, seen, strict=True)) < 1e-5
    final = "checkpoints/toy/final/adapter_model.safetensors"
    whole, parts = load_file(tmp_path / final), load_file(two / "ddp_lora" / final)
    assert whole.keys() == parts.keys() and max(float((whole[k] - parts[k]).abs().max()) for k in whole) < 1e-4


def test_sharded_adapters_are_saved(two: Path) -> None:
    """LoRA under FSDP2 writes adapters whose B matrices have moved away from zero."""
    saved = load_file(two / "fsdp2_lora" / "checkpoints" / "toy" / "final" / "adapter_model.safetensors")
    assert saved and all(float(v.abs().max()) > 0 for k, v in saved.items() if "lora_B" in k)


def test_sigterm_to_a_launcher_leaves_one_checkpoint_of_all_ranks(tmp_path: Path) -> None:
    """torchrun passes SIGTERM on; both ranks agree on the step to stop after, and its checkpoint is whole."""
    job = {"folder": "run", "batch_size": 4, "processes": 2, "epochs": 3000, "save_steps": 100000}
    words = ["torch.distributed.run", "--nproc_per_node", "2", "-m", "tests.launch.toy", jobs_file(tmp_path, [job])]
    command = [sys.executable, "-m", *words]
    process = subprocess.Popen(command, cwd=REPOSITORY, env=environment(), stderr=subprocess.PIPE, text=True)
    try:
        log = tmp_path / "run" / "metrics.jsonl"
        deadline = time.monotonic() + 120
        while not (log.exists() and log.stat().st_size) and time.monotonic() < deadline:
            time.sleep(0.05)
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=60)
    finally:
        process.kill()
    steps = {line.split("stopped at step ")[1].split()[0] for line in errors.splitlines() if "Interrupted: " in line}
    assert process.returncode != 0 and len(steps) == 1, errors[-3000:]
    found = checkpoint.latest(tmp_path / "run" / "checkpoints" / "toy")
    assert found is not None and found.name == f"step-{int(steps.pop()):08d}"


# ---------------------------------------------------------------- refusals


def accelerate_file(folder: Path, **changes: Any) -> str:
    import yaml

    file = folder / "launch.yaml"
    file.write_text(yaml.safe_dump({**yaml.safe_load(Path(CPU_FILE).read_text()), **changes}))
    return str(file)


def refused(tmp_path: Path, words: list[str], job: dict[str, Any], **extra: str) -> str:
    done = launched([*words, "-m", "tests.launch.toy", jobs_file(tmp_path, [{"folder": "run", **job}])], **extra)
    assert done.returncode != 0
    lines = [line for line in done.stderr.splitlines() if line.startswith("LaunchError: ")]
    assert lines, done.stderr[-3000:]
    return lines[0]


def test_a_launch_that_starts_one_process_of_two_is_refused(tmp_path: Path) -> None:
    """accelerate 1.15 turns MULTI_CPU with num_processes 2 into one process without a word."""
    file = accelerate_file(tmp_path, distributed_type="MULTI_CPU")
    line = refused(tmp_path, ["accelerate.commands.launch", "--config_file", file], {})
    assert "asks for 2 processes, this run has 1" in line and "launch/accelerate/cpu.yaml" in line


def test_sharding_that_accelerate_drops_is_refused(tmp_path: Path) -> None:
    """An FSDP file on CPU becomes plain data parallel; the run says that its options do not ask for sharding."""
    file = accelerate_file(tmp_path, distributed_type="FSDP", fsdp_config={"fsdp_version": 2})
    line = refused(tmp_path, ["accelerate.commands.launch", "--config_file", file], {})
    assert "asks for sharding fsdp2" in line and "train.sharding=fsdp2" in line


def test_ranks_with_other_data_stop_instead_of_hanging(tmp_path: Path) -> None:
    """Each rank is given another number of examples: both stop with a line that names what differs."""
    words = ["torch.distributed.run", "--nproc_per_node", "2"]
    line = refused(tmp_path, words, {"diverge": True})
    assert "ranks disagree on examples" in line and "rank 1: 21" in line


def test_the_cpu_helper_model_is_the_same_everywhere() -> None:
    """The comparison above rests on it."""
    assert torch.equal(flat(llama()), flat(llama()))
