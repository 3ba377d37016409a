"""Reference log-probabilities kept by content, so that no frozen policy reads the same tokens twice.

A value belongs to a policy (the fingerprint of its files), the limits that sequences are cut to, the arithmetic, and
the token ids of a prompt with its K answers; to nothing else. Runs that share a folder therefore share values: another
loss, schedule or mode on the same samples finds them all, and trains without a reference pass. One changed token, or a
policy with one changed weight, finds nothing.

    FOLDER/POLICY-AND-LIMITS/CONTENT.jsonl      {"key": of prompt and answers, "logprobs": [K] nats}

Files appear whole and are never changed, so any number of runs may read and write at once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from launch.runfolder import content_hash, read_rows, write_rows

Row = Mapping[str, Any]


def row_key(row: Row) -> str:
    """Of a row's token ids alone: prompt and all K answers, in order."""
    return content_hash([row["prompt_ids"], row["response_ids"]])


def rows_key(rows: Sequence[Row]) -> str:
    """Of the token ids of all rows, in order."""
    return content_hash([row_key(row) for row in rows])


class ReferenceCache:
    """Values of one policy under one set of limits.

    Args:
        folder: shared by whatever runs should share values; made when first written.
        made_by: JSON-ready; all that a value depends on beside token ids.
    """

    def __init__(self, folder: str | Path, made_by: Mapping[str, Any]) -> None:
        self.folder = Path(folder).expanduser() / content_hash(dict(made_by))[:32]

    def find(self, rows: Sequence[Row]) -> list[list[float] | None]:
        """Each row's K values, or None where they are not known."""
        known: dict[str, list[float]] = {}
        for file in sorted(self.folder.glob("*.jsonl")):
            known.update({entry["key"]: entry["logprobs"] for entry in read_rows(file)})
        return [known.get(row_key(row)) for row in rows]

    def keep(self, rows: Sequence[Row], values: Sequence[Sequence[float]]) -> None:
        """Add the values of `rows`."""
        entries = [{"key": row_key(row), "logprobs": list(v)} for row, v in zip(rows, values, strict=True)]
        if entries:
            write_rows(self.folder / f"{rows_key(rows)[:32]}.jsonl", entries)
