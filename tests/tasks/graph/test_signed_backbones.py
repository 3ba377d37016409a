"""Backbones: the library's numbers, no row of vectors for each pair, the same again from the same seed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch_geometric.nn import SignedGCN
from torch_geometric.nn.models import signed_gcn

from launch.errors import ConfigError, DataError
from launch.order import stable_seed
from launch.runfolder import RunFolder
from tasks.graph.signed import pairs
from tasks.graph.signed.attention import SDGNN, SiGAT, sigat_lists
from tasks.graph.signed.backbones import SGCN, LinkHead
from tasks.graph.signed.curriculum import Curriculum
from tasks.graph.signed.edges import SignedGraph
from tasks.graph.signed.inputs import random_inputs, spectral_inputs
from tasks.graph.signed.metrics import sign_metrics
from tasks.graph.signed.options import BackboneOptions, published
from tasks.graph.signed.pairs import NonEdges, pair_dots
from tasks.graph.signed.planted import two_factions
from tasks.graph.signed.scorer import PairHead
from tasks.graph.signed.splits import split_edges
from tasks.graph.signed.training import SignedLinks, build, inputs, train
from tasks.graph.signed.triads import balanced_triads
from tests.tasks.graph.signed_graphs import random_graph


@pytest.fixture
def graph() -> SignedGraph:
    return random_graph(24, 0.2, 0, reciprocal=True)


def by_sign(graph: SignedGraph) -> tuple[torch.Tensor, torch.Tensor]:
    edges = torch.from_numpy(np.stack([graph.source, graph.target]))
    positive = torch.from_numpy(graph.sign > 0)
    return edges[:, positive], edges[:, ~positive]


# ---------------------------------------------------------------- SGCN against the library


def test_sgcn_and_its_loss_are_the_library_s(graph: SignedGraph, monkeypatch: pytest.MonkeyPatch) -> None:
    """Same weights and the same drawn pairs: the embeddings and the loss of `SignedGCN`, and its gradients."""
    model = SGCN(graph, random_inputs(graph, 6, 0), dim=8)
    library = SignedGCN(6, 8, 2, lamb=5)
    library.load_state_dict({**model.net.state_dict(), **{f"lin.{k}": v for k, v in linear(model.head).items()}})
    positive, negative = by_sign(graph)
    z = model()
    torch.testing.assert_close(z, library(model.x, positive, negative))

    generator = torch.Generator().manual_seed(3)
    ours = model.loss(z, positive, negative, generator)
    generator.manual_seed(3)
    none = model.non_edges.pairs(graph.m, generator)
    thirds = iter([model.non_edges.thirds(positive[0], generator), model.non_edges.thirds(negative[0], generator)])
    monkeypatch.setattr(signed_gcn, "negative_sampling", lambda *_: none)
    monkeypatch.setattr(signed_gcn, "structured_negative_sampling", lambda edges, _: (*edges, next(thirds)))
    theirs = library.loss(library(model.x, positive, negative), positive, negative)
    torch.testing.assert_close(ours, theirs)

    ours.backward()
    theirs.backward()
    for name, weight in library.named_parameters():
        mine = dict(model.named_parameters())[
            name.replace("lin.", "head.linear.") if name.startswith("lin.") else f"net.{name}"
        ]
        torch.testing.assert_close(mine.grad, weight.grad, rtol=1e-4, atol=1e-6)


def linear(head: LinkHead) -> dict[str, torch.Tensor]:
    return {"weight": head.linear.weight, "bias": head.linear.bias}


def test_pair_dots_and_their_gradients_whatever_the_block(monkeypatch: pytest.MonkeyPatch) -> None:
    """Against gathering all vectors; some gradients are zero, as a hinge makes them."""
    generator = torch.Generator().manual_seed(0)
    x, y = (torch.randn(9, 4, generator=generator, dtype=torch.double, requires_grad=True) for _ in range(2))
    i, j = torch.randint(9, (2, 50), generator=generator)
    naive = (x[i] * y[j]).sum(1)
    (expected,) = torch.autograd.grad(naive.relu().square().sum(), x, retain_graph=True)
    for block in (1, 7, 1000):
        monkeypatch.setattr(pairs, "BLOCK", block)
        found = pair_dots(x, y, i, j)
        torch.testing.assert_close(found, naive)
        torch.testing.assert_close(torch.autograd.grad(found.relu().square().sum(), x)[0], expected)
        assert torch.autograd.gradcheck(lambda a, b: pair_dots(a, b, i, j), (x, y))
    assert pair_dots(x, y, i[:0], j[:0]).shape == (0,)


def test_drawn_pairs_are_joined_in_neither_direction(graph: SignedGraph) -> None:
    joined = {(int(u), int(v)) for u, v in zip(graph.source, graph.target, strict=True)}
    joined |= {(v, u) for u, v in joined}
    non_edges = NonEdges(graph)
    drawn = non_edges.pairs(500, torch.Generator().manual_seed(0))
    assert drawn.shape == (2, 500)
    assert not {(int(u), int(v)) for u, v in drawn.T} & joined and (drawn[0] != drawn[1]).all()
    i = torch.arange(24).repeat(20)
    k = non_edges.thirds(i, torch.Generator().manual_seed(0))
    assert not {(int(u), int(v)) for u, v in zip(i, k, strict=True)} & joined and (i != k).all()


def test_drawing_from_a_graph_in_which_all_are_joined() -> None:
    """A triangle: no pair is left, and the third of a node is the node itself, whose distance is 0."""
    non_edges = NonEdges(SignedGraph.of([[0, 1, 1], [1, 2, 1], [2, 0, -1]]))
    assert non_edges.pairs(10, torch.Generator().manual_seed(0)).shape == (2, 0)
    assert non_edges.thirds(torch.tensor([0, 1, 2]), torch.Generator()).tolist() == [0, 1, 2]


@pytest.mark.parametrize("kind", ["linear", "bilinear"])
def test_a_head_without_torch_scores_as_the_head_does(kind: Any) -> None:
    head, z = LinkHead(6, kind), torch.randn(5, 6)
    i, j = torch.tensor([0, 1, 4]), torch.tensor([3, 3, 2])
    logp = head(z, i, j)
    found = head.pair_head().score(z[i].numpy(), z[j].numpy())
    np.testing.assert_allclose(found, (logp[:, 0] - logp[:, 1]).detach().numpy(), rtol=1e-5, atol=1e-6)


# ---------------------------------------------------------------- SiGAT and SDGNN


def test_sigat_loss_derived_by_hand() -> None:
    """One node vector a node, z_i . z_j = 2 on the two positive edges, -1 on the negative one, C = 2:
    2 log(1 + e^-2) + 2 log(1 + e^-1).
    """
    graph = SignedGraph.of([[0, 1, 1], [1, 0, 1], [0, 2, -1]])
    model = SiGAT(graph, random_inputs(graph, 4, 0))
    z = torch.tensor([[1.0, 0.0], [2.0, 0.0], [-1.0, 0.0]])
    found = model.loss(z, *by_sign(graph), torch.Generator())
    assert float(found) == pytest.approx(2 * np.log1p(np.exp(-2)) + 2 * np.log1p(np.exp(-1)))


def test_sigat_has_38_lists_and_attends_along_them(graph: SignedGraph) -> None:
    lists = sigat_lists(graph)
    assert len(lists) == 38
    negative = graph.sign < 0
    assert list(zip(*lists[4], strict=True)) == list(zip(graph.source[negative], graph.target[negative], strict=True))
    assert set(zip(*lists[0], strict=True)) == {(v, u) for u, v in zip(*lists[0], strict=True)}
    model = SiGAT(graph, random_inputs(graph, 4, 0))
    assert model().shape == (24, 4)


def test_sdgnn_loss_is_the_sum_written_out(graph: SignedGraph) -> None:
    """Edge by edge in Python, from the definitions of the three losses."""
    model = SDGNN(graph, random_inputs(graph, 4, 0))
    z = model().detach()
    weights = balanced_triads(graph)
    total = 0.0
    for e, (u, v, s) in enumerate(zip(graph.source, graph.target, graph.sign, strict=True)):
        total += float(torch.log1p(torch.exp(-s * (z[u] @ z[v]))))
        gap = float((model.giver(z[u]).sigmoid() - model.getter(z[v]).sigmoid()).detach())
        total += 5 * (max(0.0, gap + 0.5) if s > 0 else max(0.0, 0.5 - gap)) ** 2
        total += weights[e] * float(torch.log1p(torch.exp(-s * model.pair(torch.cat([z[u], z[v]])))).detach())
    found = model.loss(z, *by_sign(graph), torch.Generator()).detach()
    assert float(found) == pytest.approx(total, rel=1e-5)


def test_a_read_out_by_logistic_regression() -> None:
    """Signs that follow the first coordinate of the target are read out."""
    z = np.random.default_rng(0).standard_normal((60, 3)).astype(np.float32)
    u, v = np.random.default_rng(1).integers(60, size=(2, 400))
    signs = np.where(z[v, 0] > 0, 1, -1)
    head = PairHead.fitted(z[u], z[v], signs)
    assert (np.sign(head.score(z[u], z[v])) == signs).mean() > 0.97


# ---------------------------------------------------------------- inputs


def test_spectral_inputs_are_eigenvectors_and_repeat() -> None:
    graph = SignedGraph.of(two_factions(30, 300, seed=0), nodes=range(32))
    x = spectral_inputs(graph, 4)
    assert x.shape == (32, 4) and x.dtype == np.float32 and (x[30:] == 0).all()
    S = np.zeros((32, 32))
    S[graph.source, graph.target] = graph.sign
    S = np.sign(S + S.T)
    values = np.diag(x.T @ S @ x)
    np.testing.assert_allclose(S @ x, x * values, atol=1e-4)
    np.testing.assert_allclose(np.abs(values), np.sort(np.abs(np.linalg.eigvalsh(S)))[::-1][:4], rtol=1e-4)
    np.testing.assert_array_equal(x, spectral_inputs(graph, 4))
    factions = np.sign(x[:30, 0])
    assert abs(factions @ np.where(np.arange(30) % 2, 1, -1)) == 30  # the first one tells the two factions apart


@pytest.mark.parametrize("hubs", [1, 5])
def test_spectral_inputs_repeat_where_the_rank_is_low(hubs: int) -> None:
    """A star has rank 2, five hubs with leaves have rank 10 at most: Lanczos iterations end early there, and go on from
    drawn vectors. The columns that the graph determines are eigenvectors all the same.
    """
    rows = [[u % hubs, u, 1 if u // hubs % 2 else -1] for u in range(hubs, 40 * hubs)]
    graph = SignedGraph.of(rows)
    found = [spectral_inputs(graph, 16) for _ in range(6)]
    assert all(np.array_equal(found[0], x) for x in found[1:])
    # a leaf and its hub: the eigenvalues of a star with 39 leaves are +-sqrt(39), and 0
    S = np.zeros((graph.n, graph.n))
    S[graph.source, graph.target] = graph.sign
    S += S.T
    x = found[0][:, : 2 * hubs]
    np.testing.assert_allclose(S @ (S @ x), 39 * x, atol=1e-4)
    assert not np.array_equal(found[0], spectral_inputs(graph, 16, seed=1))


def test_spectral_inputs_repeat_in_another_process() -> None:
    program = (
        "from tasks.graph.signed.edges import SignedGraph; from tasks.graph.signed.inputs import spectral_inputs;"
        "x = spectral_inputs(SignedGraph.of([[0, u, (-1) ** u] for u in range(1, 40)]), 16); print(x.tobytes().hex())"
    )
    said = [subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True) for _ in "ab"]
    assert said[0].stdout == said[1].stdout != ""


def test_spectral_inputs_are_zero_where_all_pairs_disagree() -> None:
    x = spectral_inputs(SignedGraph.of([[0, 1, 1], [1, 0, -1]]), 4)
    assert x.shape == (2, 4) and not x.any()


def test_more_inputs_than_nodes_are_filled_with_zeros() -> None:
    x = spectral_inputs(SignedGraph.of([[0, 1, 1], [1, 2, -1]]), 6)
    assert x.shape == (3, 6) and (x[:, 2:] == 0).all() and np.isfinite(x).all()


# ---------------------------------------------------------------- training

SMALL = {"width": 16, "epochs": 60}


@pytest.mark.parametrize("backbone", ["sgcn", "gcn", "gat", "sigat", "sdgnn"])
def test_every_backbone_learns_who_is_liked(backbone: Any) -> None:
    """A third of the nodes is disliked by all: the sign of an edge is that of its target. GCN and GAT, which see no
    signs, are told in the nodes' features.
    """
    rows = two_factions(60, 900, seed=0)
    rows[:, 2] = np.where(rows[:, 1] % 3 == 0, -1, 1)
    known, asked = split_edges(rows, 0, test=0.3)
    liked = np.eye(2, 16)[np.minimum(np.arange(60) % 3, 1)] if backbone in ("gcn", "gat") else None
    size = {"width": 8, "epochs": 120} if backbone == "sigat" else SMALL
    rate = 0.01 if liked is None else 0.03
    options = published(backbone, **size, inputs="spectral", learning_rate=rate)
    trained = train(SignedGraph.of(known, nodes=range(60)), options, seed=0, features=liked)
    assert sign_metrics(trained.score(asked[:, 0], asked[:, 1]), asked[:, 2])["auc"] > 0.9
    assert trained.z.dtype == np.float32


def test_a_linear_head_cannot_see_agreement_and_a_bilinear_one_does() -> None:
    """Two planted factions: AUC near .5 by the published head, near 1 by the bilinear one."""
    known, asked = split_edges(two_factions(100, 2500, seed=1), 0, test=0.6)
    graph, auc = SignedGraph.of(known, nodes=range(100)), {}
    for head in ("linear", "bilinear"):
        trained = train(graph, BackboneOptions(head=head, **SMALL), seed=0)  # type: ignore[arg-type]
        auc[head] = sign_metrics(trained.score(asked[:, 0], asked[:, 1]), asked[:, 2])["auc"]
    assert auc["linear"] < 0.6 and auc["bilinear"] > 0.95


def test_a_killed_training_goes_on_to_the_same_bits(graph: SignedGraph, tmp_path: Path) -> None:
    """Stopped after 12 of 20 epochs (an error in the objective), then continued."""
    options = BackboneOptions(width=8, epochs=20, save_epochs=5)
    plan = Curriculum.sga(np.arange(graph.m), 20, stages=4)
    whole = train(graph, options, 1, plan)
    run, original = RunFolder(tmp_path), SignedLinks.loss

    def stops(self: SignedLinks, model: nn.Module, batch: dict[str, Any]) -> Any:
        if self.epoch == 12:
            raise KeyboardInterrupt
        return original(self, model, batch)

    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(SignedLinks, "loss", stops)
        train(graph, options, 1, plan, run)
    np.testing.assert_array_equal(train(graph, options, 1, plan, run).z, whole.z)


def test_the_penalty_is_that_of_adam(graph: SignedGraph) -> None:
    """Three steps of torch's Adam with weight_decay on the bare loss, from the same weights and draws."""
    options = BackboneOptions(width=8, epochs=3, weight_decay=0.1)
    trained = train(graph, options, 5)
    with torch.random.fork_rng():
        torch.manual_seed(stable_seed(5, "weights", "signed-links"))
        model = build(graph, inputs(graph, options, 5), options)
    adam, objective = torch.optim.Adam(model.parameters(), lr=0.01, weight_decay=0.1), SignedLinks(graph, None, 0.0, 5)
    for epoch in range(3):
        adam.zero_grad()
        objective.epoch = epoch
        objective.loss(model, {"count": 1.0}).total.backward()
        adam.step()
    np.testing.assert_allclose(trained.z, model().detach().numpy(), rtol=1e-4, atol=1e-5)


