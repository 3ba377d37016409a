"""Sampling from any OpenAI-compatible server: vLLM's, another one's, a provider's.

One request per prompt carries n. What is asked depends on what the server is:

    vLLM and a renderer      /v1/completions with token ids: nothing is tokenised there, token ids and log-probabilities
                             come back, seeds are those of VLLMGenerator
    vLLM without a renderer  text to /v1/completions, messages to /v1/chat/completions; it renders, ids come back
    any other server         /v1/chat/completions; text alone comes back (token_ids and logprobs are empty), so the
                             completions can be judged but not trained on; top_k is refused, seeds are best effort

Left out: streaming, tools, images. The key is read from an environment variable and stands in no message.

    ServerGenerator("http://127.0.0.1:8000", renderer=Renderer(tokenizer)).generate(prompts, n=4, sampling=Sampling())
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Literal

import httpx

from launch.contracts import Completion, Prompt, Sampling
from launch.errors import ArbiterError, ConfigError, DataError
from launch.generate.sampling import check, prompt_seeds
from launch.rendering import Renderer

RETRY = (408, 409, 429, 500, 502, 503, 504, 529)
"""Answers that a later try may turn into a good one."""
LONGEST_WAIT = 30.0
"""Seconds between two tries at most, unless the server asks for more."""


class ServerError(ArbiterError):
    """A server that does not answer, or answers something that is no completion."""


class ServerGenerator:
    """Samples from a server.

    Args:
        base_url: with or without /v1.
        model: the name to ask for; by default the first that the server lists.
        renderer: how prompts become ids (vLLM servers only). Without one the server renders.
        api_key_env: name of the environment variable that holds the key; None sends none.
        concurrency: requests under way at once.
        retries: further tries after an overload, a server error, a timeout or a lost connection, after 0.5, 1, 2 …
            seconds or what the server asks for.
        timeout: seconds one request may take.

    Raises:
        ConfigError: the variable of the key is not set, or a renderer was given for a server that takes no token ids.
        ServerError: the server cannot be reached or lists no model.
    """

    def __init__(
        self,
        base_url: str,
        model: str | None = None,
        renderer: Renderer | None = None,
        api_key_env: str | None = None,
        concurrency: int = 8,
        retries: int = 5,
        timeout: float = 600.0,
    ) -> None:
        if concurrency < 1 or retries < 0:
            raise ConfigError(f"concurrency {concurrency} and retries {retries}: use 1 or more, and 0 or more")
        self._key = ""
        if api_key_env is not None:
            self._key = os.environ.get(api_key_env, "")
            if not self._key:
                raise ConfigError(f"environment variable {api_key_env} is not set; put the server's key there")
        self.url = base_url.rstrip("/").removesuffix("/v1")
        self.renderer = renderer
        self.concurrency = concurrency
        self.retries = retries
        local = httpx.URL(self.url).host in ("127.0.0.1", "localhost", "::1")
        self._client = httpx.Client(
            headers={"Authorization": f"Bearer {self._key}"} if self._key else {},
            timeout=timeout,
            trust_env=not local,  # a proxy of the environment does not know this machine's loopback
            limits=httpx.Limits(max_connections=concurrency),
        )
        self.is_vllm = self._client_says_vllm()
        if renderer is not None and not self.is_vllm:
            raise ConfigError(f"{self.url} is not a vLLM server and takes no token ids; leave the renderer out")
        listed = self._models() if model is None or self.is_vllm else []
        if model is None and not listed:
            raise ServerError(f"{self.url} lists no model; name the one to ask for")
        self.model: str = model or listed[0]["id"]
        self.context: int | None = next((m.get("max_model_len") for m in listed if m["id"] == self.model), None)

    def generate(self, prompts: Sequence[Prompt], n: int, sampling: Sampling) -> list[list[Completion]]:
        """Return `n` completions for each prompt, in the order of `prompts`.

        Raises:
            ConfigError: settings that mean nothing, or top_k for a server without it.
            DataError: a prompt that cannot be rendered or leaves no room in the context.
            ServerError: no good answer after all tries; names the prompt.
        """
        check(sampling, n)
        if sampling.top_k and not self.is_vllm:
            raise ConfigError(f"top_k {sampling.top_k}: the OpenAI interface has none; use 0", field="top_k")
        ids = None if self.renderer is None else [self.renderer.prompt_ids(prompt) for prompt in prompts]
        seeds = prompt_seeds(ids or [json.dumps(prompt, sort_keys=True) for prompt in prompts], sampling.seed)
        pool = ThreadPoolExecutor(self.concurrency)
        try:
            jobs = [
                pool.submit(self._ask, i, prompt, ids[i] if ids else None, n, sampling, seeds[i])
                for i, prompt in enumerate(prompts)
            ]
            return [job.result() for job in jobs]
        finally:
            pool.shutdown(wait=True, cancel_futures=True)

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def __enter__(self) -> ServerGenerator:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _ask(
        self, index: int, prompt: Prompt, ids: list[int] | None, n: int, sampling: Sampling, seed: int
    ) -> list[Completion]:
        asked = 1 if sampling.temperature == 0 else n  # greedy copies are all the same; vLLM refuses to make them
        body: dict[str, Any] = {
            "model": self.model,
            "n": asked,
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "seed": seed,
            "max_tokens": sampling.max_new_tokens,
        }
        if sampling.stop:
            body["stop"] = list(sampling.stop)
        if self.is_vllm:
            # All named, since a model's generation_config.json would set what is left out.
            body |= {"top_k": sampling.top_k, "min_p": 0.0, "repetition_penalty": 1.0, "return_token_ids": True}
        if ids is not None and self.context is not None:
            if len(ids) >= self.context:
                raise DataError(
                    f"prompt {index} has {len(ids)} tokens but the server's context is {self.context}; shorten it"
                )
            body["max_tokens"] = min(sampling.max_new_tokens, self.context - len(ids))
        path = "/v1/completions"
        if ids is not None:
            body |= {"prompt": ids, "logprobs": 0}
        elif self.is_vllm and isinstance(prompt, str):
            body |= {"prompt": prompt, "logprobs": 0}
        else:
            path = "/v1/chat/completions"
            body["messages"] = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
            if self.is_vllm:
                body["logprobs"] = True
        answer = self._send("POST", path, body, f"prompt {index}")
        choices = sorted(answer.get("choices", []), key=lambda choice: choice["index"])
        if len(choices) != asked:
            raise ServerError(f"prompt {index}: {self.url} gave {len(choices)} completions for n={asked}")
        return [self._completion(index, choice, answer, ids) for choice in choices] * (n // asked)

    def _completion(
        self, index: int, choice: dict[str, Any], answer: dict[str, Any], ids: list[int] | None
    ) -> Completion:
        reason = choice.get("finish_reason")
        if reason not in ("stop", "length"):
            raise ServerError(f"prompt {index}: {self.url} ended a completion with {reason!r}, not 'stop' or 'length'")
        finish: Literal["stop", "length"] = "stop" if reason == "stop" else "length"
        text = choice["text"] if "text" in choice else choice["message"].get("content") or ""
        if not self.is_vllm:
            return Completion(text, (), (), finish)
        tokens = tuple(choice["token_ids"])
        found = choice["logprobs"]
        logprobs = found["token_logprobs"] if "text" in choice else [entry["logprob"] for entry in found["content"]]
        if len(logprobs) != len(tokens):
            raise ServerError(
                f"prompt {index}: {self.url} gave {len(logprobs)} log-probabilities for {len(tokens)} tokens"
            )
        prompt_ids = ids or choice.get("prompt_token_ids") or answer.get("prompt_token_ids") or ()
        return Completion(text, tokens, tuple(logprobs), finish, tuple(prompt_ids))

    def _client_says_vllm(self) -> bool:
        """vLLM tells its version under /version; others answer 404 or another page there."""
        response = self._try("GET", "/version", None, "version")
        if response.status_code != 200 or "json" not in response.headers.get("content-type", ""):
            return False
        told = response.json()
        return isinstance(told, dict) and set(told) == {"version"}

    def _models(self) -> list[dict[str, Any]]:
        return self._send("GET", "/v1/models", None, "models").get("data", [])

    def _send(self, method: str, path: str, body: dict[str, Any] | None, what: str) -> dict[str, Any]:
        response = self._try(method, path, body, what)
        if response.status_code != 200:
            raise ServerError(f"{what}: {self.url}{path} answered {response.status_code}: {self._told(response)}")
        try:
            return response.json()
        except ValueError as error:
            raise ServerError(f"{what}: {self.url}{path} answered no JSON: {self._told(response)}") from error

    def _try(self, method: str, path: str, body: dict[str, Any] | None, what: str) -> httpx.Response:
        """Send until there is an answer that another try would not change."""
        for attempt in range(self.retries + 1):
            wait = min(0.5 * 2**attempt, LONGEST_WAIT)
            try:
                response = self._client.request(method, self.url + path, json=body)
            except httpx.TransportError as error:  # timeouts and lost connections
                if attempt == self.retries:
                    told = str(error) or type(error).__name__
                    raise ServerError(f"{what}: {self.url} not reached in {attempt + 1} tries: {told}") from error
            else:
                if response.status_code not in RETRY or attempt == self.retries:
                    return response
                asked = response.headers.get("retry-after", "")
                wait = max(wait, float(asked)) if asked.isdigit() else wait
            time.sleep(wait)
        raise AssertionError("the last try returns or raises")

    def _told(self, response: httpx.Response) -> str:
        """The server's message on one line, without the key (some servers repeat it)."""
        text = " ".join(response.text.split())[:300]
        return text.replace(self._key, "***") if self._key else text
