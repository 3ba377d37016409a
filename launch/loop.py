"""The training loop under `launch.trainer.fit`: transformers' Trainer for the Objective contract.

Loss scale. A step's gradient is that of

    L = ( sum over ranks r and micro-steps a of total[r, a] ) / ( sum over r, a of count[r, a] )

so eight batches of one weigh as one batch of eight, however uneven the counts, and two ranks as one. DDP, FSDP2 and
ZeRO average gradients over ranks, hence each micro-loss is ``total x processes / summed count``.

Seeds, the guard, logs and checkpoints are `launch.base_trainer`'s.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
import transformers
from torch import nn
from transformers import TrainingArguments

from launch import runtime
from launch.base_trainer import BaseTrainer
from launch.callbacks import Meter, StopSignals, averages
from launch.contracts import Objective
from launch.errors import ConfigError, DataError
from launch.options import TrainOptions
from launch.order import loader, seed_everything
from launch.runfolder import RunFolder


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


class Trainer(BaseTrainer):
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
        facts: dict[str, Any],
        tokenizer: Any = None,
        callbacks: Sequence[transformers.TrainerCallback] = (),
        signals: StopSignals | None = None,
        rates: Mapping[str, float] | None = None,
    ) -> None:
        self.rates = dict(rates or {})
        own = self.begin(options, run, name, seed, facts, signals, evaluates=evaluate is not None)
        self.module, self.pupil, self.tokenizer = module, module.model, tokenizer
        self.rows, self.eval_rows = train, evaluate
        self.meter = Meter()
        self._window: list[dict[str, Any]] = []
        super().__init__(model=module, args=args, train_dataset=train, callbacks=[*own, *callbacks])
        self.remove_callback(transformers.PrinterCallback)

    # ---------------------------------------------------------------- examples

    def get_train_dataloader(self) -> Any:
        return loader(self.rows, self.module.objective, self._deal(), self.seed, shuffle=True)

    def get_batch_samples(
        self, epoch_iterator: Iterator[Any], num_batches: int, device: torch.device
    ) -> tuple[list[Any], Any]:
        """The micro-batches of one step, and the count that its loss is divided by."""
        self.begin_step()  # a collator may draw …
        with self.clock.stage("data"):
            batches = [batch for _, batch in zip(range(num_batches), epoch_iterator, strict=False)]
            self._window = batches
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

    # ---------------------------------------------------------------- learning rates

    def create_optimizer(self, model: Any = None) -> torch.optim.Optimizer:
        """transformers' groups, of parameters that decay and those that do not, parted by their rates."""
        made = super().create_optimizer(model)
        if self.rates:
            names = {id(p): name for name, p in self.module.model.named_parameters()}
            found = [rate_of(name, self.rates) for name, p in self.module.model.named_parameters() if p.requires_grad]
            unused = [pattern for pattern in self.rates if pattern not in found]
            if unused:
                raise ConfigError(f"learning rate for {unused[0]!r}: no trained parameter is called so; leave it out")
            plain: Any = getattr(made, "optimizer", made)
            parted = []
            for group in plain.param_groups:
                by_rate: dict[str | None, list[Any]] = {}
                for parameter in group["params"]:
                    by_rate.setdefault(rate_of(names[id(parameter)], self.rates), []).append(parameter)
                for pattern, those in by_rate.items():
                    own = group["lr"] if pattern is None else self.rates[pattern]
                    parted.append({**group, "params": those, "lr": own})
            plain.param_groups = parted
        return made

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
            name = type(self.module.objective).__name__
            raise DataError(
                f"{name}.loss sums over {float(count):g} units, {name}.collate counted {float(inputs['count']):g}; "
                "they must agree, or the loss is scaled wrongly"
            )

    def replay(self) -> None:
        for batch in self._window:
            self.module(self._prepare_inputs({k: v for k, v in batch.items() if k != "stand_in"}))

    # ---------------------------------------------------------------- logs

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        if "loss" in logs:
            logs.update(averages(runtime.gather(self.meter.facts())))
            self.meter.reset()
        super().log(logs, start_time)

    # ---------------------------------------------------------------- evaluation

    def evaluate(
        self, eval_dataset: Any = None, ignore_keys: Any = None, metric_key_prefix: str = "eval"
    ) -> dict[str, float]:
        """Mean loss and metrics over `eval_rows`, in eval mode; the same on every rank, whatever their number."""
        assert self.eval_rows is not None
        meter = Meter()
        with self.clock.stage("evaluate"), torch.no_grad():
            self.model_wrapped.eval()
            for batch in loader(self.eval_rows, self.module.objective, self._deal(), self.seed, False):
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


def rate_of(name: str, rates: Mapping[str, float]) -> str | None:
    """The first of the expressions in `rates` that is found in a parameter's name; None: none is."""
    return next((pattern for pattern in rates if re.search(pattern, name)), None)


def _count(batch: dict[str, Any], step: int) -> float:
    if "count" not in batch:
        raise DataError(f'step {step}: the objective\'s batch has no "count"; collate must put it there')
    return 0.0 if batch.get("stand_in") else float(batch["count"])
