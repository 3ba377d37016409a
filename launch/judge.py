"""Asking a judge: many questions to an OpenAI-compatible server, each paid once, and a stop before garbage is scored.

    client = JudgeClient("http://127.0.0.1:8000", cache="runs/eval/judge_cache")
    judged = client.ask([Question([{"role": "user", "content": "…"}], max_tokens=512)], parse=read_verdict)
    judged.verdicts, judged.metrics["judge/parse_failure_rate"]

Connections, keys, retries and back-off are `launch.endpoint`'s; here are the cache, the verdicts and the budget.

Cache: a folder with one file per question, named by the SHA-256 of what is asked and of whom. A reply is written, whole
or not at all, before it is looked at, so that a killed run asks again only what was under way (at most `concurrency`
questions), and a better parser costs no call. The address of the server is no part of the name, since a server started
again has another port: where the same model name stands for other weights, say so by `identity`. Two runs at a time on
one folder are safe, but may ask the same question twice.

Budget: a verdict fails if the reply can't be read or no reply comes after all tries. A run stops as soon as more than
`budget` of all its verdicts have failed, or as it is clear (97.5 %, Wilson) that the rate is above the budget.

Left out: streaming, batch interfaces, prices (they change; pass yours to `plan`).
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

from launch.contracts import Message
from launch.endpoint import LONGEST_WAIT, Endpoint, ServerError
from launch.errors import ArbiterError, ConfigError
from launch.shares import wilson

T = TypeVar("T")
CLEAR = 10
"""Verdicts before a rate can be clear."""


class JudgeError(ArbiterError):
    """A judge whose verdicts fail more often than the budget allows."""


@dataclass(frozen=True)
class Question:
    """One request. Equal questions are one call."""

    messages: Sequence[Message]
    max_tokens: int = 1024
    temperature: float = 0.0
    top_logprobs: int = 0
    """How many of the likeliest tokens to return with each token; 0 returns no log-probabilities."""
    sample: int = 0
    """Number of the reply, where several are wanted to the same messages (at a temperature above 0)."""


@dataclass(frozen=True)
class Reply:
    """What a judge answered."""

    text: str
    choice: dict[str, Any]
    """The server's own ``choices[0]``."""
    usage: dict[str, Any]
    cached: bool
    seconds: float = 0.0
    """From the question to this reply, all tries together; as it was when it was paid."""

    @property
    def top_logprobs(self) -> list[dict[str, Any]]:
        """{token, logprob} of the likeliest first tokens, likeliest first; empty if none were asked for.

        There may be one more than was asked for: see `JudgeClient._call`.
        """
        content = (self.choice.get("logprobs") or {}).get("content") or []
        listed = content[0]["top_logprobs"] if content else []
        once = {entry["token"]: entry for entry in sorted(listed, key=lambda entry: entry["logprob"])}
        return sorted(once.values(), key=lambda entry: -entry["logprob"])


@dataclass
class Judged(Generic[T]):
    """Verdicts in the order of the questions; None where one failed."""

    verdicts: list[T | None]
    replies: list[Reply | None]
    metrics: dict[str, float]
    errors: list[str] = field(default_factory=list)
    """One line per question that got no reply."""


@dataclass(frozen=True)
class Plan:
    """What a run would ask for."""

    calls: int
    cached: int
    prompt_tokens: int
    completion_tokens: int
    """At most."""
    cost: float
    """In the currency of the prices, at most."""

    def __str__(self) -> str:
        price = f", at most {self.cost:.2f} at the given prices" if self.cost else ""
        return (
            f"{self.calls} calls ({self.cached} more are in the cache), about {self.prompt_tokens} prompt tokens, "
            f"at most {self.completion_tokens} completion tokens{price}"
        )


class Cache:
    """Replies by key, one file each."""

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)

    def get(self, key: str) -> dict[str, Any] | None:
        """The stored reply; None if there is none or its file is cut (a machine that lost power can leave such)."""
        try:
            found = json.loads(self._path(key).read_bytes())
        except (FileNotFoundError, ValueError):
            return None
        return found if isinstance(found, dict) and "choice" in found else None

    def put(self, key: str, reply: dict[str, Any]) -> None:
        """Store whole or not at all."""
        path = self._path(key)
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f"{path.name}.{os.getpid()}.{threading.get_ident()}.part")
        part.write_text(json.dumps(reply, ensure_ascii=False), encoding="utf-8")
        part.replace(path)

    def keys(self) -> Iterator[str]:
        """All keys that are there."""
        return (path.stem for path in self.folder.glob("??/*.json"))

    def _path(self, key: str) -> Path:
        return self.folder / key[:2] / f"{key}.json"


