"""The self-play recipe: T rounds of generate, score, select, train; then a mixture of the rounds and a measurement.

SPPO is ``lam: 0``; DSPPO the default; GPO ``loss: gpo``. A round's answers, scores, data set and policy are stages of
the run folder (`align.selfplay.stages`), so the same command continues a run that was stopped. The report reads
``artifacts/rounds.json``; ``mixture/`` is the deployable average policy.

    arbiter run align/selfplay_styles policy=FOLDER run.folder=runs/selfplay

Left out: several preference models at once, and prompts drawn anew each round: shards are consecutive, as SPPO's.
"""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

from align.selfplay.pairs import LossName, Mode, PairDataset, build_pairs, check_mode
from align.selfplay.schedule import SCHEDULES, ScheduleName, mixed_scores
from launch.contracts import Generator, Prompt, Result, Sampling
from launch.errors import ConfigError, DataError
from launch.options import RunOptions, TrainOptions
from launch.packing import Layout

log = logging.getLogger(__name__)


def _paper_training() -> TrainOptions:
    return TrainOptions(
        learning_rate=5e-7, optimizer="rmsprop", schedule="constant", warmup_ratio=0.0, epochs=1.0, batch_size=16,
        accumulation=4, save_steps=50,
    )  # fmt: skip


@dataclass
class Config:
    """Self-play of a policy against a preference model."""

    policy: str
    """Folder of the starting policy pi_0 (a causal language model)."""
    preference: str
    """Folder of a PreferenceModel, ``world:NAME`` for a world's true game, or ``module:name`` of a Scorer."""
    prompts: str
    """File with a ``prompt`` column or a .txt; ``world:NAME``; ``module:name`` of a function."""
    rounds: int = 3
    """T."""
    samples: int = 5
    """K, answers per prompt and round."""
    prompt_split: Literal["shards", "all"] = "shards"
    """shards: round t sees the t-th of T consecutive shards. all: every round sees every prompt."""
    prompts_per_round: int = 0
    """At most so many prompts a round, the first of its shard; 0: all."""
    sampling: Sampling = field(default_factory=lambda: Sampling(max_new_tokens=1024))
    """Its seed stays 0: seeds come from run.seed, the round and the chunk."""
    schedule: ScheduleName = "inv_sqrt"
    """How the weights (1 + lam w_t) of S_T and (1 - lam w_t) of S_C decay; constant is SPPO."""
    lam: float = 1.0
    """lambda; 0 is SPPO."""
    loss: LossName = "sppo"
    mode: Mode = "pair"
    """pair: best and worst of K. all_k: every answer with its own target."""
    beta: float = 1e-3
    """1/eta, in win rate per nat of summed log-ratio. Far smaller models need far larger values (0.1 to 1)."""
    anchor: float = 0.0
    """gamma in [0, 1): pull toward pi_0 each round, so that the last policy converges; 0 is the papers' update."""
    legacy_double: bool = False
    """Score with S - S^T as the predecessors do: twice the logits. For comparison only."""
    max_length: int = 2048
    """Tokens of prompt and answer together in training; the prompt loses its left first."""
    generator: Literal["hf", "vllm", "server"] = "hf"
    """hf repeats bit for bit after a kill; vllm keeps finished chunks; server: one round, its weights are its own."""
    server_url: str = ""
    """Base URL of an OpenAI-compatible server that serves `policy` (generator: server)."""
    server_model: str = ""
    """The name it serves it under."""
    chunk: int = 64
    """Prompts per generation chunk: the most that a kill can cost."""
    generate_batch: int = 16
    """Prompts per forward of the hf generator."""
    reference_batch: int = 8
    """Prompts (K answers each) per forward of the reference pass."""
    reference_cache: str = ""
    """Folder of reference log-probabilities that runs share: another method on the same samples makes none."""
    packing: Layout = "shared"
    """shared: a prompt goes through the policy once for all its answers. packed: once for each, without padding.
    padded: in rows of one length. The same numbers; an architecture that cannot share gets the next, with a line."""
    eval_prompts: str = ""
    """Held-out prompts, written as `prompts`; empty: policies are not compared after the rounds."""
    eval_samples: int = 5
    """Answers per held-out prompt and policy."""
    judge: str = ""
    """Who compares the policies, written as `preference`; empty: the preference model itself."""
    describe: str = ""
    """``module:name`` of (prompt, response) -> facts (``right``, ``malformed``, ``style``); empty: the world's, if one
    is named above."""
    method: str = ""
    """Name in reports; empty: made from loss, lam, anchor and mode (SPPO, DSPPO hard, GPO all-K …)."""
    train: TrainOptions = field(default_factory=_paper_training)
    run: RunOptions = field(default_factory=lambda: RunOptions(folder="runs/selfplay"))

    def __post_init__(self) -> None:
        check_mode(self.loss, self.mode)
        for name, least in {"rounds": 1, "samples": 2, "chunk": 1, "eval_samples": 1, "max_length": 2}.items():
            if getattr(self, name) < least:
                raise ConfigError(f"{getattr(self, name)} is too small; use {least} or more", field=name)
        if self.schedule not in SCHEDULES:
            raise ConfigError(f"{self.schedule!r} is not one of {', '.join(SCHEDULES)}", field="schedule")
        if not math.isfinite(self.lam):
            raise ConfigError("must be a finite number; the paper uses 1, SPPO is 0", field="lam")
        if not self.beta > 0:
            raise ConfigError("must be positive: it is 1/eta (the paper uses 0.001)", field="beta")
        if not 0 <= self.anchor < 1:
            raise ConfigError("must lie in [0, 1): the share of the way back to the start each round", field="anchor")
        if self.sampling.temperature == 0:
            raise ConfigError(
                "greedy samples are all the same; use a temperature above 0", field="sampling.temperature"
            )
        if self.sampling.seed != 0:
            raise ConfigError("sampling seeds come from run.seed; set that one", field="sampling.seed")
        if self.generator == "server" and (self.rounds > 1 or not (self.server_url and self.server_model)):
            raise ConfigError(
                "a server keeps its own weights: it can sample one round (rounds: 1, server_url, server_model)",
                field="generator",
            )
        if self.generator == "server" and self.eval_prompts:
            raise ConfigError(
                "the server cannot sample the new policy; evaluate later, or use another generator",
                field="eval_prompts",
            )

    @property
    def label(self) -> str:
        """The method's name in logs and reports."""
        if self.method:
            return self.method
        name = "GPO" if self.loss == "gpo" else "SPPO"
        dynamic = self.lam != 0 and self.schedule != "constant"
        anchor = f"+anchor{self.anchor:g}" if self.anchor else ""
        loss = {"sppo_hard": " hard", "sppo_single": " single"}.get(self.loss, "")
        return ("D" if dynamic else "") + name + anchor + loss + (" all-K" if self.mode == "all_k" else "")


