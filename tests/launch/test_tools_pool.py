"""Tools in processes of their own: what comes back, what is ended, and what they cannot reach."""

from __future__ import annotations

import importlib
import inspect
import json
import os
import pickle
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from safetensors.numpy import save_file
from transformers.utils import get_json_schema

from launch.errors import ConfigError
from launch.tools import Limits, ToolError, ToolSpec
from launch.tools_pool import Pool
from tests.launch.call_cost import measured
from tests.launch.toy import environment
from tests.launch.toy_tools import misbehave, mix, slow_to_start, whoami

TOOLS = {spec.name: spec for spec in (ToolSpec.of(mix), ToolSpec.of(misbehave), ToolSpec.of(whoami))}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    (folder / "note.txt").write_text("inside")
    save_file({"a": np.ones(2)}, folder / "inside.safetensors")
    return folder


@pytest.fixture(scope="module")
def pool(data: Path) -> Iterator[Pool]:
    with Pool(TOOLS, data, workers=1) as made:
        yield made


def does(pool: Pool, how: str, what: object = "") -> Any:
    return json.loads(pool.call("misbehave", {"how": how, "what": str(what)}))["result"]


def fails(pool: Pool, how: str, what: object = "") -> str:
    """The one line of a failure; the pool works afterwards."""
    with pytest.raises(ToolError) as caught:
        does(pool, how, what)
    assert does(pool, "fine") == "fine"
    line = str(caught.value)
    assert "\n" not in line and line.startswith("misbehave")
    return line


def test_a_result_comes_with_its_unit(pool: Pool) -> None:
    answer = json.loads(pool.call("mix", {"numbers": [1, 2], "times": 3, "label": "é", "deep": [[1]]}))
    assert answer["unit"] == TOOLS["mix"].unit
    assert answer["result"] == mix([1, 2], 3, label="é", deep=[[1]])
    assert does(pool, "array") == {"x": [0.0, 1.0, 2.0], "n": 4}
    assert does(pool, "talk") == "said"


def test_answers_for_models_are_text_whatever_happens(pool: Pool) -> None:
    assert pool.answer("mix", '{"numbers": [1], "times": 2}')[1] is True
    for name, arguments in (("mix", "{bad"), ("mix", {}), ("nix", {}), ("misbehave", {"how": "fail"})):
        text, well = pool.answer(name, arguments)
        assert not well and list(json.loads(text)) == ["error"]


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("mix", {"numbers": np.ones(2), "times": 2}),
        ("mix", {"numbers": [1], "times": np.float32(2)}),
        ("mix", {1: 2}),
        (None, {}),
        ("mix", '{"numbers": [1], "times": 2, "mode": "\\ud83d"}'),
    ],
)
def test_answers_to_what_no_json_gives(pool: Pool, name: Any, arguments: Any) -> None:
    """Arrays, keys and names of Python, and half an emoji, which no tokenizer would take back."""
    text, well = pool.answer(name, arguments)
    assert not well and "\n" not in json.loads(text)["error"]
    text.encode()


def test_functions_look_like_the_tools_to_trl(pool: Pool) -> None:
    """Same schema, same signature; TRL calls them by keyword and writes str(result) into the prompt."""
    for made, original in zip(pool.functions(), (mix, misbehave, whoami), strict=True):
        assert get_json_schema(made) == get_json_schema(original)
        assert inspect.signature(made) == inspect.signature(original)
    assert json.loads(pool.functions()[0](numbers=[2], times=2))["result"]["value"] == 4
    with pytest.raises(ToolError, match="argument times is missing"):
        pool.functions()[0](numbers=[2])


def test_the_call_itself_costs_under_two_milliseconds(data: Path) -> None:
    """The median of 200 calls of a tool that only adds: a busy machine moves the mean, not the median."""
    assert measured(200, data)["median_ms"] < 2


# ---------------------------------------------------------------- limits


def test_a_tool_that_takes_too_long_is_ended(pool: Pool) -> None:
    for how in ("hang", "hang_deaf"):
        start = time.monotonic()
        assert "took longer than 0.5 s and was ended" in fails(pool, how)
        assert time.monotonic() - start < 20  # and a new process was started


