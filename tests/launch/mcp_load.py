"""``python -m tests.launch.mcp_load [CALLS]``: 50 MCP clients at once against one ``arbiter tools serve --http``.

Prints calls, errors, seconds, and the memory of server and workers after a tenth of the calls and at the end.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from typing import Any

import anyio
import psutil

from tests.launch.toy import environment

CLIENTS, TOKEN = 50, "a-token-that-nobody-guesses"
CALL = {"question": "Who is Ann?", "passage": "Ann is a smith.", "answer": "a smith"}


async def calls(url: str, count: int) -> int:
    """Make `count` calls from `CLIENTS` clients; how many went wrong."""
    import httpx2
    from mcp import Client
    from mcp.client.streamable_http import streamable_http_client

    wrong = 0

    async def client(number: int) -> None:
        nonlocal wrong
        headers = {"Authorization": f"Bearer {TOKEN}"}
        async with (
            httpx2.AsyncClient(headers=headers, trust_env=False, timeout=120) as http,
            Client(streamable_http_client(url, http_client=http)) as asked,
        ):
            for _ in range(number, count, CLIENTS):
                answer: Any = await asked.call_tool("conflict_paths", CALL)
                wrong += answer.is_error or answer.structured_content["result"]["answer"] != "a smith"

    async with anyio.create_task_group() as group:
        for number in range(CLIENTS):
            group.start_soon(client, number)
    return wrong


def load(count: int) -> dict[str, Any]:
    """Start a server, make `count` calls, and tell what came out; memory is of the server, then of its workers."""
    with tempfile.TemporaryDirectory() as data:
        words = ["tools", "serve", "conflict_paths", "--http", "0", "--data", data, "--token-env", "T"]
        command = [sys.executable, "-m", "launch.cli", *words]
        server = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment(T=TOKEN))
        assert server.stderr is not None
        said = server.stderr.readline()
        url = said[said.index("http") :].partition(";")[0]

        def megabytes() -> list[float]:
            root = psutil.Process(server.pid)
            return [round(p.memory_info().rss / 2**20, 1) for p in (root, *root.children(recursive=True))]

        try:
            wrong = anyio.run(calls, url, count // 10)
            first = megabytes()
            start = time.perf_counter()
            wrong += anyio.run(calls, url, count - count // 10)
            seconds = time.perf_counter() - start
            rest = count - count // 10
            told = {"calls": count, "errors": wrong, "calls_per_second": round(rest / seconds, 1)}
            return {**told, "rss_mb_after_a_tenth": first, "rss_mb_at_the_end": megabytes()}
        finally:
            server.terminate()
            server.wait()


if __name__ == "__main__":
    print(json.dumps(load(int(sys.argv[1]) if len(sys.argv) > 1 else 10_000)))
