"""Checkpoints are there whole or not at all; a killed fit ends, bit for bit, where one that was not killed ends."""

from __future__ import annotations

import json
import logging
import os
import resource
import shutil
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
from launch.errors import CheckpointError
from launch.runfolder import RunFolder
from launch.trainer import Interrupted, fit
from tests.launch.killed_fit import CASES
from tests.launch.toy import (
    REPOSITORY,
    NextToken,
    environment,
    fit_toy,
    flat,
    launched,
    llama,
    losses,
    options,
    rows,
)

FINAL = "checkpoints/toy/final/model.safetensors"


def make(folder: Path, text: str = "weights") -> Path:
    with checkpoint.writing(folder) as out:
        (out / "a").mkdir()
        (out / "a" / "b.txt").write_text(text)
        (out / "c.txt").write_text("more")
    return folder


# ---------------------------------------------------------------- folders


def test_written_folder_is_whole_and_any_change_is_seen(tmp_path: Path) -> None:
    folder = make(tmp_path / "step-00000001")
    assert checkpoint.problem(folder) is None
    (folder / "a" / "b.txt").write_text("weightz")
    assert checkpoint.problem(folder) == "a/b.txt does not have the content that was written"
    (folder / "a" / "b.txt").write_text("weigh")
    assert checkpoint.problem(folder) == "a/b.txt has 5 of 7 bytes"
    (folder / "a" / "b.txt").unlink()
    assert checkpoint.problem(folder) == "a/b.txt is missing"
    (folder / checkpoint.MANIFEST).write_text("{")
    assert checkpoint.problem(folder) == "manifest.json is broken"


def test_an_error_while_writing_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(KeyError), checkpoint.writing(tmp_path / "step-00000001"):
        raise KeyError("in the middle")
    assert list(tmp_path.iterdir()) == []


