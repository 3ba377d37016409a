"""What a chat with tools is worth, by hand."""

from __future__ import annotations

from typing import Any

import pytest

from launch.errors import ConfigError, DataError
from reasoning.agent.reward import Parts, Rules, agent_rewards, judged, right_tool, says


def call(name: str) -> dict[str, Any]:
    return {"role": "assistant", "content": "", "tool_calls": [{"function": {"name": name, "arguments": {}}}]}


def told(text: str) -> dict[str, str]:
    return {"role": "tool", "content": text}


def answer(text: str) -> dict[str, str]:
    return {"role": "assistant", "content": text}


GOOD, BAD = told('{"result": 7, "unit": "The sum."}'), told('{"error": "add: argument b is missing"}')


@pytest.mark.parametrize(
    ("messages", "parts"),
    [
        ([answer("7")], Parts(1.0, True, (), 0)),
        ([call("add"), GOOD, answer("It is 7.")], Parts(0.95, True, ("add",), 0)),
        ([call("add"), BAD, call("add"), GOOD, answer("7")], Parts(0.7, True, ("add", "add"), 1)),
        ([call("add"), GOOD, answer("8")], Parts(-0.05, False, ("add",), 0)),
        ([call("add"), GOOD], Parts(-0.05, False, ("add",), 0)),  # no room for an answer
        ([call("add")], Parts(-0.05, False, ("add",), 0)),  # nor for the result
        ([call("add"), told("no JSON"), answer("7")], Parts(0.75, True, ("add",), 1)),
        ([], Parts(0.0, False, (), 0)),
    ],
)
def test_the_parts_of_a_reward(messages: list[dict[str, Any]], parts: Parts) -> None:
    """1 for the answer, less .05 for a call and .2 more for one that failed."""
    found = judged(messages, "7")
    assert found[1:] == parts[1:] and found.total == pytest.approx(parts.total)


@pytest.mark.parametrize(
    ("text", "wanted", "right"),
    [
        ("12 and 30 make 1,042.", "1042", True),
        ("1042, not 12", "1042", False),
        ("-3", "-3", True),
        ("7.0", "7", True),
        ("no number", "7", False),
        ("I would say Yes.", "yes", True),
        ("yes, or no", "yes", False),
    ],
)
def test_what_an_answer_says(text: str, wanted: str, right: bool) -> None:
    assert says(text, wanted) == right


def test_the_right_tool_alone_is_right() -> None:
    assert right_tool(["add"], "add") and right_tool([], "")
    assert not any(right_tool(called, "add") for called in ([], ["multiply"], ["add", "add"], ["multiply", "add"]))
    assert not right_tool(["add"], "")


def test_a_batch_is_rewarded_and_logged() -> None:
    """The right tool is measured where it is known and not rewarded: both chats are right, one of them called."""
    chats = [[call("add"), GOOD, answer("7")], [answer("7")]]
    logged: dict[str, float] = {}
    rewards = agent_rewards(
        [None] * 2, chats, ["7", "7"], ["add", "multiply"], rules=Rules(call=0.25), log_metric=logged.__setitem__
    )
    assert rewards == [0.75, 1.0]
    assert logged == {"agent/right": 1.0, "agent/calls": 0.5, "agent/failed": 0.0, "agent/right_tool": 0.5}
    assert agent_rewards([None], chats[:1], ["7"], [None]) == [0.95]  # type: ignore[list-item]
    with pytest.raises(DataError, match="completions are text; give fit_grpo tools="):
        agent_rewards([None], ["7"], ["7"])
    with pytest.raises(ConfigError, match="call -1"):
        Rules(call=-1)