def test_imports_do_not_count_towards_the_time_of_a_call(data: Path) -> None:
    """The module takes 1 s, a call may take .5. A module that is not there is left for the tool to complain of."""
    spec = ToolSpec.of(slow_to_start)
    with Pool({spec.name: spec}, data, workers=1) as pool:
        assert json.loads(pool.call(spec.name, {}))["result"] == 1.0
    unnamed = replace(spec, imports=())
    with Pool({spec.name: unnamed}, data, workers=1) as pool, pytest.raises(ToolError, match=r"took longer than 0.5 s"):
        pool.call(spec.name, {})


def test_imports_that_never_end_are_ended(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = ToolSpec.of(slow_to_start)
    with Pool({spec.name: spec}, data, workers=1) as pool:
        pool.fences()  # the process is there
        monkeypatch.setattr("launch.tools_pool._START_SECONDS", 0.2)
        with pytest.raises(ToolError, match=r"longer than 0.2 s for its imports and was ended; try again"):
            pool.call(spec.name, {})
        monkeypatch.undo()
        assert json.loads(pool.call(spec.name, {}))["result"] == 1.0


def test_an_interrupted_call_leaves_no_answer_behind(data: Path) -> None:
    """As Ctrl-C in a notebook does: the call after it gets its own answer, and gets it at once."""

    class Interruption(BaseException):
        pass

    def interrupt(number: int, frame: Any) -> None:
        raise Interruption

    patient = {"misbehave": replace(TOOLS["misbehave"], limits=Limits())}
    before = signal.signal(signal.SIGUSR1, interrupt)
    try:
        with Pool(patient, data, workers=1) as pool:
            does(pool, "fine")
            timer = threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGUSR1))
            timer.start()
            with pytest.raises(Interruption):
                does(pool, "wait", "1")
            assert [does(pool, "wait", what) for what in ("0", "0.1")] == ["0", "0.1"]
    finally:
        signal.signal(signal.SIGUSR1, before)


def test_a_tool_that_wants_too_much_memory_is_told(pool: Pool) -> None:
    """500 MB of lists, 512 MB of an array; 100 are allowed."""
    for how in ("fill", "fill_array"):
        assert fails(pool, how) == "misbehave needs more than 100 MB of memory; give it less at a time"


@pytest.mark.parametrize(
    ("how", "told"),
    [
        ("fail", "misbehave failed: ValueError: no such luck at toy_tools.py:"),
        ("leave", "misbehave failed: SystemExit: 3"),
        ("die", "misbehave ended its process (signal 9)"),
        ("long", "misbehave gave 1,202 bytes, 1,000 are allowed; ask for less"),
        ("odd", "misbehave gave a result that is no JSON (a set)"),
        ("not_a_number", "misbehave gave a result that is no JSON (Out of range float"),
        ("nothing", "misbehave failed: AttributeError"),
    ],
)
def test_whatever_goes_wrong_is_one_line(pool: Pool, how: str, told: str) -> None:
    assert fails(pool, how).startswith(told)


def test_a_worker_whose_caller_was_killed_ends_by_itself(data: Path) -> None:
    """The caller gets SIGKILL in the middle of a call that hangs: the alarm of 2.5 s ends the worker."""
    program = f"""
import threading, time
from launch.tools import ToolSpec
from launch.tools_pool import Pool
from tests.launch.toy_tools import misbehave, whoami
pool = Pool({{s.name: s for s in (ToolSpec.of(misbehave), ToolSpec.of(whoami))}}, {str(data)!r}, workers=1)
print(pool.call("whoami", {{}}), flush=True)
pool.call("misbehave", {{"how": "hang_deaf"}})
"""
    caller = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, env=environment())
    assert caller.stdout is not None
    worker = psutil.Process(json.loads(caller.stdout.readline())["result"]["pid"])
    time.sleep(0.2)
    os.kill(caller.pid, signal.SIGKILL)
    caller.wait()
    caller.stdout.close()
    worker.wait(20)
    assert not worker.is_running()


