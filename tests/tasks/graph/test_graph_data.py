"""Loaders of the graph, set and place data: what they refuse, and the counts that the data are known by.

Acceptance items are those of the graph data's specification; item 4 is the signed graphs' own.
"""

from __future__ import annotations

import json
import re
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from scipy import sparse

from launch.errors import DataError
from tasks.graph.data import RATES, CitationGraph, homophily, load_citation, load_meta_attack
from tasks.graph.data_describe import describe
from tasks.graph.data_files import SHA256, SOURCES
from tasks.graph.data_sets import Sets, load_poi, load_sets

LOADERS = {
    "derived/cora_planetoid.npz": lambda folder: load_citation("cora", "planetoid", folder),
    "derived/citeseer_lcc.npz": lambda folder: load_citation("citeseer", "lcc", folder),
    "meta_attack/polblogs_prognn_splits.json": lambda folder: load_citation("polblogs", "lcc", folder),
    "wiki/wiki.mat": lambda folder: load_citation("wiki", folder=folder),
    "meta_attack/cora_meta_adj_0.1.npz": lambda folder: load_meta_attack("cora", 0.1, folder),
    "sets/mushroom.dat": lambda folder: load_sets("mushroom", folder),
    "poi/nyc_osm_poi_2017.csv": lambda folder: load_poi("nyc", folder),
}


@pytest.fixture(scope="module")
def lcc(data_dir: Path) -> dict[str, CitationGraph]:
    return {name: load_citation(name, "lcc", data_dir / "graph") for name in ("cora", "citeseer", "polblogs")}


@pytest.fixture(scope="module")
def sets(data_dir: Path) -> dict[str, Sets]:
    return {name: load_sets(name, data_dir / "graph") for name in ("retail", "mushroom", "groceries")}


# ---------------------------------------------------------------- 1: refusing


@pytest.mark.parametrize("file", LOADERS)
def test_graph_data_acceptance_1_a_changed_file_is_refused_by_name(file: str, data_dir: Path, tmp_path: Path) -> None:
    """One byte more, and the loader names the file; the other files of the data set are as they were."""
    for name in SHA256:
        if Path(name).parent == Path(file).parent or "lcc" in name or "splits" in name:
            (tmp_path / name).parent.mkdir(exist_ok=True)
            shutil.copyfile(data_dir / "graph" / name, tmp_path / name)
    LOADERS[file](tmp_path)
    with (tmp_path / file).open("ab") as out:
        out.write(b" ")
    with pytest.raises(DataError, match=rf"{re.escape(file)}: sha256 is \w+…, not {SHA256[file][:12]}") as caught:
        LOADERS[file](tmp_path)
    assert "\n" not in str(caught.value)


def test_graph_data_acceptance_1_the_sums_are_those_of_the_readme(data_dir: Path) -> None:
    readme = (data_dir / "graph" / "README.md").read_text(encoding="utf-8")
    told = dict(re.findall(r"^\| ([\w/.-]+) \| \d+ \|.*\| ([0-9a-f]{64}) \|$", readme, re.MULTILINE))
    assert {name: told[name] for name in SHA256} == SHA256
    assert {file for source in SOURCES.values() for file in source.files} <= set(SHA256)


@pytest.mark.parametrize(
    ("call", "told"),
    [
        (lambda: load_citation("pubmed"), "no citation graph 'pubmed'; use one of cora, citeseer, polblogs, wiki"),
        (lambda: load_citation("wiki", "lcc"), "no variant of wiki 'lcc'; use one of planetoid"),
        (lambda: load_meta_attack("cora", 0.3), "no attack rate '0.3'; use one of 0.05, 0.1, 0.15, 0.2, 0.25"),
        (lambda: load_meta_attack("wiki", 0.05), "no attacked graph 'wiki'"),
        (lambda: load_sets("kosarak"), "no data set of sets 'kosarak'"),
        (lambda: load_poi("tky"), "no data set of places 'tky'"),
        (lambda: load_citation("cora", folder="/nowhere"), "cora_planetoid.npz: no such file; set ARBITER_DATA"),
    ],
)
def test_what_is_not_there_is_told(call, told: str) -> None:
    with pytest.raises(DataError, match=re.escape(told)):
        call()


# ---------------------------------------------------------------- 2: counts


