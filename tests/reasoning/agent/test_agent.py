"""The loop's rules, with turns that are written down; `test_models.py` has the ones that a model writes."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pytest

from launch.contracts import Completion, Sampling
from launch.errors import ConfigError, DataError, RenderingError
from launch.tools import ToolSpec
from launch.tools_pool import Pool
from reasoning.agent import Agent, Budget, Call, GeneratorTurns, Recorded, Transcript, Turn, changed_results
from reasoning.agent.calls import read_turn
from tests.reasoning.agent.sums import TEMPLATE, add, called, wait
from tests.tiny import make_tokenizer

TOOLS = {spec.name: spec for spec in (ToolSpec.of(add), ToolSpec.of(wait))}


class Written:
    """Turns by the chat's first user message; the last one is repeated. Keeps the chats and seeds that it saw."""

    def __init__(self, **turns: list[Turn]) -> None:
        self.turns, self.seen, self.seeds = turns, list[Any](), list[int]()

    def next(
        self, chats: Sequence[list[dict[str, Any]]], tools: Mapping[str, ToolSpec], sampling: Sampling
    ) -> list[Turn]:
        self.seen.append([json.loads(json.dumps(chat)) for chat in chats])
        self.seeds.append(sampling.seed)
        out = []
        for chat in chats:
            mine = self.turns[next(m["content"] for m in chat if m["role"] == "user")]
            out.append(mine[min(sum(m["role"] == "assistant" for m in chat), len(mine) - 1)])
        return out


def asks(*calls: Call, tokens: int = 5, **more: Any) -> Turn:
    return Turn("", calls, tokens, **more)


def says(text: str) -> Turn:
    return Turn(text, (), 3)


SUM = Call("add", {"a": 2, "b": 3})


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pool]:
    with Pool(TOOLS, tmp_path_factory.mktemp("data"), workers=2) as made:
        made.call("add", {"a": 1, "b": 1})
        yield made


def result(transcript: Transcript, step: int, call: int = 0) -> dict[str, Any]:
    return json.loads(transcript.steps[step].made[call].content)


def test_results_come_back_to_the_model_in_order(pool: Pool) -> None:
    """Two chats side by side, one done a round earlier; a wrong call is answered by a line, and it is tried again."""
    wrong = Call("add", {"a": 2, "c": 3})
    turns = Written(q=[asks(wrong, SUM), asks(SUM), says("five")], r=[asks(Call("ad", {})), says("no")])
    one, two = Agent(turns, pool, system="Be brief.").run(["q", "r"])
    assert (one.answer, one.outcome, two.answer, two.outcome) == ("five", "answer", "no", "answer")
    assert result(one, 0, 0) == {"error": "add: unknown argument 'c'; it takes a (integer), b (integer)"}
    assert result(one, 0, 1) == result(one, 1) == {"result": 5, "unit": "The sum."}
    assert result(two, 0) == {"error": "there is no tool 'ad'; use add"}
    assert [len(chats) for chats in turns.seen] == [2, 2, 1]
    last = turns.seen[2][0]
    assert [m["role"] for m in last] == ["system", "user", "assistant", "tool", "tool", "assistant", "tool"]
    ids = [call["id"] for m in last if m["role"] == "assistant" for call in m["tool_calls"]]
    assert ids == [m["tool_call_id"] for m in last if m["role"] == "tool"] == ["call00000", "call00001", "call00002"]
    assert len(set(turns.seeds)) == 3  # each turn samples anew


def test_calls_of_a_round_run_side_by_side(pool: Pool) -> None:
    """Four waits of half a second in two chats over two processes: two are under way at once, never more."""
    naps = [asks(*[Call("wait", {"seconds": 0.5})] * 2), says("done")]
    Agent(Written(q=naps, r=naps), pool).run(["q", "r"])  # starts both processes
    found = Agent(Written(q=naps, r=naps), pool).run(["q", "r"])
    assert [t.calls for t in found] == [2, 2] and all(m.well for t in found for s in t.steps for m in s.made)
    times = [json.loads(made.content)["result"] for t in found for made in t.steps[0].made]
    assert max(sum(began <= other[0] < ended for other in times) for began, ended in times) == 2


def test_the_budget_of_calls_lets_the_model_answer(pool: Pool) -> None:
    turns = Written(q=[asks(SUM, SUM), asks(SUM, SUM), says("enough")])
    [found] = Agent(turns, pool, Budget(calls=3)).run(["q"])
    assert [[m.ran for m in s.made] for s in found.steps] == [[True, True], [True, False], []]
    assert result(found, 1, 1) == {"error": "all 3 calls are used up; answer with what you have"}
    assert found.answer == "enough"


@pytest.mark.parametrize(
    ("budget", "turn", "outcome", "steps"),
    [
        (Budget(turns=3), asks(SUM), "turns", 3),
        (Budget(tokens=12), asks(SUM), "tokens", 3),
        (Budget(seconds=0.01), asks(Call("wait", {"seconds": 0.1})), "seconds", 2),
        (Budget(), asks(SUM, finish="length"), "length", 1),
    ],
)
def test_every_end_of_the_budget_is_named(pool: Pool, budget: Budget, turn: Turn, outcome: str, steps: int) -> None:
    """Turns: 3. Tokens: 5 a turn, 12 are reached in the third. Seconds: over after the first wait. A cut turn: at once.
    The turn with which a chat ends has no results, unless turns ran out.
    """
    [found] = Agent(Written(q=[turn]), pool, budget).run(["q"])
    assert (found.outcome, len(found.steps), found.answer) == (outcome, steps, "")
    assert bool(found.steps[-1].made) == (outcome == "turns")


