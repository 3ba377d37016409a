"""The recipe of LegalChainReasoner: a decoder reads a charge's chains as soft tokens and writes reasons and sentence.

    arbiter run reasoning/legal_cases                          the embedded world, minutes on two cores
    arbiter run reasoning/legal_qwen7b data.path=FILE          a real model on real cases

1. Start: a given decoder, or a small one made on the spot (`policy` empty). 2. The chains of all charges are embedded
by its frozen input embeddings; `law` says how prompts tell them (docs/legal.md). 3. Generation and sentence loss, by
LoRA if ``train.lora`` says so; a part of the training cases, never the test, selects the weights. 4. The test's losses,
sentence metrics, parse rate and consistency, beside predictors that read no facts.

The run folder holds the selected model in model/ with its card, the evaluation in artifacts/legal-evaluation.json, and
opinions with the charge they rest on in samples/. Names of persons are masked in everything that is read.

As published, and off by default: learning rates by module (`rates`), halving them on a plateau of held-out RMSE and an
early end (`selection`), sampling with a repetition penalty (`decoding`).
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from launch.contracts import Result
from launch.errors import ConfigError
from launch.options import RunOptions, TrainOptions
from reasoning.legal.feed import DataOptions, Feed
from reasoning.legal.opinion import Law
from reasoning.legal.scratch import BaseOptions
from tasks.worlds.cases import CasesWorld

SHOWN = 12
"""Held-out cases whose opinions are kept as samples."""


@dataclass
class ChainOptions:
    """The encoding of chains; see `reasoning.legal.encoder`."""

    shared: bool = False
    """One charge layer for all charges: for those that training has not seen."""
    graph: bool = False
    """Chain vectors from the logic graph in place of the attention."""
    heads: int = 8
    dropout: float = 0.1


@dataclass
class RateOptions:
    """Learning rates by module; None: ``train.learning_rate``. Published: 1e-5, 3e-5, 4e-5, 2e-5."""

    decoder: float | None = None
    """Of adapters, or of a decoder that is trained whole."""
    attention: float | None = None
    """Of the attention over a chain's rows; nothing with ``chains.graph``."""
    transform: float | None = None
    """Of transform, charge layers, gate and fusion."""
    logic: float | None = None
    """Of AND, OR and steps of the logic graph; nothing without ``chains.graph``."""

    def by_name(self, graph: bool = False) -> dict[str, float]:
        """Rates for `launch.trainer.fit`, by expressions of names; of `logic` with `graph`, else of `attention`."""
        encoder = r"(^|\.)encoder\.(modules_to_save\.\w+\.)?"
        own = {"logic": encoder + r"graph\."} if graph else {"attention": encoder + r"attention\."}
        names = {**own, "transform": encoder, "decoder": ""}
        return {pattern: getattr(self, name) for name, pattern in names.items() if getattr(self, name) is not None}

    def __post_init__(self) -> None:
        for name, rate in vars(self).items():
            if rate is not None and not rate >= 0:
                raise ConfigError(f"{name} {rate}: learning rates are 0 or more", name)


@dataclass
class SelectionOptions:
    """What held-out training cases decide. The test decides nothing."""

    metric: Literal["sentence", "rmse"] = "sentence"
    """Their loss of the sentence clause; or RMSE, months, of written opinions, which takes a generation each time."""
    patience: int | None = None
    """Evaluations without gain that are put up with before rates are multiplied by `factor`; None: they never are.
    Published: 5."""
    factor: float = 0.5
    stop_after: int = 0
    """Evaluations without gain that end the training; 0: none do. Published: 15 epochs."""

    def __post_init__(self) -> None:
        if self.patience is not None and self.patience < 0:
            raise ConfigError(f"patience {self.patience}: give 0 or more evaluations, or leave it out", "patience")
        if not 0 < self.factor < 1:
            raise ConfigError(f"factor {self.factor}: give a number between 0 and 1, such as 0.5", "factor")
        if self.stop_after < 0:
            raise ConfigError(f"stop_after {self.stop_after}: give 1 or more evaluations, or 0 for never", "stop_after")

    @property
    def steers(self) -> bool:
        return self.patience is not None or self.stop_after > 0