@pytest.mark.data
@pytest.mark.parametrize(
    ("name", "variant", "nodes", "edges", "features", "classes"),
    [
        ("cora", "planetoid", 2708, 5278, 1433, [351, 217, 418, 818, 426, 298, 180]),
        ("citeseer", "planetoid", 3327, 4552, 3703, [264, 590, 668, 701, 596, 508]),
        ("cora", "lcc", 2485, 5069, 1433, None),
        ("citeseer", "lcc", 2110, 3668, 3703, None),
        ("polblogs", "lcc", 1222, 16714, 1222, [586, 636]),
        ("wiki", "planetoid", 2405, 11596, 4973, None),
    ],
)
def test_graph_data_acceptance_2_graphs(
    name: str, variant: str, nodes: int, edges: int, features: int, classes: list[int] | None, data_dir: Path
) -> None:
    graph = load_citation(name, variant, data_dir / "graph")
    assert (len(graph.y), graph.edges.shape, graph.X.shape) == (nodes, (2, edges), (nodes, features))
    assert (graph.edges.dtype, graph.X.dtype, graph.y.dtype) == (np.int32, np.float32, np.int64)
    assert (graph.edges[0] < graph.edges[1]).all() and len(np.unique(graph.edges, axis=1).T) == edges
    assert classes is None or np.bincount(graph.y).tolist() == classes
    for part in graph.splits.values():
        assert part.min() >= 0 and part.max() < nodes and len(np.unique(part)) == len(part)


def test_graph_data_acceptance_2_splits_and_unlabelled_nodes(data_dir: Path) -> None:
    """Citeseer's 15 nodes without label have neither words nor a class of their own: they count as class 0."""
    graph = load_citation("citeseer", folder=data_dir / "graph")
    assert {name: len(part) for name, part in graph.splits.items()} == {
        "train": 120, "val": 500, "test": 1000, "labelled": 3312,
    }  # fmt: skip
    unlabelled = np.setdiff1d(np.arange(3327), graph.splits["labelled"])
    assert len(unlabelled) == 15 and not graph.y[unlabelled].any() and graph.X[unlabelled].nnz == 0
    wiki = load_citation("wiki", folder=data_dir / "graph")
    assert wiki.splits == {} and np.unique(wiki.y).tolist() == list(range(17))


def test_graph_data_acceptance_2_attacks(lcc: dict[str, CitationGraph], data_dir: Path) -> None:
    """Edges added and taken away, as in the specification; floor(rate x E) in all, for every graph and rate."""
    told = {("cora", 0.05): (253, 0), ("cora", 0.25): (1222, 45), ("citeseer", 0.05): (183, 0)}
    told |= {("polblogs", 0.05): (735, 100)}
    for name, graph in lcc.items():
        for rate in RATES:
            added, removed = changes(graph.edges, load_meta_attack(name, rate, data_dir / "graph"))
            assert len(added) + len(removed) == int(rate * graph.edges.shape[1])
            assert told.get((name, rate), (len(added), len(removed))) == (len(added), len(removed))


def changes(clean: np.ndarray, attacked: np.ndarray) -> tuple[set[tuple[int, int]], set[tuple[int, int]]]:
    """Edges that came, and edges that went."""
    before, after = ({*zip(*edges.tolist(), strict=True)} for edges in (clean, attacked))
    return after - before, before - after


def test_graph_data_acceptance_2_sets_and_places(sets: dict[str, Sets], data_dir: Path) -> None:
    counts = {name: (len(held.rows), len(held.vocab)) for name, held in sets.items()}
    assert counts == {"retail": (88162, 16470), "mushroom": (8124, 119), "groceries": (9835, 169)}
    assert {len(row) for row in sets["mushroom"].rows} == {23}
    places = load_poi("nyc", data_dir / "graph")
    assert (len(places.ids), places.coords.shape, len(places.vocab)) == (16936, (16936, 2), 6459)
    assert (np.diff(places.ids) > 0).all()


# ---------------------------------------------------------------- 3: attacks share the clean graph's order


