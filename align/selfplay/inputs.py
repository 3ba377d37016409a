"""What a self-play run is told by name: prompts, preference models, worlds, and what identifies a policy.

A source is one of
    a path          a file of rows with a ``prompt`` (text or chat messages), or a .txt with one prompt a line;
                    for preferences, the folder of a PreferenceModel
    world:NAME      an embedded world (entry point group ``arbiter.worlds``): its prompts, or its true game;
                    world:NAME:test are its held-out prompts
    module:name     a function that returns prompts, or a Scorer (an object, or a class made without arguments)
"""

from __future__ import annotations

import hashlib
import importlib
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import numpy as np

from align.preference.files import read_rows
from launch.contracts import Prompt
from launch.errors import ConfigError, DataError
from launch.rendering import check_messages
from launch.runtime import own_device

Describe = Callable[[str, str], dict[str, Any]]
_POLICY_FILES = ("*.safetensors", "*.json", "*.jinja", "*.model")
_NOT_CONTENT = ("trainer_state.json", "manifest.json")


@dataclass
class Judge:
    """A Scorer with the name its results are kept under."""

    scorer: Any
    identity: str
    """Changes whenever the scores could: a content hash, or a dotted name with the object's repr and source."""
    device: Any = None
    """torch.device that a scorer which is a module computes on; None leaves it where it is."""

    def rest(self) -> None:
        """Clear the device, for training; the next `parts` moves the scorer there again."""
        self._move("cpu")

    def _move(self, device: Any) -> None:
        import torch

        if self.device is not None and isinstance(self.scorer, torch.nn.Module):
            self.scorer.to(device)

    def parts(self, groups: Sequence[tuple[Prompt, Sequence[str]]]) -> list[tuple[np.ndarray, np.ndarray]]:
        """(S_T, S_C), float64 [K, K] each, of every (prompt, answers).

        Raises:
            DataError: a table of another size, or scores that are not finite; the prompt's number is named.
        """
        self._move(self.device)
        many = getattr(self.scorer, "score_many", None)
        scored = many(groups) if many is not None else [self.scorer.score(*group) for group in groups]
        out = []
        for i, (scores, (_, answers)) in enumerate(zip(scored, groups, strict=True)):
            both = tuple(np.asarray(part, dtype=np.float64) for part in (scores.S_T, scores.S_C))
            if any(part.shape != (len(answers), len(answers)) for part in both):
                raise DataError(f"prompt {i}: scores {both[0].shape} for {len(answers)} answers; S_T, S_C are [K, K]")
            if not all(np.isfinite(part).all() for part in both):
                raise DataError(f"prompt {i}: the preference model gives NaN or infinity; check its weights")
            out.append((both[0], both[1]))
        return out


def load_prompts(source: str, field: str = "prompts") -> list[Prompt]:
    """The prompts that `source` names, in order.

    Raises:
        DataError: unreadable, empty, or a row without a usable ``prompt`` (file and row are named).
        ConfigError: no such world or function.
    """
    kind, _, rest = source.partition(":")
    if kind == "world":
        name, _, split = rest.partition(":")
        return list(find_world(name, field).prompts(split or "train"))
    if _is_dotted(source):
        found = _attribute(source, field)
        return [_checked(prompt, f"{source}:{i}") for i, prompt in enumerate(found() if callable(found) else found, 1)]
    if source.endswith(".txt"):
        try:
            lines = Path(source).expanduser().read_text(encoding="utf-8").split("\n")
        except (OSError, UnicodeDecodeError) as error:
            raise DataError(f"{source}: cannot be read ({error}); give a UTF-8 text file") from error
        prompts: list[Prompt] = [line for line in lines if line.strip()]
        if not prompts:
            raise DataError(f"{source}: no prompts; one a line")
        return prompts
    out: list[Prompt] = []
    for place, row in read_rows(source):
        if "prompt" not in row:
            raise DataError(f"{place}: no 'prompt' but {', '.join(sorted(row))}; rename the column")
        out.append(_checked(row["prompt"], place))
    return out


