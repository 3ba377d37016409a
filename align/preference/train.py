"""The preference recipe: train a BT, GPM or HRC model on judged answers, and measure it on prompts held out.

    arbiter run align/preference_hrc_small data.path=pairs.jsonl run.folder=runs/hrc

The run folder holds the model in checkpoints/preference/final, the held-out accuracy in metrics.jsonl (stage
"evaluation": all pairs, and those on cycles apart), games of held-out prompts in artifacts/scores-*.json, and a few
held-out prompts with their answers, best first, in samples/held-out.jsonl.

Left out: sweeps over seeds and sizes (see benchmarks), and a separate learning rate for the heads.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from align.preference.config import Kind, Pooling, PreferenceConfig
from align.preference.data import DataOptions, load_groups
from align.preference.evaluation import count_unreadable, evaluate, game_artifact, sample_row
from align.preference.heads import Gate
from align.preference.model import PreferenceModel
from align.preference.objective import PreferenceObjective
from launch.contracts import Result
from launch.options import RunOptions, TrainOptions
from launch.packing import Layout

logger = logging.getLogger(__name__)


@dataclass
class ModelOptions:
    """What is trained; symbols as in docs/preference.md."""

    path: str
    """Backbone: folder or hub name of any causal or bidirectional encoder."""
    kind: Kind = "hrc"
    dims: int = 4
    """2d, width of the cyclic embedding: 4 is written "4" for gpm and "4+1" for hrc; bt ignores it."""
    tau: float = 0.1
    """Temperature that divides the whole score."""
    delta: float = 5.0
    """Bound of r."""
    c1: float = 1.0
    """Weight of the ranking part."""
    c2: float = 1.0
    """Weight of the cyclic part."""
    gate: Gate | None = None
    """None: softplus for hrc, softmax for gpm."""
    lambda_sq_max: float = 10.0
    """Cap of the gate's weights."""
    unit_norm: bool = True
    clip: bool = True
    pooling: Pooling | None = None
    """None: last token for causal backbones, masked mean for bidirectional ones."""
    max_length: int = 2048
    """Tokens of prompt and answer together; more is cut on the right, and counted."""
    attention: str | None = None
    """Attention kernel; None: the one that is right for the backbone."""
    packing: Layout = "shared"
    """How a batch is laid out, at the same loss: shared (a prompt once for its answers), packed, or padded."""

    def __post_init__(self) -> None:
        PreferenceConfig(
            kind=self.kind, dims=self.dims, tau=float(self.tau), delta=float(self.delta),
            gate=self.gate or "softplus", lambda_sq_max=float(self.lambda_sq_max),
        )  # fmt: skip
        warning = dominance_warning(self)
        if warning:
            logger.warning(warning)

    def build(self, train: TrainOptions, seed: int) -> PreferenceModel:
        """New heads on the pretrained backbone. Weights that are trained are fp32, frozen ones as computed with."""
        return PreferenceModel.from_backbone(
            self.path,
            kind=self.kind,
            dims=self.dims,
            tau=self.tau,
            delta=self.delta,
            c1=self.c1,
            c2=self.c2,
            gate=self.gate,
            lambda_sq_max=self.lambda_sq_max,
            unit_norm=self.unit_norm,
            clip=self.clip,
            pooling=self.pooling,
            max_length=self.max_length,
            precision=train.precision if train.lora is not None else "fp32",
            quantization=train.quantization,
            attention=self.attention,
            seed=seed,
        )


@dataclass
class Config:
    """Training of one preference model."""

    model: ModelOptions
    data: DataOptions
    train: TrainOptions = field(default_factory=lambda: TrainOptions(epochs=2.0))
    score_batch: int = 16
    """Sequences per forward when held-out prompts are scored; changes no score."""
    run: RunOptions = field(default_factory=lambda: RunOptions(folder="runs/preference"))


def main(config: Config) -> Result:
    """Train, evaluate, and leave everything in the run folder.

    Returns:
        The folder; metrics `accuracy` on held-out pairs with a 95 % Wilson interval (`_low`, `_high`, `_count`),
        `accuracy_cyclic` and `accuracy_acyclic` likewise, the mean `cyclicity` and `leak` of held-out games, and on the
        main process the rows of each side that could not be read whole (`cut_rows`, `alike_rows`, `test_…`).
    """
    from launch import runtime
    from launch.config import resolve
    from launch.runfolder import RunFolder
    from launch.trainer import fit

    run = RunFolder(config.run.folder, config.run.fresh).open(resolve(config), config.run.seed)
    train, test = load_groups(config.data, folder=run.path)
    run.fingerprint_data("train", train)
    run.fingerprint_data("test", test)
    model = config.model.build(config.train, config.run.seed)
    objective = PreferenceObjective(model.renderer, model.config, config.model.packing)
    judged = test.where(lambda group: group["winners"])
    unreadable: dict[str, float] = {}
    if runtime.is_main():
        unreadable = count_unreadable(model, train, "training")
        unreadable |= {f"test_{key}": n for key, n in count_unreadable(model, judged, "test").items()}
        run.log({"stage": "data", "step": 0, **unreadable})
    fitted = fit(
        model, objective, train, options=config.train, run=run, name="preference", seed=config.run.seed,
        evaluate=judged or None, tokenizer=model.renderer.tokenizer, report_to=config.run.report_to,
    )  # fmt: skip
    metrics: dict[str, float] = {**fitted.metrics, **unreadable}
    if judged:
        with run.timing("evaluation"):
            held_out = evaluate(model, judged, config.score_batch)
        metrics.update(held_out.metrics())
        run.log({"stage": "evaluation", "step": fitted.steps, **metrics})
        name = f"{config.model.kind} {config.model.dims}" if config.model.kind != "bt" else "bt"
        for number, (group, s) in enumerate(held_out.telling):
            run.artifact(f"scores-{number}", game_artifact(group, s, name))
        run.samples("held-out", [sample_row(group, s) for group, s in held_out.first])
    runtime.barrier()
    return Result(run.path, metrics)


def estimate(config: Config) -> Any:
    """What ``--dry-run`` prints. Data that are not on this machine count as pairs of unknown number."""
    from launch.estimate import Estimate

    examples, answers = None, 2
    paths = [config.data.path] if isinstance(config.data.path, str) else config.data.path
    if all(path and Path(path).exists() for path in paths):
        groups, _ = load_groups(config.data)
        examples, answers = len(groups), max(2, round(sum(len(g["responses"]) for g in groups) / len(groups)))
    out = Estimate()
    out.training("preference", config.model.path, config.train, config.model.max_length, answers, examples, head=False)
    return out


def dominance_warning(model: ModelOptions) -> str | None:
    """A line if an answer that beats a whole cycle may be out of reach (Theorem 4.7), else None.

    Dominance over any cycle needs C1 (r* - r) > C2 lambda^2, and r* - r is at most 2 delta.
    """
    if model.kind != "hrc" or not model.clip:
        return None
    reach, cycle = 2 * model.delta * model.c1, model.c2 * model.lambda_sq_max
    if reach > cycle:
        return None
    return (
        f"2 delta C1 = {reach:g} does not exceed C2 lambda_sq_max = {cycle:g}: no answer could beat a cycle of full "
        "strength (Theorem 4.7); lower model.lambda_sq_max or raise model.delta"
    )
