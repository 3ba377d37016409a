"""Running tools: processes that stay, a limit on time and memory for each call, and one line for whatever goes wrong.

    with Pool(available(), data="runs") as pool:
        pool.call("nash_mixture", {"win_probability": [[0.5, 0.9], [0.1, 0.5]]})   # '{"result": …, "unit": …}'
        trainer = GRPOTrainer(..., tools=pool.functions())                          # TRL

A call costs a line of JSON each way, well under a millisecond. A process that took too long, took too much memory or
died is replaced at the next call; the pool stays up. Calls may come from many threads: each waits for a free process.
"""

from __future__ import annotations

import functools
import importlib
import json
import os
import queue
import select
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from launch.errors import ConfigError
from launch.tools import Limits, ToolError, ToolSpec, choose, parse_arguments

_KEPT = ("PATH", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "VIRTUAL_ENV", "TZ", "OMP_NUM_THREADS", "MKL_NUM_THREADS")
"""Environment variables that reach a tool. No others do: they may hold keys."""
_START_SECONDS = 60.0
"""For a process to start, and for it to import what a tool needs."""
_CLOSE_SECONDS = 5.0
"""That calls have to end in once their processes are killed."""
_CLOSED = "this pool of tools is closed; make another one"


class Pool:
    """Processes for tools.

    Args:
        tools: by name.
        data: the folder that tools may read.
        workers: processes, each of which runs any tool, one call at a time. They start when first needed.

    Raises:
        ConfigError: no such folder, or no worker.
    """

    def __init__(self, tools: Mapping[str, ToolSpec], data: str | Path, workers: int = 2) -> None:
        self.tools, self.data = dict(tools), Path(data).resolve()
        if not self.data.is_dir():
            raise ConfigError(f"data folder {data} is not there; make it, or name another one")
        if workers < 1:
            raise ConfigError(f"workers {workers}: use 1 or more")
        self._free: queue.LifoQueue[_Worker] = queue.LifoQueue()
        self._all = [_Worker(self.tools, self.data) for _ in range(workers)]
        for worker in self._all:
            self._free.put(worker)

    def __len__(self) -> int:
        """How many calls run at once."""
        return len(self._all)

    def call(self, name: str, arguments: Any) -> str:
        """The result as JSON: ``{"result": …, "unit": "…"}``.

        Raises:
            ToolError: no such tool, arguments that do not fit, a limit that was passed, or the tool's own complaint.
            ConfigError: the pool is closed.
        """
        spec: ToolSpec = choose(self.tools, name)
        fitting = spec.check(arguments)
        with self._free_worker() as worker:
            result = worker.call(name, fitting, spec.limits)
        return f'{{"result": {result}, "unit": {json.dumps(spec.unit, ensure_ascii=False)}}}'

    def answer(self, name: str, arguments: Any) -> tuple[str, bool]:
        """`call` as text for a model, and whether it went well; `arguments` may be JSON text. Raises only
        where there is nobody to ask: ConfigError for a closed pool.
        """
        try:
            given = parse_arguments(arguments) if isinstance(arguments, str) else arguments
            return self.call(name, given), True
        except ToolError as error:
            return json.dumps({"error": str(error)}, ensure_ascii=False), False

    def functions(self, raising: bool = True) -> list[Callable[..., str]]:
        """The tools as functions with their own signatures and docstrings, for ``tools=`` of TRL's trainers.

        Args:
            raising: whether a failed call raises ToolError; False gives its line as JSON, as `answer` does, so that a
                model reads the same in training as in use (TRL spells what is raised in its own way).
        """
        return [self._function(spec, raising) for spec in self.tools.values()]

    def _function(self, spec: ToolSpec, raising: bool) -> Callable[..., str]:
        module, _, name = spec.target.partition(":")

        @functools.wraps(getattr(importlib.import_module(module), name))
        def run(**arguments: Any) -> str:
            return self.call(spec.name, arguments) if raising else self.answer(spec.name, arguments)[0]

        return run

    def fences(self) -> list[str]:
        """What holds the tools on this machine; see `launch.tools_guard`."""
        with self._free_worker() as worker:
            return worker.fences()

    @contextmanager
    def _free_worker(self) -> Iterator[_Worker]:
        """A process that does nothing else meanwhile. One that is left in the middle of a call (Ctrl-C) is ended: its
        answer must not be taken for that of the next call.
        """
        worker = self._free.get()
        try:
            yield worker
        except ToolError:
            raise
        except BaseException:
            worker.end()
            raise
        finally:
            self._free.put(worker)

    def close(self) -> None:
        """End the processes; calls are refused from here on, and those that run are told so."""
        for worker in self._all:
            worker.close()
        returned = []
        with suppress(queue.Empty):  # only if this thread itself is in the middle of a call
            returned = [self._free.get(timeout=_CLOSE_SECONDS) for _ in self._all]
        for worker in self._all:
            worker.end()
        for worker in returned:
            self._free.put(worker)

    def __enter__(self) -> Pool:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


