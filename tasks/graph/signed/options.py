"""Options of backbones, augmentation and curriculum, with the published values as defaults.

A config file's choices are checked by `launch.config`; those of options made in Python are checked here.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from launch.errors import ConfigError, check_choice

Backbone = Literal["sgcn", "sigat", "sdgnn", "gcn", "gat"]
Inputs = Literal["spectral", "random"]
Head = Literal["linear", "bilinear"]
Pacing = Literal["linear", "root", "geometric"]
Kind = Literal["none", "csg", "sga"]

STAGES = {"csg": 20, "sga": 30}
"""T of each paper."""
ALMOST_ONE = -0.005
"""log p that counts as 1.0: SGA's candidate files hold log-probabilities with two decimals."""


def check_pace(pacing: Any, start: float, stages: int, epochs_per_stage: int) -> None:
    """Raise ConfigError for what makes no pace of a curriculum."""
    check_choice("pacing", pacing, Pacing)
    if not 0 < start <= 1:
        raise ConfigError(f"start {start} is no share; give one above 0, at most 1", "start")
    _check_counts(stages=stages, epochs_per_stage=epochs_per_stage)


def check_stages(stages: int, epochs: int) -> None:
    """Raise ConfigError if SGA's stages are more than the epochs: the hardest edges would not be learned from."""
    if epochs < stages:
        raise ConfigError(
            f"{stages} stages do not fit {epochs} epochs, the hardest edges would never be seen; give at most {epochs} "
            "stages, or more epochs",
            "curriculum.stages",
        )


def _check_counts(**counts: int) -> None:
    for name, count in counts.items():
        if count < 1:
            raise ConfigError(f"{name} {count}; give 1 or more", name)


@dataclass
class BackboneOptions:
    """How a backbone is made and trained. `published` gives what the papers train each with."""

    backbone: Backbone = "sgcn"
    inputs: Inputs = "spectral"
    """What nodes are given: spectral inputs do better than the random ones of the papers."""
    width: int = 64
    """Of inputs and embeddings."""
    layers: int = 2
    head: Head = "linear"
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
        for name, kind in (("backbone", Backbone), ("inputs", Inputs), ("head", Head)):
            check_choice(name, getattr(self, name), kind)
        if self.width < 2 or self.width % 2:
            raise ConfigError(f"width {self.width}; an even number is needed: half for friends, half for foes", "width")
        _check_counts(layers=self.layers, epochs=self.epochs, log_epochs=self.log_epochs, save_epochs=self.save_epochs)
        if not 0 < self.learning_rate < math.inf:
            raise ConfigError(f"learning_rate {self.learning_rate}; give a number above 0", "learning_rate")
        for name in ("triplet", "weight_decay"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ConfigError(f"{name} {getattr(self, name)}; give 0 or more", name)


PUBLISHED = {
    "sgcn": BackboneOptions(),
    "gcn": BackboneOptions("gcn"),
    "gat": BackboneOptions("gat"),
    "sigat": BackboneOptions("sigat", "random", 20, 1, epochs=1500, learning_rate=0.005),
    "sdgnn": BackboneOptions("sdgnn", "random", 20, 2, epochs=1500, learning_rate=0.005),
}


def published(backbone: Backbone, **changes: object) -> BackboneOptions:
    """The papers' values for a backbone, with `changes`. SDGNN is given SiGAT's rate and epochs.

    Raises:
        ConfigError: another backbone, or a change that cannot be.
    """
    check_choice("backbone", backbone, Backbone)
    return replace(PUBLISHED[backbone], **changes)  # type: ignore[arg-type]


@dataclass
class Thresholds:
    """SGA's four probabilities; those of addition sum to more than 1, else one pair could be added with both signs."""

    delete_positive: float = 0.3
    """A positive edge goes if the encoder gives its sign less."""
    delete_negative: float = 0.5
    add_positive: float = 0.99
    """A pair becomes a positive edge if the encoder gives that at least; 1.0 means exp(-.005), as the authors' does."""
    add_negative: float = 1.0

    def __post_init__(self) -> None:
        for name in ("delete_positive", "delete_negative", "add_positive", "add_negative"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"{name} {getattr(self, name)} is no probability; give one in 0 to 1", name)
        if sum(min(p, math.exp(ALMOST_ONE)) for p in (self.add_positive, self.add_negative)) <= 1:
            raise ConfigError(
                f"add_positive {self.add_positive} and add_negative {self.add_negative} let one pair be added with "
                "both signs; raise them until they sum to more than 1",
                "add_positive",
            )


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

    kind: Kind = "none"
    """csg: stages of `epochs_per_stage` epochs, whatever the backbone says. sga: stages fill the backbone's epochs."""
    pacing: Pacing = "linear"
    """Of csg; sga's is linear."""
    start: float = 0.25
    """lambda_0, share of the edges to start from."""
    stages: int | None = None
    """T; null: 20 in CSG, 30 in SGA."""
    epochs_per_stage: int = 101
    """Of csg."""

    def __post_init__(self) -> None:
        check_choice("kind", self.kind, Kind)
        check_pace(self.pacing, self.start, 1 if self.stages is None else self.stages, self.epochs_per_stage)
        if self.kind == "sga" and self.pacing != "linear":
            raise ConfigError(f"pacing {self.pacing} is csg's; sga's is linear: use that, or kind=csg", "pacing")

    def stages_within(self, epochs: int) -> int:
        """T.

        Raises:
            ConfigError: sga's stages do not fit the backbone's `epochs`.
        """
        stages = STAGES.get(self.kind, 1) if self.stages is None else self.stages
        if self.kind == "sga":
            check_stages(stages, epochs)
        return stages


@dataclass
class AugmentOptions:
    """SGA's structure augmentation."""

    enabled: bool = False
    thresholds: Thresholds = field(default_factory=Thresholds)
    encoder: BackboneOptions = field(default_factory=BackboneOptions)
    """The SGCN whose probabilities decide."""
