"""Held-out cases that steer a fit: the error of written terms, halving on a plateau, an early end.

LegalChainReasoner halves its learning rates when RMSE has not fallen for 5 evaluations and stops after 15; it looks at
the test for that, here it is a part of the training cases. Both are functions of the evaluations made so far, which
the trainer's own checkpoints hold (`TrainerState.log_history`, and the schedule's base rates): a fit that is killed and
resumed halves and stops where it would have.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from transformers import TrainerCallback

from launch import runtime
from launch.contracts import Sampling
from launch.rendering import Renderer
from launch.runfolder import RunFolder
from reasoning.legal.decoding import write_opinions
from reasoning.legal.feed import Row
from reasoning.legal.opinion import Form


class TermError(TrainerCallback):
    """After each evaluation: "eval_rmse", months, of greedy opinions whose clauses are chosen among those that parse.

    Stands before callbacks that read it.

    Args:
        model: what `fit` is given, adapters and all.
        rows: the held-out cases.
        tokens: new tokens at most.
        run: gets a row {"stage", "step", "eval_rmse"} in its metrics.
    """

    def __init__(
        self, model: torch.nn.Module, renderer: Renderer, rows: Sequence[Row], form: Form, tokens: int, run: RunFolder
    ) -> None:
        self.model, self.renderer, self.rows, self.form, self.run = model, renderer, rows, form, run
        self.greedy = Sampling(max_new_tokens=tokens, temperature=0.0)
        told = run.metrics() if run.writes else []
        self.told = {row["step"] for row in told if row.get("stage") == STAGE}

    def on_evaluate(self, args: Any, state: Any, control: Any, metrics: Any = None, **_: Any) -> None:
        found = 0.0
        if runtime.is_main():
            training = self.model.training
            texts = write_opinions(
                self.model, self.renderer, [row["prompt"] for row in self.rows], form=self.form, sampling=self.greedy,
                constrained=True,
            )  # fmt: skip
            self.model.train(training)
            errors = [(self.form.read(text) or 0) - row["months"] for row, text in zip(self.rows, texts, strict=True)]
            found = math.sqrt(sum(e * e for e in errors) / len(errors))
        metrics["eval_rmse"] = state.log_history[-1]["eval_rmse"] = runtime.broadcast(found)
        if runtime.is_main() and state.global_step not in self.told:
            self.run.log({"stage": STAGE, "step": state.global_step, "eval_rmse": found})


STAGE = "legal-terms"


class Plateau(TrainerCallback):
    """Multiplies learning rates where held-out cases gain no more, and ends the fit where they have not for long.

    Args:
        metric: of evaluations, e.g. "eval_rmse"; smaller is better.
        patience: evaluations without gain that are put up with, as torch's `ReduceLROnPlateau` counts them; None: rates
            stay.
        factor: what rates are multiplied by then.
        stop_after: evaluations without gain that end the fit; 0: never.
    """

    def __init__(self, metric: str, patience: int | None, factor: float, stop_after: int) -> None:
        self.metric, self.patience, self.factor, self.stop_after = metric, patience, factor, stop_after

    def on_evaluate(self, args: Any, state: Any, control: Any, lr_scheduler: Any = None, **_: Any) -> None:
        seen = [row[self.metric] for row in state.log_history if self.metric in row]
        if self.patience is not None:
            _set_rates(lr_scheduler, self.factor ** halvings(seen, self.patience))
        if self.stop_after and without_gain(seen) >= self.stop_after:
            control.should_training_stop = True
            control.should_save = False  # a resumed fit makes this evaluation again, and so knows that it ends here


def without_gain(seen: Sequence[float]) -> int:
    """Evaluations since the best."""
    return len(seen) - 1 - min(range(len(seen)), key=seen.__getitem__) if seen else 0


def halvings(seen: Sequence[float], patience: int) -> int:
    """How often rates have been multiplied after these evaluations: each time more than `patience` in a row, counted
    anew from the last time, were no better than the best before.
    """
    best, bad, count = math.inf, 0, 0
    for value in seen:
        best, bad = (value, 0) if value < best else (best, bad + 1)
        if bad > patience:
            bad, count = 0, count + 1
    return count


def _set_rates(lr_scheduler: Any, share: float) -> None:
    """Set a schedule's base rates to `share` of the first ones, and the present rates with them."""
    schedule = getattr(lr_scheduler, "scheduler", lr_scheduler)
    groups = schedule.optimizer.param_groups
    for k, group in enumerate(groups):
        base = group["initial_lr"] * share
        if schedule.base_lrs[k] > 0:
            group["lr"] *= base / schedule.base_lrs[k]
        schedule.base_lrs[k] = base
    schedule._last_lr = [group["lr"] for group in groups]  # what the next step's log says
