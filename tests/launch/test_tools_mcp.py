"""Tools over MCP, asked by the SDK's own client: over stdio and HTTP, with its two processes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import anyio
import httpx
import psutil
import pytest

from launch.errors import ConfigError
from launch.tools import ToolSpec
from launch.tools_mcp import http_app, token_from
from launch.tools_pool import Pool
from tests.launch.mcp_load import load
from tests.launch.toy import environment
from tests.launch.toy_tools import misbehave, mix, whoami

TOKEN = "a-token-that-nobody-guesses"
P = [[0.5, 0.9, 0.2], [0.1, 0.5, 0.7], [0.8, 0.3, 0.5]]


WRONG: dict[int, tuple[dict[str, Any], str]] = {
    7: ({"how": "hang"}, "took longer than 0.5 s and was ended; give it less at a time"),
    8: ({"how": "die"}, "ended its process (signal 9); give it less at a time"),
    9: ({"how": "nothing"}, "check the arguments"),
    10: ({"how": "long"}, "gave 1,202 bytes, 1,000 are allowed; ask for less at a time"),
    11: ({"how": "fail"}, "ValueError: no such luck"),
    12: ({"how": 3}, "how is 3; it must be of type string"),
    13: ({"hwo": "fine"}, "unknown argument 'hwo'; did you mean how?"),
}
"""Calls of `misbehave` by the client that makes them, and what each is told."""


async def ask(transport: Any, *calls: tuple[str, dict[str, Any]]) -> tuple[list[Any], list[Any]]:
    """What the SDK's client lists and gets."""
    from mcp import Client

    async with Client(transport) as client:
        listed = await client.list_tools()
        return listed.tools, [await client.call_tool(name, arguments) for name, arguments in calls]


def over_http(url: str, token: str | None, *calls: tuple[str, dict[str, Any]]) -> tuple[list[Any], list[Any]]:
    import httpx2
    from mcp.client.streamable_http import streamable_http_client

    async def run() -> tuple[list[Any], list[Any]]:
        headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        async with httpx2.AsyncClient(headers=headers, trust_env=False, timeout=120) as http:
            return await ask(streamable_http_client(url, http_client=http), *calls)

    return anyio.run(run)


@contextmanager
def serving(data: Path, *words: str, **extra: str) -> Iterator[tuple[str, str, subprocess.Popen[str]]]:
    """A real ``arbiter tools serve --http``: its URL, what it said first, and its process."""
    command = [sys.executable, "-m", "launch.cli", "tools", "serve", "--http", "0", "--data", str(data), *words]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment(**extra))
    assert process.stderr is not None
    try:
        said = ""
        while "serving" not in said:
            line = process.stderr.readline()
            assert line, said
            said += line
        yield said[said.index("http") :].partition(";")[0], said, process
    finally:
        process.kill()
        process.wait()
        process.stderr.close()


def test_stdio(tmp_path: Path) -> None:
    """The client starts the command line as any MCP client would; a wrong call is an answer, and the next one works."""
    from mcp import StdioServerParameters

    words = ["-m", "launch.cli", "tools", "serve", "nash_mixture", "conflict_paths", "--data", str(tmp_path)]
    server = StdioServerParameters(command=sys.executable, args=words, env=environment())
    calls = [("nash_mixture", {"win_probability": [["x"]]}), ("nash_mixture", {"win_probability": P}), ("none", {})]
    tools, (wrong, right, unknown) = anyio.run(ask, server, *calls)
    assert [tool.name for tool in tools] == ["conflict_paths", "nash_mixture"]
    assert tools[1].input_schema["required"] == ["win_probability"] and "Returns: mixture" in tools[1].description
    assert wrong.is_error
    assert wrong.content[0].text == 'nash_mixture: win_probability[0][0] is "x"; it must be of type number'
    assert not right.is_error
    assert right.structured_content == json.loads(right.content[0].text)
    assert right.structured_content["result"]["mixture"] == pytest.approx([2 / 9, 3 / 9, 4 / 9])
    assert unknown.is_error and "there is no tool 'none'; use " in unknown.content[0].text


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_stdio_ends_at_a_signal(number: signal.Signals, tmp_path: Path) -> None:
    """At the first one, while the client holds stdin open; its workers end with it."""
    command = [sys.executable, "-m", "launch.cli", "tools", "serve", "nash_mixture", "--data", str(tmp_path)]
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment()
    )
    assert process.stdin is not None and process.stdout is not None and process.stderr is not None
    try:
        hello = {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "test", "version": "0"}}
        steps: list[dict[str, Any]] = [
            {"id": 1, "method": "initialize", "params": hello},
            {"method": "notifications/initialized"},
            {"id": 2, "method": "tools/call", "params": {"name": "nash_mixture", "arguments": {"win_probability": P}}},
        ]
        for step in steps:
            process.stdin.write(json.dumps({"jsonrpc": "2.0", **step}).encode() + b"\n")
            process.stdin.flush()
            if "id" in step:
                assert b'"result"' in process.stdout.readline()
        workers = psutil.Process(process.pid).children(recursive=True)
        assert workers
        process.send_signal(number)
        assert process.wait(20) == 128 + number
        assert not psutil.wait_procs(workers, 5)[1]
        assert process.stderr.read() == b""
    finally:
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout, process.stderr):
            pipe.close()


