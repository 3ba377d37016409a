"""Tools over the Model Context Protocol, by the official SDK (extra ``mcp``): stdio, and streamable HTTP.

    {"command": "arbiter", "args": ["tools", "serve", "--data", "runs"]}      what a client that starts servers is told
    arbiter tools serve --data runs --http 8765                               http://127.0.0.1:8765/mcp

A call answers with the JSON object of `launch.tools_pool.Pool.call`, as text and as structured content; what goes wrong
is an answer too (``isError``), one line of text, and the server stays up. HTTP always asks for a bearer token and keeps
no sessions: a client that goes away leaves nothing behind.

Left out: OAuth, TLS (put a proxy in front for other machines), resources, prompts.
"""

from __future__ import annotations

import hmac
import json
import os
import secrets
import socket
import sys
from functools import partial
from typing import TYPE_CHECKING, Any

from launch import __version__
from launch.errors import ConfigError

if TYPE_CHECKING:
    from launch.tools_pool import Pool

LOOPBACK = ("127.0.0.1", "localhost", "::1")
PATH = "/mcp"


def server(pool: Pool) -> Any:
    """The MCP server (``mcp.server.lowlevel.Server``) of a pool's tools.

    Raises:
        ConfigError: the SDK is not installed.
    """
    try:
        import anyio.to_thread
        import mcp_types as types
        from mcp.server.lowlevel import Server
    except ImportError as error:
        raise ConfigError("MCP needs its SDK; pip install 'arbiter-llm[mcp]'") from error

    offered = [
        types.Tool(
            name=spec.name, description=f"{spec.description}\n\nReturns: {spec.unit}", input_schema=spec.parameters
        )
        for spec in pool.tools.values()
    ]
    waiting = anyio.CapacityLimiter(len(pool))

    async def list_tools(context: Any, asked: Any) -> Any:
        return types.ListToolsResult(tools=offered)

    async def call_tool(context: Any, asked: Any) -> Any:
        call = partial(pool.answer, asked.name, asked.arguments or {})
        text, well = await anyio.to_thread.run_sync(call, limiter=waiting)
        content: list[Any] = [types.TextContent(type="text", text=text if well else json.loads(text)["error"])]
        structured = json.loads(text) if well else None
        return types.CallToolResult(content=content, structured_content=structured, is_error=not well)

    return Server("arbiter", version=__version__, on_list_tools=list_tools, on_call_tool=call_tool)


def serve_stdio(pool: Pool) -> None:
    """Serve the process's stdin and stdout until stdin ends."""
    made = server(pool)
    import anyio
    from mcp.server.stdio import stdio_server

    async def serve() -> None:
        async with stdio_server() as (read, write):
            await made.run(read, write, made.create_initialization_options())

    anyio.run(serve)


def http_app(pool: Pool, token: str, host: str = "127.0.0.1") -> Any:
    """The ASGI application: `PATH` answers whoever sends ``Authorization: Bearer TOKEN``, others get 401."""
    made = server(pool)
    from mcp.server.auth.middleware.bearer_auth import BearerAuthBackend
    from mcp.server.auth.provider import AccessToken
    from starlette.middleware.authentication import AuthenticationMiddleware

    class OneToken:
        """Knows one token."""

        async def verify_token(self, given: str) -> AccessToken | None:
            same = hmac.compare_digest(given.encode(), token.encode())
            return AccessToken(token=given, client_id="arbiter", scopes=[]) if same else None

    app = made.streamable_http_app(
        streamable_http_path=PATH, json_response=True, stateless_http=True, host=host, token_verifier=OneToken()
    )
    app.add_middleware(AuthenticationMiddleware, backend=BearerAuthBackend(OneToken()))
    return app


def serve_http(pool: Pool, host: str, port: int, token: str) -> None:
    """Serve HTTP until Ctrl-C or SIGTERM.

    Raises:
        ConfigError: the address cannot be listened at.
    """
    app = http_app(pool, token, host)
    import uvicorn

    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as listening:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listening.bind((host, port))
        except (OSError, OverflowError) as error:
            raise ConfigError(
                f"cannot listen at {host} port {port} ({error}); give another --http or --host"
            ) from error
        listening.listen(1024)  # before the address is told: whoever connects from then on waits
        port = listening.getsockname()[1]
        shown = f"[{host}]" if ":" in host else host
        print(
            f"serving {', '.join(pool.tools)} at http://{shown}:{port}{PATH}; Ctrl-C ends it",
            file=sys.stderr,
            flush=True,
        )
        uvicorn.Server(uvicorn.Config(app, log_level="warning")).run(sockets=[listening])


def token_from(variable: str, host: str) -> str:
    """The bearer token in an environment variable; on loopback one is made and shown if there is none.

    Raises:
        ConfigError: no token, and the server would listen to other machines; or a token that anyone could guess.
    """
    token = os.environ.get(variable, "")
    if token:
        if len(token) < 16:
            raise ConfigError(f"the token in {variable} has {len(token)} characters; use 16 or more, random ones")
        return token
    if host not in LOOPBACK:
        raise ConfigError(f"--host {host} lets other machines in: put a token into {variable} first")
    token = secrets.token_urlsafe(32)
    print(f"bearer token: {token} (put one into {variable} to choose it)", file=sys.stderr, flush=True)
    return token
