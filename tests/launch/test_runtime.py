"""Asked against obtained: command lines and files are read as accelerate reads them, and every mismatch is one line."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from launch import runtime
from launch.errors import LaunchError
from launch.options import LoraOptions, TrainOptions
from launch.runtime import Asked, Obtained
from tests.launch.toy import REPOSITORY, environment, fit_toy, launched

FILES = sorted((REPOSITORY / "launch" / "accelerate").glob("*.yaml"))
LAUNCH = ["python", "-m", "accelerate.commands.launch"]


@pytest.mark.parametrize(
    ("asked", "obtained", "message"),
    [
        (Asked("x", processes=2), Obtained(1, "fp32", "none"), "x asks for 2 processes, this run has 1"),
        (
            Asked("x", sharding="fsdp2"),
            Obtained(2, "fp32", "none", "DistributedDataParallel"),
            "asks for sharding fsdp2",
        ),
        (Asked("x", sharding="none"), Obtained(2, "fp32", "fsdp2"), "asks for sharding none, the model got fsdp2"),
        (Asked("x", precision="bf16"), Obtained(2, "fp32", "none"), "asks for precision bf16"),
    ],
)
def test_every_difference_is_one_line_with_a_remedy(asked: Asked, obtained: Obtained, message: str) -> None:
    with pytest.raises(LaunchError, match=message) as caught:
        runtime.compare(asked, obtained)
    assert "\n" not in str(caught.value) and "; " in str(caught.value)


def test_what_was_not_asked_is_not_compared() -> None:
    runtime.compare(Asked("x"), Obtained(4, "bf16", "zero3"))


@pytest.mark.parametrize(
    ("words", "processes", "precision", "sharding"),
    [
        (["--num_processes", "4", "-m", "launch"], 4, None, None),
        (["--num-processes=4", "--mixed_precision", "bf16", "-m", "launch"], 4, "bf16", None),
        (["--use_fsdp", "--fsdp_version", "2", "x.py"], None, None, "fsdp2"),
        (["--use_deepspeed", "--zero_stage", "3", "x.py"], None, None, "zero3"),
        (["--mixed_precision", "no", "x.py"], None, None, None),
    ],
)
def test_command_line_is_read(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    words: list[str],
    processes: int | None,
    precision: str | None,
    sharding: str | None,
) -> None:
    monkeypatch.setenv("HF_HOME", str(tmp_path))  # no default config file of this user
    asked = runtime.asked_of_launcher(words)
    assert asked is not None
    assert (asked.processes, asked.precision, asked.sharding) == (processes, precision, sharding)


def test_command_line_overrides_the_file(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    file.write_text(yaml.safe_dump({"num_processes": 2, "mixed_precision": "fp16", "distributed_type": "DEEPSPEED"}))
    asked = runtime.asked_of_launcher(["--config_file", str(file), "--num_processes", "8", "-m", "launch"])
    assert asked is not None and (asked.processes, asked.precision, asked.sharding) == (8, "fp16", "zero2")


@pytest.mark.parametrize(
    ("words", "rest"),
    [
        (["/v/bin/python", "/v/bin/accelerate", "launch", "--cpu"], ["--cpu"]),
        (["/v/bin/python", "/v/bin/accelerate-launch", "--cpu"], ["--cpu"]),
        (["python", "-m", "accelerate.commands.launch", "--cpu"], ["--cpu"]),
        (["python", "train.py", "launch"], None),
    ],
)
def test_launcher_is_recognised(words: list[str], rest: list[str] | None) -> None:
    assert runtime._words_after_launch(words) == rest


@pytest.mark.parametrize("file", FILES, ids=lambda f: f.stem)
def test_shipped_files_are_what_accelerate_reads(file: Path) -> None:
    """accelerate itself parses each file, and we read the same from it; its header has the command to run it."""
    from accelerate.commands.config.config_args import load_config_from_file

    said = yaml.safe_load(file.read_text())
    assert load_config_from_file(str(file)).num_processes == said["num_processes"]
    asked = runtime.asked_of_launcher(["--config_file", str(file)])
    assert asked is not None and asked.processes == said["num_processes"]
    expected = {"fsdp2": "fsdp2", "zero2": "zero2", "zero3": "zero3"}.get(file.stem)
    assert asked.sharding == expected
    assert "accelerate launch --config_file" in file.read_text().split("compute_environment")[0]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"precision": "fp16"}, "fp16 needs a CUDA device"),
        ({"sharding": "zero2"}, "zero2 needs CUDA devices; on CPU use fsdp2"),
        ({"sharding": "zero3"}, "zero3 needs CUDA devices"),
        ({"quantization": "4bit", "lora": LoraOptions()}, "4bit needs a CUDA device"),
        ({"sharding": "fsdp2"}, "there is one"),
        ({"processes": 2}, "train asks for 2 processes, this run has 1"),
    ],
)
def test_what_this_machine_cannot_give_is_refused(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    """On CPU, in one process, before anything is trained."""
    with pytest.raises(LaunchError, match=message):
        fit_toy(tmp_path, **changes)
    assert not (tmp_path / "metrics.jsonl").exists()


def test_a_world_that_was_announced_but_never_met_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """WORLD_SIZE=2 without a process group: two runs that each believe to be alone."""
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(LaunchError, match="asks for 2 processes, this run has 1"):
        runtime.check_processes(TrainOptions())


def test_prepare_environment_needs_the_standard_library_alone() -> None:
    """It runs before torch and accelerate are imported, and sets what accelerate must find."""
    code = (
        "import sys, os; from launch.runtime import prepare_environment; prepare_environment(); "
        "print(os.environ['ACCELERATE_USE_CPU'], [m for m in ('torch', 'accelerate', 'psutil') if m in sys.modules])"
    )
    words = [sys.executable, "-c", code]
    done = subprocess.run(words, env=environment(CUDA_VISIBLE_DEVICES=""), capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "true []"


def test_a_rank_that_leaves_is_not_aborted_by_its_own_threads() -> None:
    """The last collective's tensors are dropped by a thread of gloo, which here cannot have Python for a second."""
    code = (
        "import sys, time, torch, torch.distributed as dist; from launch.runtime import leave\n"
        "sys.setswitchinterval(1000); dist.init_process_group('gloo')\n"
        "dist.all_reduce(torch.ones(3), async_op=True); end = time.perf_counter() + 1\n"
        "while time.perf_counter() < end: pass\n"
        "leave()"
    )
    done = launched(
        ["torch.distributed.run", "--nproc_per_node", "2", "--standalone", "--no-python", sys.executable, "-c", code]
    )
    assert done.returncode == 0, done.stderr[-3000:]


def test_slurm_script_is_valid_shell() -> None:
    script = REPOSITORY / "launch" / "slurm" / "train.sh"
    assert subprocess.run(["bash", "-n", str(script)], check=False).returncode == 0
    text = script.read_text()
    assert "--signal=TERM@" in text and "scontrol requeue" in text and "-eq 143" in text
