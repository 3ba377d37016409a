"""JSON-lines files, read row by row with a complaint that names file and line; or any row when it is asked for."""

from __future__ import annotations

import gzip
import json
import os
from array import array
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar, overload

from launch.errors import DataError

T = TypeVar("T")


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


class Lines(Sequence[Any]):
    """The rows of a JSON-lines file that does not change: 8 bytes a row in memory, each read when it is asked for.

    Args:
        path: a plain file; lines end on LF only, and an empty one is no row.
        parse: what becomes of a decoded row; None: the row itself.

    Raises:
        DataError: no such file; on access, a line that is no JSON.
    """

    def __init__(self, path: str | Path, parse: Callable[[Any], Any] | None = None) -> None:
        self.path, self.parse = Path(path), parse
        if not self.path.is_file():
            raise DataError(f"no file {self.path}; give the path of a JSON-lines file")
        self._starts = array("Q")
        self._file = self.path.open("rb")
        start = 0
        for line in self._file:
            if line.strip():
                self._starts.append(start)
            start += len(line)
        self._end = start

    def __len__(self) -> int:
        return len(self._starts)

    @overload
    def __getitem__(self, at: int) -> Any: ...
    @overload
    def __getitem__(self, at: slice) -> list[Any]: ...
    def __getitem__(self, at: int | slice) -> Any:
        if isinstance(at, slice):
            return [self[n] for n in range(*at.indices(len(self)))]
        if not -len(self) <= at < len(self):
            raise IndexError(f"row {at} of {len(self)}")
        number = at % len(self)
        start = self._starts[number]
        end = self._starts[number + 1] if number + 1 < len(self) else self._end
        # One call that moves no common position: processes forked from this one read the same open file.
        text = os.pread(self._file.fileno(), end - start, start)
        try:
            row = json.loads(text)
        except ValueError as error:
            raise DataError(f"{self.path}, row {number + 1}: not JSON ({error}); repair or delete the line") from error
        return row if self.parse is None else self.parse(row)

    def __del__(self) -> None:
        if hasattr(self, "_file"):
            self._file.close()


class Chosen(Sequence[T]):
    """Some of a sequence's items, in a given order, each taken from it when it is asked for."""

    def __init__(self, of: Sequence[T], places: Sequence[int]) -> None:
        self.of, self.places = of, places

    def __len__(self) -> int:
        return len(self.places)

    @overload
    def __getitem__(self, at: int) -> T: ...
    @overload
    def __getitem__(self, at: slice) -> list[T]: ...
    def __getitem__(self, at: int | slice) -> Any:
        if isinstance(at, slice):
            return [self.of[place] for place in self.places[at]]
        return self.of[self.places[at]]
