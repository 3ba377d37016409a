"""Tools: what a model may call, each defined once as a typed function with a Google-style docstring.

    @tool(seconds=5)
    def add(numbers: list[float]) -> float:
        '''Add numbers.

        Args:
            numbers: The numbers to add.

        Returns:
            Their sum, in the unit of the numbers.
        '''
        return sum(numbers)

From that come the JSON schema (`ToolSpec.schema`, what transformers gives chat templates and TRL), OpenAI's and vLLM's
form (`openai`), MCP (`launch.tools_mcp`) and ``arbiter tools``. "Returns:" states the result's unit and travels with
every result. Tools are found by the entry points of group ``arbiter.tools``; they run in processes of their own under
`launch.tools_guard` (see `launch.tools_pool`). Where a tool takes the name of a file, it opens `data_path(name)`.

Left out: tools that keep state between calls, streaming results, images.
"""

from __future__ import annotations

import difflib
import json
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

from launch.errors import ArbiterError, ConfigError

GROUP = "arbiter.tools"
_PLAIN: tuple[Any, ...] = (int, float, str, bool, type(None), list, dict, Any)
"""Types that JSON has."""
Function = TypeVar("Function", bound=Callable[..., Any])


class ToolError(ArbiterError):
    """A call that gave no result: one line that a model can act on."""


@dataclass(frozen=True)
class Limits:
    """What one call may take."""

    seconds: float = 30.0
    """Wall time; waiting for a free process, and importing what the tool names, is not counted."""
    megabytes: int = 1024
    """Memory beyond what the process had before the call."""
    result_bytes: int = 65_536
    """Of the result as JSON."""


def tool(imports: Sequence[str] = (), **limits: Any) -> Callable[[Function], Function]:
    """Set the `Limits` of a tool; without it a function has the default ones. The function itself stays as it is.

    Args:
        imports: modules that the function imports when it is called; a process imports them before the clock of its
            first call of this tool starts.
        **limits: of `Limits`.
    """

    def mark(function: Function) -> Function:
        function.__tool_limits__ = Limits(**limits)  # type: ignore[attr-defined]
        function.__tool_imports__ = tuple(imports)  # type: ignore[attr-defined]
        return function

    return mark


