"""`cluster_nodes` and `denoise_graph`, called as a model calls them: in processes of their own, behind the fences."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from launch.tools import ToolError, available
from launch.tools_pool import Pool
from tasks.graph.user.metrics import clustering_scores
from tasks.graph.user.noise import planted_partition, random_flips


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pool]:
    tools = available(["cluster_nodes", "denoise_graph"])
    with Pool(tools, data=tmp_path_factory.mktemp("data"), workers=1) as made:
        yield made


@pytest.fixture(scope="module")
def passages() -> dict[str, Any]:
    """60 passages about three things, named p0 to p59; a link in twelve is wrong."""
    edges, X, y = planted_partition(60, 3, 0.35, 0.0, seed=0, features=12, signal=1.0)
    noisy = random_flips(edges, 60, 0.1, seed=0)
    return {
        "edges": [[f"p{i}", f"p{j}"] for i, j in noisy.T],
        "features": X.round(3).tolist(),
        "nodes": [f"p{k}" for k in range(60)],
        "y": y,
        "wrong": [int(y[i] != y[j]) for i, j in noisy.T],
    }


def ask(pool: Pool, tool: str, **arguments: Any) -> dict[str, Any]:
    return json.loads(pool.call(tool, arguments))["result"]


def given(passages: dict[str, Any]) -> dict[str, Any]:
    return {"edges": passages["edges"], "features": passages["features"], "nodes": passages["nodes"], "n_clusters": 3}


def test_communities_of_linked_passages(pool: Pool, passages: dict[str, Any]) -> None:
    told = ask(pool, "cluster_nodes", **given(passages))
    found = {node: c["number"] for c in told["communities"] for node in c["nodes"]}
    labels = np.array([found[f"p{k}"] for k in range(60)])
    assert clustering_scores(labels, passages["y"])["nmi"] > 0.95
    assert [c["size"] for c in told["communities"]] == [len(c["nodes"]) for c in told["communities"]]
    assert [len(part) for part in told["confidence"]] == [c["size"] for c in told["communities"]]
    assert -np.log2(3) <= told["entropy"] < -1  # three even parts without crossing edges have -log2 3 = -1.58


def test_wrong_links_are_doubtful(pool: Pool, passages: dict[str, Any]) -> None:
    """All confidences of wrong links lie below those of right ones but for a few, with vectors if asked."""
    from sklearn.metrics import roc_auc_score

    told = ask(pool, "denoise_graph", **given(passages), vectors=True)
    assert roc_auc_score(passages["wrong"], -np.array(told["edge_confidence"])) > 0.95
    assert np.mean([passages["wrong"][n] for n in told["doubtful"][:10]]) >= 0.9
    assert np.shape(told["embeddings"]) == (60, 256) and np.shape(told["soft_assignment"]) == (60, 3)
    learned = ask(pool, "denoise_graph", **given(passages), learn_graph=True, epochs=60)
    assert len(learned["edge_confidence"]) == len(passages["edges"]) and learned["embeddings"] is None


def test_a_graph_without_features(pool: Pool, passages: dict[str, Any]) -> None:
    told = ask(pool, "cluster_nodes", edges=[[0, 1], [1, 2], [2, 0], [3, 4], [4, 5], [5, 3], [2, 3]], n_clusters=2)
    assert sorted(c["nodes"] for c in told["communities"]) == [[0, 1, 2], [3, 4, 5]]
    assert told["entropy"] == pytest.approx(-6 / 7, abs=1e-4)


def test_a_passage_without_links_is_placed_by_its_features(pool: Pool, passages: dict[str, Any]) -> None:
    """p60 has the features of block 2's centre, and no link."""
    centre = np.mean(np.array(passages["features"])[passages["y"] == 2], axis=0)
    asked = given(passages)
    asked |= {"features": [*asked["features"], centre.tolist()], "nodes": [*asked["nodes"], "p60"]}
    told = ask(pool, "cluster_nodes", **asked)
    assert sum(c["size"] for c in told["communities"]) == 61
    (home,) = (c["nodes"] for c in told["communities"] if "p60" in c["nodes"])
    assert np.mean([passages["y"][int(node[1:])] == 2 for node in home if node != "p60"]) > 0.9
    assert len(ask(pool, "denoise_graph", **asked)["labels"]) == 61


@pytest.mark.parametrize(
    ("tool", "change", "told"),
    [
        ("cluster_nodes", {"n_clusters": 1}, "clusters=1: parts are told apart from 2 on; ask for at least 2"),
        ("cluster_nodes", {"edges": []}, "the graph has no edge"),
        ("cluster_nodes", {"edges": [["p0", "p99"]]}, "edge 0 names node 'p99', which is not among the 60 nodes"),
        ("cluster_nodes", {"edges": [["p0"]]}, "edge 0 is ['p0']; an edge has two ends"),
        ("denoise_graph", {"edges": [["p0", "p0"]]}, "edge 0 joins node 'p0' to itself (1 such in all); take it out"),
        (
            "cluster_nodes",
            {"edges": [["p0", "p1"]], "features": None},
            "node 'p2' has no edge (58 such in all); take it out of nodes, or give features for all nodes",
        ),
        ("denoise_graph", {"nodes": ["p0"]}, "edge 0 names node"),
        ("denoise_graph", {"features": [[1.0], [1.0, 2.0]]}, "row 1 has 2 numbers and row 0 has 1; give"),
        ("denoise_graph", {"epochs": 10}, "epochs=10; give 50 to 1000"),
        ("denoise_graph", {"alpha": -1}, "alpha=-1, beta=0.005; give numbers from 0"),
        ("denoise_graph", {"n_clusters": 61}, "60 nodes cannot fill 61 clusters; ask for fewer"),
        ("denoise_graph", {"edges": "p0-p1"}, 'edges is "p0-p1"; it must be of type array'),
    ],
)
def test_bad_arguments_are_one_line(
    pool: Pool, passages: dict[str, Any], tool: str, change: dict[str, Any], told: str
) -> None:
    with pytest.raises(ToolError) as caught:
        pool.call(tool, {**given(passages), **change})
    assert told in str(caught.value) and "\n" not in str(caught.value)
    assert "loops=" not in str(caught.value) and "isolated=" not in str(caught.value)  # the tools have no such argument


def test_graphs_too_large_for_a_call_are_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from launch.errors import DataError
    from tasks.graph.user import tools

    ring = [[k, (k + 1) % 600] for k in range(600)]
    rows = [[float(k % 2)] for k in range(600)]
    with pytest.raises(DataError, match="600 nodes are too many to learn a graph, up to 500; set learn_graph false"):
        tools.denoise_graph(ring, rows, 2, learn_graph=True)
    monkeypatch.setattr(tools, "MOST_NODES", 599)
    with pytest.raises(DataError, match="600 nodes are too many for one call, up to 599; give a part"):
        tools.cluster_nodes(ring, 2)
