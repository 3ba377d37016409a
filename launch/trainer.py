"""`fit`: teach a model an Objective. The one way to train in this project.

    result = fit(model, objective, rows, options=TrainOptions(), run=run, name="preference", seed=0)

It refuses a launch that did not give what was asked, continues from the newest checkpoint that is whole, and returns
at once when the same fit was finished before. The loop itself, with the loss scale, is `launch.loop.Trainer`.
"""

from __future__ import annotations

import copy
import importlib.util
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import nn
from transformers import TrainingArguments

from launch import checkpoint, runtime, sharding
from launch.base_trainer import BaseTrainer
from launch.callbacks import StopSignals
from launch.contracts import Objective
from launch.counters import record_fit
from launch.errors import CheckpointError, ConfigError, DataError, Interrupted, LaunchError
from launch.loop import ObjectiveModule, Trainer
from launch.models import apply_lora
from launch.options import FREE_OPTIONS, TrainOptions
from launch.order import Deal, stable_seed
from launch.runfolder import RunFolder, examples_hash
from launch.weights import is_adapted, keep_trained_in_fp32, load_weights

__all__ = ["FitResult", "Interrupted", "ObjectiveModule", "Trainer", "fit", "training_arguments"]

_OPTIMIZERS = {"adamw": "adamw_torch", "rmsprop": "rmsprop", "sgd": "sgd"}
# Longer than any step, shorter than a night: after it a rank that never comes is reported instead of waited for.
_COLLECTIVE_TIMEOUT_SECONDS = 1800


@dataclass(frozen=True)
class FitResult:
    """What a fit made."""

    folder: Path
    """Plain Hugging Face folder with the final weights (adapters, if LoRA was asked)."""
    steps: int
    """Optimiser steps made in all, those before a resume included."""
    metrics: dict[str, float] = field(default_factory=dict)
    """`loss` (mean over the last logging period) and `eval_*`, if there was something to evaluate on."""


def fit(
    model: nn.Module,
    objective: Objective,
    train: Sequence[Any],
    *,
    options: TrainOptions,
    run: RunFolder,
    name: str,
    seed: int,
    evaluate: Sequence[Any] | None = None,
    tokenizer: Any = None,
    callbacks: Sequence[transformers.TrainerCallback] = (),
    report_to: Sequence[str] = (),
    rates: Mapping[str, float] | None = None,
) -> FitResult:
    """Teach `model` what `objective` says, from the examples `train`.

    Args:
        model: a transformers model, a peft model, or any module; holds the final weights when this returns. With
            ``options.lora`` a bare model gets adapters (its ``train_whole`` attribute names modules that are trained
            in full beside them), which are merged into it at the end unless it is 4-bit.
        objective: see `launch.contracts.Objective`.
        train: a list or datasets.Dataset of what ``objective.collate`` takes.
        options: see `launch.options.TrainOptions`.
        run: metrics, timings and checkpoints go there; checkpoints under ``run.checkpoints(name)``.
        name: of this fit in the run, e.g. "preference" or "round-2".
        seed: order of examples, dropout, first adapter weights.
        evaluate: examples for the held-out loss; every ``options.eval_steps`` and at the end.
        tokenizer: saved beside the weights.
        callbacks: further callbacks of transformers.
        report_to: trackers of transformers, e.g. ("tensorboard",).
        rates: learning rates by parameter: that of the first regular expression found in its name, else
            ``options.learning_rate``. The schedule multiplies all alike.

    Raises:
        ConfigError: a rate whose expression is found in no trained parameter's name.
        LaunchError: processes, sharding, precision or adapters are not those asked for, or impossible here.
        DataError: no examples; counts that disagree.
        CheckpointError: the disk is full; the checkpoints there belong to another fit.
        NonFiniteError: a loss or gradient is not finite; names the first bad tensor.
        Interrupted: Ctrl-C or SIGTERM; the checkpoint of the last step is written, or the final folder.
    """
    runtime.prepare_environment()
    runtime.check_possible(options)
    if options.sharding == "fsdp2":
        sharding.own_sharding()
    folder = run.checkpoints(name)
    args = training_arguments(options, folder, seed, report_to, run)
    runtime.check_processes(options)
    if options.sharding == "zero3":
        sharding.load_whole()
    check_examples(name, train, evaluate)
    facts = facts_of(options, train, seed, args.world_size)
    if rates:
        facts["rates"] = dict(rates)
    runtime.require_same(name, {**facts, "evaluate": len(evaluate or ())})

    adapt = options.lora is not None and not is_adapted(model)
    learner: Any = model
    if adapt and options.lora is not None:
        whole = tuple(getattr(model, "train_whole", ()))
        learner = apply_lora(model, options.lora, whole, stable_seed(seed, "lora", name))  # type: ignore[arg-type]
    done, start = found_in(folder, facts)
    if done is not None:
        load_weights(learner, done)
        _merge(learner, adapt, options)
        return result_of(done)

    # Sharded parameters are no use to the caller: a copy is sharded, and the model gets the final weights back. It
    # waits on the CPU, so that no device holds it beside the shards.
    shards, home = options.sharding in ("fsdp2", "zero3"), _device(learner)
    pupil = copy.deepcopy(learner.to("cpu")) if shards else learner
    if start is not None:
        load_weights(pupil, start)
    if options.precision != "fp32":
        keep_trained_in_fp32(pupil)
    with _training_mode(pupil, options), StopSignals() as signals, run.timing(name):
        module = ObjectiveModule(pupil, objective)
        if options.sharding == "fsdp2":
            sharding.shard(module, options, args.device)
        trainer = Trainer(
            module,
            args,
            options,
            train=train,
            evaluate=evaluate,
            run=run,
            name=name,
            seed=seed,
            facts=facts,
            tokenizer=tokenizer,
            callbacks=callbacks,
            signals=signals,
            rates=rates,
        )
        final = run_to_end(trainer, run, learner, start)
    if shards:
        if options.sharding == "zero3":
            sharding.load_whole()  # the trainer has set it again
        load_weights(learner, final)
        learner.to(home)
    _merge(learner, adapt, options)
    return result_of(final)