class JudgeClient:
    """Asks a judge.

    Args:
        base_url, api_key_env, concurrency, retries, timeout: as `Endpoint`. A reply that is no completion (a page of a
            proxy, say) is retried too.
        model: the name to ask for; by default the first that the server lists.
        cache: folder of replies; runs that share it share what they paid for.
        identity: what the replies depend on beside the question; default the model's name.
        budget: share of verdicts that may fail.

    Raises:
        ConfigError: a budget outside 0 to 1, or as `Endpoint`.
        ServerError: the server can't be reached.
    """

    def __init__(
        self,
        base_url: str,
        cache: str | Path,
        model: str | None = None,
        identity: str | None = None,
        api_key_env: str | None = None,
        concurrency: int = 64,
        retries: int = 5,
        timeout: float = 600.0,
        budget: float = 0.05,
    ) -> None:
        if not 0 <= budget <= 1:
            raise ConfigError(f"budget {budget} is no share; use 0 (no failure) to 1 (any)", field="budget")
        self._server = Endpoint(base_url, api_key_env, concurrency, retries, timeout)
        self.is_vllm = self._server.is_vllm()
        self.model = self._server.choose(model)
        self.identity = identity or self.model
        self.cache = Cache(cache)
        self.concurrency, self.retries, self.budget = concurrency, retries, budget

    def key(self, question: Question) -> str:
        """The name under which the reply to a question is kept."""
        return question_key(question, self.identity)

    def plan(
        self,
        questions: Sequence[Question],
        count_tokens: Callable[[str], int] | None = None,
        prices: tuple[float, float] = (0.0, 0.0),
    ) -> Plan:
        """What `ask` would cost, see `plan`."""
        return plan(questions, self.identity, self.cache, count_tokens, prices)

    def ask(self, questions: Sequence[Question], parse: Callable[[Reply], T | None]) -> Judged[T]:
        """Ask everything that isn't in the cache, `concurrency` at a time, and read the verdicts.

        Args:
            questions: in any order; the result has theirs.
            parse: a verdict from a reply, None if it holds none. It gets the reply alone, so it can't be misled by a
                label that stands in what was judged.

        Raises:
            JudgeError: too many verdicts failed (module header). What was paid for is in the cache.
        """
        keys = [self.key(question) for question in questions]
        first: dict[str, int] = {}
        for i, key in enumerate(keys):
            first.setdefault(key, i)
        tally = _Tally(len(first), self.budget)
        replies: dict[str, Reply | None] = {}
        verdicts: dict[str, T | None] = {}
        started, calls = time.monotonic(), 0

        def settle(key: str, reply: Reply | None, error: str = "") -> None:
            replies[key], verdicts[key] = reply, None if reply is None else parse(reply)
            tally.count(first[key], verdicts[key] is not None, error)

        for key in first:
            stored = self.cache.get(key)
            if stored is not None:
                settle(key, _reply(stored, cached=True))
        waiting = iter([key for key in first if key not in replies])
        under_way: dict[Future[Reply], str] = {}
        pool = ThreadPoolExecutor(self.concurrency, thread_name_prefix="judge")
        try:
            while True:
                # Handed out as they are taken up, so that a stop leaves nothing waiting.
                while len(under_way) < self.concurrency and (new := next(waiting, None)) is not None:
                    under_way[pool.submit(self._call, new, questions[first[new]], first[new])] = new
                    calls += 1
                if not under_way:
                    break
                for future in wait(under_way, return_when=FIRST_COMPLETED).done:
                    key = under_way.pop(future)
                    try:
                        reply = future.result()
                    except ServerError as error:
                        settle(key, None, str(error))
                    else:
                        settle(key, reply)
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
        return Judged(
            [verdicts[key] for key in keys],
            [replies[key] for key in keys],
            self._metrics(tally, replies, calls, time.monotonic() - started),
            tally.errors,
        )

    def close(self) -> None:
        """Close the connections."""
        self._server.close()

    def __enter__(self) -> JudgeClient:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _call(self, key: str, question: Question, number: int) -> Reply:
        """One paid reply, stored before it is used."""
        body: dict[str, Any] = {
            "model": self.model,
            "messages": list(question.messages),
            "max_tokens": question.max_tokens,
            "temperature": question.temperature,
            "top_p": 1.0,
        }
        if question.top_logprobs:
            # vLLM puts the sampled token first, wherever it ranks, and cuts the list at k: one more makes it whole.
            body |= {"logprobs": True, "top_logprobs": question.top_logprobs + self.is_vllm}
        if self.is_vllm:  # all named, since a model's generation_config.json would set what is left out
            body |= {"top_k": 0, "min_p": 0.0, "repetition_penalty": 1.0}
        what, started = f"question {number}", time.monotonic()
        for attempt in range(self.retries + 1):
            if attempt:
                time.sleep(min(0.5 * 2 ** (attempt - 1), LONGEST_WAIT))
            response = self._server.ok("POST", "/v1/chat/completions", body, what)
            stored = _completion(response.content)
            if stored is not None:
                stored["seconds"] = round(time.monotonic() - started, 3)
                self.cache.put(key, stored)
                return _reply(stored, cached=False)
        raise ServerError(f"{what}: {self._server.url} answered no completion: {self._server.told(response)}")

    def _metrics(self, tally: _Tally, replies: dict[str, Reply | None], calls: int, seconds: float) -> dict[str, float]:
        paid = [reply.usage for reply in replies.values() if reply is not None and not reply.cached]
        answered = tally.seen - tally.unanswered
        return {
            "judge/questions": tally.seen,
            "judge/calls": calls,
            "judge/cached": sum(reply is not None and reply.cached for reply in replies.values()),
            "judge/unanswered": tally.unanswered,
            "judge/parse_failures": tally.unread,
            "judge/parse_failure_rate": tally.unread / answered if answered else 0.0,
            "judge/prompt_tokens": sum(int(usage.get("prompt_tokens") or 0) for usage in paid),
            "judge/completion_tokens": sum(int(usage.get("completion_tokens") or 0) for usage in paid),
            "judge/seconds": seconds,
        }


