"""The study of signed links: a cell is run once, however often the plan names it and the study is started."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import signed_links
from benchmarks.signed_links import BASELINES, key, run


@pytest.mark.data
def test_a_cell_is_run_once(data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    named = [("bitcoin-alpha", "own-1", BASELINES[:2]), ("bitcoin-alpha", "own-1", BASELINES)]
    monkeypatch.setattr(signed_links, "plan", lambda: iter(named))
    file = tmp_path / "cells.jsonl"
    file.write_text("")  # nothing is finished, also not in the results
    for _ in range(2):
        run(tmp_path, minutes=1e9)
        rows = [json.loads(line) for line in file.read_text().splitlines()]
        assert [key(row) for row in rows] == [("bitcoin-alpha", "own-1", method) for method in BASELINES]