@dataclass
class Config:
    """Training of one model."""

    policy: str = ""
    """Folder or hub name of a causal language model; "" makes a small one of the world, or of statutes and cases."""
    law: Law = "soft"
    """How prompts tell the law: soft, shuffled (another charge's), none, text (numbered lines)."""
    world: CasesWorld = field(default_factory=CasesWorld)
    """The embedded cases, used where data.path is empty."""
    data: DataOptions = field(default_factory=DataOptions)
    base: BaseOptions = field(default_factory=BaseOptions)
    chains: ChainOptions = field(default_factory=ChainOptions)
    sentence: float = 1.0
    """Weight of the sentence clause's own loss."""
    freeze_words: bool = True
    """Input embeddings stay as they are, for chains are told in them. Under LoRA they always do."""
    rates: RateOptions = field(default_factory=RateOptions)
    selection: SelectionOptions = field(default_factory=SelectionOptions)
    train: TrainOptions = field(default_factory=lambda: TrainOptions(learning_rate=1e-5, eval_steps=50))
    max_length: int = 2048
    """Tokens of prompt and answer; a longer case is an error, for its beginning is the law."""
    max_new_tokens: int = 450
    constrained: bool = False
    """Whether written sentence clauses are chosen among those that parse."""
    decoding: Literal["greedy", "published"] = "greedy"
    """How the test's opinions are written: greedily, or sampled as published (`decoding.PUBLISHED`)."""
    held_out: int = 0
    """Test cases to measure on; 0: all."""
    evaluation_batch: int = 32
    run: RunOptions = field(default_factory=lambda: RunOptions(folder="runs/legal"))

    def __post_init__(self) -> None:
        if self.train.quantization != "none":
            raise ConfigError("soft tokens of a 4-bit decoder were never run; use none", "train.quantization")
        if self.train.sharding in ("fsdp2", "zero3"):
            raise ConfigError("weights are selected whole on one device; use none or zero2", "train.sharding")
        if self.train.sharding == "zero2" and (self.rates.by_name() or self.selection.steers):
            said = "rates by module and plateaus were never run under ZeRO; use none, or leave rates and selection out"
            raise ConfigError(said, "train.sharding")
        if self.selection.steers and self.train.eval_steps < 1:
            raise ConfigError("a plateau takes evaluations on the way; set train.eval_steps", "train.eval_steps")


def main(config: Config) -> Result:
    """Train, select, measure, and leave everything in the run folder.

    Returns:
        The folder; metrics of `evaluation.measured` on the test, `selected_step`, ``median_…`` of the charge median.
    """
    from align.selfplay.rounds import start_processes
    from launch import runtime
    from launch.config import resolve
    from launch.models import apply_lora, load_causal_lm, load_tokenizer, merge_lora
    from launch.order import stable_seed
    from launch.runfolder import RunFolder
    from launch.trainer import fit
    from reasoning.legal.encoder import ChainModel
    from reasoning.legal.objective import OpinionObjective, encode_opinions
    from reasoning.legal.plateau import Plateau, TermError
    from reasoning.legal.selection import Selection

    start_processes(config)
    seed = config.run.seed
    run = RunFolder(config.run.folder, config.run.fresh).open(resolve(config), seed)
    feed = feed_of(config)
    run.fingerprint_data("train", feed.train)
    run.fingerprint_data("test", feed.test)
    start = config.policy or str(_small(config, feed, run))
    tokenizer = load_tokenizer(start)
    lora = config.train.lora
    decoder = load_causal_lm(start, config.train.precision if lora is not None else "fp32")
    if lora is None and config.freeze_words:
        decoder.get_input_embeddings().requires_grad_(False)
    c = config.chains
    model: Any = ChainModel.of(
        decoder, tokenizer, feed.provisions, shared=c.shared, graph=c.graph, heads=c.heads, dropout=c.dropout, seed=seed
    )  # fmt: skip
    renderer = model.renderer(tokenizer, config.max_length)
    train, validation = (encode_opinions(rows, renderer) for rows in (feed.train, feed.validation))

    learner: Any = model if lora is None else apply_lora(model, lora, model.train_whole, stable_seed(seed, "lora"))
    held, metric = config.selection, f"eval_{config.selection.metric}"
    selection = Selection(learner, run.path / "selected", metric)
    callbacks: list[Any] = [selection, Plateau(metric, held.patience, held.factor, held.stop_after)]
    if held.metric == "rmse":
        callbacks.insert(0, TermError(learner, renderer, feed.validation, feed.form, config.max_new_tokens, run))
    fit(
        learner, OpinionObjective(tokenizer.pad_token_id, config.sentence), train, options=config.train, run=run,
        name="legal", seed=seed, evaluate=validation, tokenizer=tokenizer, callbacks=callbacks,
        report_to=config.run.report_to, rates=config.rates.by_name(c.graph),
    )  # fmt: skip
    runtime.barrier()
    chosen = selection.restore()
    if lora is not None:
        model = merge_lora(learner)

    numbers = _measured(config, run, model, renderer, feed, chosen)
    if runtime.is_main():
        save(model, tokenizer, feed, config, numbers, run.path / "model")
        run.log({"stage": "evaluation", "step": chosen["step"], **numbers})
    runtime.barrier()
    return Result(run.path, {"selected_step": float(chosen["step"]), **numbers})


