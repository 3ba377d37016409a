"""What happened in a chat with tools: kept as JSON, and run again with or without the model.

`Recorded` gives a transcript's turns again, so that an agent runs as it ran, with the tools of today and no model.
`changed_results` only calls the tools again and tells which now answer otherwise.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from launch.contracts import Sampling
from launch.errors import DataError
from launch.tools import ToolSpec
from launch.tools_pool import Pool
from reasoning.agent.calls import Call, Turn, assistant_message, tool_message


@dataclass(frozen=True)
class Made:
    """What came of a call."""

    content: str
    """JSON text: ``{"result", "unit"}`` or ``{"error"}``."""
    well: bool
    ran: bool = True
    """False for calls that could not be read or were beyond the budget."""
    seconds: float = field(default=0.0, compare=False)


@dataclass(frozen=True)
class Step:
    """A turn, and what came of its calls; of none if the chat ended there."""

    turn: Turn
    made: tuple[Made, ...] = ()


@dataclass
class Transcript:
    """One chat."""

    prompt: list[dict[str, Any]]
    """Messages that it began with."""
    steps: list[Step] = field(default_factory=list)
    outcome: str = ""
    """``answer``; ``turns``, ``tokens``, ``seconds``: the budget; ``length``: a turn was cut; "" while it runs."""

    @property
    def answer(self) -> str:
        """The text of the last turn; "" unless the outcome is ``answer``."""
        return self.steps[-1].turn.content if self.outcome == "answer" else ""

    @property
    def calls(self) -> int:
        """Calls asked for so far."""
        return sum(len(step.turn.calls) for step in self.steps)

    @property
    def tokens(self) -> int:
        """Tokens sampled so far."""
        return sum(step.turn.tokens for step in self.steps)

    def messages(self) -> list[dict[str, Any]]:
        """The chat, tools' answers and all."""
        out = [*self.prompt]
        for step in self.steps:
            out.append(assistant_message(step.turn))
            out += [tool_message(call, made.content) for call, made in zip(step.turn.calls, step.made, strict=False)]
        return out

    def to_json(self) -> str:
        """One line; `from_json` gives back an equal transcript."""
        return json.dumps(asdict(self), ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str) -> Transcript:
        """Raises DataError for anything that `to_json` did not write."""
        try:
            raw = json.loads(text)
            steps = [_step(step) for step in raw["steps"]]
            return cls(raw["prompt"], steps, raw["outcome"])
        except (KeyError, TypeError, ValueError) as error:
            shown = repr(text)[:60]
            raise DataError(
                f"{shown} is no transcript ({type(error).__name__}: {error}); write one with to_json"
            ) from error


def _step(raw: dict[str, Any]) -> Step:
    turn = raw["turn"]
    calls = tuple(Call(**call) for call in turn["calls"])
    return Step(Turn(**{**turn, "calls": calls}), tuple(Made(**made) for made in raw["made"]))


class Recorded:
    """The turns of transcripts, in place of a model's (`reasoning.agent.turns.Turns`).

    Chats are told apart by what they began with; a chat that goes another way than its transcript (a tool answers
    otherwise) still gets the recorded turns.
    """

    def __init__(self, transcripts: Sequence[Transcript]) -> None:
        self._turns = {_key(t.prompt): [step.turn for step in t.steps] for t in transcripts}

    def next(
        self, chats: Sequence[list[dict[str, Any]]], tools: Mapping[str, ToolSpec], sampling: Sampling
    ) -> list[Turn]:
        """Raises DataError for a chat that was not recorded so far."""
        return [self._next(chat) for chat in chats]

    def _next(self, chat: list[dict[str, Any]]) -> Turn:
        # A chat may begin with answers of its own; its prompt is the longest beginning that was recorded.
        for end in range(len(chat), 0, -1):
            turns = self._turns.get(_key(chat[:end]))
            if turns is not None:
                done = sum(message["role"] == "assistant" for message in chat[end:])
                if done < len(turns):
                    return turns[done]
                raise DataError(f"the transcript of this chat has {len(turns)} turns, turn {done + 1} was asked for")
        raise DataError(f"no transcript begins as this chat does: {json.dumps(chat[:1], ensure_ascii=False)[:100]}")


def changed_results(transcript: Transcript, pool: Pool) -> list[str]:
    """Call the tools of a transcript again; one line for each call that now answers otherwise.

    Calls that were not run then (unreadable, or beyond the budget) are not run now.
    """
    changed = []
    for number, step in enumerate(transcript.steps, 1):
        for call, made in zip(step.turn.calls, step.made, strict=False):
            if not made.ran:
                continue
            now, _ = pool.answer(call.name, call.arguments)
            if now != made.content:
                changed.append(f"turn {number}, {call.name}: {made.content[:200]} is now {now[:200]}")
    return changed


def _key(messages: Sequence[dict[str, Any]]) -> str:
    return json.dumps(messages, sort_keys=True)
