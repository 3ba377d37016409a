"""The recipe with a real vLLM engine, killed after it sampled. One engine start: about 45 s, minutes when busy."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from align.selfplay import rounds
from launch.generate import end_orphans
from launch.generate.orphans import Identity
from tests.align.selfplay.engine_run import tiny
from tests.align.selfplay.test_rounds import last_policy
from tests.launch.toy import REPOSITORY


@pytest.mark.timeout(900)
def test_a_killed_vllm_round_ends_its_engine_and_keeps_its_samples(
    char_policy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SIGKILL once the round's answers are stored. The engine lives on; the same run, continued, ends it and trains on
    the stored answers without an engine of its own."""
    run = tmp_path / "run"
    command = [sys.executable, "-m", "tests.align.selfplay.engine_run", str(char_policy), str(run)]
    owner = subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        while not list(run.glob("stages/round-1-generate-*")):
            assert owner.poll() is None, "the run ended before it had sampled"
            time.sleep(0.01)
        os.kill(owner.pid, signal.SIGKILL)
        owner.wait()
        [record] = [json.loads(file.read_text()) for file in run.glob("engines/engine-*.json")]
        engine = [Identity(**who) for who in record["processes"]]
        assert engine and all(who.find() for who in engine)
        [answers] = run.glob("stages/round-1-generate-*/completions.jsonl")
        before = (answers.read_bytes(), answers.stat().st_mtime_ns)

        monkeypatch.setattr("launch.generate.VLLMGenerator", None)  # it cannot even be called
        rounds.main(tiny(char_policy, run))

        assert not any(who.find() for who in engine) and not list(run.glob("engines/engine-*.json"))
        assert (answers.read_bytes(), answers.stat().st_mtime_ns) == before
        assert len(list(run.glob("stages/round-1-generate-*"))) == 1 and (last_policy(run) / "config.json").exists()
    finally:
        owner.kill()
        owner.wait()
        end_orphans(run / "engines")
