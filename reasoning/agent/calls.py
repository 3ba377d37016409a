"""What a model wrote in one turn: text, and calls of tools.

Calls are read by the tokenizer's own `response_template` where it has one, else in the form of Hermes and Qwen:

    <tool_call>
    {"name": "nash_mixture", "arguments": {...}}
    </tool_call>

A call that cannot be read is a call too: the model is told what is wrong with it and may try again.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from launch.contracts import Completion
from launch.tools import ToolError, parse_arguments

_CALL = re.compile(r"<tool_call>(.*?)(</tool_call>|\Z)", re.DOTALL)
UNREADABLE = "unreadable"
"""Name of a call whose name cannot be read."""


@dataclass(frozen=True)
class Call:
    """One call of a tool, as it was asked for."""

    name: str
    arguments: Any
    """An object by the tool's schema; whatever else was written is kept as it is."""
    id: str = ""
    problem: str = ""
    """What is wrong with the call itself; it is then not run."""


@dataclass(frozen=True)
class Turn:
    """One turn of a model."""

    content: str
    calls: tuple[Call, ...] = ()
    tokens: int = 0
    """Sampled tokens; 0 where a server does not tell."""
    finish: Literal["stop", "length"] = "stop"


def read_turn(completion: Completion, tokenizer: Any, schemas: Sequence[dict[str, Any]]) -> Turn:
    """A completion as a turn.

    Args:
        completion: with token ids where the generator gives them.
        tokenizer: the model's; its `response_template` is used if it has one.
        schemas: of the tools that were offered.
    """
    tokens = len(completion.token_ids)
    if getattr(tokenizer, "response_template", None) is not None:
        told: Any = list(completion.token_ids) or completion.text
        prefix: Any = list(completion.prompt_ids) if completion.token_ids else ""
        try:
            message = tokenizer.parse_response(told, prefix=prefix, tools=list(schemas))
            calls = tuple(_function(call["function"]) for call in message.get("tool_calls") or ())
            content = message.get("content") or ""
            return Turn(content.strip(), calls, tokens, completion.finish)
        except (ValueError, KeyError, TypeError) as error:
            problem = (
                f"the call cannot be read ({' '.join(str(error).split())[:200]}); write it in the form you were shown"
            )
            broken = Call(UNREADABLE, completion.text, problem=problem)
            return Turn("", (broken,), tokens, completion.finish)
    calls = tuple(_tagged(found.group(1), bool(found.group(2))) for found in _CALL.finditer(completion.text))
    return Turn(_CALL.sub("", completion.text).strip(), calls, tokens, completion.finish)


def _tagged(text: str, closed: bool) -> Call:
    form = '{"name": "...", "arguments": {...}} between <tool_call> and </tool_call>'
    if not closed:
        return Call(UNREADABLE, text, problem=f"the call has no end; write {form}")
    try:
        told = parse_arguments(text)
        return _function(told)
    except ToolError as error:
        reason = str(error).partition("(")[2].partition(");")[0]
        return Call(UNREADABLE, text, problem=f"the call is no JSON ({reason}); write {form}")
    except (KeyError, TypeError):
        return Call(UNREADABLE, text, problem=f"the call names no tool; write {form}")


def _function(told: Any) -> Call:
    name, arguments = told["name"], told.get("arguments", {})
    if not isinstance(name, str):
        raise TypeError(f"a name that is a {type(name).__name__}")
    return Call(name, arguments)


def numbered(turn: Turn, first: int) -> Turn:
    """The same turn, its calls with ids: the server's, else nine letters and digits, which is what Mistral takes."""
    calls = (replace(call, id=call.id or f"call{first + i:05d}") for i, call in enumerate(turn.calls))
    return replace(turn, calls=tuple(calls))


def assistant_message(turn: Turn, as_text: bool = False) -> dict[str, Any]:
    """The turn as a chat message; `as_text` writes arguments as JSON text, as servers want them."""
    message: dict[str, Any] = {"role": "assistant", "content": turn.content}
    if turn.calls:
        message["tool_calls"] = [
            {
                "id": call.id,
                "type": "function",
                "function": {"name": call.name, "arguments": json.dumps(call.arguments) if as_text else call.arguments},
            }
            for call in turn.calls
        ]
    return message


def tool_message(call: Call, content: str) -> dict[str, Any]:
    """A tool's answer as a chat message."""
    return {"role": "tool", "tool_call_id": call.id, "name": call.name, "content": content}
