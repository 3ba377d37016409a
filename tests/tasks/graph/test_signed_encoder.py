"""The encoder on disk and off, the recipe, the tools, and a wrong question to each."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from launch import config
from launch.errors import CheckpointError, ConfigError, DataError
from launch.tools import ToolError, ToolSpec
from launch.tools_pool import Pool
from tasks.encoder import VectorTable
from tasks.graph.signed.data import load_signed
from tasks.graph.signed.encoder import SignedGraphEncoder
from tasks.graph.signed.options import AugmentOptions, BackboneOptions, CurriculumOptions, Thresholds
from tasks.graph.signed.planted import two_factions
from tasks.graph.signed.tools import edge_difficulty, predict_link_sign
from tests.tasks.graph.signed_graphs import random_graph

SMALL = BackboneOptions(width=16, epochs=60)


@pytest.fixture(scope="module")
def edges() -> np.ndarray:
    """A third of the nodes is disliked by all; on ids with holes: 3, 13, 23, …"""
    rows = two_factions(40, 500, seed=0)
    rows[:, 2] = np.where(rows[:, 1] % 3 == 0, -1, 1)
    rows[:, :2] = 10 * rows[:, :2] + 3
    return rows


@pytest.fixture(scope="module")
def encoder(edges: np.ndarray) -> SignedGraphEncoder:
    return SignedGraphEncoder(SMALL, seed=1).fit(edges)


def test_vectors_and_chances(encoder: SignedGraphEncoder, edges: np.ndarray) -> None:
    vectors = encoder.encode([13, 3, 13])
    assert vectors.shape == (3, 16) and vectors.dtype == np.float32
    np.testing.assert_array_equal(vectors[0], vectors[2])
    chances = encoder.predict(edges[:, :2])
    assert ((chances > 0.5) == (edges[:, 2] > 0)).mean() > 0.95 and chances.min() >= 0 and chances.max() <= 1
    table = VectorTable.of(encoder, [3, 13])
    assert table.spans == {"3": (0, 1), "13": (1, 2)}


def test_what_is_saved_comes_back_to_the_bit(encoder: SignedGraphEncoder, edges: np.ndarray, tmp_path: Path) -> None:
    encoder.save_pretrained(tmp_path / "trust")
    again = SignedGraphEncoder.from_pretrained(tmp_path / "trust")
    np.testing.assert_array_equal(again.score(edges[:, :2]), encoder.score(edges[:, :2]))
    np.testing.assert_array_equal(again.encode([3]), encoder.encode([3]))
    assert (again.backbone, again.seed, again.settings()) == (SMALL, 1, encoder.settings())
    assert sorted(f.suffix for f in (tmp_path / "trust").iterdir() if f.suffix) == [".json", ".json", ".safetensors"]


def test_options_of_every_part_come_back(edges: np.ndarray, tmp_path: Path) -> None:
    tiny = BackboneOptions(width=4, epochs=3)
    augment = AugmentOptions(True, Thresholds(0.1, 0.1, 0.51, 0.51), tiny)
    made = SignedGraphEncoder(tiny, CurriculumOptions("csg", epochs_per_stage=1, stages=2), augment).fit(edges)
    made.save_pretrained(tmp_path / "e")
    again = SignedGraphEncoder.from_pretrained(tmp_path / "e")
    assert again.settings() == made.settings() and made.changes is not None and made.changes["kept"] > 0


def test_the_same_seed_gives_the_same_encoder(edges: np.ndarray) -> None:
    made = [SignedGraphEncoder(BackboneOptions(width=4, epochs=3), seed=seed).fit(edges).z for seed in (1, 1, 2)]
    np.testing.assert_array_equal(made[0], made[1])
    assert not np.array_equal(made[0], made[2])


def test_difficulty_needs_no_fit() -> None:
    assert SignedGraphEncoder.difficulty([[5, 6, 1], [6, 7, 1], [5, 7, -1], [7, 8, 1]]).tolist() == [1, 1, 1, 0]


def test_wrong_questions_to_an_encoder(encoder: SignedGraphEncoder, edges: np.ndarray) -> None:
    with pytest.raises(DataError, match="node 4 is not in the graph; it has 40 nodes, such as 3, 13, 23"):
        encoder.encode([3, 4])
    with pytest.raises(DataError, match=r"shape \(2,\); rows of source, target are needed"):
        encoder.predict([3, 13])
    with pytest.raises(DataError, match="call fit, or load one"):
        SignedGraphEncoder().encode([3])
    with pytest.raises(DataError, match="nothing to save; call fit first"):
        SignedGraphEncoder().tensors()
    with pytest.raises(DataError, match="all 5 edges are positive"):
        SignedGraphEncoder(SMALL).fit(edges[edges[:, 2] > 0][:5])
    with pytest.raises(ConfigError, match="pairs are scored by an SGCN alone"):
        SignedGraphEncoder(SMALL, augment=AugmentOptions(True, encoder=BackboneOptions("gcn"))).fit(edges)


def test_a_node_without_edges_has_a_vector_only_if_it_was_named(edges: np.ndarray) -> None:
    nodes = [*np.unique(edges[:, :2]).tolist(), 9999]
    made = SignedGraphEncoder(BackboneOptions(width=4, epochs=2)).fit(edges, nodes=nodes)
    assert np.isfinite(made.encode([9999])).all()


# ---------------------------------------------------------------- recipe


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, float]]:
    folder = tmp_path_factory.mktemp("signed") / "run"
    loaded = config.load("tasks/signed_planted", [f"run.folder={folder}", "backbone.epochs=60"])
    return folder, loaded.recipe.main(loaded.config).metrics


def test_the_recipe_learns_two_factions_and_keeps_the_encoder(run: tuple[Path, dict[str, float]]) -> None:
    folder, metrics = run
    assert metrics["auc"] > 0.95 and metrics["auc_no_reverse"] > 0.95
    report = json.loads((folder / "artifacts" / "signed-links.json").read_text())
    assert set(report["methods"]) == {"encoder", "six features", "always positive"}
    assert report["methods"]["always positive"]["all"]["auc"] == 0.5
    again = SignedGraphEncoder.from_pretrained(folder / "encoder")
    assert (again.predict([[0, 2], [0, 1]]) > 0.5).tolist() == [True, False]  # even nodes are friends


def test_the_recipe_run_again_gives_the_same(run: tuple[Path, dict[str, float]]) -> None:
    folder, metrics = run
    loaded = config.load("tasks/signed_planted", [f"run.folder={folder}", "backbone.epochs=60"])
    assert loaded.recipe.main(loaded.config).metrics == metrics


@pytest.mark.parametrize("split", ["pairs", "csg"])
def test_the_recipe_reads_a_file_of_ones_own(split: str, tmp_path: Path) -> None:
    rows = random_graph(25, 0.3, 0).rows
    file = tmp_path / "edges.csv"
    file.write_text("".join(f"{u},{v},{s}\n" for u, v, s in rows.tolist()))
    loaded = config.load(
        "tasks/signed_planted",
        [
            f"data.path={file}",
            "data.test=0.2",
            f"data.split={split}",
            "backbone.epochs=3",
            f"run.folder={tmp_path / 'r'}",
        ],
    )
    assert 0 <= loaded.recipe.main(loaded.config).metrics["auc"] <= 1


@pytest.mark.data
def test_the_bitcoin_config_reads_its_split() -> None:
    from tasks.graph.signed.recipe import _edges

    loaded = config.load("tasks/signed_bitcoin_alpha")
    train, validation, test = _edges(loaded.config)
    assert (len(train), validation, len(test)) == (19349, None, 4837)
    for split in ("csg", "csg1"):
        parts = _edges(config.load("tasks/signed_bitcoin_alpha", [f"data.split={split}"]).config)
        shares = [len(part) / 24186 for part in parts if part is not None]
        assert shares == pytest.approx([0.85, 0.05, 0.1], abs=0.001)
    assert len(load_signed("bitcoin-alpha")) == 24186


# ---------------------------------------------------------------- tools


@pytest.fixture(scope="module")
def pool(run: tuple[Path, dict[str, float]]) -> Any:
    tools = {spec.name: spec for spec in (ToolSpec.of(predict_link_sign), ToolSpec.of(edge_difficulty))}
    with Pool(tools, data=run[0]) as pool:
        yield pool


def test_predict_link_sign_in_a_process_of_its_own(pool: Pool) -> None:
    found = json.loads(pool.call("predict_link_sign", {"pairs": [[0, 2], [0, 1]], "encoder": "encoder"}))
    assert found["result"]["sign"] == [1, -1]
    assert found["result"]["positive"][0] > 0.5 > found["result"]["positive"][1]
    assert "chance in 0 to 1" in found["unit"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"pairs": [[0, 999]], "encoder": "encoder"}, "node 999 is not in the graph"),
        ({"pairs": [], "encoder": "encoder"}, "0 pairs were given; give 1 to 2000"),
        ({"pairs": [[0, 1]] * 2001, "encoder": "encoder"}, "2001 pairs were given"),
        ({"pairs": [[0, 1], [3]], "encoder": "encoder"}, r"pair 1 has 1 members; a pair is \[from, to\]"),
        ({"pairs": [[0, 1]], "encoder": "samples"}, "samples is not in the data folder"),
        ({"pairs": [[0, 1]], "encoder": "../elsewhere"}, "lies outside of the data folder"),
        ({"pairs": [[0, 1]], "encoder": "artifacts"}, "holds no encoder"),
        ({"pairs": [["a", "b"]], "encoder": "encoder"}, "must be of type integer"),
        ({"pairs": [[0, 1]]}, "argument encoder is missing"),
    ],
)
def test_wrong_questions_to_predict_link_sign(pool: Pool, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ToolError, match=message) as caught:
        pool.call("predict_link_sign", arguments)
    assert "\n" not in str(caught.value)


def test_an_encoder_that_was_replaced_on_disk_is_read_again(
    encoder: SignedGraphEncoder, edges: np.ndarray, tmp_path: Path
) -> None:
    """Every answer is that of the encoder which lies there; each worker keeps the last ones it read."""
    other = SignedGraphEncoder(SMALL, seed=2).fit(np.where(np.arange(3) == 2, -1, 1) * edges)
    spec, pairs = ToolSpec.of(predict_link_sign), edges[:5, :2].tolist()
    with Pool({spec.name: spec}, data=tmp_path, workers=1) as pool:
        for lies_there in (encoder, other, encoder):
            lies_there.save_pretrained(tmp_path / "trust")
            answer = json.loads(pool.call(spec.name, {"pairs": pairs, "encoder": "trust"}))
            assert answer["result"]["positive"] == pytest.approx(lies_there.predict(pairs), abs=1e-6)


def test_edge_difficulty_in_a_process_of_its_own(pool: Pool) -> None:
    edges = [[0, 1, 1], [1, 2, 1], [0, 2, -1], [2, 3, -1], [3, 0, 1], [3, 4, -1]]
    found = json.loads(pool.call("edge_difficulty", {"edges": edges, "most": 3}))["result"]
    assert found == {
        "hardest": [[0, 1, 1, 1.0], [1, 2, 1, 1.0], [0, 2, -1, 0.5]],
        "mean": round(2.5 / 6, 6),
        "in_triangle": round(5 / 6, 6),
    }


@pytest.mark.parametrize(
    ("edges", "most", "message"),
    [
        ([], 5, "the graph has no edges"),
        ([[1, 1, 1]], 5, "edge 0 leads from 1 to itself"),
        ([[1, 2, 1], [1, 2, -1]], 5, "give 1 to 2 both signs"),
        ([[1, 2, 1], [1, 2]], 5, "give rows of the same length"),
        ([[1, 2, 1]], 0, "most is 0; ask for 1 edge or more"),
    ],
)
def test_wrong_questions_to_edge_difficulty(pool: Pool, edges: list[list[int]], most: int, message: str) -> None:
    with pytest.raises(ToolError, match=message):
        pool.call("edge_difficulty", {"edges": edges, "most": most})
    assert json.loads(pool.call("edge_difficulty", {"edges": [[1, 2, 1]]}))["result"]["mean"] == 0  # it stays up


def test_both_tools_need_no_torch(run: tuple[Path, dict[str, float]]) -> None:
    """They answer without the seconds that importing torch takes, and without sklearn's joblib, which would warn."""
    program = (
        "import sys; from tasks.graph.signed.tools import edge_difficulty, predict_link_sign;"
        "edge_difficulty([[1, 2, 1]]); predict_link_sign([[0, 2]], 'encoder');"
        "print(sorted({'torch', 'transformers', 'torch_geometric', 'sklearn', 'joblib'} & set(sys.modules)))"
    )
    environment = {**os.environ, "ARBITER_TOOL_DATA": str(run[0])}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, env=environment)
    assert done.stdout.strip() == "[]" and done.stderr == ""


def test_an_encoder_of_options_that_are_refused_now_says_so(
    encoder: SignedGraphEncoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = encoder.settings()
    settings["augment"]["thresholds"] = {**settings["augment"]["thresholds"], "add_positive": 0.0}
    monkeypatch.setattr(encoder, "settings", lambda: settings)
    encoder.save_pretrained(tmp_path / "trust")
    with pytest.raises(CheckpointError, match=r"trust was made with options that are refused now: add_.*; fit anew"):
        SignedGraphEncoder.from_pretrained(tmp_path / "trust")


def test_an_encoder_of_another_kind_is_refused(tmp_path: Path) -> None:
    (tmp_path / "encoder.json").write_text('{"encoder": "Other", "settings": {}}')
    with pytest.raises(CheckpointError, match="is spoilt"):
        SignedGraphEncoder.from_pretrained(tmp_path)
