"""What a folder was when it was written: size and sha256 of each file, to be compared before anything is trusted."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

STAGE_MANIFEST = ".stage.json"
"""Written into a stage of a run; it describes the content and is none, so `file_hash` passes it over."""


def file_hash(path: Path) -> str:
    """sha256 of a file, or of a folder's files with their names."""
    digest = hashlib.sha256()
    for file in [path] if path.is_file() else sorted(f for f in path.rglob("*") if f.is_file()):
        if file.name == STAGE_MANIFEST:
            continue
        if file != path:
            digest.update(str(file.relative_to(path)).encode())
        with file.open("rb") as data:
            while block := data.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


def write_manifest(folder: Path, name: str) -> None:
    """Describe all files of `folder` in its file `name`. Not flushed: the caller flushes the whole folder."""
    files = sorted(f for f in folder.rglob("*") if f.is_file())
    facts = {str(f.relative_to(folder)): {"bytes": f.stat().st_size, "sha256": file_hash(f)} for f in files}
    (folder / name).write_text(json.dumps(facts, indent=1))


def problem(folder: Path, name: str) -> str | None:
    """What is wrong with `folder` by its manifest `name`, in a few words; None if it is exactly as it was written."""
    manifest = folder / name
    if not manifest.is_file():
        return f"{name} is missing"
    try:
        expected: dict[str, dict[str, int | str]] = json.loads(manifest.read_text())
    except (json.JSONDecodeError, UnicodeDecodeError):
        return f"{name} is broken"
    for below, facts in expected.items():
        file = folder / below
        if not file.is_file():
            return f"{below} is missing"
        if file.stat().st_size != facts["bytes"]:
            return f"{below} has {file.stat().st_size} of {facts['bytes']} bytes"
        if file_hash(file) != facts["sha256"]:
            return f"{below} does not have the content that was written"
    return None
