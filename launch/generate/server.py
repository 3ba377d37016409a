"""Sampling from any OpenAI-compatible server: vLLM's, another one's, a provider's.

One request per prompt carries n. What is asked depends on what the server is:

    vLLM and a renderer      /v1/completions with token ids: nothing is tokenised there, token ids and log-probabilities
                             come back, seeds are those of VLLMGenerator
    vLLM without a renderer  text to /v1/completions, messages to /v1/chat/completions; it renders, ids come back
    any other server         /v1/chat/completions; text alone comes back (token_ids and logprobs are empty), so the
                             completions can be judged but not trained on; top_k and the repetition penalty are
                             refused, seeds are best effort

Left out: streaming, tools, images. The key is read from an environment variable and stands in no message.

    ServerGenerator("http://127.0.0.1:8000", renderer=Renderer(tokenizer)).generate(prompts, n=4, sampling=Sampling())
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Literal

from launch.contracts import Completion, Prompt, Sampling
from launch.endpoint import Endpoint, ServerError
from launch.errors import ConfigError, DataError
from launch.generate.sampling import check, prompt_seeds
from launch.rendering import Renderer


class ServerGenerator:
    """Samples from a server.

    Args:
        base_url: with or without /v1.
        model: the name to ask for; by default the first that the server lists.
        renderer: how prompts become ids (vLLM servers only). Without one the server renders.
        api_key_env: name of the environment variable that holds the key; None sends none.
        concurrency: requests under way at once.
        retries, timeout: see `launch.endpoint.Endpoint`.

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
        self._client = Endpoint(base_url, api_key_env, concurrency, retries, timeout)
        self.url = self._client.url
        self.renderer = renderer
        self.concurrency = concurrency
        self.is_vllm = self._client.is_vllm()
        if renderer is not None and not self.is_vllm:
            raise ConfigError(f"{self.url} is not a vLLM server and takes no token ids; leave the renderer out")
        listed = self._client.models() if model is None or self.is_vllm else []
        self.model: str = self._client.choose(model, listed)
        self.context: int | None = next((m.get("max_model_len") for m in listed if m["id"] == self.model), None)

    def generate(self, prompts: Sequence[Prompt], n: int, sampling: Sampling) -> list[list[Completion]]:
        """Return `n` completions for each prompt, in the order of `prompts`.

        Raises:
            ConfigError: settings that mean nothing, or top_k or repetition_penalty for a server without them.
            DataError: a prompt that cannot be rendered or leaves no room in the context.
            ServerError: no good answer after all tries; names the prompt.
        """
        check(sampling, n)
        if sampling.top_k and not self.is_vllm:
            raise ConfigError(f"top_k {sampling.top_k}: the OpenAI interface has none; use 0", field="top_k")
        if sampling.repetition_penalty != 1 and not self.is_vllm:
            said = f"repetition_penalty {sampling.repetition_penalty}: the OpenAI interface has none; use 1"
            raise ConfigError(said, field="repetition_penalty")
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
            body |= {"top_k": sampling.top_k, "repetition_penalty": sampling.repetition_penalty}
            body |= {"min_p": 0.0, "return_token_ids": True}
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
        answer = self._client.json("POST", path, body, f"prompt {index}")
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
