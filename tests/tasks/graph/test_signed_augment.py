"""SGA's augmentation: what is kept, dropped and added, against enumeration; and what it does to a small training."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tasks.graph.signed import augment as module
from tasks.graph.signed.augment import (
    Candidates,
    Changes,
    Scored,
    augment,
    candidate_precision,
    changes,
    score_pairs,
    unbalanced_among_added,
)
from tasks.graph.signed.backbones import LinkHead
from tasks.graph.signed.data import load_signed
from tasks.graph.signed.edges import SignedGraph, concatenated
from tasks.graph.signed.evaluate import measured
from tasks.graph.signed.learn import learn
from tasks.graph.signed.metrics import sign_metrics
from tasks.graph.signed.options import AugmentOptions, BackboneOptions, CurriculumOptions, Thresholds
from tasks.graph.signed.planted import two_factions
from tasks.graph.signed.splits import split_edges
from tasks.graph.signed.training import train
from tests.tasks.graph.signed_graphs import random_graph

LOOSE = Thresholds(0.2, 0.2, 0.51, 0.51)


def scored_by_chance(graph: SignedGraph, seed: int) -> tuple[Scored, np.ndarray, LinkHead]:
    """What an untrained head with large weights thinks: probabilities of all sizes."""
    generator = torch.Generator().manual_seed(seed)
    z, head = torch.randn(graph.n, 4, generator=generator).numpy(), LinkHead(4)
    with torch.no_grad():
        head.linear.weight.copy_(torch.randn(3, 8, generator=generator))
        head.linear.bias.zero_()
    return score_pairs(graph, z, head), z, head


@pytest.mark.parametrize("rows", [1, 7, 100])
def test_candidates_are_the_best_of_all_pairs(rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """In blocks of any size: the m most probable pairs i < j of each sign, as from the whole table."""
    monkeypatch.setattr(module, "ROWS", rows)
    graph = random_graph(30, 0.1, 0)
    scored, z, head = scored_by_chance(graph, 1)
    i, j = np.triu_indices(30, 1)
    logp = head(torch.from_numpy(z), torch.from_numpy(i), torch.from_numpy(j)).detach().numpy()
    for label, candidates in enumerate((scored.positive, scored.negative)):
        order = np.argsort(-logp[:, label], kind="stable")[: graph.m]
        np.testing.assert_array_equal(candidates.i, i[order])
        np.testing.assert_array_equal(candidates.j, j[order])
        np.testing.assert_allclose(candidates.logp, logp[order, label], rtol=1e-5)
    own = head(torch.from_numpy(z), torch.from_numpy(graph.source), torch.from_numpy(graph.target)).detach().numpy()
    np.testing.assert_allclose(scored.own, np.where(graph.sign > 0, own[:, 0], own[:, 1]), rtol=1e-5)


@pytest.mark.parametrize("seed", range(4))
def test_signed_acceptance_3_additions_close_no_unbalanced_triangle(seed: int) -> None:
    """Every added edge with every two original edges that make a triangle with it; and both directions are there."""
    graph = random_graph(30, 0.08, seed, reciprocal=True)
    augmented, changed = augment(graph, scored_by_chance(graph, seed)[0], LOOSE)
    before = {(u, v): s for u, v, s in graph.rows.tolist()}
    after = {(u, v): s for u, v, s in augmented.rows.tolist()}
    added = {edge: sign for edge, sign in after.items() if before.get(edge) != sign}
    assert len(added) > 20 and changed.deleted > 0
    undirected: dict[tuple[int, int], set[int]] = {}
    for (u, v), s in before.items():
        undirected.setdefault((min(u, v), max(u, v)), set()).add(s)
    for (u, v), s in added.items():
        assert after[v, u] == s or (v, u) in before  # the other direction too, unless an edge was there
        for w in set(range(30)) - {u, v}:
            first, second = undirected.get((min(u, w), max(u, w))), undirected.get((min(v, w), max(v, w)))
            if first and second:
                assert all(s * a * b > 0 for a in first for b in second)


def test_selection_derived_by_hand() -> None:
    """Friends 0-1, 1-2; foes 2-3. 0-2 as friends closes + + +, fine; 1-3 as friends closes + + -, refused, and as foes
    + - -, fine; 0-3 is not sure enough. 2-3 is disbelieved, goes, and comes back as friends.
    """
    graph = SignedGraph.of([[0, 1, 1], [1, 2, 1], [2, 3, -1]])
    sure, unsure = np.log(0.995), np.log(0.5)
    scored = Scored(
        positive=Candidates(np.array([0, 1, 0, 2]), np.array([2, 3, 3, 3]), np.array([sure, sure, unsure, sure])),
        negative=Candidates(np.array([1]), np.array([3]), np.array([0.0])),
        own=np.log([0.9, 0.31, 0.49]),
    )
    augmented, changed = augment(graph, scored, Thresholds(0.3, 0.5, 0.99, 1.0))
    assert augmented.rows.tolist() == [
        [0, 1, 1], [1, 2, 1], [0, 2, 1], [2, 3, 1], [1, 3, -1], [2, 0, 1], [3, 2, 1], [3, 1, -1],
    ]  # fmt: skip
    assert changed == Changes(kept=2, deleted=0, added=5, added_positive=3, flipped=1)
    assert unbalanced_among_added(graph, augmented) == 3  # 1-2-3 is + + - now: each test saw the original graph alone


def test_almost_certain_counts_as_certain() -> None:
    """Threshold 1.0 is log p >= -.005, as the authors' files with two decimals make it."""
    graph = SignedGraph.of([[0, 1, 1], [2, 3, -1]])
    for logp, added in ((-0.004, 2), (-0.006, 0)):
        negative = Candidates(np.array([0]), np.array([2]), np.array([logp]))
        nothing = Candidates(*(np.zeros(0, dtype=np.int64),) * 2, np.zeros(0))
        assert augment(graph, Scored(nothing, negative, np.zeros(2)), Thresholds())[1].added == added


