"""``arbiter tools``, as a real command line."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from launch import cli
from tests.launch.toy import environment

TABLE = "[[0.5, 1.0, 0.0], [0.0, 0.5, 1.0], [1.0, 0.0, 0.5]]"


def arbiter(*words: str, stdin: str = "", folder: Path | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "launch.cli", "tools", *words]
    return subprocess.run(
        command, input=stdin, capture_output=True, text=True, env=environment(), cwd=folder, check=False, timeout=120
    )


def test_call(tmp_path: Path) -> None:
    """Rock, paper, scissors are played equally often. stdout is one JSON object, whoever reads it."""
    done = arbiter("call", "nash_mixture", f"win_probability={TABLE}", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert answer["result"]["mixture"] == pytest.approx([1 / 3] * 3)
    assert answer["result"]["cyclicity"] == 1.0 and answer["unit"].startswith("mixture, the chance in 0 to 1")
    asked = json.dumps({"question": "Who is Ann?", "passage": "Ann is a smith.", "answer": "a smith"})
    done = arbiter("call", "conflict_paths", "--json", "-", stdin=asked, folder=tmp_path)
    assert json.loads(done.stdout)["result"]["answer"] == "a smith"


def test_a_call_that_gives_nothing_is_one_line(tmp_path: Path) -> None:
    done = arbiter("call", "conflict_paths", "question=Where is Ann?", "pasage=x", folder=tmp_path)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "arbiter: conflict_paths: unknown argument 'pasage'; did you mean passage?\n"


def test_list_and_show(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["tools", "list"]) == 0
    listed = capsys.readouterr().out
    assert "\nnash_mixture Find how often to give each of several options" in re.sub(" +", " ", listed)
    assert cli.main(["tools", "show", "resolve_conflict"]) == 0
    shown = capsys.readouterr().out
    assert "  answers (array or null, optional): The answer that each passage gives" in shown
    assert "returns: answer, and the index from 0" in shown and "limits: 60 s, 2,048 MB" in shown
    assert cli.main(["tools", "show", "nash_mixture", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["function"]["name"] == "nash_mixture"


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["call", "nash"], "there is no tool 'nash'; use nash_mixture"),
        (["call", "nash_mixture", "x"], "'x' is no key=value; write for example x=VALUE"),
        (["call", "nash_mixture", "a=1", "--json", "-"], "give either --json or key=value"),
        (["call", "nash_mixture", "--data", "no/such/folder"], "data folder no/such/folder is not there"),
        (["call", "nash_mixture", "--json", "no-such.json"], "cannot use no-such.json"),
        (["serve", "nix"], "there is no tool 'nix'"),
        (
            ["serve", "nash_mixture", "--http", "0", "--host", "0.0.0.0", "--token-env", "NO_SUCH"],
            "lets other machines",
        ),
    ],
)
def test_wrong_commands(
    words: list[str], told: str, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli.main(["tools", *words]) in (1, 2)
    error = capsys.readouterr().err
    assert told in error and error.count("\n") == 1