def test_the_curriculum_says_which_edges_the_loss_is_over(graph: SignedGraph) -> None:
    """In stage 0 the loss is over the easiest quarter alone; messages still pass along all edges."""
    options = BackboneOptions(width=8)
    model = build(graph, random_inputs(graph, 8, 0), options)
    plan = Curriculum.csg(np.arange(graph.m)[::-1], epochs_per_stage=1)
    objective = SignedLinks(graph, plan, 0.0, 0)
    seen = {}
    model.loss = lambda z, positive, negative, generator: seen.setdefault(
        objective.epoch, torch.cat([positive, negative], 1)
    ).sum()
    for objective.epoch in (0, 20):
        objective.loss(model, {"count": 1.0})
    last = graph.m // 4
    easiest = set(zip(graph.source[-last:].tolist(), graph.target[-last:].tolist(), strict=True))
    assert set(map(tuple, seen[0].T.tolist())) == easiest
    assert seen[20].shape[1] == graph.m
    assert model.positive.values().numel() + model.negative.values().numel() == graph.m


def test_what_cannot_be_trained(graph: SignedGraph) -> None:
    with pytest.raises(DataError, match="all 2 edges are positive; signs are learned from edges of both"):
        train(SignedGraph.of([[0, 1, 1], [1, 2, 1]]), BackboneOptions(), 0)
    features = np.zeros((24, 3))
    features[5, 1] = np.nan
    with pytest.raises(DataError, match="node 5 has a feature that is not finite"):
        train(graph, BackboneOptions(), 0, features=features)
    with pytest.raises(DataError, match=r"features have shape \(3, 3\), the graph 24 nodes"):
        train(graph, BackboneOptions(), 0, features=np.zeros((3, 3)))
    with pytest.raises(DataError, match="the curriculum orders 3 edges, the graph has"):
        train(graph, BackboneOptions(), 0, Curriculum(np.arange(3)))
    with pytest.raises(ConfigError, match="width 7; an even number is needed"):
        BackboneOptions(width=7)
