"""Fits that end themselves with SIGKILL at a chosen instant, in forked children of one process.

``python -m tests.launch.killed_fit FOLDER`` imports the trainer once, then for every case forks children that run the
toy fit in FOLDER/CASE until one ends by itself, and prints ``{"case": [exit codes]}``.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from tests.launch.forked import before_forks, in_child

# Each case is the list of instants at which successive runs are killed; the run after the last one is left alone.
CASES: dict[str, list[tuple[str, int]]] = {
    "never": [],
    "in the forward pass of step 3, second micro-step": [("loss", 6)],
    "before any checkpoint, then in the first step of epoch 2": [("loss", 2), ("loss", 13)],
    "while files of a checkpoint are flushed": [("fsync", 3)],
    "when all is flushed, before the rename": [("rename", 1)],
    "just after the rename, before the old ones go": [("renamed", 2)],
    "while an old checkpoint is removed": [("rmtree", 1)],
    "twice in checkpoints and once at an epoch's last step": [("fsync", 20), ("rename", 1), ("loss", 12)],
    "while the final model is written": [("rename", -1)],
}
FIT: dict[str, Any] = {"batch_size": 4, "accumulation": 2, "dropout": 0.2, "log_steps": 3}
FINAL_FOLDER = "final"


def die_at(kind: str, number: int) -> None:
    """Kill this process at the `number`-th event of a kind (-1: the rename that puts the final folder in place)."""
    import shutil

    from tests.launch.toy import NextToken

    seen = {"count": 0}

    def struck(path: Any = None) -> bool:
        seen["count"] += 1
        if number == -1:
            return path is not None and Path(path).name == FINAL_FOLDER
        return seen["count"] == number

    def die() -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    def before(original: Callable[..., Any], path_at: int | None = None) -> Callable[..., Any]:
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            if struck(args[path_at] if path_at is not None else None):
                die()
            return original(*args, **kwargs)

        return wrapped

    if kind == "loss":
        NextToken.loss = before(NextToken.loss)  # type: ignore[method-assign]
    elif kind == "fsync":
        os.fsync = before(os.fsync)
    elif kind == "rmtree":
        original = shutil.rmtree

        def half(path: Any, *args: Any, **kwargs: Any) -> Any:
            if ".removing-" in str(path) and Path(path).exists() and struck():
                next(f for f in Path(path).iterdir() if f.is_file()).unlink()
                die()
            return original(path, *args, **kwargs)

        shutil.rmtree = half  # type: ignore[assignment]
    elif kind == "rename":
        Path.rename = before(Path.rename, 1)  # type: ignore[method-assign]
    else:
        moved = Path.rename

        def after(self: Path, target: Any) -> Any:
            result = moved(self, target)
            if struck():
                die()
            return result

        Path.rename = after  # type: ignore[method-assign]


def fit(folder: Path, instant: tuple[str, int] | None) -> None:
    """The toy fit, which dies at `instant`."""
    from tests.launch.toy import fit_toy

    if instant is not None:
        die_at(*instant)
    fit_toy(folder, **FIT)


def main(folder: Path) -> None:
    import launch.trainer  # noqa: F401 (imported once, before the forks)

    before_forks()

    print(
        json.dumps(
            {
                case: [
                    in_child(partial(fit, folder / case.replace(" ", "_"), instant)) for instant in [*instants, None]
                ]
                for case, instants in CASES.items()
            }
        )
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]))
