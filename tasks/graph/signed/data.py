"""The four signed graphs of SGA and CSG, read where they lie, each file compared with its sha256 first.

    edges = load_signed("bitcoin-alpha")              the whole graph, int64 [24186, 3]: source, target, sign
    parts = load_signed("bitcoin-alpha", "sga1")      {"train", "test"}; bitcoin-alpha also "augmented"
    parts = load_signed("wiki-RfA", "csg1")           {"train", "validation", "test"}

Ids of a graph's files agree with each other, not with those of other publications.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Literal, overload

import numpy as np

from launch.errors import DataError
from tasks.graph.checked import checked
from tasks.graph.checksums import SIGNED
from tasks.graph.signed.edges import INT64, Places, SignedGraph, beyond_int64

NAMES = ("bitcoin-alpha", "bitcoin-otc", "wiki-elec", "wiki-RfA")
_CSG = {
    "bitcoin-alpha": "Bitcoin-Alpha",
    "bitcoin-otc": "Bitcoin-OTC",
    "wiki-elec": "WikiElec",
    "wiki-RfA": "WikiRfa",
}
_SGA_PARTS = {"train": "train", "test": "test", "augmented": "aug"}
_CSG_PARTS = {"train": "train", "validation": "val", "test": "test"}


@overload
def load_signed(name: str, split: None = None) -> np.ndarray: ...
@overload
def load_signed(name: str, split: Literal["sga1", "csg1"]) -> dict[str, np.ndarray]: ...
def load_signed(name: str, split: Literal["sga1", "csg1"] | None = None) -> np.ndarray | dict[str, np.ndarray]:
    """Edges of a graph, or of the parts of a published split.

    Args:
        name: one of `NAMES`.
        split: "sga1" (80/20, the two bitcoin graphs), "csg1" (85/5/10), or None for the whole graph.

    Returns:
        int64 [m, 3]: source, target, sign; by part, where a split is asked for.

    Raises:
        DataError: an unknown name, a split that is not there, a file that is missing or another one.
    """
    if name not in NAMES:
        raise DataError(f"there is no signed graph {name!r}; use one of {', '.join(NAMES)}")
    if split is None:
        return _read(f"{name}.csv")
    if split == "sga1":
        files = {part: f"sga_{name}-{word}-1.csv" for part, word in _SGA_PARTS.items()}
    elif split == "csg1":
        files = {part: f"csg_{_CSG[name]}-1_{word}.txt" for part, word in _CSG_PARTS.items()}
    else:
        raise DataError(f"there is no split {split!r}; use sga1, csg1, or none")
    there = {part: file for part, file in files.items() if f"signed/{file}" in SIGNED}
    if not there:
        raise DataError(f"{name} has no split {split}; use csg1, or split_edges of the whole graph")
    return {part: _read(file) for part, file in there.items()}


def read_edges(path: Path) -> np.ndarray:
    """Rows of source, target, sign from a text file: separated by commas, tabs or spaces, without a header.

    Returns:
        int64 [m, 3]. Whether they make a graph is not looked at: `read_graph` does.

    Raises:
        DataError: a line that is none, a number beyond int64, or an empty file; names file and line.
    """
    return _numbered_edges(path)[0]


def read_graph(path: Path) -> SignedGraph:
    """The graph of a file that `read_edges` can read.

    Raises:
        DataError: what `read_edges` and `SignedGraph.of` refuse; names file and line, or both lines.
    """
    rows, lines = _numbered_edges(path)
    return SignedGraph.of(rows, places=Places(str(path), lines))


def _numbered_edges(path: Path) -> tuple[np.ndarray, list[int]]:
    """int64 [m, 3], and the line that each comes from."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read as text ({error}); give a file of source, target, sign") from error
    rows, numbers = [], []
    for number, line in enumerate(lines, 1):
        words = line.replace(",", " ").split()
        if not words:
            continue
        try:
            source, target, sign = map(int, words)
        except ValueError:
            raise DataError(
                f"{path}:{number}: {line[:40]!r} is not source, target, sign; three whole numbers"
            ) from None
        beyond = next((value for value in (source, target, sign) if value not in INT64), None)
        if beyond is not None:
            raise beyond_int64(beyond, f"{path}:{number}")
        rows.append((source, target, sign))
        numbers.append(number)
    if not rows:
        raise DataError(f"{path}: no edges; give rows of source, target, sign")
    return np.array(rows, dtype=np.int64), numbers


def describe(name: str) -> dict[str, Any]:
    """What an agent needs to choose a graph: source, licence, shape, a preview of two rows."""
    edges = load_signed(name)
    return {
        "name": name,
        "source": "Alex-Zeyu/SGA @ 077dc2ec, networks/; upstream SNAP",
        "licence": "none stated",
        "edges": len(edges),
        "nodes": len(np.unique(edges[:, :2])),
        "positive_share": round(float((edges[:, 2] > 0).mean()), 4),
        "checksum": "agrees",
        "preview": edges[:2].tolist(),
    }


def _read(file: str) -> np.ndarray:
    root = Path(os.environ.get("ARBITER_DATA") or Path(__file__).resolve().parents[4] / "shared" / "data")
    relative = f"signed/{file}"
    return read_edges(checked(root / "graph" / relative, SIGNED[relative]))
