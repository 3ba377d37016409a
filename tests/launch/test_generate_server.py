"""A real vLLM server of a small model: the same laws through HTTP, and what happens when a server misbehaves."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import httpx
import psutil
import pytest
from transformers import AutoModelForCausalLM

from launch.contracts import Completion, Sampling
from launch.errors import ConfigError, DataError, LaunchError
from launch.generate import HFGenerator, ServerGenerator
from launch.generate.server import ServerError
from launch.models import load_tokenizer
from launch.rendering import Renderer
from launch.serve import Server, serve, why
from tests.launch.engine_process import GREEDY, LONG, PROMPTS, SAMPLED

pytestmark = pytest.mark.timeout(900)  # a vLLM start takes minutes on a busy machine


@pytest.fixture(scope="module")
def generator(vllm_server: Server, served_model: Path) -> Iterator[ServerGenerator]:
    with ServerGenerator(vllm_server.url, renderer=Renderer(load_tokenizer(served_model))) as made:
        yield made


@pytest.fixture(scope="module")
def reference(served_model: Path) -> HFGenerator:
    return HFGenerator(AutoModelForCausalLM.from_pretrained(served_model), load_tokenizer(served_model))


def flat(answers: Sequence[Sequence[Completion]]) -> list[Completion]:
    return [answer for row in answers for answer in row]


def same(got: Sequence[Sequence[Completion]], want: Sequence[Sequence[Completion]]) -> None:
    """Equal in everything, log-probabilities to 1e-4."""
    for a, b in zip(flat(got), flat(want), strict=True):
        assert (a.token_ids, a.text, a.finish, a.prompt_ids) == (b.token_ids, b.text, b.finish, b.prompt_ids)
        assert a.logprobs == pytest.approx(b.logprobs, abs=1e-4)


def test_greedy_equals_the_hugging_face_generator(generator: ServerGenerator, reference: HFGenerator) -> None:
    assert generator.is_vllm
    assert (generator.model, generator.context) == ("llama", 256)
    same(generator.generate(PROMPTS, 2, GREEDY), reference.generate(PROMPTS, 2, GREEDY))


def test_the_repetition_penalty_is_the_hugging_face_generators(
    generator: ServerGenerator, reference: HFGenerator
) -> None:
    """As the published opinions were sampled: 1.176; and it changes what is written. See `reasoning.legal.decoding`."""
    penalised = replace(GREEDY, repetition_penalty=1.176)
    answers = generator.generate(PROMPTS, 1, penalised)
    expected = reference.generate(PROMPTS, 1, penalised)
    assert [a.token_ids for a in flat(answers)] == [a.token_ids for a in flat(expected)]
    assert [a.token_ids for a in flat(answers)] != [a.token_ids for a in flat(generator.generate(PROMPTS, 1, GREEDY))]


def test_the_servers_own_rendering_equals_ours(vllm_server: Server, reference: HFGenerator) -> None:
    """Text goes to /v1/completions and messages to /v1/chat/completions; both get exactly one BOS."""
    with ServerGenerator(vllm_server.url + "/v1/") as unrendered:
        answers = unrendered.generate(PROMPTS, 1, GREEDY)
    same(answers, reference.generate(PROMPTS, 1, GREEDY))
    assert all(answer.prompt_ids.count(1) == 1 for answer in flat(answers))


def test_seeds(generator: ServerGenerator) -> None:
    one = generator.generate(PROMPTS, 3, SAMPLED)
    assert [a.token_ids for a in flat(generator.generate(PROMPTS[::-1], 3, SAMPLED)[::-1])] == [
        a.token_ids for a in flat(one)
    ]
    other = generator.generate(PROMPTS, 3, replace(SAMPLED, seed=12))
    assert all(len({a.token_ids for a in [*x, *y]}) == 6 for x, y in zip(one, other, strict=True))


def test_n_samples_are_one_request_and_share_the_prompt(generator: ServerGenerator, vllm_server: Server) -> None:
    """The prompt has 77 tokens: two blocks of 32 are computed once, the other 13 by each sample."""

    def computed() -> int:
        told = httpx.get(f"{vllm_server.url}/metrics", trust_env=False).text
        [found] = re.findall(
            r'^vllm:prompt_tokens_by_source_total\{[^}]*source="local_compute"\} ([\d.e+]+)$', told, re.M
        )
        return int(float(found))

    before = computed()
    [row] = generator.generate([LONG], 4, SAMPLED)
    assert len(row[0].prompt_ids) == 77
    assert computed() - before == 77 + 3 * (77 % 32)


def test_stop_strings_and_lengths(generator: ServerGenerator, reference: HFGenerator) -> None:
    [[free]] = reference.generate(PROMPTS[:1], 1, GREEDY)
    sampling = replace(GREEDY, stop=(free.text[9:11],))
    answers = generator.generate(PROMPTS[:1], 1, sampling)
    same(answers, reference.generate(PROMPTS[:1], 1, sampling))
    assert (answers[0][0].finish, answers[0][0].text) == ("stop", free.text[: free.text.index(free.text[9:11])])
    assert (free.finish, len(free.token_ids)) == ("length", GREEDY.max_new_tokens)


def test_the_context_cuts_and_an_overlong_prompt_is_named(generator: ServerGenerator) -> None:
    [[answer]] = generator.generate(["x" * 250], 1, GREEDY)  # and BOS: 251 of 256
    assert (len(answer.token_ids), answer.finish) == (5, "length")
    with pytest.raises(DataError, match="prompt 1 has 301 tokens but the server's context is 256"):
        generator.generate(["ok", "x" * 300], 1, GREEDY)


def test_a_refused_request_is_one_line_that_names_the_prompt(vllm_server: Server) -> None:
    with (
        ServerGenerator(vllm_server.url) as unrendered,
        pytest.raises(ServerError, match=r"^prompt 0: .*/v1/completions answered 400: ") as caught,
    ):
        unrendered.generate(["x" * 300], 1, GREEDY)
    assert "\n" not in str(caught.value)


def test_a_model_with_small_heads_is_refused_before_anything_starts(data_dir: Path) -> None:
    with pytest.raises(ConfigError, match="attention heads of 8"), serve(data_dir / "lm" / "stories260K"):
        pass


def test_the_servers_processes_are_recorded_for_a_resume(vllm_server: Server) -> None:
    [record] = [json.loads(file.read_text()) for file in vllm_server.log.parent.glob("engine-*.json")]
    assert vllm_server.pid in [who["pid"] for who in record["processes"]]
    assert "VLLM::EngineCore" in [who["command"] for who in record["processes"]]


def test_a_server_that_does_not_come_up_is_ended(served_model: Path, tmp_path: Path) -> None:
    before = {child.pid for child in psutil.Process().children(recursive=True)}
    with (
        pytest.raises(LaunchError, match=r"the vLLM server did not answer within 1 s; see .*\.log"),
        serve(served_model, folder=tmp_path, timeout=1.0),
    ):
        pass
    assert {child.pid for child in psutil.Process().children(recursive=True)} <= before
    assert [file.suffix for file in tmp_path.iterdir()] == [".log"]


def test_the_reason_is_the_last_line_that_names_an_error(tmp_path: Path) -> None:
    log = tmp_path / "server.log"
    log.write_text("INFO start\nValueError: no room\nINFO bye\n")
    assert why(log) == "ValueError: no room"
    log.write_text("\n")
    assert why(log) == "it said nothing"


# ------------------------------------------------ servers that are not vLLM, and that misbehave


class _Plain(BaseHTTPRequestHandler):
    """The least an OpenAI-compatible server does, after failing as `failures` says."""

    failures: ClassVar[list[int]] = []
    asked: ClassVar[list[dict[str, Any]]] = []

    def do_GET(self) -> None:
        self._answer(*((200, {"data": [{"id": "plain"}]}) if self.path == "/v1/models" else (404, {})))

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self.asked.append({"path": self.path, "key": self.headers["authorization"], **body})
        if self.failures:
            status = self.failures.pop(0)
            why = "As of transformers v4.44 you must provide a chat template" if status == 400 else "bad key"
            self._answer(status, {"error": f"{why} {self.headers['authorization']}\nsecond line"})
            return
        choices = [
            {"index": i, "message": {"content": f"answer {i}"}, "finish_reason": "stop"} for i in range(body["n"])
        ]
        self._answer(200, {"choices": choices[::-1]})

    def _answer(self, status: int, body: dict[str, Any]) -> None:
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *args: object) -> None:
        """Say nothing."""


@contextmanager
def plain_server(failures: list[int]) -> Iterator[str]:
    _Plain.failures[:] = failures
    _Plain.asked.clear()
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Plain)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_any_other_server_is_asked_through_chat_with_n_in_one_request() -> None:
    with plain_server([]) as url, ServerGenerator(url) as generator:
        [row] = generator.generate(["Hi"], 3, Sampling(stop=("x",), seed=1))
    assert [answer.text for answer in row] == ["answer 0", "answer 1", "answer 2"]
    assert all(answer.token_ids == answer.logprobs == () for answer in row)
    [asked] = _Plain.asked
    assert (asked["path"], asked["n"], asked["stop"]) == ("/v1/chat/completions", 3, ["x"])
    assert asked["messages"] == [{"role": "user", "content": "Hi"}]
    assert "return_token_ids" not in asked


def test_overload_and_server_errors_are_tried_again() -> None:
    with plain_server([429, 503]) as url, ServerGenerator(url) as generator:
        [[answer]] = generator.generate(["Hi"], 1, Sampling())
    assert answer.text == "answer 0"
    assert len(_Plain.asked) == 3


def test_the_last_failure_is_one_line_without_the_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PLAIN_KEY", "sk-very-secret")
    with (
        plain_server([401]) as url,
        ServerGenerator(url, api_key_env="PLAIN_KEY") as generator,
        pytest.raises(ServerError, match=r"prompt 0: .* answered 401") as caught,
    ):
        generator.generate(["Hi"], 1, Sampling())
    assert _Plain.asked[0]["key"] == "Bearer sk-very-secret"
    assert "secret" not in str(caught.value) + repr(generator) + repr(vars(generator)["_client"])
    assert "secret" not in repr(vars(generator._client)["_http"])
    assert "\n" not in str(caught.value)


def test_a_model_without_a_chat_template_is_told_the_way_out() -> None:
    with (
        plain_server([400]) as url,
        ServerGenerator(url) as generator,
        pytest.raises(ServerError, match=r"answered 400: .*plain text need none \(arbiter eval: --plain\)"),
    ):
        generator.generate(["Hi"], 1, Sampling())


def test_a_missing_key_and_a_missing_server_are_named() -> None:
    with pytest.raises(ConfigError, match="environment variable NO_SUCH_KEY is not set"):
        ServerGenerator("http://127.0.0.1:9", api_key_env="NO_SUCH_KEY")
    with pytest.raises(ServerError, match=r"http://127\.0\.0\.1:9 not reached in 2 tries"):
        ServerGenerator("http://127.0.0.1:9", retries=1)


def test_what_a_plain_server_cannot_do_is_refused(served_model: Path) -> None:
    with plain_server([]) as url:
        with pytest.raises(ConfigError, match="takes no token ids"):
            ServerGenerator(url, renderer=Renderer(load_tokenizer(served_model)))
        with ServerGenerator(url) as generator, pytest.raises(ConfigError, match="top_k 5"):
            generator.generate(["Hi"], 1, Sampling(top_k=5))
        with ServerGenerator(url) as generator, pytest.raises(ConfigError, match=r"repetition_penalty 1\.2"):
            generator.generate(["Hi"], 1, Sampling(repetition_penalty=1.2))