def main(config: Config) -> Result:
    """Play all rounds, or what is left of them."""
    from align.selfplay import measure
    from align.selfplay.inputs import describer, load_judge, load_prompts
    from align.selfplay.mixture import write_mixture
    from align.selfplay.stages import Stages
    from align.selfplay.winrate import histogram, win_rates
    from launch import runtime
    from launch.config import resolve
    from launch.runfolder import RunFolder

    start_processes(config)
    run = RunFolder(config.run.folder, fresh=config.run.fresh).open(resolve(config), config.run.seed)
    if config.generator == "vllm" and runtime.is_main():
        from launch.generate.orphans import end_orphans

        end_orphans(run.path / "engines")
    prompts, held_out = load_prompts(config.prompts), []
    run.fingerprint_data("prompts", [{"prompt": p} for p in prompts])
    if config.eval_prompts:
        held_out = load_prompts(config.eval_prompts, "eval_prompts")
        run.fingerprint_data("eval_prompts", [{"prompt": p} for p in held_out])
    shards = split_prompts(prompts, config)
    preference = load_judge(config.preference)
    describe = describer(config.describe, config.judge, config.preference, config.prompts)
    logged = {row["step"] for row in run.metrics() if row.get("stage") == "selfplay"}
    stages = Stages(config, run)
    policies = [config.policy]
    histograms: list[dict[str, Any]] = []
    evaluations: list[Any] = []
    try:
        for t in range(1, config.rounds + 1):
            policy = policies[-1]
            if held_out:
                evaluations.append(stages.generate(f"eval-{t - 1}", policy, held_out, config.eval_samples))
            samples, responses = stages.generate(f"round-{t}", policy, shards[t - 1], config.samples)
            if not held_out:
                run.samples(f"round-{t - 1}", measure.text_samples(shards[t - 1], samples))
            parts = stages.score(f"round-{t}", preference, shards[t - 1], samples, responses)
            dataset = stages.select(t, shards[t - 1], samples, responses, parts)
            if not len(dataset):
                raise DataError(
                    f"round {t}: all {dataset.dropped} prompts were dropped, their answers all agree; raise the "
                    "temperature, or stop a round earlier: the policy has collapsed"
                )
            run.fingerprint_data(f"round-{t}", [{"hash": dataset.hash}])
            h = histogram([rate - 0.5 for P in dataset.P for rate in win_rates(P)])
            histograms.append({"method": config.label, "round": t, **h})
            cut = measure.cut_rows(dataset, config.max_length)
            if cut and t not in logged:
                first = prompts.index(dataset[cut[0]]["prompt"]) + 1
                log.warning(
                    "round %d: %d of %d rows are cut to max_length %d, the first is prompt %d of %s",
                    t, len(cut), len(dataset), config.max_length, first, config.prompts,
                )  # fmt: skip
            preference.rest()
            policies.append(stages.train(t, policy, dataset, config.policy))
            if t not in logged:
                facts = measure.truth_metrics(shards[t - 1], samples, describe)
                styles = {f"style_{k}": v for k, v in facts.pop("styles", {}).items()}
                numbers = {**measure.sample_metrics(samples), **measure.table_metrics(dataset), **facts, **styles}
                run.log({"stage": "selfplay", "step": t, "cut_rows": len(cut), **numbers})
        if held_out:
            evaluations.append(stages.generate(f"eval-{config.rounds}", policies[-1], held_out, config.eval_samples))
        for t, (samples, _) in enumerate(evaluations):
            run.samples(f"round-{t}", measure.text_samples(held_out, samples))
        judge = load_judge(config.judge, "judge") if config.judge else preference
        rows = compare(config, stages, judge, held_out, evaluations, describe)
    finally:
        stages.close()
    if runtime.is_main():
        run.artifact("rounds", {"rows": rows, "histograms": histograms})
        folder = run.path / "mixture"
        write_mixture(folder, [os.path.relpath(policy, folder) for policy in policies[1:]])
        for row in rows:
            numbers = {k: v for k, v in row.items() if isinstance(v, float)}
            if not any(r.get("stage") == "selfplay-eval" and r["step"] == row["round"] for r in run.metrics()):
                run.log({"stage": "selfplay-eval", "step": row["round"], **numbers})
    runtime.barrier()
    last = {k: v for k, v in rows[-1].items() if isinstance(v, float)} if rows else {}
    return Result(run.path, last)