@pytest.mark.parametrize(
    ("name", "clean", "added"),
    [
        ("cora", 0.804, {0.05: 0.158, 0.2: 0.055, 0.25: 0.073}),
        ("citeseer", 0.736, {0.05: 0.153, 0.2: 0.096, 0.25: 0.105}),
    ],
)
def test_graph_data_acceptance_3_homophily(
    name: str, clean: float, added: dict[float, float], lcc: dict[str, CitationGraph], data_dir: Path
) -> None:
    """Another node order would pull the homophily of the added edges to that of chance, about .18."""
    graph = lcc[name]
    assert homophily(graph.edges, graph.y) == pytest.approx(clean, abs=5e-4)
    for rate, share in added.items():
        new = np.array(sorted(changes(graph.edges, load_meta_attack(name, rate, data_dir / "graph"))[0])).T
        assert homophily(new, graph.y) == pytest.approx(share, abs=5e-4)


def test_graph_data_acceptance_3_symmetric_binary_without_diagonal(data_dir: Path) -> None:
    """Read from the matrices themselves, not through the loader."""
    for name in ("cora", "citeseer", "polblogs"):
        for rate in RATES:
            A = sparse.load_npz(data_dir / "graph" / "meta_attack" / f"{name}_meta_adj_{rate:g}.npz")
            assert (A != A.T).nnz == 0 and set(A.data.tolist()) <= {0.0, 1.0} and not A.diagonal().any()
            assert load_meta_attack(name, rate, data_dir / "graph").shape[1] == A.sum() / 2


@pytest.mark.parametrize("spoil", [(0, 1, 1.0), (0, 0, 1.0), (None, None, 2.0)], ids=["one way", "loop", "weight"])
def test_graph_data_acceptance_3_other_matrices_are_refused(
    spoil: tuple, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import hashlib

    from tasks.graph import data_files

    row, column, value = spoil
    A = sparse.lil_matrix((4, 4), dtype=np.float32)
    A[2, 3] = A[3, 2] = value if row is None else 1.0
    if row is not None:
        A[row, column] = value
    name = "meta_attack/cora_meta_adj_0.05.npz"
    (tmp_path / "meta_attack").mkdir()
    sparse.save_npz(tmp_path / name, A.tocsr())
    digest = hashlib.sha256((tmp_path / name).read_bytes()).hexdigest()
    monkeypatch.setitem(data_files.SHA256, name, digest)
    with pytest.raises(DataError, match="not a symmetric 0/1 matrix without diagonal"):
        load_meta_attack("cora", 0.05, tmp_path)


# ---------------------------------------------------------------- 5: sets and places


@pytest.mark.parametrize(("name", "mark"), [("retail", None), ("mushroom", None), ("groceries", ",")])
def test_graph_data_acceptance_5_sets_give_the_text_back(
    name: str, mark: str | None, sets: dict[str, Sets], data_dir: Path
) -> None:
    """Item by item the same lines, up to the order within a line: no item is lost and none is there twice."""
    vocab = sets[name].vocab
    text = (data_dir / "graph" / SOURCES[name].files[0]).read_text(encoding="utf-8")
    lines = [sorted(line.split(mark)) for line in text.strip().split("\n")]
    assert [sorted(vocab[item] for item in row) for row in sets[name].rows] == lines
    assert all((np.diff(row) > 0).all() for row in sets[name].rows)


def test_graph_data_acceptance_5_keywords_of_places(data_dir: Path) -> None:
    places = load_poi("nyc", data_dir / "graph")
    counts = Counter(places.vocab[word] for words in places.keywords for word in words)
    assert (counts["bicycle_parking"], counts["restaurant"], counts["school"]) == (4861, 2055, 1650)


# ---------------------------------------------------------------- describing


@pytest.mark.data
@pytest.mark.parametrize("name", [name for name in SOURCES if name != "retail"])
def test_every_data_set_is_described_as_json(name: str, data_dir: Path) -> None:
    told = json.loads(json.dumps(describe(name, data_dir / "graph")))
    assert set(told["checksum"].values()) == {"ok"} and told["source"] and told["licence"]
    assert told["shape"] and len(told["preview"]) == 2


def test_a_spoilt_data_set_is_described_without_being_parsed(tmp_path: Path) -> None:
    (tmp_path / "sets").mkdir()
    (tmp_path / "sets" / "groceries.csv").write_text("milk,bread\n")
    told = describe("groceries", tmp_path)
    assert "sha256 is" in told["checksum"]["sets/groceries.csv"] and told["shape"] is told["preview"] is None
    with pytest.raises(DataError, match="no data set 'bananas'"):
        describe("bananas")
