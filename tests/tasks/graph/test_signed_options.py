"""Options that cannot be are refused in one line where they are made; the published ones are what the papers say."""

from __future__ import annotations

import math
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from launch import config
from launch.errors import ConfigError
from tasks.graph.signed.augment import Candidates, Scored, augment
from tasks.graph.signed.backbones import LinkHead, Unsigned
from tasks.graph.signed.curriculum import Curriculum
from tasks.graph.signed.edges import SignedGraph
from tasks.graph.signed.learn import learn, schedule
from tasks.graph.signed.options import (
    ALMOST_ONE,
    THRESHOLDS,
    AugmentOptions,
    BackboneOptions,
    CurriculumOptions,
    Thresholds,
    published,
)
from tasks.graph.signed.recipe import Config, DataOptions
from tests.tasks.graph.signed_graphs import random_graph

REFUSED: list[tuple[Any, dict[str, Any], str]] = [
    (BackboneOptions, {"backbone": "gin"}, "backbone 'gin' is not known; use one of sgcn, sigat, sdgnn, gcn, gat"),
    (BackboneOptions, {"inputs": "spectrall"}, "inputs 'spectrall' is not known; use one of spectral, random"),
    (BackboneOptions, {"head": "bilinaer"}, "head 'bilinaer' is not known; use one of linear, bilinear"),
    (BackboneOptions, {"learning_rate": -1}, "learning_rate -1; give a number above 0"),
    (BackboneOptions, {"learning_rate": math.nan}, "learning_rate nan; give a number above 0"),
    (BackboneOptions, {"weight_decay": -0.1}, "weight_decay -0.1; give 0 or more"),
    (BackboneOptions, {"triplet": math.inf}, "triplet inf; give 0 or more"),
    (BackboneOptions, {"epochs": 0}, "epochs 0; give 1 or more"),
    (BackboneOptions, {"save_epochs": 0}, "save_epochs 0; give 1 or more"),
    (BackboneOptions, {"log_epochs": -1}, "log_epochs -1; give 1 or more"),
    (CurriculumOptions, {"kind": "SGA"}, "kind 'SGA' is not known; use one of none, csg, sga"),
    (CurriculumOptions, {"pacing": "foo"}, "pacing 'foo' is not known; use one of linear, root, geometric"),
    (CurriculumOptions, {"start": 0}, "start 0 is no share; give one above 0"),
    (CurriculumOptions, {"stages": 0}, "stages 0; give 1 or more"),
    (CurriculumOptions, {"epochs_per_stage": 0}, "epochs_per_stage 0; give 1 or more"),
    (CurriculumOptions, {"kind": "sga", "pacing": "root"}, "pacing root is csg's; sga's is linear"),
    (Thresholds, {"delete_positive": 1.1}, "delete_positive 1.1 is no probability; give one in 0 to 1"),
    (Thresholds, {"add_negative": math.nan}, "add_negative nan is no probability"),
    (Thresholds, {"add_positive": 0.4, "add_negative": 0.4}, "add_positive 0.4 and add_negative 0.4 let one pair be"),
    (Thresholds, {"add_positive": 0.004}, "add_positive 0.004 and add_negative 1.0 let one pair be"),  # 1.0 means .995
    (DataOptions, {"graph": "epinions"}, "graph 'epinions' is not known; use one of planted, bitcoin-alpha"),
    (DataOptions, {"split": "pair"}, "split 'pair' is not known; use one of drawn, pairs"),
    (DataOptions, {"test": 1.0}, "test 1.0 is no share that can be held out"),
    (published, {"backbone": "gin"}, "backbone 'gin' is not known"),
    (LinkHead, {"dim": 2, "kind": "bilinaer"}, "head 'bilinaer' is not known"),
]


