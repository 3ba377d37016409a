"""Deciding with a model: what it is asked, when it is asked again, and what structure decides for it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from launch.contracts import Completion, Prompt, Sampling
from launch.errors import DataError
from launch.generate import HFGenerator
from launch.models import load_causal_lm, load_tokenizer
from reasoning.conflict import resolve
from reasoning.conflict.answering import resolve_with

QUESTION = "Where does the mentor of Ann live?"
HOLDS, GAP = "The mentor of Ann is Bob. Bob lives in Oslo.", "The mentor of Ann is Cleo. Ivan lives in Rome."
TOLD = ["Oslo", "Rome"]
DECIDED = "<think>[Context 2] The mentor of Ann is Cleo. So the answer is Rome.</think><answer>Rome</answer>"


class Script:
    """A Generator whose answers are written down; it keeps what it was asked."""

    def __init__(self, *answers: str) -> None:
        self.answers, self.asked, self.temperatures = list(answers), [], []

    def generate(self, prompts: Sequence[Prompt], n: int, sampling: Sampling) -> list[list[Completion]]:
        self.asked += prompts
        self.temperatures.append(sampling.temperature)
        return [[Completion(self.answers.pop(0), (), (), "stop")] for _ in prompts]

    def close(self) -> None: ...


def test_the_model_decides_against_structure_and_says_so() -> None:
    """It follows the context with the gap: structure is not sure of that at all. Paths are those of both contexts."""
    model = Script(DECIDED)
    got = resolve_with(model, QUESTION, [HOLDS, GAP], TOLD)
    structural = resolve(QUESTION, [HOLDS, GAP], TOLD)
    assert (got["answer"], got["followed"], got["rejected"], got["confidence"]) == ("Rome", 1, [0], 0.0)
    assert got["trace"].startswith("[Context 2] The mentor") and got["paths"] == structural["paths"]
    assert got["notes"] == [] and model.temperatures == [0.0]
    (prompt,) = model.asked
    assert HOLDS in prompt[0]["content"] and "(Ann | mentor | Bob)" in prompt[0]["content"]
    agreed = resolve_with(Script(DECIDED.replace("2", "1").replace("Rome", "Oslo")), QUESTION, [HOLDS, GAP], TOLD)
    assert (agreed["followed"], agreed["confidence"]) == (0, structural["confidence"])


@pytest.mark.parametrize(
    "bad", ["Rome", "<think>x</think><answer>Lima</answer>", "<think>a<think>b</think><answer>Rome</answer>"]
)
def test_what_is_no_decision_is_asked_once_more_with_sampling(bad: str) -> None:
    """Without the form, with the answer of no context, with tags in tags."""
    model = Script(bad, DECIDED)
    got = resolve_with(model, QUESTION, [HOLDS, GAP], TOLD, chat=False)
    assert got["notes"] == ["retried"] and got["followed"] == 1
    assert model.temperatures[0] == 0.0 < model.temperatures[1] and model.asked[0] == model.asked[1]
    twice = resolve_with(Script(bad, bad), QUESTION, [HOLDS, GAP], TOLD)
    assert twice == {**resolve(QUESTION, [HOLDS, GAP], TOLD), "notes": ["retried", "fallback"]}


def test_answers_that_are_not_told_are_asked_of_each_context_alone() -> None:
    """Empty contexts are not asked about; noise around the answer tag is dropped."""
    model = Script("It is <answer> Oslo </answer>", "<answer>Rome</answer>", DECIDED.replace("Context 2", "Context 3"))
    got = resolve_with(model, QUESTION, [HOLDS, " ", GAP])
    assert (got["answer"], got["followed"], got["rejected"]) == ("Rome", 2, [0])
    alone = [prompt[0]["content"] for prompt in model.asked[:2]]
    assert HOLDS in alone[0] and GAP not in alone[0] and GAP in alone[1]
    assert "empty_context" in got["notes"]


@pytest.mark.parametrize(("contexts", "answers", "note"), [([], [], "no_answer"), (["", ""], ["", ""], "no_answer"),
                                                           ([HOLDS, HOLDS], ["Oslo", "oslo"], "agree")])  # fmt: skip
def test_where_there_is_nothing_to_decide_no_model_is_asked(contexts: list[str], answers: list[str], note: str) -> None:
    model = Script()
    got = resolve_with(model, QUESTION, contexts, answers)
    assert note in got["notes"] and got == resolve(QUESTION, contexts, answers) and not model.asked


def test_one_answer_each() -> None:
    with pytest.raises(DataError, match="2 contexts but 1 answers"):
        resolve_with(Script(), QUESTION, [HOLDS, GAP], ["Oslo"])


def test_a_real_model_that_babbles_leaves_the_decision_to_structure(tiny_llama: Path) -> None:
    """Random weights give no answer about any context: nothing to follow, and no exception."""
    generator = HFGenerator(load_causal_lm(tiny_llama), load_tokenizer(tiny_llama))
    short = {"mode": "paths", "max_new_tokens": 4, "chat": False}
    alone = resolve_with(generator, QUESTION, [HOLDS[:25], GAP[:26]], **short)
    assert (alone["answer"], alone["followed"]) == ("", None) and "no_answer" in alone["notes"]
