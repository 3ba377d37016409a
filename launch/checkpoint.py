"""Checkpoint folders that are there whole or not at all.

A folder is built beside its place under a temporary name, every file and folder is flushed to the disk, a manifest
with size and sha256 of each file is added, and only then it is renamed. A reader verifies the manifest before it
trusts anything. So a kill at any instant leaves the folders before it as they were, and a folder that the disk or a
copy spoilt later is found out and passed over.

Left out: writing in the background. It would hide the seconds, but then "the checkpoint of step 100 is there" would
no longer follow from "step 101 is running".
"""

from __future__ import annotations

import errno
import json
import logging
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from launch import manifest
from launch.errors import CheckpointError
from launch.runfolder import sync_path, sync_tree

MANIFEST = "manifest.json"
FACTS = "fit.json"
"""What the folder was made from: examples, options, seed; a final folder adds its metrics."""
FINAL = "final"
_STEP = "step-"
_WRITING = ".writing-"
_REMOVING = ".removing-"
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)

logger = logging.getLogger(__name__)


def step_folder(parent: Path, step: int) -> Path:
    """Where the checkpoint of an optimiser step lives."""
    return parent / f"{_STEP}{step:08d}"


def step_folders(parent: Path) -> list[Path]:
    """The checkpoints of optimiser steps, newest first, good or bad."""
    return sorted((f for f in parent.glob(f"{_STEP}*") if f.is_dir()), reverse=True)


@contextmanager
def writing(target: Path, needed: int = 0, begun: Path | None = None) -> Iterator[Path]:
    """Give a temporary folder to fill; it becomes `target` when the block ends without an error.

    Args:
        target: the folder that shall appear.
        needed: bytes that will be written, as far as known; compared with the free space first.
        begun: the temporary folder, if `begin` was called before (several ranks fill it).

    Raises:
        CheckpointError: the disk is full or the folder cannot be written; nothing that was there is touched.
    """
    from safetensors import SafetensorError

    temporary = begun or begin(target, needed)
    try:
        yield temporary
        finish(temporary, target)
    except (OSError, RuntimeError, SafetensorError) as error:
        shutil.rmtree(temporary, ignore_errors=True)
        raise _explained(error, target, needed) from error
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def begin(target: Path, needed: int = 0) -> Path:
    """The first half of `writing`: make the temporary folder, if the disk has room for `needed` bytes."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        if shutil.disk_usage(target.parent).free < needed:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        temporary = target.with_name(f"{_WRITING}{target.name}")
        if temporary.exists():
            shutil.rmtree(temporary)
        temporary.mkdir()
    except OSError as error:
        raise _explained(error, target, needed) from error
    return temporary


def finish(temporary: Path, target: Path) -> None:
    """The second half of `writing`: manifest, flush, rename."""
    manifest.write_manifest(temporary, MANIFEST)
    sync_tree(temporary)
    if target.exists():
        _remove(target)
    temporary.rename(target)
    sync_path(target.parent)


def problem(folder: Path) -> str | None:
    """What is wrong with a checkpoint folder, in a few words; None if it is exactly as it was written."""
    return manifest.problem(folder, MANIFEST)


def latest(parent: Path) -> Path | None:
    """The newest checkpoint that is whole; bad ones are passed over, each with one warning line."""
    for folder in step_folders(parent):
        wrong = problem(folder)
        if wrong is None:
            return folder
        logger.warning("checkpoint %s is passed over: %s", folder, wrong)
    return None


def finished(parent: Path) -> Path | None:
    """The final folder of a fit that ended, if it is whole."""
    folder = parent / FINAL
    if not folder.is_dir():
        return None
    wrong = problem(folder)
    if wrong is None:
        return folder
    logger.warning("final model %s is passed over: %s", folder, wrong)
    return None


def sweep(parent: Path) -> None:
    """Remove what killed writes and removals left behind."""
    for left in [*parent.glob(f"{_WRITING}*"), *parent.glob(f"{_REMOVING}*")]:
        shutil.rmtree(left, ignore_errors=True)


def rotate(parent: Path, keep: int, newest: Path) -> None:
    """Remove all but the `keep` newest checkpoints up to `newest`, which is already in its place.

    A checkpoint newer than `newest` was passed over as spoilt when the run resumed; it goes too.
    """
    folders = step_folders(parent)
    for folder in [f for f in folders if f.name > newest.name]:
        _remove(folder)
    for folder in [f for f in folders if f.name <= newest.name][max(keep, 1) :]:
        _remove(folder)


def read_facts(folder: Path) -> dict[str, Any]:
    """What a checkpoint says it was made from."""
    facts: dict[str, Any] = json.loads((folder / FACTS).read_text())
    return facts


def _remove(folder: Path) -> None:
    """Rename first: a kill half-way through leaves no checkpoint that looks spoilt."""
    away = folder.with_name(f"{_REMOVING}{folder.name}")
    shutil.rmtree(away, ignore_errors=True)
    folder.rename(away)
    shutil.rmtree(away)


def _explained(error: Exception, target: Path, needed: int) -> CheckpointError:
    """One line for a failed write. torch and safetensors wrap the system's error in a RuntimeError of their own."""
    kept = [f.name for f in step_folders(target.parent)] if target.parent.is_dir() else []
    safe = f"kept: {', '.join(kept)}" if kept else "no earlier checkpoint exists"
    number = error.errno if isinstance(error, OSError) else None
    full = number in _FULL or "No space left" in str(error) or "File too large" in str(error)
    if full:
        free = shutil.disk_usage(target.parent).free
        want = f"about {needed:,} bytes" if needed else "more bytes"
        return CheckpointError(
            f"no room for checkpoint {target}: it needs {want}, {free:,} are free; {safe}; "
            "free some space and run the same command again"
        )
    reason = (str(error).strip() or type(error).__name__).splitlines()[0]
    return CheckpointError(f"cannot write checkpoint {target}: {reason}; {safe}")