def test_many_threads_share_few_processes(data: Path) -> None:
    """2,000 calls from 20 threads over 2 processes: every answer is its own call's, and memory does not grow."""
    with Pool(TOOLS, data, workers=2) as pool, ThreadPoolExecutor(20) as threads:

        def one(i: int) -> bool:
            return json.loads(pool.call("mix", {"numbers": [i], "times": 2}))["result"]["value"] == 2 * i

        assert all(threads.map(one, range(200)))
        pids = {json.loads(pool.call("whoami", {}))["result"]["pid"] for _ in range(10)}
        before = {pid: psutil.Process(pid).memory_info().rss for pid in pids}
        assert all(threads.map(one, range(1800)))
        after = {pid: psutil.Process(pid).memory_info().rss for pid in pids}
        assert all(after[pid] - before[pid] < 2 * 2**20 for pid in pids)
    assert not any(psutil.pid_exists(pid) for pid in pids)


# ---------------------------------------------------------------- fences


def test_the_audit_fence_stands_everywhere(pool: Pool) -> None:
    assert pool.fences()[-1] == "audit"


def test_only_the_data_folder_is_read(pool: Pool, data: Path, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("outside")
    (data / "link").symlink_to(secret)
    assert does(pool, "read", data / "note.txt") == does(pool, "read", "note.txt") == "inside"
    assert does(pool, "named", "note.txt") == "inside"
    for path in (secret, "link", f"../{tmp_path.name}/secret", "/etc/passwd", "/proc/1/environ", "pyproject.toml"):
        told = fails(pool, "read", path)
        assert told.startswith(f"misbehave was refused: a tool may not read {path}: only what lies below {data}") or (
            path == "pyproject.toml" and "No such file" in told  # relative paths start in the data folder
        )
    assert "lies outside of the data folder" in fails(pool, "named", secret)
    assert "was refused" in fails(pool, "look", tmp_path)


def test_the_repository_is_read_for_its_code_alone(pool: Pool) -> None:
    root = Path(__file__).parents[2]
    assert "was refused" in fails(pool, "read", root / "pyproject.toml")
    assert "was refused" in fails(pool, "look", root)


def test_nothing_is_written_but_scratch(pool: Pool, data: Path) -> None:
    assert does(pool, "scratch") == "kept for a moment"
    assert "a tool may not write" in fails(pool, "write", data / "new.txt")
    assert "a tool may not change" in fails(pool, "remove", data / "note.txt")
    assert not (data / "new.txt").exists() and (data / "note.txt").exists()


def test_nothing_leaves_scratch(pool: Pool, data: Path) -> None:
    """By its name or through a link; what lies in scratch may be removed as a tree."""
    assert does(pool, "remove_folder") is False
    for how in ("move_out", "link_out"):
        assert "a tool may not change" in fails(pool, how, data / "new.txt")
    assert "a tool may not change" in fails(pool, "link_in", data / "note.txt")
    mode = (data / "note.txt").stat().st_mode
    assert "a tool may not change" in fails(pool, "change_through_a_link", data / "note.txt")
    assert not (data / "new.txt").exists() and (data / "note.txt").stat().st_mode == mode


@pytest.mark.parametrize("inside", [False, True])
def test_no_code_comes_from_the_data_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, inside: bool) -> None:
    """Not even where the caller is `python -c` or a notebook, whose path begins with '', "where I stand", and which may
    stand in the data folder. Names that only an import hook understands reach the process as they are.
    """
    (tmp_path / "planted.py").write_text("")
    if inside:
        monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", ["", "__hook__.of.a.package", *sys.path])
    with Pool(TOOLS, tmp_path, workers=1) as pool:
        assert "No module named 'planted'" in fails(pool, "bring", "planted")
        seen = does(pool, "path")
    assert "__hook__.of.a.package" in seen and "" not in seen and str(tmp_path) not in seen


