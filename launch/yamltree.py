"""YAML with places: every value knows the line, or the override, that wrote it.

The schema is YAML 1.2's core: ``1e-6`` is a float (PyYAML's 1.1 reads a string), ``no`` and ``off`` are strings,
``010`` is ten. Left out on purpose: merge keys (``<<``), tags, several documents in one file.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from launch.errors import ConfigError

_TAG = "tag:yaml.org,2002:"


class Loader(yaml.SafeLoader):
    """Composes nodes; the resolvers below are YAML 1.2's, not PyYAML's 1.1."""


class Dumper(yaml.SafeDumper):
    """Quotes exactly the strings that `Loader` would read as something else; writes no anchors."""

    def ignore_aliases(self, data: Any) -> bool:
        return True

    def represent_str(self, data: str) -> yaml.ScalarNode:
        # YAML reads these as line breaks and folds them to a space, unless they are escaped, as double quotes do.
        style = '"' if any(c in data for c in "\x85\u2028\u2029") else None
        return self.represent_scalar(_TAG + "str", data, style)


_SCALARS = {
    "null": (r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    "bool": (r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    "int": (r"[-+]?[0-9]+(_[0-9]+)*|0x[0-9a-fA-F]+", list("-+0123456789")),
    "float": (
        r"[-+]?(\.[0-9]+|[0-9]+(_[0-9]+)*(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
        list("-+.0123456789"),
    ),
}
Loader.yaml_implicit_resolvers = {}
for _name, (_pattern, _first) in _SCALARS.items():
    Loader.add_implicit_resolver(_TAG + _name, re.compile(rf"^(?:{_pattern})$"), _first)
Dumper.yaml_implicit_resolvers = Loader.yaml_implicit_resolvers
Dumper.add_representer(str, Dumper.represent_str)


@dataclass
class Value:
    """One YAML value and where it was written: ``file.yaml:12``, or the override that gave it."""

    data: Any  # dict[str, Value] | list[Value] | str | int | float | bool | None
    where: str

    def plain(self) -> Any:
        if isinstance(self.data, dict):
            return {key: value.plain() for key, value in self.data.items()}
        return [value.plain() for value in self.data] if isinstance(self.data, list) else self.data

    def place(self, field: str) -> str:
        """Where the dotted `field` was written, or else the nearest mapping that would hold it."""
        value = self
        for part in field.split("."):
            if not isinstance(value.data, dict) or part not in value.data:
                break
            value = value.data[part]
        return value.where


def read(file: Path) -> Value:
    try:
        text = file.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ConfigError(f"{file}: not UTF-8 text (byte {error.start})") from error
    value = compose(text, lambda line: f"{file}:{line}")
    if value.data is None:
        raise ConfigError(f"{file}: empty config; its first line names a recipe")
    if not isinstance(value.data, dict):
        raise ConfigError(f"{value.where}: a config is a mapping of `key: value` lines, not {kind_name(value.data)}")
    return value


def compose(text: str, where: Callable[[int], str]) -> Value:
    """Parse `text`; `where(line)` names a place (line from 1)."""
    try:
        node = yaml.compose(text, Loader=Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise ConfigError(f"{where(mark.line + 1 if mark else 1)}: YAML cannot be read: {error.problem}") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"{where(1)}: YAML cannot be read: {str(error).splitlines()[0]}") from error
    return Value(None, where(1)) if node is None else _convert(node, where, ())


def _convert(node: yaml.Node, where: Callable[[int], str], outer: tuple[yaml.Node, ...]) -> Value:
    here = where(node.start_mark.line + 1)
    if any(node is other for other in outer):
        raise ConfigError(f"{here}: an alias may not contain itself")
    if isinstance(node, yaml.MappingNode):
        mapping: dict[str, Value] = {}
        for key_node, value_node in node.value:
            key, line = key_node.value, key_node.start_mark.line + 1
            if not isinstance(key, str):
                raise ConfigError(f"{where(line)}: a key must be plain text")
            if key in mapping:
                raise ConfigError(f"{where(line)}: key {key!r} is written twice (first at {mapping[key].where})")
            value = _convert(value_node, where, (*outer, node))
            mapping[key] = Value(value.data, where(line))  # a complaint points at the key's line
        return Value(mapping, here)
    if isinstance(node, yaml.SequenceNode):
        return Value([_convert(item, where, (*outer, node)) for item in node.value], here)
    return Value(_scalar(node, here), here)


def _scalar(node: yaml.Node, where: str) -> Any:
    text = node.value
    match node.tag.removeprefix(_TAG):
        case "str":
            return text
        case "null":
            return None
        case "bool":
            return text.lower() == "true"
        case "int" if re.fullmatch(rf"(?:{_SCALARS['int'][0]})", text):
            return int(text, 16) if text.startswith("0x") else int(text)
        case "float" if re.fullmatch(rf"(?:{_SCALARS['float'][0]})", text):
            return float(text.lower().replace(".inf", "inf").replace(".nan", "nan"))
    raise ConfigError(f"{where}: cannot read {text!r} with the tag {node.tag!r}; configs use no tags")


def override(root: Value, text: str) -> None:
    """Write ``key.sub=value`` into the tree, making the mappings on the way."""
    key, equals, written = text.partition("=")
    where = f"override {text!r}"
    if not equals or not all(key.split(".")):
        raise ConfigError(f"{where}: write key=value or key.sub=value")
    value = root
    *parents, last = key.split(".")
    for part in parents:
        if not isinstance(value.data, dict):
            value.data = {}
        value = value.data.setdefault(part, Value({}, where))
    if not isinstance(value.data, dict):
        value.data, value.where = {}, where
    value.data[last] = compose(written, lambda line: where)


def dump(plain: Any) -> str:
    """YAML text of plain data; `compose` reads it back equal."""
    return yaml.dump(plain, Dumper=Dumper, sort_keys=False, allow_unicode=True, width=120)


def kind_name(data: Any) -> str:
    """`data` as a complaint shows it: as YAML would write it when short, else what kind of thing it is."""
    if isinstance(data, dict):
        return "a mapping"
    if isinstance(data, list):
        shown = "[" + ", ".join(kind_name(item.data) for item in data) + "]"
        return shown if len(shown) <= 60 else f"a list of {len(data)}"
    return "null" if data is None else str(data).lower() if isinstance(data, bool) else repr(data)