@pytest.mark.parametrize(("kind", "options", "message"), REFUSED, ids=[str(row[1]) for row in REFUSED])
def test_what_cannot_be_is_one_line_with_the_remedy(kind: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        kind(**options)
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_networks_and_curricula_of_other_names_are_refused() -> None:
    graph = random_graph(6, 0.5, 0)
    other: Any = "GIN"
    with pytest.raises(ConfigError, match="kind 'GIN' is not known; use one of GCN, GAT"):
        Unsigned(other, graph, np.zeros((graph.n, 4), dtype=np.float32), 4)
    with pytest.raises(ConfigError, match="pacing 'foo' is not known"):
        Curriculum.csg(np.zeros(3), pacing="foo")


def test_a_config_file_is_told_its_line(tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    file.write_text("recipe: signed_graph\ncurriculum: {kind: csg}\nbackbone:\n  learning_rate: -1\n")
    with pytest.raises(ConfigError, match=r"c\.yaml:4: .*backbone\.learning_rate: learning_rate -1\.0; give a number"):
        config.load(file)
    with pytest.raises(ConfigError, match=r"curriculum\.stages: 30 stages do not fit 29 epochs"):
        config.load("tasks/signed_bitcoin_alpha", ["backbone.epochs=29"])
    loaded = config.load("tasks/signed_bitcoin_alpha", ["curriculum.stages=null"])
    assert loaded.config.curriculum.stages_within(300) == 30


# ---------------------------------------------------------------- curriculum


@pytest.mark.parametrize(
    ("kind", "stages", "found"), [("csg", None, 20), ("sga", None, 30), ("sga", 5, 5), ("csg", 7, 7)]
)
def test_stages_are_those_of_the_paper_unless_said(kind: Any, stages: int | None, found: int) -> None:
    plan, options = schedule(random_graph(12, 0.4, 0), BackboneOptions(), CurriculumOptions(kind, stages=stages))
    assert plan is not None and plan.stages == found
    assert options.epochs == (300 if kind == "sga" else 101 * (found + 1))


@pytest.mark.parametrize("epochs", [30, 31, 59, 60, 61, 300])
def test_sga_uses_all_edges_in_its_last_epoch(epochs: int) -> None:
    plan = Curriculum.sga(np.zeros(1000), epochs)
    assert plan.count(epochs - 1) == 1000 > plan.count(0)


def test_fewer_epochs_than_stages_are_refused_before_the_encoder_is_trained() -> None:
    graph, message = random_graph(12, 0.4, 0), "30 stages do not fit 29 epochs, the hardest edges would never be seen"
    with pytest.raises(ConfigError, match=message):
        Curriculum.sga(np.zeros(9), epochs=29)
    short, slow = BackboneOptions(epochs=29), BackboneOptions(epochs=10**9)
    with pytest.raises(ConfigError, match=message):
        learn(graph, short, CurriculumOptions("sga"), AugmentOptions(True, encoder=slow), seed=0)
    with pytest.raises(ConfigError, match=message):
        Config(backbone=short, curriculum=CurriculumOptions("sga"))


# ---------------------------------------------------------------- thresholds


def test_published_thresholds_add_no_pair_with_both_signs() -> None:
    """Chances of both signs that pass would sum to more than 1, where 1.0 stands for exp(-.005)."""
    for limits in (Thresholds(), *THRESHOLDS.values()):
        assert sum(min(add, math.exp(ALMOST_ONE)) for add in (limits.add_positive, limits.add_negative)) > 1


def test_no_pair_is_added_with_both_signs() -> None:
    """All pairs, none of which would close a triangle, are candidates for both signs, with chances that leave .02 to
    *none*; for all thresholds of a grid that are not refused. By .4 and .4, the pair 6-25 would get both signs.
    """
    graph = SignedGraph.of([[0, 1, 1], [2, 3, -1]], nodes=range(30))
    i, j = np.triu_indices(30, 1)
    positive = np.linspace(0.01, 0.97, len(i))
    both = (Candidates(i, j, np.log(chance)) for chance in (positive, 0.98 - positive))
    scored = Scored(*both, np.zeros(2))
    for p, q in product((0.02, 0.3, 0.45, 0.5, 0.52, 0.6, 0.7, 0.96, 0.99), repeat=2):
        if p + q > 1:
            augmented, changed = augment(graph, scored, Thresholds(0.1, 0.1, p, q))
            assert SignedGraph.of(augmented.rows).m == augmented.m  # refuses two edges from one node to another
            sure = (positive >= p) | (0.98 - positive >= q)
            there = sure[(j == i + 1) & ((i == 0) | (i == 2))]  # one of their directions is an edge already
            assert changed.added == 2 * sure.sum() - there.sum()


def test_thresholds_that_delete_a_whole_sign_are_refused() -> None:
    """The encoder gives the positive edges .6, the negative ones .2, and no pair is added."""
    graph = SignedGraph.of([[0, 1, 1], [1, 2, 1], [2, 3, -1]])
    nothing = Candidates(*(np.zeros(0, dtype=np.int64),) * 2, np.zeros(0))
    scored = Scored(nothing, nothing, np.log([0.6, 0.6, 0.2]))
    for limits, message in (
        (Thresholds(0.7, 0.7), "leaves none of 2 positive edges; lower augment.thresholds.delete_positive, now 0.7"),
        (Thresholds(0.5, 0.5), "leaves none of 1 negative edges; lower augment.thresholds.delete_negative, now 0.5"),
    ):
        with pytest.raises(ConfigError, match=message):
            augment(graph, scored, limits)
    assert augment(graph, scored, Thresholds(0.6, 0.2))[1].kept in (2, 3)
