"""Every field of a recipe's Config with its type, default and docstring: the one list of what a config may say.

Python keeps no docstring of a field, so the string literal under it is read from the class's source.
"""

from __future__ import annotations

import ast
import dataclasses
import inspect
import itertools
import textwrap
from collections.abc import Iterator
from dataclasses import MISSING, dataclass
from typing import Any, get_args, get_origin, get_type_hints

from launch.config import resolve, type_name


@dataclass(frozen=True)
class Field:
    """One line of ``arbiter fields``."""

    key: str
    """Dotted, as an override writes it."""
    type: str
    default: Any
    """Plain data; ``dataclasses.MISSING`` when a config must give it."""
    doc: str


def fields_of(kind: type, prefix: str = "") -> Iterator[Field]:
    """Fields of the dataclass `kind` in order, nested ones after their parent under dotted keys."""
    hints, docs = get_type_hints(kind), field_docs(kind)
    for field in dataclasses.fields(kind):
        if not field.init:
            continue
        key = f"{prefix}{field.name}"
        hint = hints[field.name]
        default = field.default if field.default_factory is MISSING else field.default_factory()
        nested = next((k for k in (hint, *get_args(hint)) if dataclasses.is_dataclass(k) and isinstance(k, type)), None)
        if nested is None or not dataclasses.is_dataclass(default):
            yield Field(key, type_name(hint), default, docs.get(field.name, ""))
        if nested is not None and get_origin(hint) not in (list, dict, tuple):
            yield from fields_of(nested, f"{key}.")


def field_docs(kind: type) -> dict[str, str]:
    """The string literal under each annotated field, bases included; empty for classes without source."""
    docs: dict[str, str] = {}
    for base in reversed(kind.__mro__):
        if not dataclasses.is_dataclass(base):
            continue
        try:
            source = textwrap.dedent(inspect.getsource(base))
        except (OSError, TypeError):  # made by exec or make_dataclass: no source, so no docstrings
            continue
        body = ast.parse(source).body[0].body  # type: ignore[attr-defined]
        for statement, after in itertools.pairwise(body):
            if (
                isinstance(statement, ast.AnnAssign)
                and isinstance(statement.target, ast.Name)
                and isinstance(after, ast.Expr)
                and isinstance(after.value, ast.Constant)
                and isinstance(after.value.value, str)
            ):
                docs[statement.target.id] = " ".join(after.value.value.split())
    return docs


def default_text(default: Any) -> str:
    """A default as a config would write it, on one line."""
    if default is MISSING:
        return "required"
    plain = resolve(default) if dataclasses.is_dataclass(default) else default
    match plain:
        case None:
            return "null"
        case bool():
            return str(plain).lower()
        case str():
            return f'"{plain}"'
        case list() | tuple():
            return "[" + ", ".join(default_text(item) for item in plain) + "]"
    return str(plain)
