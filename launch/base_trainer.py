"""What every trainer here does around its algorithm: seeds, guard, clipping, logs and checkpoints.

`launch.loop.Trainer` puts the Objective contract on it, `launch.grpo_fit` TRL's GRPO trainer under it.

Resume. The order of examples is a function of (seed, epoch), the random numbers of a step of (seed, step, rank); a
checkpoint therefore holds weights, optimiser, schedule and step number, and nothing else is needed to make the
killed run's next step the same one.

What is left out: transformers' own savers (not atomic), its samplers (order depends on the global generator), and its
NaN filter (it hides what `launch.guard` reports).
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import nn

from launch import checkpoint, runtime, sharding
from launch.callbacks import Clock, MetricsLog, ProgressBar, Schedule, StopSignals
from launch.errors import CheckpointError
from launch.guard import FP16_PATIENCE, after_the_step, diagnose, overflowed
from launch.options import TrainOptions
from launch.order import Deal, seed_everything, stable_seed
from launch.runfolder import RunFolder, write_json
from launch.weights import is_adapted, own_names, save_weights


class BaseTrainer(transformers.Trainer):
    """Mixed into a trainer before its algorithm. A subclass calls `begin` before it builds anything of transformers.

    It sets ``_losses`` (of the micro-steps so far, detached) anew at every step, and says how to `replay` the step.
    """

    pupil: Any
    """What is trained and saved, unwrapped."""
    module: Any
    """What transformers wraps: the pupil, or the pupil with its objective."""
    tokenizer: Any
    options: TrainOptions
    facts: dict[str, Any]

    def begin(
        self,
        options: TrainOptions,
        run: RunFolder,
        name: str,
        seed: int,
        facts: dict[str, Any],
        signals: StopSignals | None = None,
        evaluates: bool = False,
    ) -> list[transformers.TrainerCallback]:
        """Everything that transformers does not know of; returns the callbacks to give it."""
        self.options, self.seed, self.facts = options, seed, facts
        self.folder = run.checkpoints(name)
        self.signals = signals or StopSignals()
        self.stopped_by = 0
        self.clock = Clock()
        self.bar = ProgressBar(name)
        self._losses: list[torch.Tensor] = []
        self._skipped = 0
        self._started: tuple[int, float] | None = None
        return [Schedule(options, evaluates, lambda: bool(self.stopped_by)), MetricsLog(run, name), self.bar]

    def _deal(self) -> Deal:
        o = self.options
        return Deal(o.batch_size, o.accumulation, self.args.world_size, self.args.process_index)

    def replay(self) -> None:
        """Run the step's batches forward once more, for the diagnosis of a number that is not finite."""
        raise NotImplementedError

    def begin_step(self) -> None:
        """Seed the step; to be called before it draws anything."""
        if self._started is None:
            self._started = (self.state.global_step, time.perf_counter())
        self._losses = []
        seed_everything(self._step_seed())

    def _step_seed(self) -> int:
        return stable_seed(self.seed, "step", self.state.global_step, self.args.process_index)

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

        def again() -> None:
            seed_everything(self._step_seed())
            self.replay()

        has_it = any(not torch.isfinite(loss) for loss in self._losses)
        with self.compute_loss_context_manager():
            mine = diagnose(self.module, again, self.state.global_step + 1)
        texts = runtime.gather(str(mine) if has_it else None)
        first = next((text for text in texts if text is not None), str(mine))
        return type(mine)(first)

    # ---------------------------------------------------------------- logs

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        if "loss" in logs:
            logs["eta_seconds"] = self._eta()
        if "train_runtime" in logs:
            logs = {key: logs[key] for key in ("train_runtime", "train_loss")} | self.clock.rows()
        super().log(logs, start_time)

    def _eta(self) -> float:
        first, start = self._started or (self.state.global_step, time.perf_counter())
        done = max(self.state.global_step - first, 1)
        left = self.state.max_steps - self.state.global_step
        return round((time.perf_counter() - start) / done * left, 1)

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
                    save_weights(self.pupil, folder, state if parts else None, with_base=not training)
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
        if is_adapted(self.pupil):
            state = {n: p for n, p in self.module.named_parameters() if p.requires_grad}
        return _bytes(state, optimizer)

    def _whole_state(self, training: bool) -> tuple[dict[str, torch.Tensor] | None, dict[str, Any] | None]:
        """Weights by the model's own names, and the optimiser's state where DeepSpeed does not keep it itself."""
        if self.options.sharding == "zero3":  # gathered on the main process; the others get None
            return own_names(self.accelerator.get_state_dict(self.model_wrapped) or {}), None
        if self.is_deepspeed_enabled:
            return self.pupil.state_dict(), None
        plain: Any = getattr(self.optimizer, "optimizer", self.optimizer)
        if not self.sharded:
            return self.pupil.state_dict(), plain.state_dict() if training else None
        state = own_names(sharding.full_weights(self.module))
        return state, sharding.full_optimizer(self.module, plain) if training else None

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
            sharding.load_full_optimizer(self.module, plain, state if runtime.is_main() else {})
        else:
            plain.load_state_dict(state)
        schedule: Any = self.lr_scheduler
        schedule.load_state_dict(torch.load(Path(checkpoint) / "scheduler.pt", weights_only=True))

    def _load_rng_state(self, checkpoint: str | None) -> None:
        """Nothing: random numbers are seeded anew at every step from (seed, step, rank)."""

    def _run_epoch(self, *args: Any, **kwargs: Any) -> None:
        if not self.control.should_training_stop:  # the evaluation that a resumed fit begins with may end it
            super()._run_epoch(*args, **kwargs)

    def _prepare_for_training(self, *args: Any, **kwargs: Any) -> Any:
        prepared = super()._prepare_for_training(*args, **kwargs)
        runtime.check_obtained(self.options, self)
        return prepared


def _bytes(*states: Any) -> int:
    """Bytes of all tensors in nested states."""
    from launch.guard import tensors_in

    return sum(t.numel() * t.element_size() for state in states if state is not None for t in tensors_in(state))


def _attempt(action: Callable[..., Any], *args: Any) -> Exception | None:
    try:
        action(*args)
    except CheckpointError as error:
        return error
    return None