def estimate(config: Config) -> Any:
    """What ``--dry-run`` prints: sampling, reference passes and training of all rounds.

    The preference model's own passes are not counted (it may be any Scorer); prompts and answers are taken to be as
    long as the limits allow.
    """
    from align.selfplay.inputs import load_prompts
    from launch.estimate import Estimate

    out = Estimate()
    answers = config.samples if config.mode == "all_k" else 2
    if config.prompts.endswith((".jsonl", ".jsonl.gz", ".txt")) and not Path(config.prompts).expanduser().exists():
        out.add("prompts", "?", f"{config.prompts} is not there yet; one optimiser step is shown")
        batch = config.train.batch_size * config.train.accumulation * max(config.train.processes, 1)
        out.training("a step", config.policy, config.train, config.max_length, answers, batch)
        return out
    shards = split_prompts(load_prompts(config.prompts), config)
    total = sum(len(shard) for shard in shards)
    out.add("prompts", str(total), f"{config.rounds} rounds of {len(shards[0])}, {config.samples} answers each")
    tokens = total * (config.max_length + (config.samples - 1) * config.sampling.max_new_tokens)
    out.forward("sampling", config.policy, tokens, config.max_length)
    passes = 2 if config.anchor else 1
    out.forward("reference", config.policy, passes * total * config.samples * config.max_length, config.max_length)
    for t, shard in enumerate(shards, 1):
        out.training(f"round {t}", config.policy, config.train, config.max_length, answers, len(shard))
    return out


def compare(
    config: Config, stages: Any, judge: Any, prompts: Sequence[Prompt], evaluations: Sequence[Any], describe: Any
) -> list[dict[str, Any]]:
    """One row per policy 0 … T from their pooled answers to the held-out prompts; [] without any."""
    from align.selfplay import measure
    from align.selfplay.winrate import probabilities
    from launch.runfolder import content_hash

    if not prompts:
        return []
    pooled = [[c for samples, _ in evaluations for c in samples[i]] for i in range(len(prompts))]
    S_T, S_C, _ = stages.score("eval", judge, prompts, pooled, content_hash([key for _, key in evaluations]))
    tables = list(probabilities(S_T + S_C))
    rows = []
    for t, numbers in enumerate(measure.pool_metrics(tables, len(evaluations))):
        samples = evaluations[t][0]
        facts = {**measure.truth_metrics(prompts, samples, describe), **measure.sample_metrics(samples)}
        rows.append({"method": config.label, "seed": config.run.seed, "round": t, **numbers, **facts})
    return rows


