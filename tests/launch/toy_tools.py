"""Tools for the tests: one that works, and one for everything that a tool may do wrong."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Literal

from launch.tools import data_path, tool


@tool(seconds=20)
def mix(
    numbers: list[float],
    times: int,
    mode: Literal["sum", "max"] = "sum",
    label: str | None = None,
    extra: dict[str, int] | None = None,
    deep: list[list[int]] | None = None,
    either: int | str = 0,
    flag: bool = False,
) -> dict[str, Any]:
    """Combine numbers. It has an argument of every kind.

    Args:
        numbers: What to combine.
        times: Multiplies the outcome.
        mode: How to combine.
        label: Is repeated.
        extra: Numbers by name,
            told over two lines.
        deep: A table of whole numbers.
        either: A number or a text.
        flag: Is repeated.

    Returns:
        value, in the unit of the numbers, and what else was given.
    """
    value = (sum if mode == "sum" else max)(numbers) * times
    return {
        "value": value,
        "times": times,
        "label": label,
        "extra": extra,
        "deep": deep,
        "either": either,
        "flag": flag,
    }


@tool(seconds=20)
def whoami() -> dict[str, Any]:
    """Say in which process this runs.

    Returns:
        pid, and environment, the names of its variables.
    """
    return {"pid": os.getpid(), "environment": sorted(os.environ), "folder": str(Path.cwd())}


@tool(imports=["numpy"], seconds=0.5, megabytes=100, result_bytes=1000)
def misbehave(how: str, what: str = "") -> Any:
    """Do something wrong.

    Args:
        how: What to do.
        what: A path or address to do it with.

    Returns:
        Nothing of use, in no unit.
    """
    return getattr(Misbehaviour, how)(what)


@tool(imports=["tests.launch.slow_to_import", "no_such_module"], seconds=0.5)
def slow_to_start() -> float:
    """Use a module whose import takes longer than a call may.

    Returns:
        How long the import took, in seconds.
    """
    from tests.launch.slow_to_import import SECONDS

    return SECONDS


class Misbehaviour:
    """What a tool should not do."""

    @staticmethod
    def fine(what: str) -> str:
        return "fine"

    @staticmethod
    def wait(what: str) -> str:
        time.sleep(float(what))
        return what

    @staticmethod
    def hang(what: str) -> None:
        time.sleep(60)

    @staticmethod
    def hang_deaf(what: str) -> None:
        """Deaf to Python's signals too: a lock that nobody gives back, within native code."""
        import threading

        lock = threading.Lock()
        lock.acquire()
        lock.acquire()

    @staticmethod
    def fill(what: str) -> int:
        return len([bytearray(10 * 2**20) for _ in range(50)])

    @staticmethod
    def fill_array(what: str) -> int:
        import numpy as np

        return int(np.ones(2**26).sum())

    @staticmethod
    def fail(what: str) -> None:
        raise ValueError("no such\nluck")

    @staticmethod
    def leave(what: str) -> None:
        sys.exit(3)

    @staticmethod
    def die(what: str) -> None:
        os.kill(os.getpid(), 9)

    @staticmethod
    def long(what: str) -> str:
        return "é" * 600

    @staticmethod
    def odd(what: str) -> Any:
        return {"s": {1, 2}}

    @staticmethod
    def not_a_number(what: str) -> float:
        return float("nan")

    @staticmethod
    def array(what: str) -> Any:
        import numpy as np

        return {"x": np.arange(3, dtype=np.float32), "n": np.int64(4)}

    @staticmethod
    def talk(what: str) -> str:
        print("to stdout")
        os.write(1, b"to fd 1\n")
        return "said"

    @staticmethod
    def read(what: str) -> str:
        return Path(what).read_text(encoding="utf-8")

    @staticmethod
    def read_natively(what: str) -> int:
        """By native code, of which Python's audit events know nothing."""
        from safetensors.numpy import safe_open  # type: ignore[attr-defined]

        with safe_open(what, framework="numpy") as file:
            return len(list(file.keys()))

    @staticmethod
    def look(what: str) -> int:
        return len(list(Path(what).iterdir()))

    @staticmethod
    def named(what: str) -> str:
        return data_path(what).read_text(encoding="utf-8")

    @staticmethod
    def write(what: str) -> int:
        return Path(what).write_text("x")

    @staticmethod
    def remove(what: str) -> None:
        Path(what).unlink()

    @staticmethod
    def scratch(what: str) -> str:
        import tempfile

        with tempfile.TemporaryDirectory() as folder:
            (Path(folder) / "a").write_text("kept for a moment")
            return (Path(folder) / "a").read_text(encoding="utf-8")

    @staticmethod
    def remove_folder(what: str) -> bool:
        """Made, filled and removed in scratch; rmtree names files relative to open folders."""
        import shutil
        import tempfile

        folder = Path(tempfile.mkdtemp())
        (folder / "a").write_text("kept for a moment")
        shutil.rmtree(folder)
        return folder.exists()

    @staticmethod
    def move_out(what: str) -> None:
        _in_scratch().rename(what)

    @staticmethod
    def link_out(what: str) -> None:
        Path(what).symlink_to(_in_scratch())

    @staticmethod
    def link_in(what: str) -> None:
        """Beside a symlink, a second name for what it leads to: the kernel follows it where an open folder is given."""
        link = _in_scratch().with_name("link")
        link.symlink_to(what)
        folder = os.open(link.parent, os.O_RDONLY)
        os.link("link", "name", src_dir_fd=folder, dst_dir_fd=folder)

    @staticmethod
    def change_through_a_link(what: str) -> None:
        link = _in_scratch().with_name("link")
        link.symlink_to(what)
        link.chmod(0o600)

    @staticmethod
    def path(what: str) -> list[str]:
        return sys.path

    @staticmethod
    def bring(what: str) -> str:
        import importlib

        return importlib.import_module(what).__name__

    @staticmethod
    def start(what: str) -> int:
        return subprocess.run(["true"], check=False).returncode

    @staticmethod
    def connect(what: str) -> None:
        host, port = what.split(":")
        socket.create_connection((host, int(port)), timeout=1).close()

    @staticmethod
    def connect_natively(what: str) -> int:
        """connect(2) through libc, past Python's audit events: its error number."""
        import ctypes
        import struct

        host, port = what.split(":")
        libc = ctypes.CDLL(None, use_errno=True)
        end = libc.socket(socket.AF_INET, socket.SOCK_STREAM, 0)
        address = struct.pack("=HH4s8x", socket.AF_INET, socket.htons(int(port)), socket.inet_aton(host))
        return 0 if libc.connect(end, address, len(address)) == 0 else ctypes.get_errno()

    @staticmethod
    def many_processes(what: str) -> list[int]:
        """joblib looks for a semaphore when it is imported, and would use processes if there were any."""
        import joblib

        return list(joblib.Parallel(n_jobs=2)(joblib.delayed(abs)(i) for i in range(3)))

    @staticmethod
    def unpickle(what: str) -> Any:
        import pickle

        return pickle.loads(b"cos\ngetcwd\n(tR.")  # noqa: S301 (refused before it does anything)


def _in_scratch() -> Path:
    """A file that a tool may have."""
    import tempfile

    file = Path(tempfile.mkdtemp()) / "a"
    file.write_text("mine")
    return file


def no_docstring(a: int) -> int:
    return a


def no_description(a: int) -> int:
    """Something.

    Returns:
        A number.
    """
    return a


def no_unit(a: int) -> int:
    """Something.

    Args:
        a: A number.
    """
    return a


def odd_type(a: Path) -> int:
    """Something.

    Args:
        a: A path.

    Returns:
        A number.
    """
    return len(str(a))