def feed_of(config: Config) -> Feed:
    """The cases of a config."""
    from reasoning.legal import feed

    if config.data.path:
        return feed.of_file(config.law, config.data, config.held_out)
    return feed.of_world(config.world, config.law, config.data, config.held_out)


def _small(config: Config, feed: Feed, run: Any) -> Path:
    """A small decoder that has read laws, and the training cases where they are real."""
    from reasoning.legal import scratch
    from reasoning.legal.statute import load_articles

    with run.timing("small decoder"):
        if not config.data.path:
            return scratch.of_world(replace(config.world, start_right=1.0), config.base, config.data.reasons)
        laws = list(load_articles(config.data.statutes).values()) if config.data.statutes else []
        told = [row["fact"] + row["response"] for row in feed.train]
        return scratch.of_texts([*laws, *told], config.base)


def _measured(
    config: Config, run: Any, model: Any, renderer: Any, feed: Feed, chosen: dict[str, Any]
) -> dict[str, float]:
    """Numbers on the test; computed once, by the main process."""
    from launch import runtime
    from launch.runfolder import content_hash, write_json
    from launch.runtime import own_device
    from reasoning.legal.decoding import SAMPLINGS
    from reasoning.legal.evaluation import measured, trivial

    key = {"selected": chosen, "rows": content_hash(feed.test), "tokens": config.max_new_tokens}
    key |= {} if config.decoding == "greedy" else {"decoding": config.decoding}
    stage = run.stage("measured", {**key, "constrained": config.constrained})
    if runtime.is_main() and not stage.done:
        device = own_device()
        with run.timing("opinions"), stage.write() as folder:
            numbers, samples = measured(
                model if device is None else model.to(device), renderer, feed, feed.test,
                tokens=config.max_new_tokens, constrained=config.constrained, batch=config.evaluation_batch,
                sampling=replace(SAMPLINGS[config.decoding], seed=config.run.seed),
            )  # fmt: skip
            write_json(folder / "numbers.json", numbers)
            write_json(folder / "samples.json", samples[:SHOWN])
    runtime.barrier()
    numbers, plain = stage.read_json("numbers"), trivial(feed)
    run.artifact("legal-evaluation", {"model": numbers, "trivial": plain, "odd": feed.odd, "law": config.law})
    run.samples("0-opinions", stage.read_json("samples"))
    return numbers | {f"median_{k}": plain["charge median"][k] for k in ("mae", "rmse", "loss_clause")}


def save(model: Any, tokenizer: Any, feed: Feed, config: Config, numbers: dict[str, float], folder: Path) -> None:
    """The selected model with tokenizer, the charges it reads and the card, whole or not at all."""
    from launch import checkpoint
    from launch.runfolder import write_text
    from reasoning.legal.card import model_card

    with checkpoint.writing(folder) as out:
        model.save_pretrained(out)
        tokenizer.save_pretrained(out)
        write_text(out / "README.md", model_card(config, feed, numbers))


def estimate(config: Config) -> Any:
    """What ``--dry-run`` prints."""
    from launch.estimate import Estimate, model_shape
    from reasoning.legal.charges import CHARGES

    out = Estimate()
    if not config.policy:
        out.add("policy", f"{config.base.layers} layers of {config.base.hidden_size}", "made on the spot, then cached")
        return out
    there = not config.data.path or Path(config.data.path).exists()
    examples = len(feed_of(config).train) if there else None
    out.training("legal", config.policy, config.train, config.max_length, 1, examples)
    layers = 1 if config.chains.shared else len(CHARGES)
    number = (9 + layers) * model_shape(config.policy).width ** 2
    out.add("legal: encoding", f"{number / 1e6:.0f} M parameters", "trained in fp32 beside them: 16 bytes each (AdamW)")
    return out
