"""`learn`: augmentation, curriculum and backbone put together, as SGA and CSG do.

SGA (arXiv 2310.09705): an SGCN scores all pairs, the graph is augmented by what it says (`augment`), difficulties are
counted on the augmented graph, and the backbone learns its edges from easy to hard. CSG (arXiv 2310.11083): the
curriculum alone, on the graph as it is.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from launch.errors import ConfigError
from launch.runfolder import RunFolder
from tasks.graph.signed.augment import Changes, augment, score_pairs
from tasks.graph.signed.curriculum import Curriculum
from tasks.graph.signed.edges import SignedGraph
from tasks.graph.signed.options import AugmentOptions, BackboneOptions, CurriculumOptions
from tasks.graph.signed.training import Trained, train
from tasks.graph.signed.triangles import difficulty


@dataclass(frozen=True)
class Learned:
    """A trained backbone, and what it was trained on."""

    trained: Trained
    graph: SignedGraph
    """Augmented, where that was asked for."""
    changes: Changes | None = None


def learn(
    graph: SignedGraph,
    backbone: BackboneOptions,
    curriculum: CurriculumOptions,
    augmentation: AugmentOptions,
    seed: int,
    run: RunFolder | None = None,
    features: Any = None,
    encoder: Trained | None = None,
    validation: np.ndarray | None = None,
) -> Learned:
    """Train on `graph` as the options say.

    Args:
        run: keeps metrics and checkpoints of both trainings.
        features: float [n, d] of the nodes; None: what `backbone` says.
        encoder: an SGCN trained on `graph` before, instead of training one for the augmentation.
        validation: int64 [k, 3], edges that choose the backbone's epoch; None: the last one.

    Raises:
        ConfigError: an augmentation by something else than an SGCN, thresholds that delete all edges of a sign, or
            fewer epochs than SGA's stages.
        DataError: edges of one sign only, or features that do not fit.
    """
    made = None
    curriculum.stages_within(backbone.epochs)  # before the encoder's training, which takes a while
    if augmentation.enabled:
        if augmentation.encoder.backbone != "sgcn":
            raise ConfigError("pairs are scored by an SGCN alone; set augment.encoder.backbone=sgcn")
        if encoder is None:
            encoder = train(graph, augmentation.encoder, seed, run=run, name="encoder", features=features)
        model: Any = encoder.model
        graph, made = augment(graph, score_pairs(graph, encoder.z, model.head), augmentation.thresholds)
    plan, options = schedule(graph, backbone, curriculum)
    return Learned(train(graph, options, seed, plan, run, "backbone", features, validation), graph, made)


def schedule(
    graph: SignedGraph, backbone: BackboneOptions, options: CurriculumOptions
) -> tuple[Curriculum | None, BackboneOptions]:
    """The curriculum over a graph's edges, and the backbone's options with the epochs that it takes.

    Raises:
        ConfigError: fewer epochs than SGA's stages.
    """
    if options.kind == "none":
        return None, backbone
    stages = options.stages_within(backbone.epochs)
    hard = difficulty(graph)
    if options.kind == "sga":
        return Curriculum.sga(hard, backbone.epochs, stages, options.start), backbone
    plan = Curriculum.csg(
        hard,
        pacing=options.pacing,
        start=options.start,
        stages=stages,
        epochs_per_stage=options.epochs_per_stage,
    )
    return plan, replace(backbone, epochs=plan.epochs)
