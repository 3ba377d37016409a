"""The picture of a decision: whole local graphs, the chain that was followed, the link that broke."""

from __future__ import annotations

from pathlib import Path

import pytest

from reasoning.conflict import resolve
from reasoning.conflict.paths import local_graph
from reasoning.conflict.picture import BROKEN, FOLLOWED, MOST, draw, panel
from reasoning.conflict.synthetic import conflict, planted

HOLDS = "The mentor of Ann is Bob. Bob lives in Oslo. Eva met Bob in Lima."
GAP = "The mentor of Ann is Cleo. Ivan lives in Rome."
CLASH = "The mentor of Ann is Cleo. The mentor of Ann is Ivan. Cleo lives in Rome."
QUESTION = "Where does the mentor of Ann live?"
CONTEXTS = [HOLDS, GAP, CLASH]


def test_a_panel_holds_the_whole_graph_its_chain_and_its_broken_link() -> None:
    got = resolve(QUESTION, CONTEXTS, ["Oslo", "Rome", "Rome"])
    holds, gap, clash = (panel(QUESTION, c, view) for c, view in zip(CONTEXTS, got["paths"], strict=True))
    whole = local_graph(QUESTION, HOLDS, "Oslo").graph
    assert set(holds.graph) == set(whole) and {*map(frozenset, holds.graph.edges)} == {*map(frozenset, whole.edges)}
    assert holds.row == ["ann", "bob", "oslo"] and not holds.broken and holds.hidden == 0
    assert holds.links == {("ann", "bob"): "mentor", ("bob", "oslo"): "lives in"}
    assert (holds.asked, holds.answers, holds.names["eva"]) == (["ann"], ["oslo"], "Eva")
    assert (gap.row, gap.links, gap.broken) == (["cleo", "rome"], {}, {("cleo", "rome"): "no link stated"})
    assert clash.broken == {("ann", "cleo"): "mentor", ("ann", "ivan"): "mentor"}
    assert clash.links == {("cleo", "rome"): "lives in"} and clash.row == ["ann", "cleo", "rome"]


def test_a_chain_told_backwards_stands_in_its_order() -> None:
    """The middle link is told from its end: the row goes on from what it shares with its neighbours."""
    case = planted(3, 0, 1)
    (a, b, c, d), (r, _, t) = case.chain, case.relations
    text = f"{a}'s {r} is {b}. {c} is known to {b}. {c}'s {t} is {d}."
    view = resolve(case.question, [text], [d])["paths"][0]
    assert view["links"][1][0] == c
    assert panel(case.question, text, view).row == [name.casefold() for name in case.chain]


def test_the_picture_says_what_it_shows(tmp_path: Path) -> None:
    got = resolve(QUESTION, CONTEXTS, ["Oslo", "Rome", "Rome"])
    drawn = draw(QUESTION, CONTEXTS, got, tmp_path / "a.svg").read_text()
    for said in (
        QUESTION,
        "Context 1: Oslo (followed)",
        "Context 3: Rome (rejected)",
        "no link stated",
        "Eva",
        "lives in",
    ):
        assert f">{said}<" in drawn
    assert drawn.count(f"stroke: {FOLLOWED}") >= 2 and drawn.count(f"stroke: {BROKEN}") >= 3
    assert draw(QUESTION, CONTEXTS, got, tmp_path / "b.svg").read_text() == drawn


def test_a_long_context_is_drawn_near_its_chain(tmp_path: Path) -> None:
    """Eleven passages of other people: the chain, and no more names than fit; the rest is counted."""
    case = planted(3, 0, 99)
    text = " ".join([*(planted(4, 60, seed).text for seed in range(10)), case.text])
    got = resolve(case.question, [text], [case.answer])
    shown = panel(case.question, text, got["paths"][0])
    assert set(shown.row) <= set(shown.graph) and len(shown.graph) == MOST
    assert shown.hidden == len(local_graph(case.question, text, case.answer).graph) - MOST > 100
    assert f", {shown.hidden} more names<" in draw(case.question, [text], got, tmp_path / "long.svg").read_text()


@pytest.mark.parametrize("contexts", [[], [""], ["no names here"], ["", HOLDS], ["кот живёт", "猫在奥斯陆。"]])
def test_odd_contexts_have_a_picture(contexts: list[str], tmp_path: Path) -> None:
    file = draw(QUESTION, contexts, resolve(QUESTION, contexts), tmp_path / "odd.svg")
    assert file.read_text().count("Context ") == len(contexts)


def test_five_contexts_as_png(tmp_path: Path) -> None:
    case = conflict(2, "contradict", 3)
    contexts = [c.text for c in case.contexts] * 2 + ["nothing"]
    file = draw(case.question, contexts, resolve(case.question, contexts), tmp_path / "five.png")
    assert file.read_bytes().startswith(b"\x89PNG")