@dataclass(frozen=True)
class ToolSpec:
    """A tool as others see it."""

    name: str
    schema: dict[str, Any]
    """``transformers.utils.get_json_schema`` of the function: what chat templates and TRL are given."""
    unit: str
    """What the result is and in which unit: the docstring's "Returns:"."""
    target: str
    """"module:function", by which a process of its own finds it."""
    limits: Limits = Limits()
    imports: tuple[str, ...] = ()
    """Modules that a process imports before the tool's first call there."""

    @classmethod
    def of(cls, function: Callable[..., Any], name: str | None = None) -> ToolSpec:
        """The tool that `function` defines.

        Raises:
            ConfigError: no docstring, an argument without description or with a type that JSON lacks, no "Returns:", or
                a function that cannot be imported by its name.
        """
        from transformers.utils import get_json_schema
        from transformers.utils.chat_template_utils import parse_google_format_docstring

        called = function.__name__
        target = f"{function.__module__}:{function.__qualname__}"
        if "<" in target or "." in function.__qualname__ or function.__module__ == "__main__":
            raise ConfigError(f"tool {called} is {target}; only functions of an importable module can be tools")
        if name is not None and name != called:
            raise ConfigError(f"entry point {name!r} names the function {called}; give both the same name")
        for argument, hint in get_type_hints(function).items():
            bad = None if argument == "return" else _no_json(hint)
            if bad is not None:
                raise ConfigError(
                    f"tool {called}: argument {argument} is a {bad}, which JSON lacks; use str, list or dict"
                )
        try:
            schema = get_json_schema(function)
        except Exception as error:  # of two classes that transformers does not export
            raise ConfigError(f"tool {called}: {' '.join(str(error).split())}; describe it in the docstring") from error
        unit = parse_google_format_docstring((function.__doc__ or "").strip())[2]
        if not unit:
            raise ConfigError(
                f'tool {called} states no unit; add "Returns:" to its docstring, what it gives and in what unit'
            )
        limits, imports = getattr(function, "__tool_limits__", Limits()), getattr(function, "__tool_imports__", ())
        return cls(called, schema, " ".join(unit.split()), target, limits, imports)

    @property
    def description(self) -> str:
        return self.schema["function"]["description"]

    @property
    def summary(self) -> str:
        """The first sentence of the description, without its point."""
        return " ".join(self.description.partition("\n\n")[0].split()).partition(". ")[0].removesuffix(".")

    @cached_property
    def parameters(self) -> dict[str, Any]:
        """The arguments as standard JSON Schema: null is a type of its own, and unknown arguments are refused."""
        return {**_standard(self.schema["function"]["parameters"]), "additionalProperties": False}

    def openai(self) -> dict[str, Any]:
        """For ``tools=`` of OpenAI's chat completions, which vLLM serves too."""
        function = {"name": self.name, "description": self.description, "parameters": self.parameters}
        return {"type": "function", "function": function}

    def check(self, arguments: Any) -> dict[str, Any]:
        """`arguments` if they fit the schema, whole numbers as int where the schema says integer.

        Raises:
            ToolError: they do not; says which, why, and what would.
        """
        from jsonschema.exceptions import best_match

        if not isinstance(arguments, dict):
            raise ToolError(
                f"{self.name}: arguments are a {type(arguments).__name__}; give an object of {self._takes()}"
            )
        unknown = [name for name in arguments if name not in self._properties]
        if unknown:  # first, for a misspelt argument is missing too
            near = difflib.get_close_matches(str(unknown[0]), self._properties, 1)
            told = f"did you mean {near[0]}?" if near else f"it takes {self._takes()}"
            raise ToolError(f"{self.name}: unknown argument {unknown[0]!r}; {told}")
        error = best_match(self._validator.iter_errors(arguments))
        if error is not None:
            raise ToolError(f"{self.name}: {self._complaint(error)}")
        whole = self._with_integers
        return {name: _whole(value, whole[name]) if name in whole else value for name, value in arguments.items()}

    @cached_property
    def _validator(self) -> Any:
        from jsonschema import Draft202012Validator

        return Draft202012Validator(self.parameters)

    def _takes(self) -> str:
        needed = self.parameters.get("required", [])
        told = (f"{k} ({type_name(v)}{'' if k in needed else ', optional'})" for k, v in self._properties.items())
        return ", ".join(told) or "nothing"

    @property
    def _properties(self) -> dict[str, Any]:
        return self.parameters["properties"]

    @cached_property
    def _with_integers(self) -> dict[str, Any]:
        """Of the properties, those with an integer somewhere: long tables of other numbers are not looked through."""
        return {name: schema for name, schema in self._properties.items() if '"integer"' in json.dumps(schema)}

    def _complaint(self, error: Any) -> str:
        if not error.path and error.validator == "required":
            missing = [name for name in error.validator_value if name not in error.instance]
            return f"argument {missing[0]} is missing; it takes {self._takes()}"
        where = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in error.path).lstrip(".")
        got = json.dumps(error.instance, ensure_ascii=False, default=repr)
        got = got if len(got) <= 60 else f"{got[:60]}…"
        if error.validator == "type":
            return f"{where} is {got}; it must be of type {type_name(error.schema)}"
        if error.validator == "enum":
            return f"{where} is {got}; use one of {', '.join(map(str, error.validator_value))}"
        return f"{where} is {got}; it does not fit {error.validator} {json.dumps(error.validator_value)[:200]}"


# ---------------------------------------------------------------- finding and choosing


def available(names: Iterable[str] = ()) -> dict[str, ToolSpec]:
    """The tools that are installed, or those of `names` among them, in the order of their names.

    Raises:
        ToolError: an unknown name.
        ConfigError: a function that is no tool, or an entry point that cannot be imported.
    """
    points = {point.name: point for point in entry_points(group=GROUP)}
    wanted = list(names) or list(points)
    for name in wanted:
        choose(points, name)
    return {name: ToolSpec.of(_loaded(points[name]), name) for name in sorted(wanted)}


