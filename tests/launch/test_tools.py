"""One definition gives every form of a tool, and arguments are held to it."""

from __future__ import annotations

from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any

import pytest
from transformers.utils import get_json_schema

from launch.errors import ConfigError
from launch.tools import GROUP, Limits, ToolError, ToolSpec, available, choose, data_path, parse_arguments
from tests.launch import toy_tools
from tests.launch.toy_tools import mix


@pytest.fixture(scope="module")
def spec() -> ToolSpec:
    return ToolSpec.of(mix)


def test_the_schema_is_what_transformers_and_so_trl_gives(spec: ToolSpec) -> None:
    assert spec.schema == get_json_schema(mix)
    assert (spec.name, spec.target) == ("mix", "tests.launch.toy_tools:mix")
    assert spec.description == "Combine numbers. It has an argument of every kind."
    assert spec.unit == "value, in the unit of the numbers, and what else was given."
    assert spec.limits == Limits(seconds=20)


def test_parameters_are_json_schema(spec: ToolSpec) -> None:
    """Checked against the draft itself; transformers' `nullable` has become null, and nothing unknown is let in."""
    from jsonschema import Draft202012Validator

    Draft202012Validator.check_schema(spec.parameters)
    kinds = {name: schema.get("type") for name, schema in spec.parameters["properties"].items()}
    assert kinds == {
        "numbers": "array",
        "times": "integer",
        "mode": "string",
        "label": ["string", "null"],
        "extra": ["object", "null"],
        "deep": ["array", "null"],
        "either": ["integer", "string"],
        "flag": "boolean",
    }
    assert spec.parameters["required"] == ["numbers", "times"]
    assert spec.parameters["properties"]["extra"]["description"] == "Numbers by name, told over two lines."
    assert "nullable" not in str(spec.parameters)
    assert spec.openai()["function"]["parameters"] == spec.parameters


GOOD: dict[str, Any] = {"numbers": [1, 2.5], "times": 2}


@pytest.mark.parametrize(
    "more",
    [{}, {"label": None}, {"label": "x"}, {"mode": "max"}, {"extra": {"a": 1}}, {"deep": [[1], []]}, {"either": "x"}],
)
def test_fitting_arguments_pass(spec: ToolSpec, more: dict[str, Any]) -> None:
    assert spec.check({**GOOD, **more}) == {**GOOD, **more}


def test_a_whole_number_written_with_a_point_becomes_an_int(spec: ToolSpec) -> None:
    """JSON Schema calls 3.0 an integer; range() would not."""
    assert isinstance(spec.check({**GOOD, "times": 3.0})["times"], int)
    assert isinstance(spec.check({**GOOD, "either": 3.0})["either"], int)  # int or str
    assert repr(spec.check({**GOOD, "deep": [[3.0], []], "numbers": [3.0]})) == repr(
        {**GOOD, "deep": [[3], []], "numbers": [3.0]}
    )


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ([1], "mix: arguments are a list; give an object of numbers (array), times (integer), mode (string, optional)"),
        ({"times": 1}, "mix: argument numbers is missing; it takes numbers (array), times (integer)"),
        ({**GOOD, "time": 1}, "mix: unknown argument 'time'; did you mean times?"),
        ({**GOOD, "zzz": 1}, "mix: unknown argument 'zzz'; it takes numbers"),
        ({**GOOD, "numbers": [1, "two"]}, 'mix: numbers[1] is "two"; it must be of type number'),
        ({**GOOD, "numbers": 1}, "mix: numbers is 1; it must be of type array"),
        ({**GOOD, "times": 1.5}, "mix: times is 1.5; it must be of type integer"),
        ({**GOOD, "times": True}, "mix: times is true; it must be of type integer"),
        ({**GOOD, "mode": "min"}, 'mix: mode is "min"; use one of sum, max'),
        ({**GOOD, "extra": {"a": "b"}}, 'mix: extra.a is "b"; it must be of type integer'),
        ({**GOOD, "deep": [[1], ["x" * 1000]]}, 'mix: deep[1][0] is "' + "x" * 59 + "…; it must be"),
    ],
)
def test_others_are_told_why_in_one_line(spec: ToolSpec, arguments: Any, told: str) -> None:
    with pytest.raises(ToolError) as caught:
        spec.check(arguments)
    assert str(caught.value).startswith(told) and "\n" not in str(caught.value) and len(str(caught.value)) < 400


@pytest.mark.parametrize("text", ["{bad", '{"a": NaN}', "", "[" * 100_000, r'{"a": "\ud83d"}'])
def test_what_is_no_json_is_told(text: str) -> None:
    with pytest.raises(ToolError, match="the arguments are no JSON"):
        parse_arguments(text)


@pytest.mark.parametrize(
    ("function", "told"),
    [
        (toy_tools.no_docstring, "no_docstring because it has no docstring"),
        (toy_tools.no_description, "no description for the argument 'a'"),
        (toy_tools.no_unit, 'no_unit states no unit; add "Returns:"'),
        (toy_tools.odd_type, "argument a is a Path, which JSON lacks"),
        (lambda a: a, "only functions of an importable module"),
        (toy_tools.Misbehaviour.fine, "only functions of an importable module"),
    ],
)
def test_functions_that_are_no_tools(function: Any, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        ToolSpec.of(function)


def test_installed_tools_are_found() -> None:
    found = available()
    assert {"score_answers", "nash_mixture", "resolve_conflict", "conflict_paths"} <= set(found)
    assert all(spec.unit and spec.limits.seconds > 0 for spec in found.values())
    with pytest.raises(ToolError, match="there is no tool 'nash_mixtures'; use nash_mixture"):
        available(["nash_mixtures"])
    with pytest.raises(ToolError, match="there is no tool 'a'; none is installed"):
        choose({}, "a")


def test_a_plug_in_that_cannot_be_imported_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    points = [*entry_points(group=GROUP), EntryPoint("broken", "no_such_module:broken", GROUP)]
    monkeypatch.setattr("launch.tools.entry_points", lambda group: points)
    with pytest.raises(
        ConfigError, match=r"tool broken \(no_such_module:broken, of unknown\) cannot be imported: Module"
    ):
        available()
    assert list(available(["nash_mixture"])) == ["nash_mixture"]  # and does not stand in the way of others


def test_the_page_lists_every_tool() -> None:
    """docs/tools.md has the rows of ``arbiter tools list``, in its order."""
    page = (Path(__file__).parents[2] / "docs" / "tools.md").read_text(encoding="utf-8")
    table = page.partition("| tool | what it does |\n|---|---|\n")[2].partition("\n\n")[0]
    assert table.splitlines() == [f"| `{name}` | {spec.summary} |" for name, spec in available().items()]


def test_data_paths_stay_below_their_folder(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    inside = tmp_path / "data"
    inside.mkdir()
    (inside / "a").write_text("1")
    (tmp_path / "secret").write_text("2")
    (inside / "link").symlink_to(tmp_path / "secret")
    monkeypatch.setenv("ARBITER_TOOL_DATA", str(inside))
    assert data_path("a") == inside / "a" == data_path("./b/../a")
    for outside in ("../secret", str(tmp_path / "secret"), "link", ".."):
        with pytest.raises(ToolError, match="lies outside of the data folder"):
            data_path(outside)
    with pytest.raises(ToolError, match="b is not in the data folder; there is a, link"):
        data_path("b")
