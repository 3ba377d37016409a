"""Training a backbone on a signed graph: one optimiser step an epoch over all edges that the curriculum allows.

`SignedLinks` is an Objective of the shared trainer. Message passing always uses the whole training graph; only the loss
is taken over a part. Adam with an L2 penalty, as published: the penalty is part of the loss, since the trainer's AdamW
decays weights apart from it.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers

from launch.contracts import Loss
from launch.errors import DataError
from launch.options import TrainOptions
from launch.order import stable_seed
from launch.runfolder import RunFolder
from launch.trainer import fit
from tasks.graph.signed.attention import SDGNN, SiGAT
from tasks.graph.signed.backbones import SGCN, Unsigned
from tasks.graph.signed.curriculum import Curriculum
from tasks.graph.signed.edges import SignedGraph
from tasks.graph.signed.inputs import own_inputs, random_inputs, spectral_inputs
from tasks.graph.signed.options import BackboneOptions
from tasks.graph.signed.scorer import PairHead
from tasks.graph.signed.selection import Selection


@dataclass(frozen=True)
class Trained:
    """What training gives."""

    z: np.ndarray
    """float32 [n, d], by node position."""
    head: PairHead
    model: torch.nn.Module
    epoch: int
    """How many epochs it has seen: all, or those before the one that validation edges chose."""

    def score(self, source: np.ndarray, target: np.ndarray) -> np.ndarray:
        """Log-odds of the positive sign, float64 [k], of pairs of node positions."""
        return self.head.score(self.z[source], self.z[target])


def train(
    graph: SignedGraph,
    options: BackboneOptions,
    seed: int,
    curriculum: Curriculum | None = None,
    run: RunFolder | None = None,
    name: str = "signed-links",
    features: Any = None,
    validation: np.ndarray | None = None,
) -> Trained:
    """Train a backbone.

    Args:
        graph: the training edges.
        options: which backbone, and how.
        seed: of weights, random inputs and drawn pairs.
        curriculum: which edges each epoch's loss uses; None: all.
        run: keeps metrics and checkpoints, and lets a killed training go on; None: a folder that is removed afterwards.
        name: of this training in the run.
        features: float [n, d] of the nodes, in place of ``options.inputs``.
        validation: int64 [k, 3], edges by the graph's ids that choose the epoch (`selection`); None: the last one.

    Raises:
        DataError: edges of one sign only, features that do not fit, or a validation edge of an unknown node.
    """
    word = graph.one_sign()
    if word is not None:
        raise DataError(f"all {graph.m} edges are {word}; signs are learned from edges of both, add some of the other")
    x = inputs(graph, options, seed) if features is None else own_inputs(graph, features)
    with torch.random.fork_rng():
        torch.manual_seed(stable_seed(seed, "weights", name) % 2**63)
        model = build(graph, x, options)
    objective = SignedLinks(graph, curriculum, options.weight_decay, seed)
    with ExitStack() as stack:
        if run is None:
            run = RunFolder(Path(stack.enter_context(tempfile.TemporaryDirectory())))
        choice = None
        if validation is not None:
            choice = Selection(model, graph, validation, _read_out, run.path / "selected" / f"{name}.safetensors")
        fit(
            model,
            objective,
            [{}] * options.epochs,
            options=_trainer_options(options),
            run=run,
            name=name,
            seed=seed,
            callbacks=[_Epochs(objective), *([choice] if choice else [])],
        )
        epoch = choice.restore() if choice else options.epochs
    model.to("cpu").eval()
    z, head = _read_out(model, graph)
    return Trained(z, head, model, epoch)


@torch.no_grad()
def _read_out(model: torch.nn.Module, graph: SignedGraph) -> tuple[np.ndarray, PairHead]:
    """Embeddings float32 [n, d], and the head that scores pairs of them."""
    backbone: Any = model
    z = backbone().cpu().numpy().astype(np.float32)
    if not np.isfinite(z).all():
        raise DataError("training ended in embeddings that are not finite; lower learning_rate")
    head = backbone.pair_head()
    return z, head or PairHead.fitted(z[graph.source], z[graph.target], graph.sign)


def inputs(graph: SignedGraph, options: BackboneOptions, seed: int) -> np.ndarray:
    """What `options` says nodes are given: float32 [n, width]."""
    if options.inputs == "spectral":
        return spectral_inputs(graph, options.width, seed)
    return random_inputs(graph, options.width, seed)


def build(graph: SignedGraph, x: np.ndarray, options: BackboneOptions) -> Any:
    """An untrained backbone."""
    if options.backbone == "sgcn":
        return SGCN(graph, x, options.width, options.layers, options.head, options.triplet)
    if options.backbone == "sigat":
        return SiGAT(graph, x, options.layers)
    if options.backbone == "sdgnn":
        return SDGNN(graph, x, options.layers)
    kind: Any = options.backbone.upper()
    return Unsigned(kind, graph, x, options.width, options.layers, options.head, options.triplet)


class SignedLinks:
    """Objective: the backbone's own loss over the edges of an epoch.

    Examples hold nothing; the epoch is the optimiser step, which `_Epochs` tells, and it alone decides on edges and
    drawn pairs, so that a resumed training repeats itself.
    """

    def __init__(self, graph: SignedGraph, curriculum: Curriculum | None, weight_decay: float, seed: int) -> None:
        if curriculum is not None and len(curriculum.order) != graph.m:
            raise DataError(f"the curriculum orders {len(curriculum.order)} edges, the graph has {graph.m}")
        self.curriculum, self.weight_decay, self.seed = curriculum, weight_decay, seed
        self.epoch = 0
        order = np.arange(graph.m) if curriculum is None else curriculum.order
        self.edges = torch.from_numpy(np.stack([graph.source[order], graph.target[order]]))
        self.positive = torch.from_numpy(graph.sign[order] > 0)

    def collate(self, examples: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        return {"count": float(len(examples))}

    def loss(self, model: torch.nn.Module, batch: dict[str, Any]) -> Loss:
        backbone: Any = model
        count = len(self.positive) if self.curriculum is None else self.curriculum.count(self.epoch)
        device = next(model.parameters()).device
        edges, positive = self.edges[:, :count].to(device), self.positive[:count].to(device)
        generator = torch.Generator().manual_seed(stable_seed(self.seed, "drawn pairs", self.epoch))
        loss = backbone.loss(backbone(), edges[:, positive], edges[:, ~positive], generator)
        penalty = sum(p.square().sum() for p in model.parameters() if p.requires_grad)
        return Loss((loss + self.weight_decay / 2 * penalty) * batch["count"], batch["count"], {"edges": float(count)})


class _Epochs(transformers.TrainerCallback):
    """Tells the objective which epoch it is."""

    def __init__(self, objective: SignedLinks) -> None:
        self.objective = objective

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.objective.epoch = state.global_step


def _trainer_options(options: BackboneOptions) -> TrainOptions:
    return TrainOptions(
        learning_rate=options.learning_rate,
        betas=(0.9, 0.999),
        schedule="constant",
        warmup_ratio=0.0,
        max_grad_norm=0.0,
        max_steps=options.epochs,
        batch_size=1,
        save_steps=options.save_epochs,
        log_steps=options.log_epochs,
    )