def run_to_end(trainer: BaseTrainer, run: RunFolder, learner: Any, start: Path | None) -> Path:
    """Train from `start` on and write the final folder, which is returned.

    Raises:
        Interrupted: a signal asked for it; the checkpoint of the last step is written, or the final folder.
    """
    name = trainer.folder.name
    try:
        trainer.train(resume_from_checkpoint=None if start is None else str(start))
    finally:
        trainer.bar.close()
    if trainer.stopped_by and trainer.state.global_step < trainer.state.max_steps:
        at = trainer.state.global_step
        raise Interrupted(
            f"{name} was stopped at step {at} of {trainer.state.max_steps}; its checkpoint is in {trainer.folder}; "
            "run the same command again to go on",
            trainer.stopped_by,
        )
    metrics = _last_metrics(trainer)
    final = trainer.folder / checkpoint.FINAL
    trainer.write_folder(final, training=False, note={"steps": trainer.state.global_step, "metrics": metrics})
    record_fit(run, name, learner, trainer.options, trainer.args.world_size)
    asked = max(runtime.gather(trainer.signals.received))
    if asked:  # too late for this fit, but not for what comes after it
        raise Interrupted(
            f"{name} is finished and in {final}, and the run was stopped; run the same command again to go on", asked
        )
    return final


def training_arguments(
    options: TrainOptions,
    folder: Path,
    seed: int,
    report_to: Sequence[str],
    run: RunFolder | None = None,
    kind: type[TrainingArguments] = TrainingArguments,
    **own: Any,
) -> TrainingArguments:
    """transformers' arguments for our options. Building them makes the process group.

    Args:
        kind: a subclass of TrainingArguments, such as TRL's; `own` are its further arguments.

    Raises:
        ConfigError: an unknown tracker.
        LaunchError: a tracker that is not installed.
    """
    _check_trackers(report_to)
    if "tensorboard" in report_to and run is not None:
        os.environ.setdefault("TENSORBOARD_LOGGING_DIR", str(run.path / "tensorboard"))
    cuda = torch.cuda.is_available()
    args = kind(
        output_dir=str(folder),
        per_device_train_batch_size=options.batch_size,
        gradient_accumulation_steps=options.accumulation,
        learning_rate=options.learning_rate,
        weight_decay=options.weight_decay,
        adam_beta1=options.betas[0],
        adam_beta2=options.betas[1],
        max_grad_norm=options.max_grad_norm,
        num_train_epochs=options.epochs,
        max_steps=options.max_steps,
        optim=_OPTIMIZERS[options.optimizer],
        lr_scheduler_type="constant_with_warmup" if options.schedule == "constant" else options.schedule,
        warmup_steps=options.warmup_ratio,
        bf16=options.precision == "bf16",
        fp16=options.precision == "fp16",
        use_cpu=not cuda,
        seed=seed % 2**32,
        logging_strategy="steps",
        logging_steps=options.log_steps,
        save_strategy="no",
        eval_strategy="no",
        report_to=list(report_to) or "none",
        disable_tqdm=True,
        logging_nan_inf_filter=False,
        remove_unused_columns=False,
        dataloader_pin_memory=cuda,
        average_tokens_across_devices=False,
        # An objective may leave parameters out of a loss, differently from batch to batch.
        ddp_find_unused_parameters=True,
        ddp_timeout=_COLLECTIVE_TIMEOUT_SECONDS,
        deepspeed=sharding.zero_config(options) if options.sharding.startswith("zero") else None,
        **own,
    )
    # One process drives one device: transformers would otherwise split batches over all GPUs it sees (DataParallel).
    args._n_gpu = min(args.n_gpu, 1)
    return args


