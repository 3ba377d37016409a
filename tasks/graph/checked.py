"""Files of the real data are compared with their sha256 before anything parses them."""

from __future__ import annotations

from pathlib import Path

from launch.errors import DataError
from launch.manifest import file_hash


def checked(path: Path, sha256: str) -> Path:
    """`path`, once its content is known to have this `sha256`.

    Raises:
        DataError: there is no such file, or it holds something else.
    """
    if not path.is_file():
        raise DataError(f"{path}: no such file; set ARBITER_DATA to the folder of the real data")
    found = file_hash(path)
    if found != sha256:
        raise DataError(f"{path}: sha256 is {found[:12]}…, not {sha256[:12]}…; copy the file again from its source")
    return path