def test_calls_that_cannot_be_read_are_told(pool: Pool) -> None:
    broken = Call("unreadable", "{bad", problem="the call is no JSON; write it again")
    [found] = Agent(Written(q=[asks(broken, SUM), says("x")]), pool).run(["q"])
    assert result(found, 0, 0) == {"error": "the call is no JSON; write it again"}
    assert [m.ran for m in found.steps[0].made] == [False, True]


def test_what_is_no_chat_or_budget_is_refused(pool: Pool) -> None:
    agent = Agent(Written(q=[says("x")]), pool)
    with pytest.raises(DataError, match="ends with 'assistant'"):
        agent.run([[{"role": "assistant", "content": "x"}]])
    with pytest.raises(DataError, match="this chat ends with 'tool'"):
        agent.run([[{"role": "tool", "content": "x"}]])
    with pytest.raises(ConfigError, match="budget: turns 0"):
        Budget(turns=0)
    assert agent.run([]) == []


# ---------------------------------------------------------------- transcripts


def test_a_recorded_run_repeats_itself(pool: Pool) -> None:
    """Kept as JSON, read again, and run without the model: the same transcript, results called anew."""
    turns = Written(q=[asks(SUM, Call("ad", {})), asks(SUM), says("five")], r=[says("no")])
    prompts: list[Any] = ["q", [{"role": "system", "content": "s"}, {"role": "user", "content": "r"}]]
    found = Agent(turns, pool).run(prompts)
    kept = [Transcript.from_json(t.to_json()) for t in found]
    assert kept == found
    assert Agent(Recorded(kept), pool).run(prompts) == found
    with pytest.raises(DataError, match="no transcript begins as this chat does"):
        Agent(Recorded(kept), pool).run(["other"])
    for text in ("{}", "x", '{"prompt": [], "steps": [{}], "outcome": ""}'):
        with pytest.raises(DataError, match="is no transcript"):
            Transcript.from_json(text)


def test_a_tool_that_answers_otherwise_today_is_named(pool: Pool) -> None:
    [found] = Agent(Written(q=[asks(SUM, SUM), says("five")]), pool).run(["q"])
    assert changed_results(found, pool) == []
    other = Transcript.from_json(found.to_json().replace('\\"result\\": 5', '\\"result\\": 6', 1))
    [line] = changed_results(other, pool)
    assert line.startswith('turn 1, add: {"result": 6, "unit": "The sum."} is now {"result": 5')


# ---------------------------------------------------------------- reading what a model wrote


def read(text: str, tokenizer: Any = None) -> Turn:
    return read_turn(Completion(text, (), (), "stop"), tokenizer, [spec.schema for spec in TOOLS.values()])


def test_calls_are_read_out_of_text() -> None:
    turn = read(f"Let me see.\n{called(3, 4)}\n{called(5, 6)}")
    assert turn.content == "Let me see."
    assert turn.calls == (Call("add", {"a": 3, "b": 4}), Call("add", {"a": 5, "b": 6}))
    assert read("No tool is needed.") == Turn("No tool is needed.")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("<tool_call>{bad</tool_call>", "the call is no JSON (Expecting property name"),
        ('<tool_call>{"arguments": {}}</tool_call>', "the call names no tool"),
        ("<tool_call>[1]</tool_call>", "the call names no tool"),
        ('<tool_call>{"name": 3}</tool_call>', "the call names no tool"),
        ('<tool_call>{"name": "add", "arguments": {"a": NaN}}</tool_call>', "the call is no JSON (NaN is no JSON"),
        ('<tool_call>{"name": "add"', "the call has no end"),
    ],
)
def test_unreadable_calls_say_what_is_wrong(text: str, told: str) -> None:
    [call] = read(text).calls
    assert call.problem.startswith(told) and "<tool_call>" in call.problem and "\n" not in call.problem


def test_a_response_template_is_used_where_the_tokenizer_has_one() -> None:
    """transformers' own parser, here of calls between [ and ]; what it cannot read is told too."""
    tokenizer = make_tokenizer()
    tokenizer.response_template = {
        "defaults": {"role": "assistant"},
        "start_anchor": "<|assistant|>",
        "fields": {
            "tool_calls": {"open": "[", "close": "]", "repeats": True, "content": "json",
                           "transform": {"type": "function", "function": "{content}"}},
            "content": {"close": "</s>", "content": "text"},
        },
    }  # fmt: skip
    GeneratorTurns(None, tokenizer)  # type: ignore[arg-type]
    turn = read('ok [{"name": "add", "arguments": {"a": 1, "b": 2}}]', tokenizer)
    assert (turn.content, turn.calls) == ("ok", (Call("add", {"a": 1, "b": 2}),))
    [call] = read("ok [{bad]", tokenizer).calls
    assert call.problem.startswith("the call cannot be read")
    tokenizer.response_template = {"fields": {"content": {"close": 3}}}
    with pytest.raises(RenderingError, match="the tokenizer's response_template cannot be used"):
        GeneratorTurns(None, tokenizer)  # type: ignore[arg-type]


def test_a_template_that_hides_the_tools_is_refused() -> None:
    schemas = [spec.schema for spec in TOOLS.values()]
    with pytest.raises(RenderingError, match="the chat template does not show tool add"):
        GeneratorTurns(None, make_tokenizer()).render([{"role": "user", "content": "x"}], schemas)  # type: ignore[arg-type]
    assert "add: Add." in GeneratorTurns(None, make_tokenizer(TEMPLATE)).render(
        [{"role": "user", "content": "x"}], schemas
    )  # type: ignore[arg-type]
    with pytest.raises(RenderingError, match="has no chat template"):
        GeneratorTurns(None, make_tokenizer(None))  # type: ignore[arg-type]