def _loaded(point: Any) -> Any:
    try:
        return point.load()
    except Exception as error:  # whatever another project's module raises
        owner = point.dist.name if point.dist else "unknown"
        raise ConfigError(
            f"tool {point.name} ({point.value}, of {owner}) cannot be imported: {type(error).__name__}: "
            f"{' '.join(str(error).split())}; mend or uninstall that package"
        ) from error


def choose(tools: Mapping[str, Any], name: str) -> Any:
    """``tools[name]``; raises ToolError with the nearest names if there is none."""
    if name in tools:
        return tools[name]
    near = difflib.get_close_matches(str(name), tools, 3, 0.4) or sorted(tools)
    raise ToolError(f"there is no tool {name!r}; " + (f"use {' or '.join(near)}" if near else "none is installed"))


def parse_arguments(text: str) -> Any:
    """Arguments that a model wrote as JSON; raises ToolError for what is none (NaN and half a character included)."""

    def refuse(word: str) -> None:
        raise ValueError(f"{word} is no JSON")

    try:
        given = json.loads(text, parse_constant=refuse)
        if "\\ud" in text.lower():  # half of an emoji: no tokenizer and no file takes it
            json.dumps(given, ensure_ascii=False).encode()
        return given
    except (ValueError, RecursionError) as error:
        raise ToolError(f'the arguments are no JSON ({error}); write one object, such as {{"name": 1}}') from error


def data_path(name: str) -> Path:
    """Where the file or folder `name` of the data folder is. For tools: call it before opening anything.

    Raises:
        ToolError: it lies outside of the data folder, or is not there.
    """
    root = Path(os.environ.get("ARBITER_TOOL_DATA", ".")).resolve()
    path = (root / name).resolve()
    if not path.is_relative_to(root):
        raise ToolError(f"{name} lies outside of the data folder; give a path below it")
    if not path.exists():
        some = ", ".join(sorted(entry.name for entry in root.iterdir())[:5]) if root.is_dir() else ""
        raise ToolError(f"{name} is not in the data folder; there is {some or 'nothing'}")
    return path


def written(path: Path) -> int:
    """When the newest file of a folder was written, in nanoseconds: for the key of a cache of what was read from it, so
    that a folder that was replaced is read again.
    """
    return max(file.stat().st_mtime_ns for file in (path, *(path.iterdir() if path.is_dir() else ())))


# ---------------------------------------------------------------- schemas


def _standard(schema: dict[str, Any]) -> dict[str, Any]:
    """JSON Schema without the OpenAPI word `nullable` that transformers writes."""
    out: dict[str, Any] = {}
    for key, value in schema.items():
        if isinstance(value, dict):
            out[key] = {k: _standard(v) for k, v in value.items()} if key == "properties" else _standard(value)
        elif key in ("anyOf", "prefixItems"):
            out[key] = [_standard(item) for item in value]
        elif key != "nullable":
            out[key] = value
    if not schema.get("nullable"):
        return out
    if "anyOf" in out:
        out["anyOf"].append({"type": "null"})
    elif "type" in out:
        names = out["type"] if isinstance(out["type"], list) else [out["type"]]
        out["type"] = [*names, "null"]
        if "enum" in out:
            out["enum"] = [*out["enum"], None]
    return out


def _no_json(hint: Any) -> str | None:
    """The name of a type in `hint` that JSON has no word for."""
    if get_origin(hint) is Literal:
        return None
    parts = get_args(hint)
    if parts:
        return next((bad for bad in map(_no_json, parts) if bad is not None), None)
    return None if hint in _PLAIN else getattr(hint, "__name__", str(hint))


def _whole(value: Any, schema: Mapping[str, Any]) -> Any:
    """Numbers such as 3.0 as 3, where the schema has integers and no other numbers; within lists too."""
    if isinstance(value, list):
        items = schema.get("items")
        return [_whole(item, items) for item in value] if isinstance(items, dict) else value
    found = schema.get("type")
    kinds = found if isinstance(found, list) else [found]
    whole = isinstance(value, float) and "integer" in kinds and "number" not in kinds
    return int(value) if whole else value


def type_name(schema: Mapping[str, Any]) -> str:
    """The type that a schema allows, in words."""
    found = schema.get("type", "any")
    return " or ".join(found) if isinstance(found, list) else str(found)
