"""Configs: one YAML file to one typed dataclass and back, every complaint with its file and line.

A config names its recipe (an entry point of group ``arbiter.recipes``, or a dotted module with ``Config`` and
``main``) and fills that recipe's ``Config``::

    recipe: preference
    train: {learning_rate: 2e-6}

Overrides are ``key.sub=value`` with the value read as YAML. What is written wins over the dataclass default, and an
override wins over what is written. There is no second list of flags and no inheritance between files: a config reads
top to bottom.

The dialect of YAML is `launch.yamltree`'s. NaN is refused: it is not equal to itself, so a resolved config could not be
compared with the one that made it.

Checks a type cannot say belong to the dataclass: raise ``ConfigError(message, field="train.lora")`` in
``__post_init__``, with the field's path from that dataclass, and the line is put in front of the message.
"""

from __future__ import annotations

import dataclasses
import difflib
import functools
import importlib
import math
import operator
import re
import sys
import types
from collections.abc import Iterator, Sequence
from dataclasses import MISSING, dataclass
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from launch import yamltree
from launch.errors import ConfigError
from launch.yamltree import Value

RECIPES = "arbiter.recipes"


@dataclass(frozen=True)
class Loaded:
    """A config ready to run: ``loaded.recipe.main(loaded.config)``."""

    recipe: types.ModuleType
    config: Any
    """An instance of ``recipe.Config``."""
    resolved: dict[str, Any]
    """Plain data with every default filled in and ``recipe`` first; loading its dump gives an equal `config`."""
    path: Path
    tree: Value = dataclasses.field(repr=False)

    def locate(self, error: ConfigError) -> ConfigError:
        """The same complaint with its line in front, for one that `main` raised about a field of its config."""
        return ConfigError(f"{self.tree.place(error.field)}: {error.field}: {error}") if error.field else error


def load(path: str | Path, overrides: Sequence[str] = ()) -> Loaded:
    """Read `path` (a file, or the name of a shipped config such as ``align/demo``) and build the recipe's Config.

    Raises:
        ConfigError: one line with the place, the offending key or value, and the nearest right one.
    """
    file = find(path)
    root = yamltree.read(file)
    for override in overrides:
        yamltree.override(root, override)
    recipe = _take_recipe(root)
    config = build(recipe.Config, root, "")
    return Loaded(recipe=recipe, config=config, resolved=resolve(config), path=file, tree=root)


def recipe_of_file(path: str | Path) -> types.ModuleType:
    """The recipe that a config names."""
    return _take_recipe(yamltree.read(find(path)))


def resolve(config: Any) -> dict[str, Any]:
    """Plain data (dicts, lists, scalars) of a config object, defaults filled in, ``recipe`` first when it is one's.

    The recipe is written as its dotted module, which means the same thing whatever is installed.
    """
    recipe = _recipe_of(type(config))
    plain = {field.name: _plain(getattr(config, field.name)) for field in dataclasses.fields(config)}
    return {"recipe": recipe, **plain} if recipe else plain


def dump(data: Any) -> str:
    """YAML text of a config object or of resolved data; `load` reads it back to an equal object."""
    plain = data if isinstance(data, dict) else resolve(data)
    return yamltree.dump(plain)


# ---------------------------------------------------------------- finding files and recipes


def shipped() -> dict[str, Path]:
    """Configs that travel with the package, name to file: ``{"align/demo": …}``. Same place in a clone and a wheel."""
    root = Path(__file__).parent.parent / "configs"
    return {file.relative_to(root).with_suffix("").as_posix(): file for file in sorted(root.rglob("*.yaml"))}


def find(path: str | Path) -> Path:
    """The config file meant by `path`: an existing file, else a shipped name with or without configs/ and .yaml."""
    if Path(path).is_file():
        return Path(path)
    names = shipped()
    name = str(path).removeprefix("configs/").removesuffix(".yaml")
    if name in names:
        return names[name]
    near = difflib.get_close_matches(name, names, n=1)
    hint = f"did you mean {near[0]!r}? " if near else ""
    raise ConfigError(f"no config {str(path)!r}; {hint}shipped configs: {', '.join(names) or 'none'}")


def recipe_names() -> dict[str, str]:
    """Recipes known by name, each with its dotted module."""
    return {point.name: point.value for point in sorted(entry_points(group=RECIPES), key=lambda point: point.name)}


