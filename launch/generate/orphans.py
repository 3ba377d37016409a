"""Ending vLLM engines whose owner was killed.

A vLLM engine is two or more processes beside its owner. If the owner gets SIGKILL, they live on for many minutes and
keep their memory. So whoever starts an engine records who its processes are, from the first moment on and not only
once it is ready; the next run of the same job ends those that are left.

A process is known by pid, start time and command line together, so a recycled pid is never touched; engines whose
owner is still alive are never touched either.

    end_orphans("runs/run/engines")
"""

from __future__ import annotations

import json
import os
import threading
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType

import psutil

SECONDS_APART = 2.0
"""Start times are read from the boot time, which a clock correction can move a little."""
TITLE = "VLLM::"
"""vLLM renames its processes to VLLM::EngineCore, VLLM::Worker …"""
SERVER = "-m vllm."
"""How `launch.serve` starts a server, which keeps its command line."""


@dataclass(frozen=True)
class Identity:
    """Who a process is, beyond its pid."""

    pid: int
    started: float
    """Seconds since the epoch."""
    command: str

    @classmethod
    def of(cls, process: psutil.Process) -> Identity | None:
        """None if the process is gone, a zombie, or not ours to read."""
        try:
            command = " ".join(filter(None, process.cmdline()))
            return cls(process.pid, process.create_time(), command)
        except psutil.Error:
            return None

    def find(self) -> psutil.Process | None:
        """The live process that this is, or None. Renaming itself to a vLLM title is the one change allowed."""
        try:
            process = psutil.Process(self.pid)
        except psutil.Error:
            return None
        now = Identity.of(process)
        if now is None or abs(now.started - self.started) > SECONDS_APART:
            return None
        return process if now.command == self.command or now.command.startswith(TITLE) else None


class Watch:
    """Records the processes that start below this one while an engine comes up: `with Watch(folder) as watch`.

    Afterwards `watch.processes` holds the engine's processes and `watch.file` tells the next run about them.
    """

    def __init__(self, folder: str | Path, every: float = 0.1) -> None:
        self.folder = Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.file = self.folder / f"engine-{os.getpid()}-{threading.get_native_id()}.json"
        self.processes: list[Identity] = []
        self._every = every
        self._before: set[int] = set()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._follow, daemon=True)

    def __enter__(self) -> Watch:
        self._before = {child.pid for child in psutil.Process().children(recursive=True)}
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ready.set()
        self._thread.join()
        found = self._children()
        # What else the owner may have started meanwhile (data workers …) is not the engine's.
        engine = [who for who in found if who.command.startswith(TITLE) or SERVER in who.command]
        self._write(engine or found)

    def end(self) -> list[int]:
        """End the recorded processes that are still there and drop the record; returns the pids ended."""
        ended = _end([process for who in self.processes if (process := who.find()) is not None])
        self.file.unlink(missing_ok=True)
        return ended

    def _follow(self) -> None:
        while not self._ready.wait(self._every):
            found = self._children()
            if found != self.processes:
                self._write(found)

    def _children(self) -> list[Identity]:
        children = [c for c in psutil.Process().children(recursive=True) if c.pid not in self._before]
        return [who for child in children if (who := Identity.of(child)) is not None]

    def _write(self, processes: list[Identity]) -> None:
        self.processes = processes
        owner = Identity.of(psutil.Process())
        record = {"owner": asdict(owner) if owner else None, "processes": [asdict(who) for who in processes]}
        fresh = self.file.with_suffix(".part")
        fresh.write_text(json.dumps(record, indent=1))
        fresh.replace(self.file)


def end_orphans(folder: str | Path) -> list[int]:
    """End the engines recorded in `folder` whose owner is gone; returns the pids ended.

    Does nothing about engines of a living owner, of other folders, or of owners on other machines (pids are local:
    keep one folder per machine).
    """
    ended: list[int] = []
    for file in sorted(Path(folder).glob("engine-*.json")):
        record = json.loads(file.read_text())
        if record["owner"] is not None and Identity(**record["owner"]).find() is not None:
            continue
        recorded = [Identity(**who).find() for who in record["processes"]]
        ended += _end([process for process in recorded if process is not None])
        file.unlink()
    return ended


def _end(processes: list[psutil.Process], grace: float = 5.0) -> list[int]:
    """Terminate processes and all below them, kill what is left after `grace` seconds."""
    family: dict[int, psutil.Process] = {}
    for process in processes:
        try:
            family.update({p.pid: p for p in [process, *process.children(recursive=True)]})
        except psutil.NoSuchProcess:
            continue
    for send in ("terminate", "kill"):
        for process in family.values():
            try:
                getattr(process, send)()  # psutil itself refuses a pid that was recycled since
            except psutil.NoSuchProcess:
                continue
        _, left = psutil.wait_procs(list(family.values()), timeout=grace)
        if not left:
            break
    return sorted(family)