def split_prompts(prompts: Sequence[Prompt], config: Config) -> list[list[Prompt]]:
    """The prompts of each round, in order.

    Raises:
        DataError: fewer prompts than rounds to share them among.
    """
    T = config.rounds
    if config.prompt_split == "all":
        shards = [list(prompts)] * T
    elif len(prompts) < T:
        raise DataError(f"{len(prompts)} prompts for {T} rounds; give more, or set prompt_split: all")
    else:
        bounds = [len(prompts) * t // T for t in range(T + 1)]
        shards = [list(prompts[a:b]) for a, b in pairwise(bounds)]
    return [shard[: config.prompts_per_round or None] for shard in shards]


def start_processes(config: Any) -> None:
    """Join the process group before the first stage, since the ranks share the sampling too.

    Args:
        config: of any recipe with options `train` and `run`.

    Raises:
        LaunchError: processes or precision that this machine or launch does not give.
    """
    from launch import runtime

    runtime.prepare_environment()
    runtime.check_possible(config.train)
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        from launch.trainer import training_arguments

        training_arguments(config.train, Path(config.run.folder), config.run.seed, ())
    runtime.check_processes(config.train)


# ---------------------------------------------------------------- one round, by hand


def play_round(
    policy: str | Path | Generator,
    prompts: Sequence[Prompt],
    pm: Any,
    t: int = 1,
    schedule: str = "inv_sqrt",
    lam: float = 1.0,
    k: int = 5,
    *,
    sampling: Sampling | None = None,
    seed: int = 0,
    mode: Mode = "pair",
    legacy_double: bool = False,
) -> PairDataset:
    """One round's data set: sample k answers to each prompt, score all pairs, select (``selfplay.round``).

    Args:
        policy: folder of a causal language model, or a Generator.
        pm: a Scorer, or what `Config.preference` may name.
        t: round, from 1.
        sampling: its seed is replaced by one from (seed, t).
    """
    from align.selfplay.inputs import Judge, load_judge
    from align.selfplay.mixture import open_hf
    from launch.generate.sampling import stable_hash

    generator = open_hf(Path(policy)) if isinstance(policy, str | Path) else policy
    judge = load_judge(str(pm)) if isinstance(pm, str | Path) else Judge(pm, type(pm).__name__)
    seeded = replace(sampling or Sampling(), seed=stable_hash(seed, f"round-{t}"))
    samples = generator.generate(prompts, k, seeded)
    parts = judge.parts([(p, [c.text for c in row]) for p, row in zip(prompts, samples, strict=True)])
    tables = [mixed_scores(S_T, S_C, t, lam, schedule) for S_T, S_C in parts]
    return build_pairs(prompts, samples, tables, mode, legacy_double, t)


def train_policy(
    policy: str | Path,
    ref: str | Path | None,
    dataset: PairDataset,
    loss: LossName = "sppo",
    beta: float = 1e-3,
    *,
    folder: str | Path = "runs/selfplay-train",
    options: TrainOptions | None = None,
    anchor: float = 0.0,
    start: str | Path | None = None,
    max_length: int = 2048,
    seed: int = 0,
) -> Path:
    """Fit `policy` to one round's data set and return the folder of the result (``selfplay.train``).

    Args:
        ref: the frozen policy that log-ratios are taken against; None: `policy` itself, as in every round.
        folder: run folder; the same call on it, with models of the same content, continues or returns at once.
        anchor: gamma, with `start` the policy that it pulls to (None: `ref`).
    """
    from align.selfplay.fitting import fit_policy
    from align.selfplay.inputs import policy_identity
    from align.selfplay.stages import Stages
    from launch.runfolder import RunFolder, content_hash

    config = Config(
        policy=str(policy), preference="", prompts="", loss=loss, beta=beta, mode=dataset.mode, anchor=anchor,
        max_length=max_length, train=options or _paper_training(), run=RunOptions(folder=str(folder), seed=seed),
    )  # fmt: skip
    run = RunFolder(folder)
    stages = Stages(config, run)
    frozen = str(ref or policy)
    key = {
        **stages.train_key(str(policy), dataset, str(start or frozen)),
        "ref": policy_identity(frozen),
        "t": dataset.t,
    }
    reference = stages.reference("reference", frozen, dataset)
    magnet = stages.reference("start", str(start or frozen), dataset) if anchor else None
    model, tokenizer = stages.model(str(policy))
    layout = stages.layout(model)
    name = f"policy-{content_hash(key)[:8]}"
    return fit_policy(model, tokenizer, dataset, reference, magnet, config, run, name, dataset.t, layout)
