"""Options of backbones, augmentation and curriculum, with the published values as defaults."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Literal

from launch.errors import ConfigError

Backbone = Literal["sgcn", "sigat", "sdgnn", "gcn", "gat"]


@dataclass
class BackboneOptions:
    """How a backbone is made and trained. `published` gives what the papers train each with."""

    backbone: Backbone = "sgcn"
    inputs: Literal["spectral", "random"] = "spectral"
    """What nodes are given: spectral inputs do better than the random ones of the papers."""
    width: int = 64
    """Of inputs and embeddings."""
    layers: int = 2
    head: Literal["linear", "bilinear"] = "linear"
    """Of sgcn, gcn and gat; a linear one, as published, cannot see that two nodes agree."""
    triplet: float = 5.0
    """lambda, weight of the triplet terms of sgcn, gcn and gat."""
    epochs: int = 300
    """Optimiser steps, each over all edges."""
    learning_rate: float = 0.01
    weight_decay: float = 5e-4
    """Of an L2 penalty."""
    log_epochs: int = 50
    save_epochs: int = 1000

    def __post_init__(self) -> None:
        if self.width < 2 or self.width % 2:
            raise ConfigError(f"width {self.width}; an even number is needed: half for friends, half for foes", "width")
        if self.layers < 1 or self.epochs < 1:
            raise ConfigError(f"{self.layers} layers, {self.epochs} epochs; both are 1 or more", "layers")


PUBLISHED = {
    "sgcn": BackboneOptions(),
    "gcn": BackboneOptions("gcn"),
    "gat": BackboneOptions("gat"),
    "sigat": BackboneOptions("sigat", "random", 20, 1, epochs=1500, learning_rate=0.005),
    "sdgnn": BackboneOptions("sdgnn", "random", 20, 2, epochs=1500, learning_rate=0.005),
}


def published(backbone: Backbone, **changes: object) -> BackboneOptions:
    """The papers' values for a backbone, with `changes`. SDGNN is given SiGAT's rate and epochs."""
    return replace(PUBLISHED[backbone], **changes)  # type: ignore[arg-type]


@dataclass
class Thresholds:
    """SGA's four probabilities."""

    delete_positive: float = 0.3
    """A positive edge goes if the encoder gives its sign less."""
    delete_negative: float = 0.5
    add_positive: float = 0.99
    """A pair becomes a positive edge if the encoder gives that at least; 1.0 means exp(-.005), as the authors' does."""
    add_negative: float = 1.0


THRESHOLDS = {
    ("bitcoin-alpha", "sgcn"): Thresholds(0.3, 0.5, 0.99, 1.0),
    ("bitcoin-otc", "sgcn"): Thresholds(0.2, 0.2, 0.98, 0.99),
    ("wiki-elec", "sgcn"): Thresholds(0.45, 0.5, 0.95, 0.95),
    ("wiki-RfA", "sgcn"): Thresholds(0.4, 0.45, 0.98, 0.98),
    ("bitcoin-alpha", "sigat"): Thresholds(0.05, 0.1, 0.99, 1.0),
    ("bitcoin-otc", "sigat"): Thresholds(0.2, 0.2, 0.98, 0.99),
    ("wiki-elec", "sigat"): Thresholds(0.1, 0.2, 0.99, 0.99),
    ("wiki-RfA", "sigat"): Thresholds(0.15, 0.25, 0.95, 0.95),
}
"""By graph and backbone, as published (SGA)."""


@dataclass
class CurriculumOptions:
    """Which edges each epoch's loss uses."""

    kind: Literal["none", "csg", "sga"] = "none"
    """csg: stages of `epochs_per_stage` epochs, whatever the backbone says. sga: stages fill the backbone's epochs."""
    pacing: Literal["linear", "root", "geometric"] = "linear"
    start: float = 0.25
    """lambda_0, share of the edges to start from."""
    stages: int = 20
    """T: 20 in CSG, 30 in SGA."""
    epochs_per_stage: int = 101
    """Of csg."""


@dataclass
class AugmentOptions:
    """SGA's structure augmentation."""

    enabled: bool = False
    thresholds: Thresholds = field(default_factory=Thresholds)
    encoder: BackboneOptions = field(default_factory=BackboneOptions)
    """The SGCN whose probabilities decide."""
