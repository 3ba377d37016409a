"""What a tool's process may do: read its data folder and the installed libraries, write a scratch folder, and compute.

Three fences, each told by `raise_fences` if it stands:

    audit        Python's own events (open, socket, subprocess, pickle …) are refused with a line that says why.
                 Stands everywhere; binds Python code, not native code that opens files by itself.
    landlock     the kernel refuses files outside of the same list, native code included, and TCP (Linux 5.13, TCP 6.7).
    no network   the process lives in a network namespace without any interface (where the kernel lets users make one).

They hold what a model may ask of a tool by its arguments. They are no prison for a tool that was written to break out:
a tool is code that somebody installed, and runs with that person's rights until the fences stand.

Left out: macOS and Windows have the first fence only; GPUs (their device files are outside of the list).
"""

from __future__ import annotations

import ctypes
import importlib.util
import os
import resource
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

_MACHINE = ("/proc/self", "/proc/cpuinfo", "/proc/meminfo", "/proc/sys", "/sys/devices/system", "/sys/fs/cgroup",
            "/dev/null", "/dev/urandom", "/etc/localtime", "/etc/ld.so.cache", "/usr/share/zoneinfo",
            "/lib", "/lib64", "/usr/lib", "/usr/lib64", "/usr/local/lib")  # fmt: skip
"""What libraries read of the machine itself."""
_LARGEST_FILE = 64 * 2**20
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_CHANGING: dict[str, tuple[tuple[int, int | None, bool], ...]] = {
    "os.remove": ((0, 1, False),),
    "os.rmdir": ((0, 1, False),),
    "os.mkdir": ((0, 2, False),),
    "os.chmod": ((0, 2, True),),
    "os.chown": ((0, 3, True),),
    "os.truncate": ((0, None, True),),
    "os.rename": ((0, 2, False), (1, 3, False)),
    "os.link": ((0, 2, True), (1, 3, False)),
    "os.symlink": ((1, 2, False),),  # what a link names is no change; who opens it is asked then
}
"""Events, and of each path that changes: its place in the arguments, that of the folder that it is relative to, and
whether a link in its last part is followed.
"""
_STARTING = frozenset(
    ("subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.spawn", "os.fork", "os.forkpty", "pty.spawn")
)
_NETWORK = frozenset(
    ("socket.connect", "socket.bind", "socket.sendto", "socket.sendmsg", "socket.getaddrinfo", "socket.gethostbyname")
)


class RefusedError(PermissionError):
    """A fence's line. A PermissionError, so that libraries treat it as the refusal that it is."""


def readable(modules: Iterable[str], data: Path) -> list[Path]:
    """What may be read: the data folder, Python and its libraries, the packages of these modules, and `_MACHINE`."""
    roots = [data, *map(Path, (sys.prefix, sys.base_prefix, sys.exec_prefix, *_MACHINE))]
    for name in {"launch", *(module.partition(".")[0] for module in modules)}:
        spec = importlib.util.find_spec(name)
        if spec and spec.submodule_search_locations is None and spec.has_location:
            roots.append(Path(str(spec.origin)))  # a module that is one file; what lies beside it stays out of reach
        for place in map(Path, (spec and spec.submodule_search_locations) or ()):
            # and the packages beside it, which it may import; never what else lies there
            roots += [place, *(beside for beside in place.parent.iterdir() if (beside / "__init__.py").is_file())]
    return list(dict.fromkeys(root.resolve() for root in roots if root.exists()))


def raise_fences(roots: list[Path], data: Path, scratch: Path) -> list[str]:
    """Raise what this machine has, for the rest of this process's life. Call it before any thread is started.

    Args:
        roots: from `readable`.
        data: named in the refusals.
        scratch: a folder for temporary files, the only one that may be written.

    Returns:
        The fences that stand.
    """
    standing = []
    if _leave_network():
        standing.append("no network")
    if _landlock(roots, scratch):
        standing.append("landlock")
    _audit([*roots, scratch], data, scratch)
    resource.setrlimit(resource.RLIMIT_FSIZE, (_LARGEST_FILE, _LARGEST_FILE))
    return [*standing, "audit"]


# ---------------------------------------------------------------- audit


