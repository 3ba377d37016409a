"""`arbiter serve`: what it refuses before anything starts, which flags a model gets, and that a signal leaves nothing.

A server that is up, asked and ended is in tests/align/preference/test_serving.py and test_generate_server.py.
"""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from launch.cli import _parser, main
from launch.errors import CheckpointError, ConfigError, LaunchError
from launch.serve import SERVING, Server, pooling_flags, read_serving, serve
from launch.serve_command import servable

ROOT = Path(__file__).parents[2]


def config(folder: Path, **fields: object) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(fields))
    return folder


def test_vllms_own_flags_are_split_as_a_shell_does(capsys: pytest.CaptureFixture[str]) -> None:
    for given in (["--vllm=--enforce-eager"], ["--vllm", "--tensor-parallel-size 2"]):
        assert _parser().parse_args(["serve", "m", *given]).vllm == given[-1].removeprefix("--vllm=")
    assert main(["serve", "m", "--vllm='open"]) == 2
    assert "no closing quotation; quote it as a shell would" in capsys.readouterr().err
    assert main(["serve", "m", "--prot", "1"]) == 2
    assert "unexpected --prot 1" in capsys.readouterr().err


def test_a_port_in_use_is_refused(served_model: Path) -> None:
    """Its owner would answer the health check in the new server's place."""
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with (
            pytest.raises(ConfigError, match=rf"port {port} cannot be used .*; give another one, or 0"),
            serve(served_model, port=port),
        ):
            pass
    with pytest.raises(ConfigError, match="port 70000 cannot be used"), serve(served_model, port=70000):
        pass


def test_a_sequence_classifier_is_pooled(tmp_path: Path) -> None:
    assert pooling_flags(config(tmp_path / "a", architectures=["LlamaForSequenceClassification"])) == [
        "--runner",
        "pooling",
    ]
    assert pooling_flags(config(tmp_path / "b", architectures=["LlamaForCausalLM"])) == []
    assert pooling_flags(config(tmp_path / "c")) == pooling_flags("some/hub-name") == []
    (tmp_path / "c" / "config.json").write_text("{")
    with pytest.raises(CheckpointError, match=r"c/config\.json is broken"):
        pooling_flags(tmp_path / "c")


def test_a_broken_serving_file_is_named(tmp_path: Path) -> None:
    assert read_serving(tmp_path) is None
    for text in ("{", "[]", "{}"):
        (tmp_path / SERVING).write_text(text)
        with pytest.raises(CheckpointError, match=rf"{SERVING} .*; export the model again"):
            read_serving(tmp_path)


def test_folders_that_are_no_model_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["serve", str(tmp_path)]) == 1
    assert "has no config.json; give a model's folder" in capsys.readouterr().err
    assert main(["serve", str(tmp_path / "none")]) == 1
    assert "none is not a folder" in capsys.readouterr().err
    plain = config(tmp_path / "plain", model_type="llama")
    assert servable(str(plain)) == str(plain)
    assert main(["serve", str(plain), "--export", str(tmp_path / "out")]) == 2
    assert f"vLLM serves {plain} as it is; leave --export out" in capsys.readouterr().err


def test_a_server_that_ended_is_noticed(tmp_path: Path) -> None:
    log = tmp_path / "server.log"
    log.write_text("RuntimeError: out of memory\n")
    process = subprocess.Popen([sys.executable, "-c", "raise SystemExit(3)"])
    process.wait()
    with pytest.raises(LaunchError, match=r"^the vLLM server ended with 3: RuntimeError: out of memory; see .*\.log$"):
        Server("http://127.0.0.1:1", "m", process.pid, log, process).check()


@pytest.mark.timeout(300)
def test_ctrl_c_while_it_comes_up_leaves_nothing(served_model: Path, tmp_path: Path) -> None:
    """SIGTERM is sent to a server that is up in tests/align/preference/test_serving.py."""
    command = [sys.executable, "-m", "launch.cli", "serve", str(served_model), "--port", "0", "--folder", str(tmp_path)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT)
    me = psutil.Process(process.pid)
    try:
        while not any("-m vllm." in " ".join(child.cmdline()) for child in me.children()):
            assert process.poll() is None
            time.sleep(0.1)
        family = [me, *me.children(recursive=True)]
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 128 + signal.SIGINT
    finally:
        if process.poll() is None:
            process.terminate()
        process.wait(90)
    assert not psutil.wait_procs(family, timeout=20)[1]
    assert [file.suffix for file in tmp_path.iterdir()] == [".log"]
    assert process.stdout is not None and process.stdout.read().endswith("server ended\n")
