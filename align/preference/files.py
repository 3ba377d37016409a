"""Read rows from a file, a folder or a hub name, one at a time, each with the number a person would look up.

JSON lines (also .gz), one JSON list, Parquet, Arrow (a file, or a folder of `datasets.save_to_disk`), a folder of
Parquet files, or a hub name through `datasets`. Lines end at ``\\n`` only: real texts hold U+2028 and other marks
at which `str.splitlines` would break a row in two. Nothing is downloaded for a local path. A JSON list is in memory
whole; everything else is read as it is asked for.
"""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from launch.errors import DataError

BATCH = 256
"""Rows of a Parquet or Arrow file that are Python objects at a time."""

Row = dict[str, Any]
Complain = Callable[[DataError], None]
"""What to do with a bad row: raise the error, or count it and go on."""


def stop(error: DataError) -> None:
    """The strict policy: the first bad row ends the reading."""
    raise error


def read_rows(path: str, split: str = "train", bad: Complain = stop) -> Iterator[tuple[str, Row]]:
    """Yield (source, row) for every row of `path`; source is "file:row", the row counted from 1.

    path: a local file or folder, or, when nothing local has that name, a data set name on the hub.
    split: which split of a hub data set or of a saved DatasetDict.
    bad: called with the error of a row that is no JSON object.

    Raises DataError for a path that cannot be read at all, is empty, or is of an unknown kind.
    """
    local = Path(path).expanduser()
    if local.is_dir():
        rows = _folder(local, split)
    elif not local.exists():
        rows = _hub(path, split)
    else:
        name = local.name.removesuffix(".gz")
        if name.endswith((".jsonl", ".ndjson")):
            rows = _json_lines(local, bad)
        elif name.endswith(".json"):
            rows = _json(local, bad)
        elif name.endswith((".parquet", ".arrow")):
            rows = _tables([local], "parquet" if name.endswith(".parquet") else "arrow")
        else:
            raise DataError(f"{local}: unknown kind of file; use .jsonl, .jsonl.gz, .json, .parquet or .arrow")
    found = False
    for source, row in rows:
        found = True
        yield source, row
    if not found:
        raise DataError(f"{path}: no rows; check that the file was written completely")


def _json_lines(path: Path, bad: Complain) -> Iterator[tuple[str, Row]]:
    for number, line in enumerate(_lines(path), start=1):
        if not line.strip():
            continue
        source = f"{path}:{number}"
        try:
            row = json.loads(line)
        except UnicodeDecodeError as error:
            bad(DataError(f"{source}: not UTF-8 (byte {error.start} of the line); save the file as UTF-8"))
            continue
        except json.JSONDecodeError as error:
            bad(DataError(f"{source}: broken JSON ({error.msg} at column {error.colno}); repair or delete this line"))
            continue
        if isinstance(row, dict):
            yield source, row
        else:
            bad(DataError(f"{source}: a {type(row).__name__} where an object {{...}} belongs; one object per line"))


def _lines(path: Path) -> Iterator[bytes]:
    """Lines of a file, plain or gzip, one in memory at a time; a binary file's lines end at \\n only."""
    try:
        with gzip.open(path) if path.name.endswith(".gz") else path.open("rb") as file:
            yield from file
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path}: cannot be read ({error or type(error).__name__}); copy the file again") from error


def _json(path: Path, bad: Complain) -> Iterator[tuple[str, Row]]:
    try:
        rows = json.loads(b"".join(_lines(path)))
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8 (byte {error.start}); save the file as UTF-8") from error
    except json.JSONDecodeError as error:
        hint = "; if each line is an object of its own, name the file .jsonl" if error.msg == "Extra data" else ""
        raise DataError(f"{path}:{error.lineno}: broken JSON ({error.msg} at column {error.colno}){hint}") from error
    if not isinstance(rows, list):
        raise DataError(f"{path}: holds a {type(rows).__name__}; a list of rows belongs here (or use .jsonl)")
    for number, row in enumerate(rows, start=1):
        if isinstance(row, dict):
            yield f"{path}:{number}", row
        else:
            bad(DataError(f"{path}:{number}: a {type(row).__name__} where an object {{...}} belongs"))


def _tables(files: list[Path], kind: str) -> Iterator[tuple[str, Row]]:
    """Read Parquet or Arrow files batch by batch, so that a large one is never wholly in memory."""
    import pyarrow as pa
    from pyarrow import parquet

    for file in files:
        number = 0
        try:
            if kind == "parquet":
                batches: Any = parquet.ParquetFile(file).iter_batches(BATCH)
            else:
                batches = _arrow_batches(pa, file)
            for batch in batches:
                for start in range(0, len(batch), BATCH):
                    for row in batch.slice(start, BATCH).to_pylist():
                        number += 1
                        yield f"{file}:{number}", row
        except (pa.ArrowInvalid, OSError) as error:
            reason = str(error).split("\n")[0]
            raise DataError(f"{file}: cannot be read as {kind} ({reason}); write or copy the file again") from error


def _arrow_batches(pa: Any, file: Path) -> Any:
    try:
        return pa.ipc.open_stream(pa.memory_map(str(file)))  # what `datasets` writes
    except pa.ArrowInvalid:
        reader = pa.ipc.open_file(pa.memory_map(str(file)))
        return (reader.get_batch(index) for index in range(reader.num_record_batches))


def _folder(folder: Path, split: str) -> Iterator[tuple[str, Row]]:
    if (folder / "dataset_dict.json").exists():
        splits = json.loads((folder / "dataset_dict.json").read_text(encoding="utf-8"))["splits"]
        if split not in splits:
            raise DataError(f"{folder}: no split {split!r}; it has {', '.join(splits)}")
        folder = folder / split
    state = folder / "state.json"
    if state.exists():  # the shards of a saved Dataset, in their order
        listed = json.loads(state.read_text(encoding="utf-8"))["_data_files"]
        return _tables([folder / entry["filename"] for entry in listed], "arrow")
    files = sorted(folder.rglob("*.parquet"))
    files = [file for file in files if file.name.startswith(split)] or files
    if files:
        return _tables(files, "parquet")
    raise DataError(f"{folder}: neither a saved data set nor Parquet files; name a file, or run datasets.save_to_disk")


def _hub(name: str, split: str) -> Iterator[tuple[str, Row]]:
    if name.endswith((".jsonl", ".json", ".gz", ".parquet", ".arrow")) or name.count("/") != 1 or name[0] in "./~":
        raise DataError(f"{name}: no such file; paths are taken from the folder the command runs in")
    import datasets

    try:
        data = datasets.load_dataset(name, split=split)
    except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:
        reason = str(error).split("\n")[0]
        raise DataError(f"{name}: no local path, and not to be had from the hub ({reason})") from error
    return ((f"{name}:{number}", dict(row)) for number, row in enumerate(data, start=1))