class _Worker:
    """One process of `launch.tools_worker`, or the place for one."""

    def __init__(self, tools: Mapping[str, ToolSpec], data: Path) -> None:
        known = {name: [spec.target, *spec.imports] for name, spec in tools.items()}
        self._hello: dict[str, Any] = {"tools": known, "data": str(data)}
        self._ready: set[str] = set()
        """Tools whose modules the process has imported."""
        self._process: subprocess.Popen[bytes] | None = None
        self._left = b""
        self._fences: list[str] = []
        self._scratch: tempfile.TemporaryDirectory[str] | None = None
        self._lock, self._closed = threading.RLock(), False  # a pool may be closed while a call starts the process

    def fences(self) -> list[str]:
        self._running()
        return self._fences

    def call(self, name: str, arguments: dict[str, Any], limits: Limits) -> str:
        """The result as JSON text."""
        process, request = self._running(), {"tool": name, **vars(limits)}
        if name not in self._ready:
            self._answered(process, {**request, "seconds": _START_SECONDS}, " for its imports", "try again")
            self._ready.add(name)
        return self._answered(process, {**request, "arguments": arguments}, "", "give it less at a time")["result"]

    def _answered(
        self, process: subprocess.Popen[bytes], request: dict[str, Any], work: str, remedy: str
    ) -> dict[str, Any]:
        """What the process answers, if that is no complaint."""
        name, seconds = request["tool"], request["seconds"]
        try:
            answer = self._ask(process, request, seconds)
        except TimeoutError as error:
            self.end()
            raise ToolError(f"{name} took longer than {seconds:g} s{work} and was ended; {remedy}") from error
        except (EOFError, BrokenPipeError) as error:
            code = process.wait()
            self.end()
            if self._closed:
                raise ConfigError(_CLOSED) from error
            ended = f"signal {-code}" if code < 0 else f"code {code}"
            raise ToolError(
                f"{name} ended its process ({ended}); give it less at a time, or other arguments"
            ) from error
        if answer.get("retire"):
            self.end()
        if "error" in answer:
            raise ToolError(answer["error"])
        return answer

    def end(self) -> None:
        """End the process; the next call starts another one."""
        with self._lock:
            process, self._process = self._process, None
            if process is not None:
                process.kill()
                process.wait()
                for pipe in (process.stdin, process.stdout):
                    if pipe is not None:
                        pipe.close()
            if self._scratch is not None:
                self._scratch.cleanup()

    def close(self) -> None:
        """Kill the process and start no other; the call that may be waiting for it cleans up."""
        with self._lock:
            self._closed = True
            if self._process is not None:
                self._process.kill()

    def _running(self) -> subprocess.Popen[bytes]:
        with self._lock:
            if self._closed:
                raise ConfigError(_CLOSED)
            if self._process is not None and self._process.poll() is None:
                return self._process
            return self._started()

    def _started(self) -> subprocess.Popen[bytes]:
        self.end()
        self._left, self._ready = b"", set()
        self._scratch = tempfile.TemporaryDirectory(prefix="arbiter-tool-")
        kept = {name: os.environ[name] for name in _KEPT if name in os.environ}
        scratch = str(Path(self._scratch.name).resolve())
        places = self._path()
        kept |= {"TMPDIR": scratch, "HOME": scratch, "PYTHONPATH": os.pathsep.join(places)}
        # Nothing is looked for elsewhere; GPUs and the semaphores of process pools are fenced off.
        kept |= {"HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": "", "JOBLIB_MULTIPROCESSING": "0"}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "launch.tools_worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=kept,
            bufsize=0,
            start_new_session=True,  # Ctrl-C is for the caller, who ends the process
        )
        try:
            self._fences = self._ask(self._process, {**self._hello, "path": places}, _START_SECONDS)["fences"]
        except (TimeoutError, EOFError, BrokenPipeError) as error:
            self.end()
            raise ToolError("the tools' process did not start; see what it wrote to stderr") from error
        return self._process

    def _path(self) -> list[str]:
        """`sys.path` for the process. "" is where the caller stands, and the process stands in the data folder, from
        which no code may come. Entries that are no files are those of import hooks, and stay as they are.
        """
        places = [str(Path(place).absolute()) if Path(place).exists() else place for place in sys.path if place]
        here, data = Path.cwd().resolve(), Path(self._hello["data"])
        return places if "" not in sys.path or here.is_relative_to(data) else [str(here), *places]

    def _ask(self, process: subprocess.Popen[bytes], request: dict[str, Any], seconds: float) -> dict[str, Any]:
        """Send a line and wait for one."""
        assert process.stdin is not None and process.stdout is not None
        until = time.monotonic() + seconds
        process.stdin.write(json.dumps(request).encode() + b"\n")
        source, answered = process.stdout.fileno(), select.poll()
        answered.register(source, select.POLLIN)
        parts = [self._left]
        while b"\n" not in parts[-1]:
            if not answered.poll(1000 * max(0.0, until - time.monotonic())):
                raise TimeoutError
            part = os.read(source, 1 << 16)
            if not part:
                raise EOFError
            parts.append(part)
        line, _, self._left = b"".join(parts).partition(b"\n")
        return json.loads(line)
