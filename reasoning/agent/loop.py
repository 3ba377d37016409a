"""The agent: a turn, its calls, their results, the next turn, until an answer or the end of the budget.

Chats run side by side: each round asks for one turn of every unfinished chat, then runs all calls of the round at once,
as many as the pool has processes. A result, a refusal and a crash are all text that the model reads; only what is wrong
with the machine (a server that is gone) or the caller (a first prompt that is too long) raises.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

from launch.contracts import Prompt, Sampling
from launch.errors import ConfigError, DataError
from launch.generate.sampling import stable_hash
from launch.rendering import check_messages
from launch.tools_pool import Pool
from reasoning.agent.calls import Call, Turn, numbered
from reasoning.agent.transcript import Made, Step, Transcript
from reasoning.agent.turns import Turns


@dataclass(frozen=True)
class Budget:
    """What one chat may take. All of it is checked between turns, so a turn that has begun is finished."""

    turns: int = 8
    calls: int = 16
    """Calls beyond these are not run; the model is told to answer with what it has."""
    tokens: int = 8192
    """Sampled tokens of all turns."""
    seconds: float = 300.0
    """Wall time, measured from the start of `Agent.run`: chats that run side by side share it."""

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if not value > 0 and not (name == "calls" and value == 0):
                raise ConfigError(f"budget: {name} {value}; use more than 0", name)


class Agent:
    """Runs chats to their end.

    Args:
        turns: where the model's turns come from.
        pool: the tools that it may call.
        budget: of each chat.
        sampling: of each turn, by default greedy, 1024 tokens; its seed and the turn's number give the turn's seed.
        system: put before every chat that has no system message; "" for none.
    """

    def __init__(
        self,
        turns: Turns,
        pool: Pool,
        budget: Budget = Budget(),
        sampling: Sampling | None = None,
        system: str = "",
    ) -> None:
        self.turns, self.pool, self.budget, self.system = turns, pool, budget, system
        self.sampling = sampling or Sampling(max_new_tokens=1024, temperature=0)

    def run(self, prompts: Sequence[Prompt]) -> list[Transcript]:
        """One transcript for each prompt, in their order.

        Raises:
            DataError: a prompt that is no chat ending with a user turn.
        """
        start = time.monotonic()
        transcripts = [self._begin(prompt) for prompt in prompts]
        with ThreadPoolExecutor(max(1, len(self.pool))) as threads:
            for number in range(self.budget.turns):
                open_ones = [t for t in transcripts if not t.outcome]
                if not open_ones:
                    break
                self._round(open_ones, number, start, threads)
        for transcript in transcripts:
            transcript.outcome = transcript.outcome or "turns"
        return transcripts

    def _begin(self, prompt: Prompt) -> Transcript:
        chat: list[Any] = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else [*prompt]
        check_messages(chat)
        if chat[-1]["role"] != "user":
            raise DataError(f"an agent answers a user turn, this chat ends with {chat[-1]['role']!r}; end it with one")
        if self.system and chat[0]["role"] != "system":
            chat.insert(0, {"role": "system", "content": self.system})
        return Transcript(chat)

    def _round(self, open_ones: list[Transcript], number: int, start: float, threads: ThreadPoolExecutor) -> None:
        """One turn of each chat, and its calls."""
        sampling = replace(self.sampling, seed=stable_hash(self.sampling.seed, "turn", number))
        turns = self.turns.next([t.messages() for t in open_ones], self.pool.tools, sampling)
        late = time.monotonic() - start > self.budget.seconds
        jobs = []
        for transcript, told in zip(open_ones, turns, strict=True):
            turn = numbered(told, transcript.calls)
            transcript.outcome = self._outcome(transcript, turn, late)
            # An answer that was cut may end in half a call, and a chat that is over needs no results.
            run = () if transcript.outcome else turn.calls
            left = self.budget.calls - transcript.calls
            made = [threads.submit(self._call, call, i < left) for i, call in enumerate(run)]
            jobs.append((transcript, turn, made))
        for transcript, turn, made in jobs:
            transcript.steps.append(Step(turn, tuple(job.result() for job in made)))

    def _outcome(self, transcript: Transcript, turn: Turn, late: bool) -> str:
        """How the chat ends with this turn; "" if it goes on."""
        if turn.finish == "length":
            return "length"
        if not turn.calls:
            return "answer"
        if transcript.tokens + turn.tokens >= self.budget.tokens:
            return "tokens"
        return "seconds" if late else ""

    def _call(self, call: Call, allowed: bool) -> Made:
        if not allowed:
            return Made(
                _error(f"all {self.budget.calls} calls are used up; answer with what you have"), False, ran=False
            )
        if call.problem:
            return Made(_error(call.problem), False, ran=False)
        begun = time.monotonic()
        text, well = self.pool.answer(call.name, call.arguments)
        return Made(text, well, seconds=round(time.monotonic() - begun, 3))


def _error(line: str) -> str:
    return json.dumps({"error": line}, ensure_ascii=False)
