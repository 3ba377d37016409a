"""Dealing a stage's prompts out to ranks chunk by chunk, waiting for each other, and putting the results in order."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from launch import runtime


@contextmanager
def ending_together(folder: Path, every: float = 0.5) -> Iterator[None]:
    """Leave the block when every rank has left it, successful or not; marks are kept in `folder`.

    A collective would do, were it not that process groups give up after 30 minutes and an engine of the main process
    may sample for hours. A rank that is killed leaves no mark: its launcher ends the others, as it always does.
    """
    marks = [folder / f"ended-{rank}" for rank in range(runtime.world_size())]
    marks[runtime.rank()].unlink(missing_ok=True)  # of an earlier try
    runtime.barrier()
    try:
        yield
    finally:
        marks[runtime.rank()].touch()
    while not all(mark.exists() for mark in marks):
        time.sleep(every)


def collect(by_rank: Sequence[Sequence[Any]], chunk: int, ranks: int) -> list[Any]:
    """Undo the dealing: chunk i is the (i // ranks)-th of rank i % ranks."""
    total = sum(len(part) for part in by_rank)
    out: list[Any] = []
    i = 0
    while len(out) < total:
        part = by_rank[i % ranks]
        start = i // ranks * chunk
        out += part[start : start + chunk]
        i += 1
    return out
