"""Rows of the official files: read with a complaint that names the row, written so that a kill leaves no half file.

Text is split at newlines only: some answers hold U+2028, at which ``str.splitlines`` would break a row in two.
"""

from __future__ import annotations

import csv
import gzip
import hashlib
import io
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from launch.errors import DataError
from launch.runfolder import write_text

Row = Mapping[str, Any]


def read_rows(path: str | Path) -> list[dict[str, Any]]:
    """Rows of a .json list, a .jsonl or a .csv file, plain or .gz. CSV fields stay text.

    Raises:
        DataError: a row that is no JSON object, or a format that is none of these; names file and row.
    """
    path = Path(path)
    raw = path.read_bytes()
    kind = path.suffixes[-1:]
    if kind == [".gz"]:
        raw, kind = gzip.decompress(raw), path.suffixes[-2:-1]
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: byte {error.start} is no UTF-8; save the file as UTF-8") from error
    if kind == [".csv"]:
        return list(csv.DictReader(io.StringIO(text, newline="")))
    if kind == [".json"]:
        rows = _parse(text, path, 0)
        if not isinstance(rows, list):
            raise DataError(f"{path}: holds a {type(rows).__name__}, not a list of rows; write [{{…}}, {{…}}]")
    elif kind == [".jsonl"]:
        rows = [_parse(line, path, number) for number, line in enumerate(text.split("\n"), 1) if line.strip()]
    else:
        raise DataError(f"{path}: what format is this? Name it .json, .jsonl or .csv (a .gz may follow)")
    for number, row in enumerate(rows, 1):
        if not isinstance(row, dict):
            raise DataError(f"{path} row {number}: {str(row)[:40]!r} is no JSON object; write {{…}}")
    return rows


def write_rows(path: str | Path, rows: Iterable[Row]) -> Path:
    """Write .json (a list) or .jsonl, all or nothing.

    Raises:
        DataError: another ending.
        CheckpointError: the file cannot be written.
    """
    path = Path(path)
    if path.suffix == ".jsonl":
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    elif path.suffix == ".json":
        text = json.dumps(list(rows), ensure_ascii=False, indent=2) + "\n"
    else:
        raise DataError(f"{path}: rows are written as .json or .jsonl; name it so")
    write_text(path, text)
    return path


def rows_sha256(rows: Sequence[Row]) -> str:
    """Digest of rows as data: their order counts, the order of a row's keys does not."""
    digest = hashlib.sha256()
    for row in rows:
        digest.update(json.dumps(row, sort_keys=True, ensure_ascii=False).encode() + b"\n")
    return digest.hexdigest()


def need(row: Row, key: str, what: str) -> Any:
    """``row[key]``, or a complaint that names `what` (such as "annotation row 7") and the key."""
    if key not in row:
        raise DataError(f"{what} has no {key!r} but {', '.join(map(repr, list(row)[:8])) or 'nothing'}; add {key!r}")
    return row[key]


def index_by(rows: Sequence[Row], key: str | Callable[[Row], Any], what: str) -> dict[Any, Row]:
    """Rows by a key that must be there and be unique.

    Raises:
        DataError: missing or twice; names both rows.
    """
    found: dict[Any, Row] = {}
    at: dict[Any, int] = {}
    for number, row in enumerate(rows, 1):
        value = key(row) if callable(key) else need(row, key, f"{what} row {number}")
        if value in found:
            shown = str(value)[:60]
            raise DataError(f"{what} row {number}: {shown!r} is there already, in row {at[value]}; keep one of them")
        found[value], at[value] = row, number
    return found


def _parse(text: str, path: Path, number: int) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        where = f"{path} row {number}" if number else str(path)
        raise DataError(f"{where}: {error}; write JSON") from error