def find_recipe(name: Any, where: str = "recipe") -> types.ModuleType:
    """Import the recipe called `name` (entry point or dotted module). Raises ConfigError with the nearest name."""
    if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z_][\w-]*(\.[A-Za-z_]\w*)*", name):
        raise ConfigError(f"{where}: recipe = {yamltree.kind_name(name)} is not a name; {_known_recipes('')}")
    # A dotted name needs no look at the metadata of everything installed, which takes a while.
    target = name if "." in name else recipe_names().get(name, name)
    try:
        module = importlib.import_module(target)
    except ModuleNotFoundError as error:
        if error.name and (target == error.name or target.startswith(error.name + ".")):
            raise ConfigError(f"{where}: no recipe {name!r}; {_known_recipes(name)}") from error
        raise ConfigError(
            f"{where}: recipe {name!r} needs the module {error.name!r}, which is not installed; see `arbiter doctor`"
        ) from error
    if not dataclasses.is_dataclass(getattr(module, "Config", None)) or not callable(getattr(module, "main", None)):
        raise ConfigError(f"{where}: module {target!r} is no recipe: it needs a dataclass `Config` and `main(config)`")
    return module


def _known_recipes(name: str) -> str:
    known = recipe_names()
    near = difflib.get_close_matches(name, known, n=1)
    listed = ", ".join(known) or "none installed"
    return f"did you mean {near[0]!r}?" if near else f"recipes: {listed}, or a dotted module"


def _take_recipe(root: Value) -> types.ModuleType:
    name = root.data.pop("recipe", None)
    if name is None:
        raise ConfigError(f"{root.where}: no `recipe`; add a first line such as `recipe: preference`")
    return find_recipe(name.data, name.where)


def _recipe_of(kind: type) -> str | None:
    """Dotted module of the recipe whose Config is `kind`; a Config may also live beside its recipe."""

    def is_home(name: str) -> bool:
        module = sys.modules.get(name)
        return getattr(module, "Config", None) is kind and hasattr(module, "main")

    if is_home(kind.__module__):
        return kind.__module__
    return next(filter(is_home, recipe_names().values()), None)


# ---------------------------------------------------------------- types


def build(kind: Any, value: Value, key: str, default: Any = None) -> Any:
    """Make a `kind` (a type annotation) of `value`, or say what is wrong and where.

    Args:
        default: what the field would be if `value` were not given. A group of fields that names some of them keeps the
            others of its default, which need not be those of its type.
    """
    if kind is Any:
        return value.plain()
    if dataclasses.is_dataclass(kind) and isinstance(kind, type):
        return _build_dataclass(kind, value, key, default if isinstance(default, kind) else None)
    origin, args = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        return _build_union(args, value, key, default)
    if origin is Literal:
        for choice in args:
            if type(choice) is type(value.data) and choice == value.data:
                return choice
        near = difflib.get_close_matches(str(value.data), [str(choice) for choice in args], n=1)
        raise _wrong(kind, value, key, f"; did you mean {near[0]!r}?" if near else "")
    if origin is list and isinstance(value.data, list):
        return [build(args[0], item, f"{key}[{i}]") for i, item in enumerate(value.data)]
    if origin is tuple and isinstance(value.data, list):
        kinds = (args[0],) * len(value.data) if args[1:] == (Ellipsis,) else args
        if len(kinds) == len(value.data):
            return tuple(
                build(k, item, f"{key}[{i}]") for i, (k, item) in enumerate(zip(kinds, value.data, strict=True))
            )
    if origin is dict and isinstance(value.data, dict):
        return {name: build(args[1], item, _join(key, name)) for name, item in value.data.items()}
    if kind is float and type(value.data) in (int, float) and not math.isnan(value.data):
        return float(value.data)
    if kind in (int, bool, str, types.NoneType) and type(value.data) is kind:
        return value.data
    if kind is Path and isinstance(value.data, str):
        return Path(value.data)
    if origin not in (None, list, tuple, dict) or (origin is None and kind not in _PLAIN):
        raise TypeError(f"{key}: a Config cannot have the type {type_name(kind)}; see launch/config.py")
    raise _wrong(kind, value, key)


_PLAIN = (int, bool, str, float, Path, type(None))