def test_a_tool_in_a_module_of_one_file(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It may be read wherever it lies; what lies beside it may not."""
    (tmp_path / "single_file_tool.py").write_text(
        'def size(name: str) -> int:\n    """Say how long a file is.\n\n    Args:\n        name: A file.\n\n'
        '    Returns:\n        Its length in bytes.\n    """\n    return len(open(name).read())\n'
    )
    (tmp_path / "beside.txt").write_text("outside")
    monkeypatch.syspath_prepend(tmp_path)
    spec = ToolSpec.of(importlib.import_module("single_file_tool").size)
    with Pool({"size": spec}, data, workers=1) as pool:
        assert json.loads(pool.call("size", {"name": "note.txt"}))["result"] == 6
        with pytest.raises(ToolError, match="a tool may not read"):
            pool.call("size", {"name": str(tmp_path / "beside.txt")})


def test_no_process_no_network_no_pickle(pool: Pool) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
        assert "a tool may not reach the network (socket." in fails(pool, "connect", f"127.0.0.1:{port}")
    assert "a tool may not start a process (subprocess.Popen)" in fails(pool, "start")
    assert "a tool may not unpickle (os.getcwd)" in fails(pool, "unpickle")
    assert pickle.loads(b"cos\ngetcwd\n(tR.") == os.getcwd()  # noqa: PTH109, S301 (it does work where nothing guards)


def test_native_code_is_held_where_the_kernel_can(pool: Pool, data: Path, tmp_path: Path) -> None:
    """What goes past Python's events: a file that Rust opens, a connection that libc makes."""
    outside = tmp_path / "outside.safetensors"
    save_file({"a": np.ones(2)}, outside)
    assert does(pool, "read_natively", data / "inside.safetensors") == 1
    fences = pool.fences()
    if "landlock" in fences:
        assert "FileNotFoundError" in fails(pool, "read_natively", outside)  # its word for whatever does not open
    else:
        assert does(pool, "read_natively", outside) == 1  # the page on tools says so
    if "no network" in fences:
        with socket.create_server(("127.0.0.1", 0)) as listening:
            assert does(pool, "connect_natively", f"127.0.0.1:{listening.getsockname()[1]}") != 0


def test_keys_in_the_environment_do_not_reach_tools(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_API_KEY", "secret")
    with Pool(TOOLS, data, workers=1) as pool:
        told = json.loads(pool.call("whoami", {}))["result"]
    assert "SOME_API_KEY" not in told["environment"] and "ARBITER_TOOL_DATA" in told["environment"]
    assert told["folder"] == str(data)


def test_process_pools_run_in_series_without_a_warning(data: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """joblib (scikit-learn's) is told that there are no semaphores, and so does not try and complain."""
    with Pool({"misbehave": replace(TOOLS["misbehave"], limits=Limits())}, data, workers=1) as pool:
        assert does(pool, "many_processes") == [0, 1, 2]
    assert capfd.readouterr().err == ""


def test_a_pool_that_is_closed_meanwhile_leaves_no_process(data: Path) -> None:
    """While calls in other threads are about to start theirs, or wait for an answer: each is answered, or told."""
    patient = {"misbehave": replace(TOOLS["misbehave"], limits=Limits())}
    before = {child.pid for child in psutil.Process().children()}
    for seconds in (0.0, 0.02, 0.1, 0.3):
        pool = Pool(patient, data, workers=2)
        with ThreadPoolExecutor(4) as threads:
            calls = [threads.submit(pool.call, "misbehave", {"how": "wait", "what": "0.1"}) for _ in range(8)]
            time.sleep(seconds)
            pool.close()
        errors = [call.exception() for call in calls]
        assert all(error is None or isinstance(error, ConfigError) for error in errors) and errors[-1] is not None
        assert {child.pid for child in psutil.Process().children()} <= before


def test_what_a_pool_needs(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is not there; make it"):
        Pool(TOOLS, tmp_path / "none")
    with pytest.raises(ConfigError, match="workers 0"):
        Pool(TOOLS, tmp_path, workers=0)
    with Pool(TOOLS, tmp_path) as pool:
        pass
    with pytest.raises(ConfigError, match="this pool of tools is closed; make another one"):
        pool.call("whoami", {})