def test_truncated_checkpoint_is_passed_over_with_one_line(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    older, newer = make(tmp_path / "step-00000002"), make(tmp_path / "step-00000010")
    (newer / "c.txt").write_text("")
    with caplog.at_level(logging.WARNING):
        assert checkpoint.latest(tmp_path) == older
    assert [record.getMessage() for record in caplog.records] == [
        f"checkpoint {newer} is passed over: c.txt has 0 of 4 bytes"
    ]


def test_rotation_keeps_the_newest(tmp_path: Path) -> None:
    folders = [make(tmp_path / f"step-{step:08d}") for step in (2, 10, 4, 8)]
    checkpoint.rotate(tmp_path, 2, folders[1])
    assert [f.name for f in checkpoint.step_folders(tmp_path)] == ["step-00000010", "step-00000008"]


def test_sweep_removes_leftovers_only(tmp_path: Path) -> None:
    make(tmp_path / "step-00000002")
    (tmp_path / ".writing-step-00000004").mkdir()
    (tmp_path / ".removing-step-00000001").mkdir()
    checkpoint.sweep(tmp_path)
    assert [f.name for f in tmp_path.iterdir()] == ["step-00000002"]


def test_full_disk_names_folder_bytes_and_what_is_kept(tmp_path: Path) -> None:
    """The system really refuses the bytes: files may not grow beyond 1000 bytes while the limit holds."""
    make(tmp_path / "step-00000002")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    try:
        with (
            pytest.raises(CheckpointError, match=r"no room for checkpoint .*step-00000004.*5,000 bytes.*step-00000002"),
            checkpoint.writing(tmp_path / "step-00000004", needed=5000) as out,
            (out / "weights").open("wb", buffering=0) as file,
        ):
            for _ in range(5):
                file.write(bytes(1000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    assert [f.name for f in tmp_path.iterdir()] == ["step-00000002"]


def test_too_little_room_is_found_before_writing(tmp_path: Path) -> None:
    with (
        pytest.raises(CheckpointError, match="no earlier checkpoint exists"),
        checkpoint.writing(tmp_path / "x", 2**60),
    ):
        raise AssertionError("the block must not run")


# ---------------------------------------------------------------- resume


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, list[int]]]:
    folder = tmp_path_factory.mktemp("killed")
    done = launched(["tests.launch.killed_fit", str(folder)])
    assert done.returncode == 0, done.stderr[-3000:]
    return folder, json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("case", [case for case in CASES if case != "never"])
def test_killed_fit_ends_where_the_other_ends(killed: tuple[Path, dict[str, list[int]]], case: str) -> None:
    """SIGKILL at the named instants, with dropout, accumulation and short last steps; weights equal bit for bit."""
    folder, codes = killed
    assert codes["never"] == [0]
    assert codes[case] == [-signal.SIGKILL] * len(CASES[case]) + [0]
    run = folder / case.replace(" ", "_")
    expected, seen = load_file(folder / "never" / FINAL), load_file(run / FINAL)
    assert expected.keys() == seen.keys()
    assert all(torch.equal(expected[name], seen[name]) for name in expected)
    left = [f.name for f in (run / "checkpoints" / "toy").iterdir() if f.name.startswith(".")]
    assert left == []


def test_corrupt_newest_checkpoint_gives_the_same_end(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Without the final folder and with a truncated optimiser, the fit goes on from the checkpoint before."""
    import shutil

    model, _ = fit_toy(tmp_path, dropout=0.2)
    place = tmp_path / "checkpoints" / "toy"
    shutil.rmtree(place / "final")
    spoilt = checkpoint.step_folders(place)[0] / "optimizer.pt"
    spoilt.write_bytes(spoilt.read_bytes()[:-10])
    again, result = fit_toy(tmp_path, dropout=0.2)
    assert "optimizer.pt has" in caplog.text
    assert torch.equal(flat(model), flat(again)) and result.steps == 9
    assert len(losses(tmp_path)) == 9, "steps that are made again are not logged again"


def test_finished_fit_returns_at_once_with_its_weights(tmp_path: Path) -> None:
    model, first = fit_toy(tmp_path)
    again, second = fit_toy(tmp_path)
    assert torch.equal(flat(model), flat(again)) and first == second


def test_checkpoints_of_other_options_are_refused(tmp_path: Path) -> None:
    fit_toy(tmp_path, epochs=1)
    with pytest.raises(CheckpointError, match=r"another learning_rate \(0.01, now 0.02\)"):
        fit_toy(tmp_path, epochs=1, learning_rate=2e-2)


def test_checkpoints_of_other_examples_are_refused(tmp_path: Path) -> None:
    """As many examples as before, with another content: neither the finished fit nor a checkpoint is taken for it."""

    def fit_rows(seed: int) -> None:
        run = RunFolder(tmp_path)
        fit(llama(), NextToken(), rows(22, seed), options=options(epochs=1), run=run, name="toy", seed=0)

    fit_rows(seed=0)
    fit_rows(seed=0)
    with pytest.raises(CheckpointError, match=r"final was made with another content of the examples \(\w+, now \w+\)"):
        fit_rows(seed=1)
    shutil.rmtree(tmp_path / "checkpoints" / "toy" / "final")
    with pytest.raises(CheckpointError, match="step-00000002 was made with another content of the examples"):
        fit_rows(seed=1)


@pytest.mark.parametrize("event", ["on_step_end", "on_evaluate", "on_train_end"])
def test_a_stop_in_the_last_step_ends_the_run_and_keeps_the_fit(tmp_path: Path, event: str) -> None:
    """The signal comes at the end of the last of 3 steps, after the final evaluation, or before the final folder."""
    import transformers

    def strike(args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step == 3:
            os.kill(os.getpid(), signal.SIGTERM)

    callback = transformers.TrainerCallback()
    setattr(callback, event, strike)
    asked: dict[str, Any] = {"options": options(epochs=1), "run": RunFolder(tmp_path), "name": "toy", "seed": 0}
    with pytest.raises(Interrupted, match=r"toy is finished and in .*final, and the run was stopped") as told:
        fit(llama(), NextToken(), rows(), evaluate=rows(5, 1), callbacks=[callback], **asked)
    assert told.value.exit_code == 143 and checkpoint.finished(tmp_path / "checkpoints" / "toy") is not None
    assert fit(llama(), NextToken(), rows(), **asked).steps == 3


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_polite_stop_writes_a_checkpoint_and_goes_on_from_it(tmp_path: Path, number: signal.Signals) -> None:
    """SIGTERM (SLURM) or Ctrl-C: the running step ends, its checkpoint is there, one line says so, exit code 128+n."""
    file = tmp_path / "jobs.json"
    file.write_text(json.dumps([{"folder": str(tmp_path / "run"), "epochs": 2000, "save_steps": 100000}]))
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.launch.toy", str(file)],
        cwd=REPOSITORY,
        env=environment(),
        stderr=subprocess.PIPE,
        text=True,
    )
    log = tmp_path / "run" / "metrics.jsonl"
    deadline = time.monotonic() + 120
    while not (log.exists() and log.stat().st_size) and time.monotonic() < deadline:
        time.sleep(0.05)
    try:
        process.send_signal(number)
        _, errors = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 128 + number
    line = [line for line in errors.splitlines() if line.startswith("Interrupted: ")]
    assert len(line) == 1 and "run the same command again" in line[0]
    step = int(line[0].split("stopped at step ")[1].split()[0])
    found = checkpoint.latest(tmp_path / "run" / "checkpoints" / "toy")
    assert found is not None and found.name == f"step-{step:08d}"
