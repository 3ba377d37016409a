"""A model that has learned four chats by heart calls a real tool and uses the result: in process and in vLLM."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoModelForCausalLM

from launch.contracts import Sampling
from launch.errors import DataError
from launch.generate import HFGenerator
from launch.models import load_tokenizer
from launch.serve import serve
from launch.tools_pool import Pool
from reasoning.agent import Agent, Call, GeneratorTurns, ServerTurns, Transcript
from tests.reasoning.agent.sums import CHATS, TOOLS, taught

GREEDY = Sampling(max_new_tokens=40, temperature=0)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return taught(tmp_path_factory.mktemp("sums"))


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pool]:
    with Pool(TOOLS, tmp_path_factory.mktemp("data"), workers=1) as made:
        yield made


def check(found: list[Transcript]) -> None:
    """Every chat made its calls, all at once where there are two, and gave its answer."""
    for transcript, (calls, answer) in zip(found, CHATS.values(), strict=True):
        assert (transcript.outcome, transcript.answer) == ("answer", answer)
        made = [(call.name, call.arguments) for call in transcript.steps[0].turn.calls]
        assert made == [("add", {"a": a, "b": b}) for a, b in calls]
        assert len(transcript.steps) == (2 if calls else 1)
        assert all(result.well for result in transcript.steps[0].made)
        assert transcript.tokens > 0


def test_a_model_in_process_calls_and_answers(model: Path, pool: Pool) -> None:
    tokenizer = load_tokenizer(model)
    generator = HFGenerator(AutoModelForCausalLM.from_pretrained(model), tokenizer)
    check(Agent(GeneratorTurns(generator, tokenizer), pool, sampling=GREEDY).run(list(CHATS)))


def test_a_chat_that_results_fill_up_ends_alone(model: Path, pool: Pool) -> None:
    """The third chat, the longest, calls and then has no room for a turn; the others get their answers all the same."""
    tokenizer = load_tokenizer(model)
    generator = HFGenerator(AutoModelForCausalLM.from_pretrained(model), tokenizer)
    turns = GeneratorTurns(generator, tokenizer)
    schemas = [spec.schema for spec in TOOLS.values()]

    def tokens(chat: list[dict[str, Any]]) -> int:
        return len(tokenizer(turns.render(chat, schemas), add_special_tokens=False)["input_ids"])

    whole = Agent(turns, pool, sampling=GREEDY).run(list(CHATS))
    generator.context = tokens(whole[2].messages()[:-1]) + 1  # with its results, without its answer
    found = Agent(turns, pool, sampling=GREEDY).run(list(CHATS))
    assert [t.outcome for t in found] == ["answer", "answer", "length", "answer"]
    assert [t.answer for t in found] == ["7", "14", "", "Hello."]
    generator.context = tokens(whole[2].prompt)
    with pytest.raises(DataError, match="the model's context is"):  # a first prompt is the caller's to shorten
        Agent(turns, pool, sampling=GREEDY).run(list(CHATS))


@pytest.mark.timeout(900)  # a vLLM start takes minutes on a busy machine
def test_vllms_own_tool_calls(model: Path, pool: Pool, tmp_path: Path) -> None:
    """vLLM renders the chat and reads the calls (--tool-call-parser hermes); a server's call ids are kept."""
    flags = ["--enable-auto-tool-choice", "--tool-call-parser", "hermes"]
    with serve(model, max_model_len=256, folder=tmp_path, extra=flags) as server:
        turns = ServerTurns(server.url)
        found = Agent(turns, pool, sampling=GREEDY).run(list(CHATS))
        turns.close()
    check(found)
    ids = [call.id for transcript in found for call in transcript.steps[0].turn.calls]
    assert len(set(ids)) == len(ids) == 4 and all(ids)
    assert isinstance(found[0].steps[0].turn.calls[0], Call)