def _audit(roots: list[Path], data: Path, scratch: Path) -> None:
    own = f"{scratch}{os.sep}"
    prefixes = tuple(f"{root}{os.sep}" for root in roots)
    exact = frozenset(map(str, roots))

    def refuse(what: str) -> None:
        raise RefusedError(f"a tool may not {what}")

    def reading(path: Any, flags: int = 0) -> None:
        if path is None or isinstance(path, int):  # an open file, or os.listdir() of where we are: the data folder
            return
        real = os.path.realpath(os.fsdecode(path))
        if real == os.devnull or real.startswith(own):
            return
        if flags & _WRITING:
            refuse(f"write {os.fsdecode(path)}")
        if real not in exact and not real.startswith(prefixes):
            refuse(f"read {os.fsdecode(path)}: only what lies below {data}")

    def watch(event: str, args: tuple[Any, ...]) -> None:
        if event == "open":
            reading(args[0], args[2] if isinstance(args[2], int) else 0)
        elif event in ("os.listdir", "os.scandir", "os.chdir"):
            reading(args[0])
        elif event in _CHANGING:
            for path, folder, following in _CHANGING[event]:
                real = _changed(args[path], -1 if folder is None else args[folder], following)
                if not real.startswith(own):
                    refuse(f"change {args[path]} ({event})")
        elif event in _NETWORK:
            refuse(f"reach the network ({event})")
        elif event in _STARTING:
            refuse(f"start a process ({event})")
        elif event == "pickle.find_class":
            refuse(f"unpickle ({args[0]}.{args[1]}): pickled data can run any code; use safetensors or JSON")

    sys.addaudithook(watch)


def _changed(path: Any, folder: int, following: bool) -> str:
    """The real place of what a change changes: an open file, or a name, from an open folder where there is one (not
    -1). A link in the last place is followed or is itself what changes.
    """
    if isinstance(path, int):
        return os.path.realpath(f"/proc/self/fd/{path}")
    name = os.fsdecode(path)
    if folder >= 0:
        name = os.path.join(f"/proc/self/fd/{folder}", name)  # noqa: PTH118 (an absolute name stays what it is)
    above, last = os.path.split(name)
    return os.path.realpath(name) if following else os.path.join(os.path.realpath(above), last)  # noqa: PTH118


# ---------------------------------------------------------------- the kernel's fences

_CREATE, _ADD, _RESTRICT = 444, 445, 446  # system calls; their numbers are the same on every architecture
_NO_NEW_PRIVILEGES = 38
_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR = 1, 2, 4, 8
_FS_BITS = {1: 13, 2: 14, 3: 15, 4: 15}
"""File rights that each version of Landlock knows; from version 5 on there are 16."""
_TCP = 3
_NEW_USER_AND_NET = 0x10000000 | 0x40000000


class _Ruleset(ctypes.Structure):
    _fields_ = (("fs", ctypes.c_uint64), ("net", ctypes.c_uint64))


class _Beneath(ctypes.Structure):
    _pack_ = 1
    _layout_ = "ms"
    _fields_ = (("allowed", ctypes.c_uint64), ("parent", ctypes.c_int32))


def _libc() -> Any:
    return ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None


def _leave_network() -> bool:
    """Whether this process now has a network namespace of its own, in which nothing is up."""
    libc = _libc()
    return libc is not None and libc.unshare(_NEW_USER_AND_NET) == 0


def _landlock(roots: list[Path], scratch: Path) -> bool:
    """Whether the kernel now refuses everything but reading below `roots` and writing below `scratch`."""
    libc = _libc()
    version = -1 if libc is None else libc.syscall(_CREATE, None, ctypes.c_size_t(0), ctypes.c_uint32(1))
    if version < 1:
        return False
    handled = _Ruleset((1 << _FS_BITS.get(version, 16)) - 1, _TCP if version >= 4 else 0)
    size = ctypes.c_size_t(16 if version >= 4 else 8)
    rules = libc.syscall(_CREATE, ctypes.byref(handled), size, ctypes.c_uint32(0))
    if rules < 0:
        return False
    try:
        for root in [*roots, scratch]:
            rights = _EXECUTE | _READ_FILE | (_READ_DIR if root.is_dir() else 0)
            rights |= _WRITE_FILE if str(root) == os.devnull else 0
            rights = handled.fs if root == scratch else rights
            parent = os.open(root, os.O_PATH | os.O_CLOEXEC)
            try:
                beneath = _Beneath(rights, parent)
                if libc.syscall(_ADD, rules, 1, ctypes.byref(beneath), ctypes.c_uint32(0)) != 0:
                    return False
            finally:
                os.close(parent)
        libc.prctl(_NO_NEW_PRIVILEGES, 1, 0, 0, 0)
        return libc.syscall(_RESTRICT, rules, ctypes.c_uint32(0)) == 0
    finally:
        os.close(rules)


# ---------------------------------------------------------------- memory


def allow_memory(megabytes: int | None) -> None:
    """Let this process take `megabytes` more than it has now, None: as much as there is.

    The limit is RLIMIT_DATA: private memory that can be written, which is what arrays and lists are. Beyond it an
    allocation fails at once. Memory that is shared or mapped from a file does not count.
    """
    hard = resource.getrlimit(resource.RLIMIT_DATA)[1]
    resource.setrlimit(resource.RLIMIT_DATA, (hard if megabytes is None else _data_size() + megabytes * 2**20, hard))


def _data_size() -> int:
    """Bytes of VmData; 0 where there is no /proc."""
    try:
        with open("/proc/self/statm", "rb") as file:  # noqa: PTH123 (called twice a tool call: no Path is made)
            return int(file.read().split()[5]) * resource.getpagesize()
    except OSError:
        return 0
