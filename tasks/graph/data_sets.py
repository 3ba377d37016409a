"""Loaders of set-valued rows (retail, mushroom, groceries) and of places with keywords (New York, OpenStreetMap)."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from tasks.graph.data_files import SOURCES, data_file, pick

_WORD = re.compile(r"[a-z0-9]+")


class Sets(NamedTuple):
    """Rows of items, each item once a row."""

    rows: list[np.ndarray]
    """int32 [k] each, ascending positions in `vocab`."""
    vocab: list[str]


class Places(NamedTuple):
    """Places with keywords."""

    coords: np.ndarray
    """float64 [n, 2]: longitude and latitude, WGS84 degrees."""
    keywords: list[list[int]]
    """Positions in `vocab`, ascending, each once."""
    vocab: list[str]
    ids: np.ndarray
    """int64 [n], OpenStreetMap's."""


def load_sets(name: str, folder: str | Path | None = None) -> Sets:
    """Set-valued rows, in the order of the file; items are spelt as they are there ("cream cheese " with its space).

    Args:
        name: "retail", "mushroom" (items are numbers, written as text) or "groceries".
        folder: instead of ``graph/`` of the data folder.

    Raises:
        DataError: an unknown name, or a file that is missing or changed.
    """
    pick(name, ("retail", "mushroom", "groceries"), "data set of sets")
    source = data_file(SOURCES[name].files[0], folder)
    numbers = source.suffix == ".dat"
    lines = source.read_text(encoding="utf-8").splitlines()
    texts = [line.split() if numbers else line.split(",") for line in lines]
    rows, vocab = _indexed(texts, numeric=numbers)
    return Sets([np.array(row, dtype=np.int32) for row in rows], vocab)


def load_poi(name: str = "nyc", folder: str | Path | None = None) -> Places:
    """Places of a city, in the order of their ids. Keywords are the kind, and the runs of a-z and 0-9 of
    the name in small letters.

    Raises:
        DataError: an unknown name, or a file that is missing or changed.
    """
    pick(name, ("nyc",), "data set of places")
    with data_file(SOURCES[name].files[0], folder).open(encoding="utf-8", newline="") as file:
        places = list(csv.DictReader(file))
    words = [[place["fclass"], *_WORD.findall(place["name"].lower())] for place in places]
    keywords, vocab = _indexed(words)
    coords = np.array([[float(place["lon"]), float(place["lat"])] for place in places])
    return Places(coords, keywords, vocab, np.array([int(place["osm_id"]) for place in places], dtype=np.int64))


def _indexed(texts: Iterable[list[str]], numeric: bool = False) -> tuple[list[list[int]], list[str]]:
    """Rows of words as ascending positions in the sorted vocabulary, and the vocabulary."""
    sets = [set(row) for row in texts]
    vocab = sorted(set().union(*sets), key=int if numeric else None)
    place = {word: n for n, word in enumerate(vocab)}
    return [sorted(place[word] for word in row) for row in sets], vocab
