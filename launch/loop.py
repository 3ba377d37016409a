"""The training loop under `launch.trainer.fit`: transformers' Trainer for the Objective contract.

Loss scale. A step's gradient is that of

    L = ( sum over ranks r and micro-steps a of total[r, a] ) / ( sum over r, a of count[r, a] )

so eight batches of one weigh as one batch of eight, however uneven the counts, and two ranks as one. DDP, FSDP2 and
ZeRO average gradients over ranks, hence each micro-loss is ``total x processes / summed count``.

Resume. The order of examples is a function of (seed, epoch), the random numbers of a step of (seed, step, rank); a
checkpoint therefore holds weights, optimiser, schedule and step number, and nothing else is needed to make the
killed run's next step the same one.

What is left out: transformers' own savers (not atomic), its samplers (order depends on the global generator), and its
NaN filter (it hides what `launch.guard` reports).
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import nn
from transformers import TrainingArguments

from launch import checkpoint, runtime, sharding
from launch.callbacks import Clock, Meter, MetricsLog, ProgressBar, Schedule, StopSignals, averages
from launch.contracts import Objective
from launch.errors import CheckpointError, DataError
from launch.guard import FP16_PATIENCE, after_the_step, diagnose, overflowed
from launch.options import TrainOptions
from launch.order import Deal, loader, seed_everything, stable_seed
from launch.runfolder import RunFolder, write_json
from launch.weights import is_adapted, own_names, save_weights


class ObjectiveModule(nn.Module):
    """The model with its objective, so that DDP, FSDP2 and ZeRO wrap both and any submodule may be used in a loss."""

    def __init__(self, model: nn.Module, objective: Objective) -> None:
        super().__init__()
        self.model = model
        self.objective = objective

    def forward(self, batch: dict[str, Any]) -> tuple[torch.Tensor, Any, dict[str, Any]]:
        """Scalar fp32 sum, count, metric sums. A plain tuple: wrappers take outputs apart to find tensors."""
        total, count, metrics = self.objective.loss(self.model, batch)
        return total.float(), count, metrics


class Trainer(transformers.Trainer):
    """transformers' Trainer for the Objective contract; `fit` is the way to use it."""

    loss_is_scaled_for_ga = True

    def __init__(
        self,
        module: ObjectiveModule,
        args: TrainingArguments,
        options: TrainOptions,
        *,
        train: Sequence[Any],
        evaluate: Sequence[Any] | None,
        run: RunFolder,
        name: str,
        seed: int,
        folder: Path,
        facts: dict[str, Any],
        tokenizer: Any = None,
        callbacks: Sequence[transformers.TrainerCallback] = (),
        signals: StopSignals | None = None,
    ) -> None:
        self.objective_module = module
        self.options, self.seed, self.folder, self.facts = options, seed, folder, facts
        self.tokenizer = tokenizer
        self.rows, self.eval_rows = train, evaluate
        self.signals = signals or StopSignals()
        self.stopped_by = 0
        self.clock, self.meter = Clock(), Meter()
        self.bar = ProgressBar(name)
        self._window: list[dict[str, Any]] = []
        self._losses: list[torch.Tensor] = []
        self._skipped = 0
        self._started = (0, time.perf_counter())
        super().__init__(
            model=module,
            args=args,
            train_dataset=train,
            callbacks=[
                Schedule(options, evaluate is not None, lambda: bool(self.stopped_by)),
                MetricsLog(run, name),
                self.bar,
                *callbacks,
            ],
        )
        self.remove_callback(transformers.PrinterCallback)

    # ---------------------------------------------------------------- examples

    def _deal(self) -> Deal:
        o = self.options
        return Deal(o.batch_size, o.accumulation, self.args.world_size, self.args.process_index)

    def get_train_dataloader(self) -> Any:
        return loader(self.rows, self.objective_module.objective, self._deal(), self.seed, shuffle=True)

    def get_batch_samples(
        self, epoch_iterator: Iterator[Any], num_batches: int, device: torch.device
    ) -> tuple[list[Any], Any]:
        """The micro-batches of one step, and the count that its loss is divided by."""
        if self._window == [] and self.clock.seconds == {}:
            self._started = (self.state.global_step, time.perf_counter())
        seed_everything(self._step_seed())  # a collator may draw …
        with self.clock.stage("data"):
            batches = [batch for _, batch in zip(range(num_batches), epoch_iterator, strict=False)]
            self._window, self._losses = batches, []
            total = self._summed_count(batches, device)
        seed_everything(self._step_seed())  # … which must not shift dropout
        return batches, total

    def _summed_count(self, batches: list[dict[str, Any]], device: torch.device) -> float:
        step = self.state.global_step + 1
        mine = [_count(batch, step) for batch in batches]
        table = torch.tensor([[sum(mine), len(mine), step]], dtype=torch.float64, device=device)
        if self.args.world_size > 1:
            rows = [torch.empty_like(table) for _ in range(self.args.world_size)]
            torch.distributed.all_gather(rows, table)
            table = torch.cat(rows)
            if (table[:, 1:] != table[0, 1:]).any():
                runtime.require_same(f"step {step}", {"micro-steps": len(mine), "step": step})
        total = float(table[:, 0].sum())
        if not (math.isfinite(total) and total > 0):
            raise DataError(f"step {step}: counts sum to {total}; every step needs at least one unit to learn from")
        return total

    def _step_seed(self) -> int:
        return stable_seed(self.seed, "step", self.state.global_step, self.args.process_index)

    # ---------------------------------------------------------------- loss

    def training_step(self, model: nn.Module, inputs: dict[str, Any], num_items_in_batch: Any = None) -> torch.Tensor:
        with self.clock.stage("forward_backward"):
            return super().training_step(model, inputs, num_items_in_batch)

    def compute_loss(
        self, model: nn.Module, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """This micro-batch's share of the step's loss, scaled as the module's header says."""
        stand_in = bool(inputs.pop("stand_in", False))
        total, count, metrics = model(inputs)
        if total.dim() != 0:
            raise DataError(f"the objective's loss has shape {tuple(total.shape)}; it must be a scalar sum")
        if stand_in:
            total = total * 0.0
        else:
            self._check_count(count, inputs)
            self.meter.add(metrics, float(inputs["count"]), float(inputs.get("tokens", inputs["count"])))
        self._losses.append(total.detach())
        if not total.requires_grad:
            # A batch with nothing to learn from must still take part in the collective calls of backward.
            total = total + 0.0 * sum(p.sum() for p in model.parameters() if p.requires_grad)
        scale = self.args.world_size / num_items_in_batch
        return (total * scale, (total, count, metrics)) if return_outputs else total * scale

    def _check_count(self, count: Any, inputs: dict[str, Any]) -> None:
        if abs(float(count) - float(inputs["count"])) > 1e-6 * max(1.0, abs(float(count))):
            name = type(self.objective_module.objective).__name__
            raise DataError(
                f"{name}.loss sums over {float(count):g} units, {name}.collate counted {float(inputs['count']):g}; "
                "they must agree, or the loss is scaled wrongly"
            )

    # ---------------------------------------------------------------- guard and clipping, once per step

    def _clip_grad_norm(self, model: nn.Module) -> None:
        """Nothing: `_get_grad_norm`, which transformers always calls next, does it after the guard."""

    def _get_grad_norm(self, model: nn.Module, grad_norm: Any = None) -> Any:
        """Agree with the other ranks, stop on what is not finite, clip, and return the norm before clipping."""
        self._agree(model)
        if self.is_deepspeed_enabled:
            norm = super()._get_grad_norm(model)
            self._skipped = self._skipped + 1 if overflowed(norm) else 0
            if self._skipped > (FP16_PATIENCE if self.options.precision == "fp16" else 0):
                raise self._diagnosis(model)
            return norm
        with self.clock.stage("optimizer"):
            scaler = getattr(self.accelerator, "scaler", None)
            if scaler is not None:
                self.accelerator.unscale_gradients()
            trained = [p for p in model.parameters() if p.grad is not None]
            norm = torch.nn.utils.get_total_norm([p.grad for p in trained if p.grad is not None])
            whole = norm.full_tensor() if hasattr(norm, "full_tensor") else norm
            value = float(whole)
            if math.isfinite(value):
                self._skipped = 0
                if self.options.max_grad_norm > 0:
                    torch.nn.utils.clip_grads_with_norm_(trained, self.options.max_grad_norm, whole)
            elif scaler is not None and self._skipped < FP16_PATIENCE:
                self._skipped += 1
            else:
                raise self._diagnosis(model)
        return value

    def _agree(self, model: nn.Module) -> None:
        """One small collective per step: is any loss not finite, does any rank want to stop?"""
        bad = not bool(torch.isfinite(torch.stack(self._losses)).all())
        flags = torch.tensor([float(bad), float(self.signals.received)], device=self.args.device)
        if self.args.world_size > 1:
            torch.distributed.all_reduce(flags, op=torch.distributed.ReduceOp.MAX)
        any_bad, self.stopped_by = bool(flags[0]), int(flags[1])
        if any_bad:
            raise self._diagnosis(model)

    def _diagnosis(self, model: nn.Module) -> Exception:
        """Ask every rank, so that all of them stop with the line of one that has the trouble."""
        if self.is_deepspeed_enabled:
            return after_the_step(self.state.global_step + 1)
        module: Any = self.objective_module

        def replay() -> None:
            seed_everything(self._step_seed())
            for batch in self._window:
                module(self._prepare_inputs({k: v for k, v in batch.items() if k != "stand_in"}))

        with self.compute_loss_context_manager():
            mine = diagnose(module, replay, self.state.global_step + 1)
        has_it = any(not torch.isfinite(loss) for loss in self._losses)
        texts = runtime.gather(str(mine) if has_it else None)
        first = next((text for text in texts if text is not None), str(mine))
        return type(mine)(first)

    # ---------------------------------------------------------------- logs

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        if "loss" in logs:
            logs.update(averages(runtime.gather(self.meter.facts())))
            self.meter.reset()
            logs["eta_seconds"] = self._eta()
        if "train_runtime" in logs:
            logs = {key: logs[key] for key in ("train_runtime", "train_loss")} | self.clock.rows()
        super().log(logs, start_time)

    def _eta(self) -> float:
        first, start = self._started
        done = max(self.state.global_step - first, 1)
        left = self.state.max_steps - self.state.global_step
        return round((time.perf_counter() - start) / done * left, 1)

    # ---------------------------------------------------------------- evaluation

    def evaluate(
        self, eval_dataset: Any = None, ignore_keys: Any = None, metric_key_prefix: str = "eval"
    ) -> dict[str, float]:
        """Mean loss and metrics over `eval_rows`, in eval mode; the same on every rank, whatever their number."""
        assert self.eval_rows is not None
        meter = Meter()
        with self.clock.stage("evaluate"), torch.no_grad():
            self.model_wrapped.eval()
            for batch in loader(self.eval_rows, self.objective_module.objective, self._deal(), self.seed, False):
                inputs = self._prepare_inputs(batch)
                stand_in = bool(inputs.pop("stand_in", False))
                total, count, metrics = self.model_wrapped(inputs)
                if not stand_in:
                    self._check_count(count, inputs)
                    meter.add({"loss": total, **metrics}, float(inputs["count"]), 0.0)
            self.model_wrapped.train()
            found = averages(runtime.gather(meter.facts()))
        found.pop("tokens_per_second")
        metrics_out = {f"{metric_key_prefix}_{key}": value for key, value in found.items()}
        self.log(dict(metrics_out))
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics_out)
        return metrics_out

    # ---------------------------------------------------------------- checkpoints

    @property
    def sharded(self) -> bool:
        return self.is_distributed_loading_by_transformers

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        """Write step-NNNNNNNN, whole or not at all, then drop what is older than `keep_checkpoints`."""
        with self.clock.stage("checkpoint"):
            target = checkpoint.step_folder(self.folder, self.state.global_step)
            self.write_folder(target, training=True)
            if runtime.is_main():
                checkpoint.rotate(self.folder, self.options.keep_checkpoints, target)
            runtime.barrier()

    def write_folder(self, target: Path, training: bool, note: dict[str, Any] | None = None) -> None:
        """Model, tokenizer and, if `training`, all that resuming needs. Every rank must call it.

        Raises:
            CheckpointError: on every rank, if the main process could not write.
        """
        state, optimizer = self._whole_state(training)
        temporary = target.with_name(f".writing-{target.name}")
        if self.is_deepspeed_enabled and training:
            runtime.raise_together(_attempt(checkpoint.begin, target) if runtime.is_main() else None)
            super()._save_optimizer_and_scheduler(str(temporary))
            runtime.barrier()
        error: Exception | None = None
        if runtime.is_main():
            try:
                existing = temporary if self.is_deepspeed_enabled and training else None
                with checkpoint.writing(target, self._needed(state, optimizer), existing) as folder:
                    parts = self.sharded or self.options.sharding == "zero3"
                    save_weights(self.objective_module.model, folder, state if parts else None, with_base=not training)
                    if self.tokenizer is not None:
                        self.tokenizer.save_pretrained(folder)
                    write_json(folder / checkpoint.FACTS, {**self.facts, **(note or {})})
                    if training:
                        self._write_training_state(folder, optimizer)
            except CheckpointError as failed:
                error = failed
        runtime.raise_together(error)

    def _needed(self, state: dict[str, torch.Tensor] | None, optimizer: dict[str, Any] | None) -> int:
        """Bytes that a checkpoint takes, about; of an adapted model only what is trained is written."""
        if is_adapted(self.objective_module.model):
            state = {n: p for n, p in self.objective_module.named_parameters() if p.requires_grad}
        return _bytes(state, optimizer)

    def _whole_state(self, training: bool) -> tuple[dict[str, torch.Tensor] | None, dict[str, Any] | None]:
        """Weights by the model's own names, and the optimiser's state where DeepSpeed does not keep it itself."""
        if self.options.sharding == "zero3":  # gathered on the main process; the others get None
            return own_names(self.accelerator.get_state_dict(self.model_wrapped) or {}), None
        if self.is_deepspeed_enabled:
            return self.objective_module.model.state_dict(), None
        plain: Any = getattr(self.optimizer, "optimizer", self.optimizer)
        if not self.sharded:
            return self.objective_module.model.state_dict(), plain.state_dict() if training else None
        state = own_names(sharding.full_weights(self.objective_module))
        return state, sharding.full_optimizer(self.objective_module, plain) if training else None

    def _write_training_state(self, folder: Path, optimizer: dict[str, Any] | None) -> None:
        if optimizer is not None:
            torch.save(optimizer, folder / "optimizer.pt")
            schedule: Any = self.lr_scheduler
            torch.save(schedule.state_dict(), folder / "scheduler.pt")
        self._save_scaler(str(folder))
        self.state.save_to_json(str(folder / "trainer_state.json"))

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        """Nothing: `fit` has put the checkpoint's weights into the model before anything wrapped it."""

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        if checkpoint is None or self.is_deepspeed_enabled:
            return super()._load_optimizer_and_scheduler(checkpoint)
        plain: Any = getattr(self.optimizer, "optimizer", self.optimizer)
        state = torch.load(Path(checkpoint) / "optimizer.pt", map_location="cpu", weights_only=True)
        if self.sharded:
            sharding.load_full_optimizer(self.objective_module, plain, state if runtime.is_main() else {})
        else:
            plain.load_state_dict(state)
        schedule: Any = self.lr_scheduler
        schedule.load_state_dict(torch.load(Path(checkpoint) / "scheduler.pt", weights_only=True))

    def _load_rng_state(self, checkpoint: str | None) -> None:
        """Nothing: random numbers are seeded anew at every step from (seed, step, rank)."""

    def _prepare_for_training(self, *args: Any, **kwargs: Any) -> Any:
        prepared = super()._prepare_for_training(*args, **kwargs)
        runtime.check_obtained(self.options, self)
        return prepared


def _count(batch: dict[str, Any], step: int) -> float:
    if "count" not in batch:
        raise DataError(f'step {step}: the objective\'s batch has no "count"; collate must put it there')
    return 0.0 if batch.get("stand_in") else float(batch["count"])


def _bytes(*states: Any) -> int:
    """Bytes of all tensors in nested states."""
    from launch.guard import tensors_in

    return sum(t.numel() * t.element_size() for state in states if state is not None for t in tensors_in(state))


def _attempt(action: Any, *args: Any) -> Exception | None:
    try:
        action(*args)
    except CheckpointError as error:
        return error
    return None
