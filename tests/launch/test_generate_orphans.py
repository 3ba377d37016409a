"""Only recorded processes are ended: same pid, start time and command line, and an owner that is gone."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import psutil
import pytest

from launch.generate import end_orphans
from launch.generate.orphans import Identity, Watch

GONE = {"pid": 2**22 + 1, "started": 0.0, "command": "gone"}


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen([sys.executable, "-c", "print(flush=True); import time; time.sleep(60)"], stdout=-1)
    assert process.stdout is not None
    process.stdout.read(1)  # it runs now, under its own command line
    yield process
    process.kill()
    process.wait()
    process.stdout.close()


def identity(process: subprocess.Popen[bytes]) -> Identity:
    found = Identity.of(psutil.Process(process.pid))
    assert found is not None
    return found


def record(folder: Path, who: Identity, owner: Any = GONE) -> Path:
    file = folder / "engine-1-1.json"
    file.write_text(json.dumps({"owner": owner, "processes": [asdict(who)]}))
    return file


def test_a_recorded_process_without_owner_is_ended(sleeper: subprocess.Popen[bytes], tmp_path: Path) -> None:
    who = identity(sleeper)
    file = record(tmp_path, who)
    assert end_orphans(tmp_path) == [sleeper.pid]
    assert who.find() is None
    assert not file.exists()
    assert end_orphans(tmp_path) == []


@pytest.mark.parametrize(
    "change",
    [
        lambda who: replace(who, started=who.started - 60),
        lambda who: replace(who, command=who.command + " --another"),
    ],
    ids=["another start time", "another command line"],
)
def test_a_recycled_pid_is_left_alone(
    sleeper: subprocess.Popen[bytes], tmp_path: Path, change: Callable[[Identity], Identity]
) -> None:
    file = record(tmp_path, change(identity(sleeper)))
    assert end_orphans(tmp_path) == []
    assert sleeper.poll() is None
    assert not file.exists()


def test_the_engine_of_a_living_owner_is_left_alone(sleeper: subprocess.Popen[bytes], tmp_path: Path) -> None:
    me = Identity.of(psutil.Process())
    assert me is not None
    file = record(tmp_path, identity(sleeper), owner=asdict(me))
    assert end_orphans(tmp_path) == []
    assert sleeper.poll() is None
    assert file.exists()


def test_watch_records_while_they_start_and_only_what_started(sleeper: subprocess.Popen[bytes], tmp_path: Path) -> None:
    watch = Watch(tmp_path, every=0.01)
    with watch:
        engine = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
        while not watch.file.exists() or not json.loads(watch.file.read_text())["processes"]:
            pass  # the record must appear before the engine is ready
    [who] = watch.processes
    assert who.pid == engine.pid
    assert watch.end() == [engine.pid]
    assert who.find() is None
    engine.wait()
    assert sleeper.poll() is None
    assert not watch.file.exists()


def test_no_folder_means_no_orphans(tmp_path: Path) -> None:
    assert end_orphans(tmp_path / "none") == []
