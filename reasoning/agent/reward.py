"""What a chat with tools is worth: the answer is right or not, calls cost a little, calls that fail cost more.

Which tool was the right one is not told: a policy finds out from answers that come out right.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from launch.errors import ConfigError, DataError

_NUMBER = re.compile(r"-?\d[\d,]*(?:\.\d+)?")


@dataclass(frozen=True)
class Rules:
    """Weights of the parts."""

    answer: float = 1.0
    """For a right answer."""
    call: float = 0.05
    """Taken away for each call, so that a model calls no more than it must."""
    failed: float = 0.2
    """Taken away for each call that gave an error."""

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if value < 0:
                raise ConfigError(f"{name} {value}: weights are 0 or more", name)


class Parts(NamedTuple):
    """A chat's reward and what it is made of."""

    total: float
    right: bool
    called: tuple[str, ...]
    """Names of the tools called, in order."""
    failed: int


def says(text: str, answer: str) -> bool:
    """Whether `text` gives `answer`: its last number if the answer is one, else its end, whatever the case."""
    if _NUMBER.fullmatch(answer.strip()):
        found = _NUMBER.findall(text)
        return bool(found) and float(found[-1].replace(",", "")) == float(answer.replace(",", ""))
    return text.strip().rstrip(".!").casefold().endswith(answer.strip().rstrip(".!").casefold())


def judged(messages: Sequence[dict[str, Any]], answer: str, rules: Rules = Rules()) -> Parts:
    """The reward of what a model and its tools wrote.

    Args:
        messages: turns of the model, with ``tool_calls``, and of tools; the last one should be an answer.
        answer: the right one.
    """
    called = tuple(c["function"]["name"] for m in messages for c in m.get("tool_calls") or ())
    failed = sum(m["role"] == "tool" and _is_error(m["content"]) for m in messages)
    last = messages[-1] if messages else {}
    right = last.get("role") == "assistant" and not last.get("tool_calls") and says(last.get("content") or "", answer)
    return Parts(rules.answer * right - rules.call * len(called) - rules.failed * failed, right, called, failed)


def agent_rewards(
    prompts: Sequence[Any],
    completions: Sequence[Any],
    answer: Sequence[str],
    tool: Sequence[str] | None = None,
    *,
    rules: Rules = Rules(),
    log_metric: Callable[[str, float], None] | None = None,
    **columns: Any,
) -> list[float]:
    """`judged` over a batch, as a reward function of TRL.

    Columns: ``answer``; and ``tool``, the right one's name or "", where it is known. That one is measured
    (``agent/right_tool``) and not rewarded.

    Raises:
        DataError: completions that are no chats.
    """
    if any(isinstance(completion, str) for completion in completions):
        raise DataError("completions are text; give fit_grpo tools= and prompts that are chats")
    found = [judged(messages, truth, rules) for messages, truth in zip(completions, answer, strict=True)]
    if log_metric and found:
        log_metric("agent/right", sum(parts.right for parts in found) / len(found))
        log_metric("agent/calls", sum(len(parts.called) for parts in found) / len(found))
        log_metric("agent/failed", sum(parts.failed for parts in found) / len(found))
        if tool is not None and None not in tool:
            right = [right_tool(parts.called, name) for parts, name in zip(found, tool, strict=True)]
            log_metric("agent/right_tool", sum(right) / len(right))
    return [parts.total for parts in found]


def right_tool(called: Sequence[str], tool: str) -> bool:
    """Whether the right tool was called, once, and no other; "" is right where none was."""
    return list(called) == ([tool] if tool else [])


def _is_error(content: Any) -> bool:
    try:
        return "error" in json.loads(content)
    except (TypeError, ValueError):
        return True
