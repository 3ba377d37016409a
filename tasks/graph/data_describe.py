"""What a data set is, as JSON, so that an agent can choose data without opening files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from launch.errors import DataError
from tasks.graph.data import load_citation
from tasks.graph.data_files import SOURCES, data_file, pick
from tasks.graph.data_sets import load_poi, load_sets


def describe(name: str, folder: str | Path | None = None) -> dict[str, Any]:
    """Source, licence, content, shape, checksum state and two rows of a data set.

    Args:
        name: one of `SOURCES`.
        folder: instead of ``graph/`` of the data folder.

    Returns:
        What JSON holds. checksum tells of every file whether it is as it was published; where one is not, shape and
        preview are null, for nothing is parsed then.

    Raises:
        DataError: an unknown name.
    """
    source = SOURCES[pick(name, tuple(SOURCES), "data set")]
    checksum = {file: _state(file, folder) for file in source.files}
    whole = all(state == "ok" for state in checksum.values())
    shape, preview = _look(name, folder) if whole else (None, None)
    return {
        "name": name,
        "source": source.repository,
        "licence": source.licence,
        "content": source.content,
        "checksum": checksum,
        "shape": shape,
        "preview": preview,
    }


def _state(file: str, folder: str | Path | None) -> str:
    try:
        data_file(file, folder)
    except DataError as error:
        return str(error)
    return "ok"


def _look(name: str, folder: str | Path | None) -> tuple[dict[str, Any], list[Any]]:
    if name in ("retail", "mushroom", "groceries"):
        sets = load_sets(name, folder)
        items = [[sets.vocab[item] for item in row] for row in sets.rows[:2]]
        return {"rows": len(sets.rows), "items": len(sets.vocab)}, items
    if name == "nyc":
        places = load_poi(name, folder)
        keywords = [[places.vocab[word] for word in words] for words in places.keywords[:2]]
        rows = [{"lon_lat": places.coords[n].tolist(), "keywords": keywords[n]} for n in range(2)]
        return {"places": len(places.ids), "keywords": len(places.vocab)}, rows
    variants = ["planetoid", "lcc"] if len(SOURCES[name].files) == 2 else ["lcc" if name == "polblogs" else "planetoid"]
    graphs = {variant: load_citation(name, variant, folder) for variant in variants}
    shape = {
        variant: {"nodes": len(g.y), "edges": g.edges.shape[1], "features": g.X.shape[1], "classes": int(g.y.max()) + 1}
        for variant, g in graphs.items()
    }
    first = graphs[variants[0]]
    return shape, [
        {"node": n, "class": int(first.y[n]), "features": first.X[n].nnz, "neighbours": _neighbours(first.edges, n)}
        for n in range(2)
    ]


def _neighbours(edges: Any, node: int) -> list[int]:
    return sorted([*edges[1][edges[0] == node].tolist(), *edges[0][edges[1] == node].tolist()])
