"""The epoch that validation edges choose."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torch import nn

from launch.errors import CheckpointError, DataError
from launch.runfolder import RunFolder
from tasks.graph.signed.edges import SignedGraph
from tasks.graph.signed.metrics import sign_metrics
from tasks.graph.signed.options import BackboneOptions, published
from tasks.graph.signed.planted import two_factions
from tasks.graph.signed.splits import reverse_signs, split_validated
from tasks.graph.signed.training import SignedLinks, train

OPTIONS = BackboneOptions(width=8, epochs=22, save_epochs=5, learning_rate=0.1)


@pytest.fixture
def split() -> tuple[SignedGraph, np.ndarray]:
    rows = two_factions(40, 700, seed=2, noise=0.3)
    known, validation, _ = split_validated(rows, 0, validation=0.2, test=0.1)
    return SignedGraph.of(known, nodes=range(40)), validation


@pytest.mark.parametrize("by_pair", [False, True])
def test_three_parts_keep_all_edges_and_the_share_of_each_sign(by_pair: bool) -> None:
    edges = two_factions(60, 2000, seed=3, noise=0.2)
    parts = split_validated(edges, 1, by_pair=by_pair)
    assert sorted(np.concatenate(parts).tolist()) == sorted(edges.tolist())
    for part, share in zip(parts, (0.85, 0.05, 0.1), strict=True):
        assert len(part) / len(edges) == pytest.approx(share, abs=0.01 if by_pair else 0.001)
    if by_pair:
        assert all((reverse_signs(a, b) == 0).all() for a in parts for b in parts if a is not b)
    else:
        positive = (edges[:, 2] > 0).mean()
        assert all((part[:, 2] > 0).mean() == pytest.approx(positive, abs=0.01) for part in parts)


@pytest.mark.parametrize("backbone", ["sgcn", "sdgnn"])
def test_the_chosen_epoch_is_the_best_of_those_looked_at(split: Any, backbone: Any) -> None:
    """Against trainings that stop there: after 5, 10, 15, 20 and 22 epochs; the weights are its own, to bits."""
    graph, validation = split
    options = replace(OPTIONS, backbone=backbone)
    stopped = {epochs: train(graph, replace(options, epochs=epochs), 1) for epochs in (5, 10, 15, 20, 22)}
    found = {
        epochs: sign_metrics(trained.score(validation[:, 0], validation[:, 1]), validation[:, 2])
        for epochs, trained in stopped.items()
    }
    best = max(found, key=lambda epochs: found[epochs]["auc"] + found[epochs]["f1_macro"])
    chosen = train(graph, options, 1, validation=validation)
    assert chosen.epoch == best
    np.testing.assert_array_equal(chosen.z, stopped[best].z)
    np.testing.assert_array_equal(chosen.head.weight, stopped[best].head.weight)
    assert stopped[22].epoch == 22


def test_a_killed_training_chooses_the_same_epoch(split: Any, tmp_path: Path) -> None:
    """Stopped after 17 of 22 epochs, when the last checkpoint held 15, then continued; and once more when done."""
    graph, validation = split
    whole = train(graph, OPTIONS, 1, validation=validation)
    run, original = RunFolder(tmp_path), SignedLinks.loss

    def stops(self: SignedLinks, model: nn.Module, batch: dict[str, Any]) -> Any:
        if self.epoch == 17:
            raise KeyboardInterrupt
        return original(self, model, batch)

    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(SignedLinks, "loss", stops)
        train(graph, OPTIONS, 1, run=run, validation=validation)
    for _ in range(2):
        again = train(graph, OPTIONS, 1, run=run, validation=validation)
        assert again.epoch == whole.epoch
        np.testing.assert_array_equal(again.z, whole.z)
    (tmp_path / "selected" / "signed-links.safetensors").write_bytes(b"torn")
    with pytest.raises(CheckpointError, match="no weights of a chosen epoch"):
        train(graph, OPTIONS, 1, run=run, validation=validation)


def test_validation_edges_that_cannot_choose(split: Any) -> None:
    graph, validation = split
    with pytest.raises(DataError, match="validation edges have one sign; an epoch is chosen by edges of both"):
        train(graph, OPTIONS, 1, validation=validation[validation[:, 2] > 0])
    with pytest.raises(DataError, match="node 77 is not in the graph"):
        train(graph, OPTIONS, 1, validation=np.array([[0, 77, 1], [0, 1, -1]]))


def test_without_the_triplet_terms_a_gcn_does_not_collapse() -> None:
    """A triplet term without a margin is zero where all nodes are one point. GCN, which sees no signs, cannot hold foes
    apart and friends together at once, and with SGCN's weight of 5 goes to that point; without the terms it learns who
    is liked.
    """
    rows = two_factions(120, 1500, seed=0)
    rows[:, 2] = np.where(rows[:, 1] % 3 == 0, -1, 1)
    graph = SignedGraph.of(rows, nodes=range(120))
    spread = {}
    for weight in (5.0, 0.0):
        spread[weight] = train(graph, published("gcn", width=16, epochs=150, triplet=weight), 0).z.std(0).mean()
    assert spread[5.0] < 1e-3 < 1e-2 < spread[0.0]
