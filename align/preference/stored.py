"""Rows on disk: an Arrow file that is mapped into memory, of which a row is decoded when somebody asks for it.

A list of preference groups costs 1.7 kB a pair beside their text, and with the text grows with the data; this costs
nothing a row. What has been read lies in the system's page cache, which gives way to whatever needs the room.

A row is one JSON text. Typed columns would change it: a prompt is text in one row and turns in another, and judges are
known in some rows only, which columns fill with nulls. JSON gives back the very row, its numbers included.

    rows = StoredRows.write(Path("rows.arrow"), ({"n": n} for n in range(10**6)))
    rows[3], len(rows), next(iter(rows))
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

import numpy as np

from launch.errors import DataError

if TYPE_CHECKING:
    import datasets

COLUMN = "row"
PREFIX = ".rows-"
BATCH = 256
"""Rows that are in memory while they are written, and while all are read one after another."""


class StoredRows(Sequence[dict[str, Any]]):
    """A sequence of dicts that JSON can hold, each read from disk at every access and never kept.

    Args:
        data: column `COLUMN`, JSON texts; see `write`.
        places: which rows of `data` these are, in order; None: all.
        owner: kept as long as these rows are, e.g. the temporary folder that their file is in.
    """

    def __init__(self, data: datasets.Dataset, places: np.ndarray | None = None, owner: Any = None) -> None:
        self.data, self.places, self.owner = data, places, owner
        self._texts: Any = data.data.column(COLUMN)

    @classmethod
    def write(cls, file: Path, rows: Iterable[dict[str, Any]], owner: Any = None) -> StoredRows:
        """Write `rows` to an Arrow stream file, as `datasets` writes it, a batch at a time, and map it.

        Raises:
            DataError: the file cannot be written, or the disk is full.
        """
        import datasets
        import pyarrow as pa

        schema = pa.schema({COLUMN: pa.large_string()})
        texts = (json.dumps(row) for row in rows)
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            with pa.OSFile(str(file), "wb") as out, pa.ipc.new_stream(out, schema) as stream:
                while batch := list(islice(texts, BATCH)):
                    stream.write_batch(pa.record_batch([pa.array(batch, pa.large_string())], schema=schema))
        except OSError as error:
            reason = os.strerror(error.errno) if error.errno else str(error)
            raise DataError(f"cannot write {file}: {reason}; make room there, or choose another folder") from error
        return cls(datasets.Dataset.from_file(str(file)), owner=owner)

    def __len__(self) -> int:
        return len(self.data) if self.places is None else len(self.places)

    @overload
    def __getitem__(self, at: int) -> dict[str, Any]: ...
    @overload
    def __getitem__(self, at: slice) -> list[dict[str, Any]]: ...
    def __getitem__(self, at: int | slice) -> Any:
        if isinstance(at, slice):
            return [self[n] for n in range(*at.indices(len(self)))]
        if not -len(self) <= at < len(self):
            raise IndexError(f"row {at} of {len(self)}")
        place = at % len(self) if self.places is None else self.places[at]
        return json.loads(self._texts[int(place)].as_py())

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return (self[n] for n in range(len(self)))

    def where(self, wanted: Callable[[dict[str, Any]], Any]) -> StoredRows:
        """Those rows that `wanted` is true of, in their order; 8 bytes each."""
        found = np.fromiter((n for n, row in enumerate(self) if wanted(row)), dtype=np.int64)
        return StoredRows(self.data, found if self.places is None else self.places[found], self.owner)


class Scratch:
    """A folder that is removed as soon as nobody holds this object, at the latest when the process ends.

    Args:
        parent: made if it is not there. What a killed run of this rank left in it is removed. None: the system's
            folder for temporary files.
    """

    def __init__(self, parent: Path | None = None) -> None:
        prefix = f"{PREFIX}{os.environ.get('RANK', '0')}-"
        if parent is not None:
            parent.mkdir(parents=True, exist_ok=True)
            for left in parent.glob(f"{prefix}*"):  # files of a living process stay readable to it when removed
                shutil.rmtree(left, ignore_errors=True)
        self.path = Path(tempfile.mkdtemp(prefix=prefix, dir=parent))
        weakref.finalize(self, shutil.rmtree, self.path, ignore_errors=True)
