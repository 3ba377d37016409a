"""Cells of USER's studies: what is there is not run again, and what the page says of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from benchmarks import user_cells, user_graph, user_learned, user_links
from benchmarks.user_cells import interval, run_cells, study_rows, summary
from benchmarks.user_page import write_page
from launch.runfolder import write_json


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(user_cells, "RUNS", tmp_path / "runs")
    monkeypatch.setattr(user_cells, "OUT", tmp_path / "out.json")
    return tmp_path


def test_what_is_kept_or_published_is_not_run_again(place: Path) -> None:
    """Seed 0 is published, 1 was kept, the line of 2 was cut short by a kill: 2 and 3 are run."""
    write_json(place / "out.json", {"cells": [row(seed=0, nmi=0.5)]})
    ran: list[int] = []

    def work(data: str, graph: str, method: str, seed: int) -> dict[str, Any]:
        ran.append(seed)
        return {"nmi": 1 / 3, "steps": [seed]}

    wanted = [("cora", "clean", "user", seed) for seed in range(4)]
    run_cells("cells", wanted[1:2], work)
    with (place / "runs" / "cells.jsonl").open("a") as out:
        out.write('{"data": "cora", "graph": "clean", "meth\n')
    run_cells("cells", wanted, work)
    assert ran == [1, 2, 3]
    kept = study_rows("cells")
    assert [(r["seed"], r["nmi"]) for r in kept] == [(0, 0.5), (1, 0.333333), (2, 0.333333), (3, 0.333333)]
    assert kept[3]["steps"] == [3] and {"cpu_seconds", "commit", "date"} <= set(kept[3])
    assert study_rows("links") == []


def test_intervals_by_hand() -> None:
    """Of 1, 2, 3: the deviation is 1, t of .975 with two degrees is 4.3027, over the root of 3 that is 2.4841."""
    assert interval([1.0, 2.0, 3.0]) == pytest.approx({"mean": 2, "low": 2 - 2.4841, "high": 2 + 2.4841}, abs=1e-4)
    assert interval([4.0]) == {"mean": 4.0}
    (cell,) = summary([row(seed=0, nmi=0.2), row(seed=1, nmi=0.4)])
    assert cell["seeds"] == 2 and cell["nmi"]["mean"] == pytest.approx(0.3) and "seed" not in cell


def test_the_page_says_what_the_rows_say(place: Path) -> None:
    scores = {"nmi": 0.5, "accuracy": 0.6, "f1": 0.4, "edge_auc": 0.7}
    cost = {"epochs": 100, "cpu_seconds": 50.0, "peak_bytes": 1_300_000_000}
    results: dict[str, Any] = {
        "machine": {"cores": 2, "torch": "2"},
        "cells": [row(**scores), row(graph="random 0.1", method="cosine", edge_auc=0.8)],
        "earlier": summary([row(data="citeseer", nmi=0.1, accuracy=0.1, f1=0.1)]),
        "learned": [row(**scores, **cost), row(method="learned", **scores | {"nmi": 0.55}, **cost)],
        "begun": [],
        "links": [row(data="wiki", auc=0.9, ap=0.8)],
        "scaling": [],
    }
    results["earlier"][0] |= {"commit": "1234567890ab", "date": "2026-11-25"}
    write_page(results, place / "page.md")
    page = (place / "page.md").read_text()
    for line in (
        "| clean | USER, given graph alone | 1 | 50.0 | 60.0 | 40.0 |",
        "| clean | USER, given graph alone | 1 | 10.0 | 10.0 | 10.0 |",
        "| random 0.1 | – | 80.0 |",
        "| cora, clean | and the learned graph | 1 | 55.0 | 60.0 | 40.0 | 70.0 | 100 | 0.50 | 1.3 |",
        "| wiki, clean | USER, given graph alone, sigma(z_i . z_j) | 1 | 90.0 | 80.0 |",
        "1234567890 (2026-11-25), abc+ (2026-11-28)",
    ):
        assert line in page


def test_the_studies_cells_are_distinct_and_have_their_methods() -> None:
    for wanted in (list(user_graph.cells()), list(user_links.cells()), list(user_learned.fits())):
        assert len(set(wanted)) == len(wanted) > 0
    assert {method for _, _, method, _ in user_graph.cells()} == set(user_graph.METHODS)
    assert {method for _, _, method, _ in user_links.cells()} == set(user_links.METHODS)


def row(**over: Any) -> dict[str, Any]:
    where = {"data": "cora", "graph": "clean", "method": "user", "seed": 0}
    return where | {"commit": "abc+", "date": "2026-11-28"} | over
