"""A file of the real data is read only if it is the one whose numbers are known."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from launch.errors import DataError
from tasks.graph.checked import checked


def test_a_file_passes_by_its_content(tmp_path: Path) -> None:
    file = tmp_path / "edges.csv"
    file.write_bytes(b"0,1,1\n")
    good = hashlib.sha256(b"0,1,1\n").hexdigest()
    assert checked(file, good) == file
    file.write_bytes(b"0,1,-1\n")
    with pytest.raises(DataError, match=r"edges\.csv: sha256 is .* copy the file again"):
        checked(file, good)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none\.csv: no such file; set ARBITER_DATA"):
        checked(tmp_path / "none.csv", "0" * 64)
