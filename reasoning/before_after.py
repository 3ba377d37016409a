"""A policy measured before and after its training: once, by the main process, and kept as a stage of the run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

SHOWN = 12
"""Held-out prompts whose answers are kept as samples."""


def measured_once(
    run: Any,
    name: str,
    policy: str | Path,
    base: str | Path,
    rows: list[dict[str, Any]],
    settings: dict[str, Any],
    measure: Callable[[], tuple[dict[str, float], list[dict[str, Any]]]],
    what: str = "answers",
) -> dict[str, float]:
    """The numbers that `measure` finds, or found in an earlier start of the run; its samples go to the report.

    Every process must call it.

    Args:
        run: an open run folder.
        name: "before" or "after".
        policy: its files, `base`'s (which adapters stand on) and `rows` decide with `settings` whether numbers are
            still those.
        settings: JSON-ready; all else that the numbers depend on.
        measure: called by the main process alone, and only if it has to be.
        what: is timed, for the table of timings.
    """
    from align.selfplay.inputs import policy_identity
    from launch import runtime
    from launch.runfolder import content_hash, write_json

    key = {"policy": policy_identity(policy), "base": policy_identity(base), "rows": content_hash(rows)}
    stage = run.stage(f"measured-{name}", {**key, **settings})
    if runtime.is_main() and not stage.done:
        with run.timing(f"{what} {name}"), stage.write() as folder:
            numbers, samples = measure()
            write_json(folder / "numbers.json", numbers)
            write_json(folder / "samples.json", samples[:SHOWN])
    runtime.barrier()
    run.samples(f"{'0' if name == 'before' else '1'}-{name}", stage.read_json("samples"))
    found: dict[str, float] = stage.read_json("numbers")
    return found
