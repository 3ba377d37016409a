"""One HTTP server and how it is asked: its key, tries again, and complaints of one line that never show the key.

Generators, judges and served preference models all speak through it.

    with Endpoint("http://127.0.0.1:8000") as server:
        server.json("GET", "/v1/models", None, "models")

Left out: streaming and asynchronous clients; callers ask from threads, `concurrency` connections are kept.
"""

from __future__ import annotations

import os
import time
from typing import Any

import httpx

from launch.errors import ArbiterError, ConfigError

RETRY = (408, 409, 429, 500, 502, 503, 504, 529)
"""Answers that a later try may turn into a good one."""
LONGEST_WAIT = 30.0
"""Seconds between two tries at most, unless the server asks for more."""


class ServerError(ArbiterError):
    """A server that does not answer, or answers something that is not what was asked for."""


class UnreachableError(ServerError):
    """No connection in all tries; ``__cause__`` is the last one's error."""


class Endpoint:
    """A server.

    Args:
        base_url: with or without /v1.
        api_key_env: name of the environment variable that holds the key; None sends none.
        concurrency: connections kept, for as many requests under way at once.
        retries: further tries after an overload, a server error, a timeout or a lost connection, after 0.5, 1, 2 …
            seconds or what the server asks for.
        timeout: seconds one request may take.

    Raises:
        ConfigError: the variable of the key is not set, or numbers out of range.
    """

    def __init__(
        self,
        base_url: str,
        api_key_env: str | None = None,
        concurrency: int = 8,
        retries: int = 5,
        timeout: float = 600.0,
    ) -> None:
        if concurrency < 1 or retries < 0:
            raise ConfigError(f"concurrency {concurrency} and retries {retries}: use 1 or more, and 0 or more")
        self._key = "" if api_key_env is None else os.environ.get(api_key_env, "")
        if api_key_env is not None and not self._key:
            raise ConfigError(f"environment variable {api_key_env} is not set; put the server's key there")
        self.url = base_url.rstrip("/").removesuffix("/v1")
        self.retries = retries
        local = httpx.URL(self.url).host in ("127.0.0.1", "localhost", "::1")
        self._http = httpx.Client(
            headers={"Authorization": f"Bearer {self._key}"} if self._key else {},
            timeout=timeout,
            trust_env=not local,  # a proxy of the environment does not know this machine's loopback
            limits=httpx.Limits(max_connections=concurrency),
        )

    def request(self, method: str, path: str, body: dict[str, Any] | None, what: str) -> httpx.Response:
        """Send until there is an answer that another try would not change. `what` begins a complaint.

        Raises:
            UnreachableError: no answer in all tries.
        """
        for attempt in range(self.retries + 1):
            wait = min(0.5 * 2**attempt, LONGEST_WAIT)
            try:
                response = self._http.request(method, self.url + path, json=body)
            except httpx.TransportError as error:  # timeouts and lost connections
                if attempt == self.retries:
                    told = str(error) or type(error).__name__
                    raise UnreachableError(f"{what}: {self.url} not reached in {attempt + 1} tries: {told}") from error
            else:
                if response.status_code not in RETRY or attempt == self.retries:
                    return response
                asked = response.headers.get("retry-after", "")
                wait = max(wait, float(asked)) if asked.isdigit() else wait
            time.sleep(wait)
        raise AssertionError("the last try returns or raises")

    def ok(self, method: str, path: str, body: dict[str, Any] | None, what: str) -> httpx.Response:
        """`request`; raises ServerError unless the answer's status is 200."""
        response = self.request(method, path, body, what)
        if response.status_code != 200:
            told = self.told(response)
            if "chat template" in told.lower():
                told += "; prompts of plain text need none (arbiter eval: --plain)"
            raise ServerError(f"{what}: {self.url}{path} answered {response.status_code}: {told}")
        return response

    def json(self, method: str, path: str, body: dict[str, Any] | None, what: str) -> dict[str, Any]:
        """What `ok` answers, as JSON; raises ServerError if it is none."""
        response = self.ok(method, path, body, what)
        try:
            return response.json()
        except ValueError as error:
            raise ServerError(f"{what}: {self.url}{path} answered no JSON: {self.told(response)}") from error

    def told(self, response: httpx.Response) -> str:
        """The server's message on one line, without the key (some servers repeat it)."""
        text = " ".join(response.text.split())[:300]
        return text.replace(self._key, "***") if self._key else text

    def is_vllm(self) -> bool:
        """vLLM tells its version under /version; others answer 404 or another page there."""
        response = self.request("GET", "/version", None, "version")
        if response.status_code != 200 or "json" not in response.headers.get("content-type", ""):
            return False
        told = response.json()
        return isinstance(told, dict) and set(told) == {"version"}

    def models(self) -> list[dict[str, Any]]:
        """The models that the server lists, each with its "id"."""
        return self.json("GET", "/v1/models", None, "models").get("data", [])

    def choose(self, model: str | None, listed: list[dict[str, Any]] | None = None) -> str:
        """`model`, or by default the first that the server lists; raises ServerError if it lists none."""
        if model is not None:
            return model
        listed = self.models() if listed is None else listed
        if not listed:
            raise ServerError(f"{self.url} lists no model; name the one to ask for")
        return listed[0]["id"]

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def __enter__(self) -> Endpoint:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()