def test_candidate_precision_counts_held_out_edges() -> None:
    graph = SignedGraph.of([[0, 1, 1], [2, 3, -1]])
    candidates = Candidates(np.array([0, 0, 1]), np.array([2, 3, 2]), np.zeros(3))
    held_out = np.array([[2, 0, 1], [0, 3, -1], [1, 3, 1]])
    assert candidate_precision(candidates, 1, graph, held_out) == (0.5, 2)


@pytest.mark.data
def test_signed_acceptance_4_the_authors_augmented_graph() -> None:
    """Of 19,349 training edges 18,381 are kept and 968 deleted; 1,153 are added, 770 of them positive. What our own
    encoder does is in docs/results/signed_links.md.
    """
    parts = load_signed("bitcoin-alpha", "sga1")
    before, after = (SignedGraph.of(parts[part]) for part in ("train", "augmented"))
    assert changes(before, after) == Changes(kept=18381, deleted=968, added=1153, added_positive=770, flipped=0)


@pytest.mark.data
def test_signed_acceptance_8_and_5_in_small() -> None:
    """Bitcoin-alpha, SGA split 1, 60 epochs instead of 300: SGCN with spectral inputs passes the bounds of item 8, and
    learning from the authors' augmented edges raises macro-F1 with random inputs (item 5). The full runs, on two
    splits and with random edges in place of SGA's, are docs/results/signed_links.md.
    """
    parts = load_signed("bitcoin-alpha", "sga1")
    nodes, test = concatenated(list(parts.values())), parts["test"]
    graph, augmented = (SignedGraph.of(parts[part], nodes) for part in ("train", "augmented"))
    at = graph.positions(test[:, :2])

    def metrics(on: SignedGraph, inputs: str) -> dict[str, float]:
        trained = train(on, BackboneOptions(inputs=inputs, epochs=60), 0)  # type: ignore[arg-type]
        return sign_metrics(trained.score(at[:, 0], at[:, 1]), test[:, 2])

    spectral = metrics(graph, "spectral")
    assert spectral["hard_auc"] >= 0.72 and spectral["auc"] >= 0.78
    assert metrics(augmented, "random")["f1_macro"] > metrics(graph, "random")["f1_macro"]


def test_augmentation_and_curriculum_together() -> None:
    """A third of the nodes is disliked by all. SGA's pieces in their order; the curriculum is over the augmented edges,
    another number of them would be refused.
    """
    rows = two_factions(60, 900, seed=0)
    rows[:, 2] = np.where(rows[:, 1] % 3 == 0, -1, 1)
    known, asked = split_edges(rows, 0, test=0.3)
    small = BackboneOptions(width=16, epochs=60)
    options = AugmentOptions(True, Thresholds(0.1, 0.1, 0.51, 0.51), small)
    learned = learn(SignedGraph.of(known, range(60)), small, CurriculumOptions("sga", stages=5), options, seed=0)
    assert learned.changes is not None and learned.changes.added > 0
    assert learned.graph.m == len(known) - learned.changes.deleted + learned.changes.added
    scores = learned.trained.score(asked[:, 0], asked[:, 1])
    assert measured(scores, known, asked)["all"]["auc"] > 0.9
