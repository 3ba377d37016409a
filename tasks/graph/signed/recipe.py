"""The signed-graph recipe: learn the signs of links, measure on held-out ones, keep the encoder.

    arbiter run tasks/signed_planted                      two planted factions, seconds on one core
    arbiter run tasks/signed_bitcoin_alpha                SGCN with SGA's augmentation on who trusts whom
    arbiter run tasks/signed_bitcoin_alpha curriculum.kind=csg augment.enabled=false
    arbiter run tasks/signed_planted data.path=edges.csv  a graph of your own: source, target, sign on each line

The run folder holds the encoder (``encoder/``, for `SignedGraphEncoder.from_pretrained` and the tool
`predict_link_sign`), artifacts/signed-links.json with the metrics of encoder and trivial baselines with and without
edges whose reverse was learned from, and what augmentation changed.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from launch.contracts import Result
from launch.errors import ConfigError, check_choice
from launch.options import RunOptions
from tasks.graph.signed.options import AugmentOptions, BackboneOptions, CurriculumOptions

if TYPE_CHECKING:
    import numpy as np


Graph = Literal["planted", "bitcoin-alpha", "bitcoin-otc", "wiki-elec", "wiki-RfA"]
Split = Literal["drawn", "pairs", "csg", "sga1", "csg1"]


@dataclass
class DataOptions:
    """Which graph, and which of its edges are held out."""

    graph: Graph = "planted"
    """Real ones are read from ARBITER_DATA."""
    path: str = ""
    """A file of source, target, sign, in place of `graph`."""
    split: Split = "drawn"
    """drawn: at random for each sign; pairs: both directions of a pair on one side; csg: 85/5/10, the epoch chosen on
    the 5 %; sga1, csg1: as published, the latter with its validation edges."""
    test: float = 0.2
    """Share of held-out edges of drawn and pairs."""

    def __post_init__(self) -> None:
        check_choice("graph", self.graph, Graph)
        check_choice("split", self.split, Split)
        if not 0 < self.test < 1:
            raise ConfigError(f"test {self.test} is no share that can be held out; give one between 0 and 1", "test")
        if self.split in ("sga1", "csg1") and (self.path or self.graph == "planted"):
            raise ConfigError(f"split {self.split} is of a published graph; use drawn, pairs or csg", "split")


@dataclass
class Config:
    """Training and measuring of one encoder."""

    data: DataOptions = field(default_factory=DataOptions)
    backbone: BackboneOptions = field(default_factory=BackboneOptions)
    curriculum: CurriculumOptions = field(default_factory=CurriculumOptions)
    augment: AugmentOptions = field(default_factory=AugmentOptions)
    run: RunOptions = field(default_factory=lambda: RunOptions(folder="runs/signed"))

    def __post_init__(self) -> None:
        self.curriculum.stages_within(self.backbone.epochs)


def main(config: Config) -> Result:
    """Train, measure, save the encoder.

    Returns:
        The folder; metrics `auc`, `hard_auc`, `f1_binary`, `f1_micro`, `f1_macro` on held-out edges, those ending in
        `_no_reverse` on edges whose reverse was not learned from, and those beginning with `six_features_` of the
        logistic regression on six counts.
    """
    from dataclasses import asdict

    from launch import runtime
    from launch.config import resolve
    from launch.runfolder import RunFolder
    from tasks.graph.signed.baselines import always_positive, six_feature_scores
    from tasks.graph.signed.edges import concatenated
    from tasks.graph.signed.encoder import SignedGraphEncoder
    from tasks.graph.signed.evaluate import measured
    from tasks.graph.signed.splits import leakage

    run = RunFolder(config.run.folder, config.run.fresh).open(resolve(config), config.run.seed)
    train, validation, test = _edges(config)
    run.fingerprint_data("train", [{"edges": train.tolist()}])
    run.fingerprint_data("test", [{"edges": test.tolist()}])
    if validation is not None:
        run.fingerprint_data("validation", [{"edges": validation.tolist()}])
    encoder = SignedGraphEncoder(config.backbone, config.curriculum, config.augment, config.run.seed)
    parts = [train, test] if validation is None else [train, validation, test]
    encoder.fit(train, nodes=concatenated(parts), run=run, validation=validation)
    found = {
        "encoder": measured(encoder.score(test[:, :2]), train, test),
        "six features": measured(six_feature_scores(train, test), train, test),
        "always positive": measured(always_positive(test), train, test),
    }
    if runtime.is_main():
        encoder.save_pretrained(run.path / "encoder")
        report = {"leakage": asdict(leakage(train, test)), "changes": encoder.changes, "methods": found}
        run.artifact("signed-links", report)
        run.log({"stage": "evaluation", "step": config.backbone.epochs, **found["encoder"]["all"]})
    metrics = dict(found["encoder"]["all"])
    metrics |= {f"{name}_no_reverse": value for name, value in found["encoder"]["no_reverse"].items()}
    metrics |= {f"six_features_{name}": found["six features"]["all"][name] for name in ("auc", "f1_macro")}
    return Result(run.path, metrics)


def _edges(config: Config) -> tuple[np.ndarray, np.ndarray | None, np.ndarray]:
    """Training edges, those that choose the epoch if there are any, and held-out edges."""
    from tasks.graph.signed.data import load_signed, read_graph
    from tasks.graph.signed.planted import two_factions
    from tasks.graph.signed.splits import split_edges, split_validated

    data, seed = config.data, config.run.seed
    if data.split == "sga1" or data.split == "csg1":
        parts = load_signed(data.graph, data.split)
        return parts["train"], parts.get("validation"), parts["test"]
    if data.path:
        # As a graph, so that it is checked whole: an edge given twice could lie on both sides of the split.
        edges = read_graph(Path(data.path)).rows
    else:
        edges = two_factions(seed=seed) if data.graph == "planted" else load_signed(data.graph)
    if data.split == "csg":
        return split_validated(edges, seed)
    known, asked = split_edges(edges, seed, data.test, by_pair=data.split == "pairs")
    return known, None, asked