def _build_dataclass(kind: type, value: Value, key: str, default: Any) -> Any:
    if not isinstance(value.data, dict):
        raise _wrong(kind, value, key)
    hints = get_type_hints(kind)
    fields = {field.name: field for field in dataclasses.fields(kind) if field.init}
    arguments = {}
    for name, item in value.data.items():
        if name not in fields:
            raise ConfigError(f"{item.where}: unknown key {_join(key, name)!r}; {_nearest(name, kind, key)}")
        arguments[name] = build(hints[name], item, _join(key, name), _default_of(fields[name], default))
    for name, field in fields.items():
        if name not in arguments and default is not None:
            arguments[name] = getattr(default, name)
        elif name not in arguments and field.default is MISSING and field.default_factory is MISSING:
            raise ConfigError(f"{value.where}: {_join(key, name)!r} is missing ({type_name(hints[name])})")
    try:
        return kind(**arguments)
    except ConfigError as error:
        if not error.field:
            raise ConfigError(f"{value.where}: {error}") from error
        raise ConfigError(f"{value.place(error.field)}: {_join(key, error.field)}: {error}") from error


def _default_of(field: dataclasses.Field[Any], owner: Any) -> Any:
    """What a field is if it is not given: as its owner's default has it, else as its type does."""
    if owner is not None:
        return getattr(owner, field.name)
    return None if field.default_factory is MISSING else field.default_factory()


def _build_union(kinds: Sequence[Any], value: Value, key: str, default: Any) -> Any:
    rest = [kind for kind in kinds if kind is not type(None)]
    if value.data is None and len(rest) < len(kinds):
        return None
    if len(rest) == 1:
        return build(rest[0], value, key, default)
    # A mapping can only be meant for the one dataclass of the union: its own complaint is the useful one.
    classes = [kind for kind in rest if dataclasses.is_dataclass(kind)]
    if isinstance(value.data, dict) and len(classes) == 1:
        return build(classes[0], value, key, default)
    for kind in rest:
        try:
            return build(kind, value, key)
        except ConfigError:
            continue  # the next member may take it; if none does, the whole union is named below
    raise _wrong(functools.reduce(operator.or_, kinds), value, key)


def _wrong(kind: Any, value: Value, key: str, hint: str = "") -> ConfigError:
    return ConfigError(
        f"{value.where}: {key or 'config'} = {yamltree.kind_name(value.data)} is not {type_name(kind)}{hint}"
    )


def _nearest(name: str, kind: type, key: str) -> str:
    """The field meant by `name`: a sibling with a close name, else a nested field with it, else all siblings."""
    siblings = [field.name for field in dataclasses.fields(kind)]
    near = difflib.get_close_matches(name, siblings, n=1)
    if near:
        return f"did you mean {_join(key, near[0])!r}?"
    paths = list(_paths(kind))
    last = difflib.get_close_matches(name, [path.rpartition(".")[2] for path in paths], n=1, cutoff=0.8)
    if last:
        path = next(path for path in paths if path.rpartition(".")[2] == last[0])
        return f"did you mean {_join(key, path)!r}?"
    return f"known keys: {', '.join(siblings)}"


def _paths(kind: type) -> Iterator[str]:
    for name, hint in get_type_hints(kind).items():
        yield name
        for nested in (hint, *get_args(hint)):
            if dataclasses.is_dataclass(nested) and isinstance(nested, type):
                yield from (f"{name}.{path}" for path in _paths(nested))


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: _plain(getattr(value, field.name)) for field in dataclasses.fields(value) if field.init}
    if isinstance(value, dict):
        return {name: _plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value


def type_name(kind: Any) -> str:
    """An annotation as a reader would say it: ``"cosine" | "linear"``, ``list[str]``, ``LoraOptions | null``."""
    origin, args = get_origin(kind), get_args(kind)
    if kind is type(None):
        return "null"
    if origin is Literal:
        return " | ".join(f'"{choice}"' if isinstance(choice, str) else str(choice) for choice in args)
    if origin in (Union, types.UnionType):
        return " | ".join(type_name(arg) for arg in args)
    if origin is not None:
        inner = ", ".join("…" if arg is Ellipsis else type_name(arg) for arg in args)
        return f"{origin.__name__}[{inner}]"
    return getattr(kind, "__name__", str(kind))


def _join(*parts: str) -> str:
    return ".".join(part for part in parts if part)
