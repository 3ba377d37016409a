"""The process in which tools run: ``python -m launch.tools_worker``, started by `launch.tools_pool.Pool`.

It reads lines of JSON and answers with lines of JSON. The first line says which tools there are, where their data are
and what `sys.path` is; then the fences of `launch.tools_guard` go up, before any tool's module is imported. Every
further line is one call, or, without arguments, has a tool's modules imported before its first call. What a tool
prints goes to stderr.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from launch.errors import ArbiterError
from launch.tools_guard import RefusedError, allow_memory, raise_fences, readable

_NO_MEMORY = ("can't allocate memory", "bad_alloc", "not enough memory", "Unable to allocate")
"""How native code says it when it does not raise MemoryError."""


def main() -> None:
    """Serve until stdin ends."""
    lines, answers = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    hello = json.loads(lines.readline())
    sys.path[:] = hello["path"]
    data, targets = Path(hello["data"]), hello["tools"]
    os.chdir(data)
    os.environ["ARBITER_TOOL_DATA"] = str(data)
    modules = [target.partition(":")[0] for names in targets.values() for target in names]
    fences = raise_fences(readable(modules, data), data, Path(os.environ["TMPDIR"]))
    _send(answers, {"fences": fences})
    functions: dict[str, Callable[..., Any]] = {}
    for line in iter(lines.readline, b""):
        call = json.loads(line)
        name = call["tool"]
        # The caller ends a call that takes too long; the alarm does if there is no caller any more.
        signal.setitimer(signal.ITIMER_REAL, call["seconds"] + 2)
        try:
            answer: dict[str, Any] = {}
            if "arguments" in call:
                allow_memory(call["megabytes"])
                answer["result"] = _json(name, functions[name](**call["arguments"]), call["result_bytes"])
            else:
                functions[name] = _find(*targets[name])
        except BaseException as error:
            answer = _failure(name, error, call["megabytes"])
        allow_memory(None)
        signal.setitimer(signal.ITIMER_REAL, 0)
        _send(answers, answer)


def _find(target: str, *imports: str) -> Callable[..., Any]:
    """The tool's function, and what it will import. What is not installed is for the tool to say."""
    module, _, name = target.partition(":")
    function = getattr(importlib.import_module(module), name)
    for needed in imports:
        with contextlib.suppress(ImportError):
            importlib.import_module(needed)
    return function


def _send(answers: Any, answer: dict[str, Any]) -> None:
    answers.write(json.dumps(answer).encode() + b"\n")
    answers.flush()


def _json(name: str, result: Any, limit: int) -> str:
    """`result` as JSON, arrays as lists."""
    try:
        text = json.dumps(result, allow_nan=False, ensure_ascii=False, default=_plain)
    except (TypeError, ValueError) as error:
        raise ArbiterError(
            f"{name} gave a result that is no JSON ({error}); its author must return plain data"
        ) from error
    size = len(text.encode())
    if size > limit:
        raise ArbiterError(f"{name} gave {size:,} bytes, {limit:,} are allowed; ask for less at a time")
    return text


def _plain(value: Any) -> Any:
    if hasattr(value, "tolist"):
        return value.tolist()
    raise TypeError(f"a {type(value).__name__}")


def _failure(name: str, error: BaseException, megabytes: int) -> dict[str, Any]:
    """One line that a model can act on; `retire` asks for a fresh process."""
    text = " ".join(str(error).split())[:500]
    if isinstance(error, MemoryError) or any(sign in text for sign in _NO_MEMORY):
        return {"error": f"{name} needs more than {megabytes:,} MB of memory; give it less at a time", "retire": True}
    if isinstance(error, RefusedError):
        return {"error": f"{name} was refused: {text}"}
    if isinstance(error, ArbiterError):
        return {"error": text if text.startswith(name) else f"{name}: {text}"}
    told = f"{type(error).__name__}: {text}" if text else type(error).__name__
    frames = traceback.extract_tb(error.__traceback__)[1:]  # the first is ours
    place = f" at {Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else ""
    ending = isinstance(error, SystemExit | KeyboardInterrupt)
    return {"error": f"{name} failed: {told}{place}; check the arguments", "retire": ending}


if __name__ == "__main__":
    main()
