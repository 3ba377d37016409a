"""``arbiter tools``: list, show and call what a model may call, and serve it over MCP.

    arbiter tools list
    arbiter tools show nash_mixture
    arbiter tools call nash_mixture 'win_probability=[[0.5, 0.9], [0.1, 0.5]]'
    arbiter tools call conflict_paths --json arguments.json
    arbiter tools serve --data runs                      # MCP over stdio, for a client that starts it
    arbiter tools serve --data runs --http 8765          # MCP over streamable HTTP, on 127.0.0.1, with a bearer token

A result goes to stdout as one JSON object, ``{"result": …, "unit": "…"}``; a call that gives none ends with exit code 1
and one line on stderr.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from launch.errors import ConfigError

if TYPE_CHECKING:
    from launch.tools_pool import Pool


def add_parser(commands: Any) -> None:
    """Add the subcommand (entry point of group ``arbiter.commands``)."""
    parser = commands.add_parser("tools", help="list, show, call or serve the tools that models may call")
    actions = parser.add_subparsers(title="actions", metavar="ACTION", dest="action", required=True)

    listed = actions.add_parser("list", help="names and what they do")
    listed.set_defaults(command=_list)

    show = actions.add_parser("show", help="one tool: arguments, unit and limits", allow_abbrev=False)
    show.add_argument("tool", metavar="TOOL")
    show.add_argument("--json", action="store_true", help="print the form that OpenAI and vLLM take")
    show.set_defaults(command=_show)

    call = actions.add_parser("call", help="call a tool", allow_abbrev=False)
    call.add_argument("tool", metavar="TOOL")
    call.add_argument("arguments", nargs="*", metavar="key=value", help="a value is JSON, or else text")
    call.add_argument("--json", metavar="FILE", help="all arguments as one JSON object in a file, - for stdin")
    _data(call)
    call.set_defaults(command=_call)

    serve = actions.add_parser("serve", help="serve tools over MCP", allow_abbrev=False)
    serve.add_argument("tools", nargs="*", metavar="TOOL", help="which (default: all)")
    serve.add_argument(
        "--http", type=int, metavar="PORT", help="streamable HTTP in place of stdio, 0 for any free port"
    )
    serve.add_argument("--host", default="127.0.0.1", help="address to listen at (default 127.0.0.1)")
    serve.add_argument(
        "--token-env",
        default="ARBITER_TOOLS_TOKEN",
        metavar="NAME",
        help="environment variable with the bearer token (default ARBITER_TOOLS_TOKEN; unset: one is made and shown)",
    )
    serve.add_argument("--workers", type=int, default=2, metavar="N", help="calls that run at once (default 2)")
    _data(serve)
    serve.set_defaults(command=_serve)


def _data(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--data", default="runs", metavar="DIR", help="folder that tools may read (default runs)")


def _list(arguments: argparse.Namespace) -> int:
    from launch.tools import available

    tools = available()
    width = max(map(len, tools), default=0)
    for name, spec in tools.items():
        print(f"{name:<{width}}  {spec.summary}")
    return 0


def _show(arguments: argparse.Namespace) -> int:
    from launch.tools import available, type_name

    [spec] = available([arguments.tool]).values()
    if arguments.json:
        print(json.dumps(spec.openai(), indent=2, ensure_ascii=False))
        return 0
    needed = spec.parameters.get("required", [])
    print(f"{spec.name}: {spec.description}\n")
    for name, schema in spec.parameters["properties"].items():
        print(f"  {name} ({type_name(schema)}{'' if name in needed else ', optional'}): {schema['description']}")
    limits = spec.limits
    print(f"\nreturns: {spec.unit}")
    print(f"limits: {limits.seconds:g} s, {limits.megabytes:,} MB, a result of {limits.result_bytes:,} bytes")
    return 0


def _call(arguments: argparse.Namespace) -> int:
    from launch.tools import available
    from launch.tools_pool import Pool

    tools = available([arguments.tool])
    with Pool(tools, _folder(arguments.data), workers=1) as pool:
        print(pool.call(arguments.tool, _arguments(arguments)))
    return 0


def _folder(data: str) -> str:
    """The data folder; the default one need not be there, since most tools read nothing."""
    if data == "runs":
        Path(data).mkdir(exist_ok=True)
    return data


def _arguments(arguments: argparse.Namespace) -> Any:
    from launch.tools import ToolError, parse_arguments

    if arguments.json is not None:
        if arguments.arguments:
            raise ConfigError("give either --json or key=value arguments, not both")
        text = sys.stdin.read() if arguments.json == "-" else Path(arguments.json).read_text(encoding="utf-8")
        return parse_arguments(text)
    given: dict[str, Any] = {}
    for word in arguments.arguments:
        key, equals, value = word.partition("=")
        if not equals:
            raise ConfigError(f"{word!r} is no key=value; write for example {word}=VALUE")
        try:
            given[key] = parse_arguments(value)
        except ToolError:
            given[key] = value
    return given


def _serve(arguments: argparse.Namespace) -> int:
    from launch.tools import available
    from launch.tools_mcp import serve_http, serve_stdio, token_from
    from launch.tools_pool import Pool

    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    tools = available(arguments.tools)
    with Pool(tools, _folder(arguments.data), arguments.workers) as pool:
        if arguments.http is None:
            _end_at_signals(pool)
            serve_stdio(pool)
        else:
            token = token_from(arguments.token_env, arguments.host)
            try:
                serve_http(pool, arguments.host, arguments.http, token)
            except KeyboardInterrupt:
                return 130
    return 0


def _end_at_signals(pool: Pool) -> None:
    """End at SIGTERM and Ctrl-C, though a thread waits for stdin and Python would wait for that thread."""

    def end(number: int, frame: Any) -> None:
        pool.close()
        os._exit(128 + number)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, end)