def add_metrics(*parts: dict[str, float]) -> dict[str, float]:
    """The metrics of several calls of `JudgeClient.ask` as those of one."""
    total = {
        name: sum(part.get(name, 0.0) for part in parts) for name in dict.fromkeys(k for part in parts for k in part)
    }
    answered = total["judge/questions"] - total["judge/unanswered"]
    return total | {"judge/parse_failure_rate": total["judge/parse_failures"] / answered if answered else 0.0}


def question_key(question: Question, identity: str) -> str:
    """SHA-256 of a question and of whom it is put to."""
    asked = {
        "identity": identity,
        "messages": [dict(message) for message in question.messages],
        "max_tokens": question.max_tokens,
        "temperature": float(question.temperature),
        "top_logprobs": question.top_logprobs,
        "sample": question.sample,
    }
    return hashlib.sha256(json.dumps(asked, sort_keys=True, ensure_ascii=False).encode()).hexdigest()


def plan(
    questions: Sequence[Question],
    identity: str,
    cache: Cache,
    count_tokens: Callable[[str], int] | None = None,
    prices: tuple[float, float] = (0.0, 0.0),
) -> Plan:
    """Calls, tokens and cost of asking `questions`; needs no server.

    Args:
        count_tokens: tokens of a text; default a quarter of its UTF-8 bytes.
        prices: per million prompt and per million completion tokens.
    """
    count = count_tokens or (lambda text: math.ceil(len(text.encode()) / 4))
    distinct = {question_key(question, identity): question for question in questions}
    new = [question for key, question in distinct.items() if cache.get(key) is None]
    prompt = sum(count(message["content"]) for question in new for message in question.messages)
    completion = sum(question.max_tokens for question in new)
    cost = (prompt * prices[0] + completion * prices[1]) / 1e6
    return Plan(len(new), len(distinct) - len(new), prompt, completion, cost)


class _Tally:
    """Counts failures and stops a run that can't be good any more."""

    def __init__(self, total: int, budget: float) -> None:
        self.total, self.budget = total, budget
        self.seen = self.unread = self.unanswered = 0
        self.errors: list[str] = []
        self._first = ""

    def count(self, number: int, good: bool, error: str) -> None:
        self.seen += 1
        if good:
            return
        if error:
            self.unanswered += 1
            self.errors.append(error)
        else:
            self.unread += 1
        self._first = self._first or error or f"question {number}: its reply holds no verdict"
        failed = self.unread + self.unanswered
        clear = self.seen >= CLEAR and wilson(failed, self.seen)[0] > self.budget
        if failed > self.budget * self.total or clear:
            raise JudgeError(
                f"{failed} of {self.seen} verdicts failed ({self.unread} replies without a verdict, {self.unanswered} "
                f"questions without a reply) of {self.total}, more than the budget of {self.budget:.0%}; "
                f"the first: {self._first}; look at the judge, or raise the budget"
            )


def _completion(body: bytes) -> dict[str, Any] | None:
    """{choice, usage, model} of a completion; None if `body` is none."""
    try:
        answer = json.loads(body)
    except ValueError:
        return None
    choices = answer.get("choices") if isinstance(answer, dict) else None
    if not isinstance(choices, list) or len(choices) != 1 or not isinstance(choices[0], dict):
        return None
    message = choices[0].get("message")
    if not isinstance(message, dict) or not isinstance(message.get("content"), str | None):
        return None
    usage = answer.get("usage")
    return {"choice": choices[0], "usage": usage if isinstance(usage, dict) else {}, "model": answer.get("model")}


def _reply(stored: dict[str, Any], cached: bool) -> Reply:
    text, seconds = stored["choice"]["message"].get("content") or "", stored.get("seconds", 0.0)
    return Reply(text, stored["choice"], stored["usage"], cached, seconds)
