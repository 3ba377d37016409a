"""The USER recipe, as a user starts it."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from launch import config
from launch.contracts import Result
from launch.errors import ConfigError, DataError
from launch.runfolder import RunFolder
from tasks.graph.data import load_citation
from tasks.graph.user.encoder import UserEncoder
from tasks.graph.user.noise import planted_partition
from tasks.graph.user.train import DataOptions, load

PAIR = {"edges": np.array([[0], [1]]), "features": np.eye(2)}


def run(name: str, *overrides: str) -> Result:
    loaded = config.load(f"tasks/{name}", list(overrides))
    return loaded.recipe.main(loaded.config)


def test_planted_blocks_from_config_to_encoder(tmp_path: Path) -> None:
    """Well above k-means; every epoch logged; a second start reads what the first saved.

    Three in four flips join two blocks, and one in five of the graph's own edges: who knows the blocks tells flips by
    an area of .75 x .8 + (.75 x .2 + .25 x .8) / 2 = .775.
    """
    folder = f"run.folder={tmp_path / 'run'}"
    first = run("user_planted", folder, "data.rate=0.1")
    assert first.metrics["nmi"] > 0.85 > 0.5 > first.metrics["k_means_nmi"]
    assert first.metrics["edge_auc"] == pytest.approx(0.775, abs=0.05) and first.metrics["clusters_used"] == 4
    encoder = UserEncoder.from_pretrained(first.folder / "encoder")
    rows = [row for row in RunFolder(first.folder).metrics() if row["stage"] == "user"]
    assert [row["step"] for row in rows] == list(range(len(encoder.history)))
    assert {"npsi_learned", "npsi_given", "dbi", "retention", "loss"} <= set(rows[0])
    saved = json.loads((first.folder / "artifacts" / "user-graph.json").read_text())
    assert sum(saved["sizes"]) == saved["nodes"] == 240
    assert run("user_planted", folder, "data.rate=0.1").metrics == first.metrics
    assert len([row for row in RunFolder(first.folder).metrics() if row["stage"] == "user"]) == len(rows)


def test_a_graph_of_ones_own(tmp_path: Path) -> None:
    edges, X, _ = planted_partition(40, 2, 0.4, 0.02, seed=0, features=4)
    np.savez(tmp_path / "own.npz", edges=edges, features=X)
    asked = [f"run.folder={tmp_path / 'run'}", f"data.path={tmp_path / 'own.npz'}", "data.noise=none", "user.epochs=60"]
    with pytest.raises(ConfigError, match="the graph has no classes to count"):
        run("user_planted", *asked)
    found = run("user_planted", *asked[1:], "clusters=2", f"run.folder={tmp_path / 'two'}")
    assert set(found.metrics) == {"npsi", "clusters_used"} and found.metrics["npsi"] < -0.5


def test_directions_and_repetitions_of_ones_own_edges_change_nothing(tmp_path: Path) -> None:
    """The same graph in four spellings: the same flips, as many as asked, and no clean edge taken for an added one."""
    edges, X, y = planted_partition(40, 2, 0.4, 0.02, seed=0, features=4)
    spelt = [edges, edges[::-1], np.concatenate([edges, edges[::-1]], axis=1), np.tile(edges, 3).astype(np.int32)]
    for number, given in enumerate(spelt):
        np.savez(tmp_path / f"{number}.npz", edges=given, features=X, labels=y)
        data = DataOptions(path=str(tmp_path / f"{number}.npz"))
        plain, noisy = load(data, 0), load(replace(data, noise="random", rate=0.5), 0)
        assert plain.clean.tolist() == plain.graph.edges.tolist() == noisy.clean.tolist() == edges.tolist()
        before, after = ({*zip(*part.tolist(), strict=True)} for part in (noisy.clean, noisy.graph.edges))
        assert len(before ^ after) == int(0.5 * edges.shape[1]) and before - after
        if number == 0:
            first = after
        assert after == first


def test_an_edge_to_no_node_is_told_before_noise_makes_another_of_it(tmp_path: Path) -> None:
    np.savez(tmp_path / "own.npz", edges=np.array([[0, 3], [1, 99]]), features=np.ones((40, 2)))
    with pytest.raises(DataError, match="edge 1 names node 99, but there are features for nodes 0 to 39"):
        load(DataOptions(path=str(tmp_path / "own.npz"), noise="random", rate=0.5), 0)


@pytest.mark.parametrize(
    ("arrays", "told"),
    [
        ({"edges": np.zeros((2, 1), int)}, "has no array 'features'; it needs edges [2, E] and features [n, d]"),
        ({"edges": np.array([{}]), "features": np.eye(2)}, "cannot be read: Object arrays cannot be loaded"),
        ({"edges": np.array([[0], [5]]), "features": np.eye(2)}, "own.npz: edge 0 names node 5"),
        (
            {**PAIR, "edges": np.array([[0, 1], [1, 1]])},
            "own.npz: edge 1 joins node 1 to itself (1 such in all); take it out",
        ),
        ({**PAIR, "labels": np.array([0, -1])}, "own.npz: labels have -1 for node 1; number them from 0"),
        ({**PAIR, "labels": np.array(["a", "b"])}, "own.npz: labels are of type <U1; give every node a whole number"),
        (
            {**PAIR, "labels": np.array([0, np.nan])},
            "own.npz: labels are of type float64; give every node a whole number",
        ),
        ({**PAIR, "labels": np.array([0, 1, 0])}, "own.npz: labels have shape (3,) for 2 nodes; give one a node"),
        (
            {**PAIR, "labels": np.array([0, 10**9])},
            "own.npz: labels have 1000000000 for node 1, as if 2 nodes had more",
        ),
    ],
)
def test_files_that_are_no_graph_are_told(arrays: dict[str, Any], told: str, tmp_path: Path) -> None:
    np.savez(tmp_path / "own.npz", **arrays)
    with pytest.raises(DataError, match=re.escape(told)):
        load(DataOptions(path=str(tmp_path / "own.npz")), 0)
    (tmp_path / "text.npz").write_text("no archive")
    with pytest.raises(DataError, match=r"text\.npz cannot be read"):
        load(DataOptions(path=str(tmp_path / "text.npz")), 0)


def test_attacks_are_refused_where_none_are_known() -> None:
    with pytest.raises(ConfigError, match="attacks are known for cora, citeseer and polblogs, variant lcc"):
        DataOptions(graph="wiki", noise="attack")


def test_graphs_of_the_real_data(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ARBITER_DATA", str(data_dir))
    attacked = load(DataOptions(graph="cora", noise="attack", rate=0.05), 0)
    assert attacked.graph.edges.shape[1] == 5069 + 253 and attacked.clean.shape[1] == 5069
    wiki = load(DataOptions(graph="wiki", scale="min_max_l2"), 0)
    X = wiki.graph.features
    lengths = np.asarray(np.sqrt(X.multiply(X).sum(1))).ravel()
    assert X.min() >= 0 and (lengths == 0).sum() == 88  # pages without words
    assert np.abs(lengths[lengths > 0] - 1).max() < 1e-5
    assert (X.nnz, wiki.graph.edges.shape[1]) == (load_citation("wiki").X.nnz, 11596)
