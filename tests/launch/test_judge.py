"""The judge client against a real server that fails in five ways, and runs that are killed."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from launch.errors import ConfigError
from launch.judge import Cache, JudgeClient, JudgeError, Question, plan, question_key
from launch.shares import wilson
from tests.launch.judge_process import questions

ROOT = Path(__file__).parents[2]
FAILURES = ("429", "500", "timeout", "cut", "garbage")


class JudgeServer(ThreadingHTTPServer):
    """Answers "item 7" with "verdict 7". `fails(text, attempt)` says how a request fails, or None; `content(text)` is
    the reply's text, or fields of its choice."""

    daemon_threads = True
    request_queue_size = 256

    def __init__(self, fails: Callable[[str, int], str | None], content: Callable[[str], Any]) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.fails, self.content = fails, content
        self.lock = threading.Lock()
        self.asked: Counter[str] = Counter()
        self.paid: Counter[str] = Counter()
        self.failed: Counter[str] = Counter()
        self.keys: set[str | None] = set()
        self.under_way = self.most_under_way = 0
        self.done = threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A killed client cuts its connections."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: JudgeServer

    def do_GET(self) -> None:
        self._send(404, b"{}")

    def do_POST(self) -> None:
        server = self.server
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        text = body["messages"][-1]["content"]
        with server.lock:
            attempt = server.asked[text]
            server.asked[text] += 1
            server.keys.add(self.headers["Authorization"])
            server.under_way += 1
            server.most_under_way = max(server.most_under_way, server.under_way)
        failure = server.fails(text, attempt)
        reply = b"" if failure else self._reply(text)
        with server.lock:  # before it is sent: the client's next request may be here before this thread goes on
            server.under_way -= 1
        self._answer(text, failure, reply)

    def _reply(self, text: str) -> bytes:
        time.sleep(0.01)
        said = self.server.content(text)
        choice = said if isinstance(said, dict) else {"message": {"role": "assistant", "content": said}}
        answer: dict[str, Any] = {"choices": [{"index": 0, "finish_reason": "stop", **choice}]}
        usage = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}
        return json.dumps({**answer, "model": "judge", "usage": usage}).encode()

    def _answer(self, text: str, failure: str | None, reply: bytes) -> None:
        server = self.server
        if failure is not None:
            with server.lock:
                server.failed[failure] += 1
        if failure == "timeout":
            server.done.wait(2.5)
            self.close_connection = True
        elif failure == "cut":
            self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{")
            self.close_connection = True
        elif failure == "garbage":
            self._send(200, b"<html>busy</html>")
        elif failure is not None:
            self._send(int(failure), b'{"error": "try again"}')
        else:
            with server.lock:
                server.paid[text] += 1
            self._send(200, reply)

    def _send(self, code: int, body: bytes) -> None:
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Quiet."""


def verdict(text: str) -> str:
    return text.replace("item", "verdict")


@contextmanager
def judge(
    fails: Callable[[str, int], str | None] = lambda text, attempt: None, content: Callable[[str], Any] = verdict
) -> Iterator[JudgeServer]:
    server = JudgeServer(fails, content)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.done.set()
        server.shutdown()
        server.server_close()


def read(reply: Any) -> str | None:
    return reply.text if reply.text.startswith("verdict") else None


@pytest.mark.timeout(120)
def test_two_thousand_calls_killed_twice_are_paid_once_each(tmp_path):
    """One call in ten fails, in five ways. What is in the cache at a kill is not asked again; a killed run loses at
    most the 64 replies that were under way, and the result holds every item exactly once."""
    count = 2000

    def fails(text: str, attempt: int) -> str | None:
        number = int(text.split()[1])
        return FAILURES[number // 10 % 5] if number % 10 == 3 and attempt == 0 else None

    with judge(fails) as server:
        command = [sys.executable, "-m", "tests.launch.judge_process", server.url, str(tmp_path / "cache"), str(count)]
        for enough in (500, 1200):
            run = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE)
            while sum(server.paid.values()) < enough and run.poll() is None:
                time.sleep(0.01)
            run.send_signal(signal.SIGKILL)
            assert run.wait() == -signal.SIGKILL
            kept = set(Cache(tmp_path / "cache").keys())
            assert enough - 64 <= len(kept) < count
            assert sum(server.paid.values()) - len(kept) <= 64 * (1 if enough == 500 else 2)
            safe = {q.messages[0]["content"] for q in questions(count) if question_key(q, "judge") in kept}
            before = Counter(server.asked)
        finished = subprocess.run(command, cwd=ROOT, capture_output=True, check=True, timeout=90)
        told = json.loads(finished.stdout)
        assert told["verdicts"] == [f"verdict {i}" for i in range(count)]
        assert all(server.asked[text] == before[text] for text in safe)
        assert told["metrics"]["judge/cached"] == len(safe)
        assert told["metrics"]["judge/calls"] == count - len(safe)
        assert sum(server.paid.values()) <= count + 2 * 64
        assert max(server.paid.values()) <= 2
        assert server.failed == dict.fromkeys(FAILURES, count // 10 // len(FAILURES))  # 40 of each kind
        assert server.most_under_way <= 64 + 64  # and those a killed run left behind


def test_as_many_at_a_time_as_asked_for_and_no_more(tmp_path):
    """The server answers only once eight requests are there together, three times."""
    together = threading.Barrier(8, timeout=20)

    def content(text: str) -> str:
        together.wait()
        return verdict(text)

    with judge(content=content) as server, JudgeClient(server.url, tmp_path, "judge", concurrency=8) as client:
        assert None not in client.ask(questions(24), read).verdicts
        assert server.most_under_way == 8


def test_a_finished_run_costs_nothing_again_and_a_better_parser_neither(tmp_path):
    with judge() as server, JudgeClient(server.url, tmp_path, "judge", concurrency=4) as client:
        first = client.ask(questions(20), read)
        again = client.ask(questions(20)[::-1], lambda reply: int(reply.text.split()[1]))
        assert first.verdicts == [f"verdict {i}" for i in range(20)]
        assert again.verdicts == list(range(20))[::-1]
        assert sum(server.asked.values()) == 20
        assert first.metrics["judge/prompt_tokens"] == 60
        assert (again.metrics["judge/prompt_tokens"], again.metrics["judge/cached"]) == (0, 20)
        assert not list(tmp_path.rglob("*.part"))


def test_equal_questions_are_one_call_and_samples_are_not(tmp_path):
    same = questions(1) * 5
    samples = [Question(same[0].messages, temperature=1.0, sample=i) for i in range(3)]
    with judge() as server, JudgeClient(server.url, tmp_path, "judge") as client:
        assert client.ask(same, read).verdicts == ["verdict 0"] * 5
        assert sum(server.asked.values()) == 1
        client.ask(samples, read)
        assert sum(server.asked.values()) == 4
        other = JudgeClient(server.url, tmp_path, "judge", identity="judge, other weights")
        other.ask(same, read)
        assert sum(server.asked.values()) == 5


def test_a_judge_without_verdicts_is_stopped_early(tmp_path):
    """Ten unread replies of ten make it clear; at most `concurrency` more are under way."""
    with (
        judge(content=lambda text: "no idea") as server,
        JudgeClient(server.url, tmp_path, "j", concurrency=4) as client,
    ):
        with pytest.raises(JudgeError, match=r"10 of 10 verdicts failed \(10 replies without a verdict, 0 ") as caught:
            client.ask(questions(1000), read)
        assert "\n" not in str(caught.value) and "the first: question" in str(caught.value)
        assert sum(server.asked.values()) <= 10 + 4
        with pytest.raises(JudgeError):  # replies from the cache count as well, and cost nothing
            client.ask(questions(10), read)
        assert sum(server.asked.values()) <= 10 + 4


def test_failures_within_the_budget_are_none_and_counted(tmp_path):
    def content(text: str) -> str:
        return "no idea" if text in ("item 3", "item 17") else verdict(text)

    with judge(content=content) as server, JudgeClient(server.url, tmp_path, "j", budget=0.1) as client:
        judged = client.ask(questions(20), read)
        assert [i for i, found in enumerate(judged.verdicts) if found is None] == [3, 17]
        assert judged.metrics["judge/parse_failure_rate"] == 0.1
        strict = JudgeClient(server.url, tmp_path, "j", budget=0.09)
        with pytest.raises(JudgeError, match=r"2 of .* more than the budget of 9%"):
            strict.ask(questions(20), read)


def test_a_question_that_is_never_answered_is_one_line(tmp_path):
    def fails(text: str, attempt: int) -> str | None:
        return "garbage" if text == "item 1" else None

    with judge(fails) as server, JudgeClient(server.url, tmp_path, "j", retries=1, budget=0.5) as client:
        judged = client.ask(questions(4), read)
        assert judged.verdicts == ["verdict 0", None, "verdict 2", "verdict 3"]
        assert judged.replies[1] is None and judged.metrics["judge/unanswered"] == 1
        [line] = judged.errors
        assert line.startswith("question 1: http") and "no completion: <html>busy</html>" in line
        assert server.asked["item 1"] == 2
        assert client.plan(questions(4)).calls == 1  # only what was not answered


def test_a_refusal_is_not_retried_and_the_key_is_not_told(tmp_path, monkeypatch):
    monkeypatch.setenv("JUDGE_KEY", "sk-secret")
    with judge(lambda text, attempt: "401") as server:
        client = JudgeClient(server.url, tmp_path, "j", api_key_env="JUDGE_KEY")
        with pytest.raises(JudgeError, match="answered 401") as caught:
            client.ask(questions(3), read)
        assert "sk-secret" not in str(caught.value)
        assert max(server.asked.values()) == 1
    assert not list(Cache(tmp_path).keys())


def test_a_cut_cache_file_is_asked_again(tmp_path):
    with judge() as server, JudgeClient(server.url, tmp_path, "j") as client:
        client.ask(questions(3), read)
        path = next(tmp_path.glob("??/*.json"))
        path.write_bytes(path.read_bytes()[:20])
        assert client.ask(questions(3), read).verdicts == ["verdict 0", "verdict 1", "verdict 2"]
        assert sum(server.asked.values()) == 4


def test_a_plan_counts_calls_tokens_and_cost(tmp_path):
    """Two distinct questions of 6 bytes: 2 tokens each; 2 * 8 completion tokens; (4 * 1 + 16 * 2)/1e6."""
    found = plan([*questions(2), *questions(1)], "judge", Cache(tmp_path), prices=(1.0, 2.0))
    assert (found.calls, found.cached, found.prompt_tokens, found.completion_tokens) == (2, 0, 4, 16)
    assert found.cost == pytest.approx(36e-6)
    assert str(found).startswith("2 calls (0 more are in the cache), about 4 prompt tokens")


def test_the_bound_by_hand():
    """10 of 10: (1 + .19207 - 1.96 sqrt(3.8415/400))/1.38415 = .72247."""
    assert wilson(10, 10)[0] == pytest.approx(0.72247, abs=1e-5)
    assert wilson(0, 10)[0] == pytest.approx(0, abs=1e-12)
    with pytest.raises(ConfigError, match="budget 2 is no share"):
        JudgeClient("http://127.0.0.1:9", "unused", budget=2)