def load_judge(source: str, field: str = "preference") -> Judge:
    """The Scorer that `source` names.

    Raises:
        ConfigError: no such world or object, or it has no ``score``.
        CheckpointError: a folder that holds no preference model.
    """
    kind, _, rest = source.partition(":")
    if kind == "world":
        world = find_world(rest, field)
        return Judge(world, f"{source} {world!r}")
    if _is_dotted(source):
        found = _attribute(source, field)
        scorer = found() if isinstance(found, type) else found
        if not hasattr(scorer, "score"):
            raise ConfigError(f"{field}: {source} has no score(prompt, responses)", field)
        own = getattr(scorer, "identity", None)
        if own is None:
            plain = type(scorer).__repr__ is object.__repr__  # would hold an address
            own = f"{'' if plain else repr(scorer)} {_sources(importlib.import_module(kind), *type(scorer).__mro__)}"
        return Judge(scorer, f"{source} {own}", own_device())
    from align.preference.model import PreferenceModel

    model = PreferenceModel.from_pretrained(source)
    return Judge(model.eval(), policy_identity(source), own_device())


def describer(function: str, *sources: str) -> Describe | None:
    """`function` (module:name) if given, else ``describe`` of the first source that is a world, else None.

    Raises:
        ConfigError: there is no such function.
    """
    if function:
        return _attribute(function, "describe")
    for source in sources:
        if source.startswith("world:"):
            return find_world(source.split(":")[1], "preference").describe
    return None


def find_world(name: str, field: str) -> Any:
    """The embedded world called `name`, made without arguments. Raises ConfigError if there is none."""
    known = {point.name: point for point in entry_points(group="arbiter.worlds")}
    if name not in known:
        raise ConfigError(f"{field}: no world {name!r}; worlds: {', '.join(sorted(known)) or 'none installed'}", field)
    return known[name].load()()


def policy_identity(path: str | Path) -> str:
    """sha256 over a model folder's weights, configs and tokenizer; a hub name is its own identity.

    Training leftovers beside them (state, manifests) do not count.
    """
    folder = Path(path).expanduser()
    if not folder.is_dir():
        return f"hub:{path}"
    digest = hashlib.sha256()
    files = {file for pattern in _POLICY_FILES for file in folder.glob(pattern) if file.name not in _NOT_CONTENT}
    for file in sorted(files):
        digest.update(file.name.encode())
        with file.open("rb") as data:
            while block := data.read(1 << 22):
                digest.update(block)
    return digest.hexdigest()


def _checked(prompt: Any, place: str) -> Prompt:
    if isinstance(prompt, str):
        if not prompt.strip():
            raise DataError(f"{place}: the prompt is empty; remove the row")
        return prompt
    if not isinstance(prompt, list):
        raise DataError(f"{place}: the prompt is a {type(prompt).__name__}; it must be text or chat messages")
    try:
        check_messages(prompt)
    except (DataError, TypeError) as error:
        raise DataError(f"{place}: {error}") from error
    return prompt


def _sources(*objects: Any) -> str:
    """sha256 over the files that define modules or classes, libraries' aside; built-in ones have none."""
    files = set()
    for found in objects:
        module = sys.modules[found.__module__] if isinstance(found, type) else found
        file = getattr(module, "__file__", None)
        if file is not None and "site-packages" not in file:
            files.add(file)
    return hashlib.sha256(b"".join(Path(file).read_bytes() for file in sorted(files))).hexdigest()


def _is_dotted(source: str) -> bool:
    module, colon, name = source.partition(":")
    return (
        bool(colon) and "/" not in source and name.isidentifier() and all(p.isidentifier() for p in module.split("."))
    )


def _attribute(source: str, field: str) -> Any:
    module, _, name = source.partition(":")
    try:
        return getattr(importlib.import_module(module), name)
    except (ModuleNotFoundError, AttributeError) as error:
        raise ConfigError(f"{field}: cannot find {source} ({error}); write module:name", field) from error
