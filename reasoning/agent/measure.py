"""How often a policy calls the right tool and answers right: measured by the agent that will use it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from launch.contracts import Sampling
from launch.generate import HFGenerator
from launch.shares import wilson
from launch.tools_pool import Pool
from reasoning.agent.loop import Agent, Budget
from reasoning.agent.reward import right_tool, says
from reasoning.agent.transcript import Transcript
from reasoning.agent.turns import GeneratorTurns


def measured(
    model: Any,
    tokenizer: Any,
    pool: Pool,
    rows: Sequence[dict[str, Any]],
    *,
    budget: Budget,
    tokens: int,
    temperature: float,
    batch: int = 64,
    seed: int = 0,
) -> tuple[dict[str, float], list[dict[str, Any]]]:
    """Numbers of a policy on rows {"prompt", "answer", "tool"}; "tool" may be missing.

    Args:
        tokens: sampled in one turn at most.
        temperature: of the second run; the first is greedy.

    Returns:
        `right_answer` and `right_tool` of greedy chats with 95 % Wilson intervals (``_low``, ``_high``), `calls` and
        `failed`, calls a chat; the same of sampled chats as ``sampled_…``. And the greedy chats as samples.
    """
    turns = GeneratorTurns(HFGenerator(model, tokenizer, batch_size=batch), tokenizer)
    prompts = [row["prompt"] for row in rows]
    greedy = Sampling(max_new_tokens=tokens, temperature=0.0)
    chats = Agent(turns, pool, budget, greedy).run(prompts)
    drawn = Agent(turns, pool, budget, replace(greedy, temperature=temperature, seed=seed)).run(prompts)
    numbers = {**_numbers(chats, rows), **{f"sampled_{k}": v for k, v in _numbers(drawn, rows).items()}}
    samples = [_sample(chat, row) for chat, row in zip(chats, rows, strict=True)]
    return numbers, samples


def names(chat: Transcript) -> list[str]:
    """The tools that a chat called, in order."""
    return [call.name for step in chat.steps for call in step.turn.calls]


def _numbers(chats: Sequence[Transcript], rows: Sequence[dict[str, Any]]) -> dict[str, float]:
    n = len(rows)
    told: dict[str, list[bool]] = {
        "right_answer": [says(chat.answer, row["answer"]) for chat, row in zip(chats, rows, strict=True)]
    }
    if all(row.get("tool") is not None for row in rows):
        told["right_tool"] = [right_tool(names(chat), row["tool"]) for chat, row in zip(chats, rows, strict=True)]
    out: dict[str, float] = {}
    for name, flags in told.items():
        low, high = wilson(sum(flags), n)
        out |= {name: sum(flags) / n, f"{name}_low": low, f"{name}_high": high}
    out["calls"] = sum(chat.calls for chat in chats) / n
    out["failed"] = sum(not made.well for chat in chats for step in chat.steps for made in step.made) / n
    return out


def _sample(chat: Transcript, row: dict[str, Any]) -> dict[str, Any]:
    """A chat as the report shows it."""
    said = [f"{m['role']}: {m['content']}{_calls(m)}" for m in chat.messages()[len(chat.prompt) :]]
    return {
        "prompt": chat.prompt[-1]["content"],
        "response": "\n".join(said),
        "right": says(chat.answer, row["answer"]),
        "outcome": chat.outcome,
    }


def _calls(message: dict[str, Any]) -> str:
    calls = [call["function"] for call in message.get("tool_calls", ())]
    return "".join(f" {call['name']}({call['arguments']})" for call in calls)