def test_http_asks_for_its_token_and_ends_cleanly(tmp_path: Path) -> None:
    """On loopback; 401 without the token or with another one; SIGTERM ends server and workers."""
    with serving(tmp_path, "nash_mixture", "--workers", "1", TOOLS=TOKEN) as (url, said, process):
        made = said.partition("bearer token: ")[2].split()[0]
        assert len(made) > 40 and url.startswith("http://127.0.0.1:")
        tools, [answer] = over_http(url, made, ("nash_mixture", {"win_probability": P}))
        assert [tool.name for tool in tools] == ["nash_mixture"]
        assert answer.structured_content["result"]["winner"] is None
        body = {"jsonrpc": "2.0", "id": 1, "method": "tools/list"}
        for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": made}):
            assert httpx.post(url, json=body, headers=headers, trust_env=False).status_code == 401
        workers = psutil.Process(process.pid).children(recursive=True)
        assert workers
        os.kill(process.pid, signal.SIGTERM)
        assert process.wait(20) == 128 + signal.SIGTERM
        assert not psutil.wait_procs(workers, 5)[1]


def test_a_token_of_ones_own(tmp_path: Path) -> None:
    with serving(tmp_path, "nash_mixture", "--token-env", "MINE", MINE=TOKEN) as (url, said, _):
        assert TOKEN not in said and "bearer token" not in said
        tools, _ = over_http(url, TOKEN)
        assert len(tools) == 1


def test_other_machines_are_let_in_with_a_token_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MINE", raising=False)
    with pytest.raises(ConfigError, match=r"--host 0\.0\.0\.0 lets other machines in: put a token into MINE first"):
        token_from("MINE", "0.0.0.0")
    monkeypatch.setenv("MINE", "short")
    with pytest.raises(ConfigError, match="the token in MINE has 5 characters"):
        token_from("MINE", "127.0.0.1")
    monkeypatch.setenv("MINE", TOKEN)
    assert token_from("MINE", "0.0.0.0") == TOKEN


def test_many_clients_at_once(tmp_path: Path) -> None:
    """50 clients, 1,000 calls: no answer is another's. Beside them calls that hang, die, raise, say too much or do not
    fit: each is one line with a remedy, and the server stays up. Over the real HTTP stack (uvicorn on a socket).
    """
    import httpx2
    import uvicorn
    from mcp import Client
    from mcp.client.streamable_http import streamable_http_client

    tools = {spec.name: spec for spec in (ToolSpec.of(mix), ToolSpec.of(misbehave), ToolSpec.of(whoami))}
    answers: list[tuple[int, Any]] = []

    async def client(url: str, number: int) -> None:
        headers = {"Authorization": f"Bearer {TOKEN}"}
        async with (
            httpx2.AsyncClient(headers=headers, trust_env=False, timeout=120) as http,
            Client(streamable_http_client(url, http_client=http)) as asked,
        ):
            for i in range(20):
                value = 100 * number + i
                answers.append((value, await asked.call_tool("mix", {"numbers": [value], "times": 2})))
            if number in WRONG:
                answers.append((-number, await asked.call_tool("misbehave", WRONG[number][0])))

    async def run() -> None:
        with Pool(tools, tmp_path, workers=2) as pool:
            config = uvicorn.Config(http_app(pool, TOKEN), port=0, log_level="warning")
            server = uvicorn.Server(config)
            async with anyio.create_task_group() as group:
                group.start_soon(server.serve)
                while not server.started:
                    await anyio.sleep(0.01)
                port = server.servers[0].sockets[0].getsockname()[1]
                async with anyio.create_task_group() as clients:
                    for number in range(50):
                        clients.start_soon(client, f"http://127.0.0.1:{port}/mcp", number)
                server.should_exit = True

    anyio.run(run)
    good = [(value, answer) for value, answer in answers if value >= 0]
    assert len(good) == 1000
    assert all(answer.structured_content["result"]["value"] == 2 * value for value, answer in good)
    bad = {-value: answer for value, answer in answers if value < 0}
    assert bad.keys() == WRONG.keys()
    for number, (_, told) in WRONG.items():
        line = bad[number].content[0].text
        assert bad[number].is_error and "\n" not in line and told in line


def test_a_loaded_server_makes_no_error_and_does_not_grow() -> None:
    """`tests.launch.mcp_load`, whose 10,000 calls are in docs/tools.md, with 1,000: 6 kB a call would be 5 MB."""
    told = load(1000)
    assert told["errors"] == 0 and len(told["rss_mb_at_the_end"]) == len(told["rss_mb_after_a_tenth"]) == 3
    grown = [b - a for a, b in zip(told["rss_mb_after_a_tenth"], told["rss_mb_at_the_end"], strict=True)]
    assert max(grown) < 5, told
