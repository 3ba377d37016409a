"""vLLM in process, for real: the engine's samples, and what becomes of it when its owner is killed.

The engine runs in one subprocess (engine_process.py) for the whole file: it starts once, answers all questions and
is then killed.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest
from transformers import AutoModelForCausalLM

from launch.contracts import Completion
from launch.generate import HFGenerator, end_orphans
from launch.generate.chunks import completion_from_json
from launch.generate.orphans import Identity
from launch.models import load_tokenizer
from tests.launch.conftest import random_llama
from tests.launch.engine_process import GREEDY, PROMPTS

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.timeout(900)  # a vLLM start takes minutes on a busy machine


@pytest.fixture(scope="module")
def other_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same architecture with other weights, as the next round of self-play has it."""
    return random_llama(tmp_path_factory.mktemp("next") / "llama", seed=1)


@dataclass(frozen=True)
class Owner:
    """The process that owns the engine."""

    process: subprocess.Popen[bytes]
    folder: Path
    answers: dict[str, Any]
    printed: str
    """What it had printed when all was sampled, so before any test killed it."""


@pytest.fixture(scope="module")
def owner(served_model: Path, other_weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Owner]:
    folder = tmp_path_factory.mktemp("engine")
    command = [sys.executable, "-m", "tests.launch.engine_process", str(served_model), str(other_weights), str(folder)]
    with (folder / "output").open("wb") as sink:
        process = subprocess.Popen(
            [*command, str(folder / "answers.json")], cwd=ROOT, stdout=sink, stderr=subprocess.STDOUT
        )
    try:
        while not (folder / "answers.json").exists():
            assert process.poll() is None, (folder / "output").read_text()[-2000:]
            time.sleep(0.2)
        yield Owner(process, folder, json.loads((folder / "answers.json").read_text()), (folder / "output").read_text())
    finally:
        process.kill()
        process.wait()
        end_orphans(folder)


@pytest.fixture(scope="module")
def answers(owner: Owner) -> dict[str, Any]:
    return owner.answers


def completions(rows: Any) -> list[Completion]:
    return [completion_from_json(answer) for row in rows for answer in row]


@pytest.mark.parametrize("which", ["greedy", "reloaded"])
def test_greedy_equals_the_hugging_face_generator_also_after_a_reload(
    answers: dict[str, Any], served_model: Path, other_weights: Path, which: str
) -> None:
    folder = served_model if which == "greedy" else other_weights
    reference = HFGenerator(AutoModelForCausalLM.from_pretrained(folder), load_tokenizer(folder))
    want = [answer for row in reference.generate(PROMPTS, 2, GREEDY) for answer in row]
    for a, b in zip(completions(answers[which]), want, strict=True):
        assert (a.token_ids, a.text, a.finish, a.prompt_ids) == (b.token_ids, b.text, b.finish, b.prompt_ids)
        assert a.logprobs == pytest.approx(b.logprobs, abs=1e-4)


def test_sampled_logprobs_are_those_of_the_untempered_model(answers: dict[str, Any], served_model: Path) -> None:
    import torch

    model = AutoModelForCausalLM.from_pretrained(served_model)
    for answer in completions(answers["sampled"]):
        with torch.no_grad():
            logits = model(torch.tensor([answer.prompt_ids + answer.token_ids])).logits[0, len(answer.prompt_ids) - 1 :]
        want = logits[:-1].log_softmax(-1).gather(-1, torch.tensor(answer.token_ids)[:, None])[:, 0]
        assert answer.logprobs == pytest.approx(want.tolist(), abs=1e-4)


def test_the_same_seed_gives_the_same_text_whatever_is_beside_it(answers: dict[str, Any]) -> None:
    assert [a.token_ids for a in completions(answers["alone"])] == [
        a.token_ids for a in completions(answers["sampled"][1:2])
    ]


def test_other_seeds_and_other_samples_differ(answers: dict[str, Any]) -> None:
    for one, other in zip(answers["sampled"], answers["other_seed"], strict=True):
        assert len({a.token_ids for a in completions([one, other])}) == 6


def test_n_samples_are_one_request_and_share_the_prompt(answers: dict[str, Any]) -> None:
    """77 tokens: two blocks of 32 are computed once and shared twice, the other 13 are computed by each of three."""
    assert answers["counted"]["local_compute"] == 77 + 2 * 13
    assert answers["counted"]["local_cache_hit"] == 2 * 64


def test_the_server_samples_the_same_text_as_the_engine(
    answers: dict[str, Any], vllm_server: Any, served_model: Path
) -> None:
    from launch.generate import ServerGenerator
    from launch.rendering import Renderer
    from tests.launch.engine_process import SAMPLED

    with ServerGenerator(vllm_server.url, renderer=Renderer(load_tokenizer(served_model))) as server:
        got = server.generate(PROMPTS, 3, SAMPLED)
    assert [a.token_ids for row in got for a in row] == [a.token_ids for a in completions(answers["sampled"])]


def test_nothing_is_printed(owner: Owner) -> None:
    assert owner.printed == ""


def test_an_engine_outlives_its_killed_owner_until_resume_ends_it(owner: Owner) -> None:
    """It kills the owner, which the other tests do not need any more: they read what it answered and printed."""
    process, folder = owner.process, owner.folder
    [record] = [json.loads(file.read_text()) for file in folder.glob("engine-*.json")]
    engine = [Identity(**who) for who in record["processes"]]
    assert [who.command for who in engine] == ["VLLM::EngineCore", "VLLM::Worker"]
    assert end_orphans(folder) == []  # its owner lives
    assert all(who.find() for who in engine)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert all(who.find() for who in engine)
    assert end_orphans(folder) == sorted(who.pid for who in engine)
    assert not any(who.find() for who in engine)
    assert not any(psutil.pid_exists(who.pid) and psutil.Process(who.pid).status() != "zombie" for who in engine)
    assert not list(folder.glob("engine-*.json"))
