"""The trust story on a small graph of two camps: every way runs, and what is rendered is what the tool says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import trust_story
from benchmarks.trust_story import Sizes
from launch.tools_pool import Pool

SMALL = Sizes(
    hidden=32, layers=1, batch=16, steps=20, soft_steps=20, tool_batch=16, tool_steps=80, rate=1e-2, epochs=20
)


def camps(members: int = 40, edges: int = 500) -> np.ndarray:
    """Members of one camp trust each other and nobody of the other: int64 [m, 3], ids with holes."""
    rng = np.random.default_rng(0)
    pairs = np.unique(rng.integers(0, members, (edges, 2)), axis=0)
    pairs = pairs[pairs[:, 0] != pairs[:, 1]]
    sign = np.where((pairs[:, 0] + pairs[:, 1]) % 2 == 0, 1, -1)
    return np.concatenate([17 + 9 * pairs, sign[:, None]], axis=1)


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trust")
    trust_story.story(folder, camps(), 0, SMALL)
    return folder


def cell(folder: Path, way: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / f"seed-0-{way}.json").read_text())
    return found


def test_tools_part_6_every_way_answers_the_same_held_out_edges(told: Path) -> None:
    """Always yes has its exact numbers: AUC and balanced accuracy one half, accuracy the share of positive edges."""
    cells = {way: cell(told, way) for way in trust_story.ROWS}
    assert len({(c["test"], c["negative"]) for c in cells.values()}) == 1
    always = cells["always"]
    assert always["metrics"]["auc"] == always["metrics"]["hard_auc"] == 0.5
    assert always["metrics"]["f1_micro"] == pytest.approx(1 - always["negative"] / always["test"])
    assert 0 <= cells["tool"]["right_call"] <= 1
    assert cells["tool"]["story"][0]["content"] == "Would user 17 trust user 404?"
    text = trust_story.page({"cells": list(cells.values()), "seeds": [0], "command": "", "commits": [], "threads": 1})
    assert text.count("| LM") == 3


def test_tools_part_6_a_finished_cell_is_kept(told: Path) -> None:
    before = {file: file.stat().st_mtime_ns for file in told.glob("*.json")}
    trust_story.story(told, camps(), 0, SMALL)
    assert {file: file.stat().st_mtime_ns for file in told.glob("*.json")} == before


def test_tools_part_6_lessons_show_what_the_tool_says(told: Path) -> None:
    """Byte for byte, from the tool in its own process; and every lesson is made of known words."""
    specs = trust_story.tools()
    edges = camps()
    encoder = trust_story.fitted(told / "seed-0", edges, edges, 0, SMALL)
    tokenizer = trust_story.make_tokenizer()
    with Pool(specs, told / "seed-0" / "data", workers=1) as pool:
        for u, v, sign in edges[:20].tolist():
            said = pool.call(trust_story.TOOL, trust_story.arguments(u, v))
            assert said == trust_story.tool_says(encoder, u, v, specs[trust_story.TOOL].unit)
            for row in trust_story.lessons(tokenizer, specs, encoder, u, v, sign):
                for text in row.values():
                    ids = tokenizer(text)["input_ids"]
                    assert tokenizer.decode(ids) == text and tokenizer.unk_token_id not in ids


def test_draws_are_balanced() -> None:
    drawn = trust_story.balanced(camps(), 100, seed=1)
    assert [sign for *_, sign in drawn] == [1, -1] * 50
    assert {tuple(row) for row in drawn} <= {tuple(row) for row in camps().tolist()}


def test_strangers_are_answered_as_often_yes_as_the_chance_says(told: Path) -> None:
    """Bernoulli draws: within four deviations of the mean chance; ends come from sources and targets of edges."""
    edges = camps()
    encoder = trust_story.fitted(told / "seed-0", edges, edges, 0, SMALL)
    drawn = np.array(trust_story.believed(encoder, edges, 4000, seed=1))
    assert set(drawn[:, 0]) <= set(edges[:, 0]) and set(drawn[:, 1]) <= set(edges[:, 1])
    chance = encoder.predict(drawn[:, :2])
    deviation = float(np.sqrt((chance * (1 - chance)).sum())) / len(drawn)
    assert abs((drawn[:, 2] > 0).mean() - chance.mean()) < 4 * deviation
    assert trust_story.believed(encoder, edges, 50, 1) == trust_story.believed(encoder, edges, 50, 1)
    assert trust_story.believed(encoder, edges, 50, 1) != trust_story.believed(encoder, edges, 50, 2)
