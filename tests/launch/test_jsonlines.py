"""JSON-lines files read by place: the rows of a list, in memory that grows by their places alone."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from launch.errors import DataError
from launch.jsonlines import Chosen, Lines


def test_lines_are_the_rows_of_the_file(tmp_path: Path) -> None:
    """Text with U+2028, an empty line between, no line end at the end; indices and slices like a list's."""
    rows = [{"n": n, "text": "é\u2028" * n} for n in range(7)]
    lines = [json.dumps(row, ensure_ascii=False) for row in rows]
    (tmp_path / "rows.jsonl").write_text("\n".join([*lines[:3], "", *lines[3:]]), encoding="utf-8")
    found = Lines(tmp_path / "rows.jsonl")
    assert (len(found), list(found), found[-1], found[2:5], found[::-2]) == (7, rows, rows[-1], rows[2:5], rows[::-2])
    assert list(Lines(tmp_path / "rows.jsonl", lambda row: row["n"])) == list(range(7))
    some = Chosen(found, [5, 0, 3])
    assert (len(some), list(some), some[1:]) == (3, [rows[5], rows[0], rows[3]], [rows[0], rows[3]])
    for beyond in (7, -8):
        with pytest.raises(IndexError):
            found[beyond]


def test_what_is_no_json_is_named_when_it_is_read(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text('{"n": 0}\n{"n": \n')
    found = Lines(tmp_path / "rows.jsonl")
    assert found[0] == {"n": 0}
    with pytest.raises(DataError, match=r"rows.jsonl, row 2: not JSON .*; repair or delete the line"):
        found[1]
    with pytest.raises(DataError, match="no file"):
        Lines(tmp_path / "none.jsonl")


def test_a_forked_process_reads_the_same_rows(tmp_path: Path) -> None:
    """Both go through all rows at once; had they a common position in the file, rows would come out torn."""
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps({"n": n}) + "\n" for n in range(5_000)))
    found = Lines(tmp_path / "rows.jsonl")
    child = os.fork()
    right = all(found[n] == {"n": n} for n in range(5_000))
    if child == 0:
        os._exit(0 if right else 1)
    assert right and os.waitpid(child, 0)[1] == 0