def _check_trackers(report_to: Sequence[str]) -> None:
    from transformers.integrations.integration_utils import INTEGRATION_TO_CALLBACK

    for tracker in report_to:
        if tracker not in INTEGRATION_TO_CALLBACK:
            raise ConfigError(f"unknown tracker {tracker!r}; known: {', '.join(sorted(INTEGRATION_TO_CALLBACK))}")
        packages = {"tensorboard": ("tensorboard", "tensorboardX")}.get(tracker, (tracker,))
        if not any(importlib.util.find_spec(package) for package in packages):
            raise LaunchError(f"report_to: {tracker} is not installed; pip install {packages[0]}, or leave it out")


def check_examples(name: str, train: Sequence[Any], evaluate: Sequence[Any] | None) -> None:
    if len(train) == 0:
        raise DataError(f"{name}: there are no training examples")
    if evaluate is not None and len(evaluate) == 0:
        raise DataError(f"{name}: the evaluation set is empty; leave it out instead")


def facts_of(options: TrainOptions, examples: Sequence[Any], seed: int, processes: int) -> dict[str, Any]:
    """What a checkpoint must have been made from for this fit to go on from it."""
    kept = {key: value for key, value in asdict(options).items() if key not in FREE_OPTIONS}
    window = Deal(options.batch_size, options.accumulation, processes).window
    content = examples_hash(examples)[:16]
    facts = {"examples": len(examples), "content": content, "seed": seed, "examples_per_step": window, **kept}
    return json.loads(json.dumps(facts))


def found_in(folder: Path, facts: dict[str, Any]) -> tuple[Path | None, Path | None]:
    """The finished fit, or the checkpoint to go on from; decided by the main process for all."""
    found: tuple[Path | None, Path | None] = (None, None)
    error: CheckpointError | None = None
    if runtime.is_main() and folder.is_dir():
        checkpoint.sweep(folder)
        done = checkpoint.finished(folder)
        found = (done, None if done else checkpoint.latest(folder))
        source = found[0] or found[1]
        if source is not None:
            saved = checkpoint.read_facts(source)
            # Earlier checkpoints do not tell their examples' content; it is believed then.
            other = [
                key for key, value in facts.items() if saved.get(key, value if key == "content" else None) != value
            ]
            if other:
                what = {"content": "content of the examples"}.get(other[0], other[0])
                error = CheckpointError(
                    f"{source} was made with another {what} ({saved.get(other[0])}, now {facts[other[0]]}); "
                    "give back the old value, or choose another run.folder"
                )
    runtime.raise_together(error)
    return runtime.broadcast(found)


@contextmanager
def _training_mode(model: Any, options: TrainOptions) -> Iterator[None]:
    """No cache, gradient checkpointing if asked; eval mode and the old settings afterwards."""
    config: Any = getattr(model, "config", None)
    cached = getattr(config, "use_cache", None)
    if cached is not None:
        config.use_cache = False
    if options.gradient_checkpointing:
        if not hasattr(model, "gradient_checkpointing_enable"):
            raise LaunchError(f"train.gradient_checkpointing: {type(model).__name__} does not support it; leave it out")
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    try:
        yield
    finally:
        if options.gradient_checkpointing:
            model.gradient_checkpointing_disable()
        if cached is not None:
            config.use_cache = cached
        model.eval()


def _device(model: nn.Module) -> torch.device:
    return next((p.device for p in model.parameters()), torch.device("cpu"))


def _last_metrics(trainer: BaseTrainer) -> dict[str, float]:
    found: dict[str, float] = {}
    for row in trainer.state.log_history:
        found.update({k: v for k, v in row.items() if k == "loss" or k.startswith("eval_")})
    return found


def _merge(learner: Any, adapt: bool, options: TrainOptions) -> None:
    """Fold adapters that `fit` put on back into the caller's model, which so holds the final weights."""
    if adapt and options.quantization == "none":
        learner.merge_and_unload()
    learner.eval()


def result_of(folder: Path) -> FitResult:
    facts = checkpoint.read_facts(folder)
    return FitResult(folder, int(facts["steps"]), dict(facts["metrics"]))
