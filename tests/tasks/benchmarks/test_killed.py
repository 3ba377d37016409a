"""`arbiter eval` killed by SIGKILL while it judges: the same command finishes, and nothing stored is asked again."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

from launch.judge import Cache
from tasks.benchmarks.files import read_rows, write_rows
from tests.launch.test_judge import judge
from tests.tasks.benchmarks.test_command import TEMPLATE, prefers_m

ROOT = Path(__file__).parents[3]


def test_a_killed_evaluation_goes_on_and_pays_nothing_twice(tiny_llama, tmp_path):
    """Twenty answers from weights, then twenty verdicts, four at a time, killed after eight."""
    rows = [{"instruction": f"Say {i}.", "output": "x" * (i + 1), "generator": "ref"} for i in range(20)]
    reference = write_rows(tmp_path / "reference.json", rows)
    (tmp_path / "prompt.txt").write_text(TEMPLATE)
    out = tmp_path / "out"

    def slowly(text: str) -> object:
        time.sleep(0.2)
        return prefers_m(text)

    with judge(content=slowly) as server:
        words = ["alpaca_eval", "--model", tiny_llama, "--baseline", reference, "--prompts", tmp_path / "prompt.txt"]
        words += ["--other-prompts", "--judge", server.url, "--judge-model", "j", "--out", out, "--name", "mine"]
        words += ["--max-tokens", 4, "--concurrency", 4]
        command = [sys.executable, "-m", "launch", "eval", *map(str, words)]
        run = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL)
        while sum(server.paid.values()) < 8 and run.poll() is None:
            time.sleep(0.01)
        run.send_signal(signal.SIGKILL)
        assert run.wait() == -signal.SIGKILL
        assert not (out / "scores.json").exists()
        answered = (out / "results/mine/model_outputs.json").read_bytes()
        kept = len(set(Cache(out / "judge_cache").keys()))
        assert 4 <= kept < 20
        subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL, timeout=120)
        assert sum(server.asked.values()) <= 20 + 4 and len(server.asked) == 20
    assert (out / "results/mine/model_outputs.json").read_bytes() == answered
    [scores] = read_rows(out / "scores.json")
    assert (scores["n_total"], scores["judge/cached"], scores["judge/calls"]) == (20, kept, 20 - kept)
