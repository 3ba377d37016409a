"""JSON-lines files, read row by row with a complaint that names file and line."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from launch.errors import DataError


def rows(path: str | Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """(line number from 1, row) of a JSON-lines file, plain or gzipped. Lines end on LF only: U+2028 is text.

    Raises:
        DataError: no such file, or a line that is no JSON object.
    """
    path = Path(path)
    if not path.is_file():
        raise DataError(f"no file {path}; give the path of a JSON-lines file")
    with (
        gzip.open(path, "rt", encoding="utf-8", newline="\n")
        if path.suffix == ".gz"
        else path.open(encoding="utf-8", newline="\n") as lines
    ):
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except ValueError as error:
                raise DataError(f"{path}, line {number}: not JSON ({error}); repair or delete the line") from error
            if not isinstance(row, dict):
                raise DataError(f"{path}, line {number}: {type(row).__name__} instead of an object")
            yield number, row
