"""reasoning's tools say what the library says."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from launch.errors import DataError
from launch.tools import ToolSpec
from launch.tools_pool import Pool
from reasoning import conflict
from reasoning.tools import conflict_paths, resolve_conflict

QUESTION = "Where does the mentor of Ann live?"
PASSAGES = ["The mentor of Ann is Bob. Dan lives in Rome.", "The mentor of Ann is Bob. Bob lives in Oslo."]


def test_the_tools_are_the_library_behind_a_process(tmp_path: Path) -> None:
    tools = {spec.name: spec for spec in (ToolSpec.of(resolve_conflict), ToolSpec.of(conflict_paths))}
    with Pool(tools, tmp_path, workers=1) as pool:
        found = json.loads(pool.call("resolve_conflict", {"question": QUESTION, "passages": PASSAGES}))["result"]
        chain = json.loads(pool.call("conflict_paths", {"question": QUESTION, "passage": PASSAGES[1]}))["result"]
    assert found == dict(conflict.resolve(QUESTION, PASSAGES))
    assert (found["answer"], found["followed"]) == ("Oslo", 1)
    assert chain == dict(conflict.conflict_paths(QUESTION, PASSAGES[1]))
    assert chain["links"] == [["Ann", "mentor", "Bob"], ["Bob", "lives in", "Oslo"]]


def test_nothing_asked_is_told() -> None:
    with pytest.raises(DataError, match="a question and at least one passage"):
        resolve_conflict(" ", PASSAGES)
    with pytest.raises(DataError, match="2 contexts but 1 answers"):
        resolve_conflict(QUESTION, PASSAGES, ["Oslo"])
