"""What watches a fit: metrics as JSON lines, the progress bar, the clock of stages, when to save and when to stop."""

from __future__ import annotations

import signal
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from launch.options import TrainOptions
from launch.runfolder import RunFolder

_NAMES = {"learning_rate": "lr"}


class StopSignals:
    """Turns Ctrl-C, SIGTERM and SIGUSR1 into a wish that the trainer grants at the end of the running step.

    A second Ctrl-C ends the process at once. Outside the main thread nothing is installed.
    """

    SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)

    def __init__(self) -> None:
        self.received = 0
        self._before: dict[int, Any] = {}

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.received and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.received = number

    def __enter__(self) -> StopSignals:
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._note) for number in self.SIGNALS}
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)


class Clock:
    """Wall seconds per stage of the training loop.

    On a GPU, kernels run behind the host: time lands in the stage that waits for them, mostly "optimizer".
    """

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] += time.perf_counter() - start

    def rows(self) -> dict[str, float]:
        return {f"seconds_{name}": round(seconds, 3) for name, seconds in sorted(self.seconds.items())}


class Meter:
    """Sums of what the objective reports, per logging period, on this rank."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        self.sums: dict[str, Any] = defaultdict(float)
        self.counts: dict[str, float] = defaultdict(float)
        self.tokens = 0.0
        self.start = time.perf_counter()

    def add(self, metrics: dict[str, Any], count: float, tokens: float) -> None:
        """Add one micro-batch: sums over its `count` units. Tensors stay on their device, unread."""
        for key, value in metrics.items():
            self.sums[key] = self.sums[key] + (value.detach() if hasattr(value, "detach") else value)
            self.counts[key] += count
        self.tokens += tokens

    def facts(self) -> dict[str, Any]:
        """Plain numbers, to be gathered over ranks."""
        sums = {key: (float(value), self.counts[key]) for key, value in self.sums.items()}
        return {"sums": sums, "tokens": self.tokens, "seconds": time.perf_counter() - self.start}


def averages(facts: list[dict[str, Any]]) -> dict[str, float]:
    """Metrics of all ranks: summed, then divided by the summed count of the batches that reported them."""
    totals: dict[str, list[float]] = {}
    for rank in facts:
        for key, (value, count) in rank["sums"].items():
            total = totals.setdefault(key, [0.0, 0.0])
            total[0] += value
            total[1] += count
    found = {key: value / count for key, (value, count) in totals.items() if count > 0}
    seconds = max(rank["seconds"] for rank in facts)
    found["tokens_per_second"] = sum(rank["tokens"] for rank in facts) / max(seconds, 1e-9)
    return found


class Schedule(TrainerCallback):
    """When to log, evaluate and save. transformers' own strategies are off: their savers are not atomic."""

    def __init__(self, options: TrainOptions, evaluates: bool, wants_stop: Callable[[], bool]) -> None:
        self.options, self.evaluates, self.wants_stop = options, evaluates, wants_stop

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """A fit that was stopped at an evaluation step makes that evaluation first."""
        step = state.global_step
        made = any(row.get("step") == step and "eval_loss" in row for row in state.log_history)
        args.eval_on_start = step > 0 and self._evaluates_at(state) and not made

    def _evaluates_at(self, state: TrainerState) -> bool:
        every, step = self.options.eval_steps, state.global_step
        return self.evaluates and bool(step >= state.max_steps or (every and step % every == 0))

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> TrainerControl:
        last = state.global_step >= state.max_steps
        control.should_log = control.should_log or last
        control.should_evaluate = self._evaluates_at(state)
        # The last step is saved as the final folder.
        control.should_save = not last and state.global_step % self.options.save_steps == 0
        if self.wants_stop() and not last:
            control.should_save = control.should_training_stop = True
            control.should_evaluate = False  # it might take longer than the launcher waits; see `on_train_begin`
        return control


class MetricsLog(TrainerCallback):
    """Rows of metrics.jsonl: ``{"stage", "step", "epoch", "loss", "lr", "grad_norm", "eta_seconds", …}``."""

    def __init__(self, run: RunFolder, stage: str) -> None:
        self.run, self.stage = run, stage
        rows = [row for row in run.metrics() if row.get("stage") == stage] if run.writes else []
        # Steps made again after a kill give the same numbers: they are not written twice.
        self.written = {(row.get("step"), _kind(row)) for row in rows}

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        if not state.is_world_process_zero or not logs:
            return
        row = {_NAMES.get(key, key): value for key, value in logs.items() if key != "total_flos"}
        if (state.global_step, _kind(row)) not in self.written:
            self.run.log({"stage": self.stage, "step": state.global_step, **row})


def _kind(row: dict[str, Any]) -> str:
    """A training row, an evaluation row or the closing row of a stage."""
    return "train" if "loss" in row else "eval" if "eval_loss" in row else "end"


class ProgressBar(TrainerCallback):
    """A bar with ETA, tokens/s and loss on a terminal; nothing elsewhere, where metrics.jsonl serves."""

    def __init__(self, stage: str) -> None:
        self.stage = stage
        self.bar: Any = None
        self.task: Any = None

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if not (state.is_world_process_zero and sys.stderr.isatty()):
            return
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        self.bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("ETA"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[shown]}"),
            console=Console(stderr=True),
        )
        self.bar.start()
        self.task = self.bar.add_task(self.stage, total=state.max_steps, completed=state.global_step, shown="")

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        if self.bar is not None:
            self.bar.update(self.task, completed=state.global_step)

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        if self.bar is not None and logs and "loss" in logs:
            shown = f"loss {logs['loss']:.4f}  {logs.get('tokens_per_second', 0):,.0f} tokens/s"
            self.bar.update(self.task, shown=shown)

    def close(self) -> None:
        """Give the terminal back, also after an error."""
        if self.bar is not None:
            self.bar.stop()
            self.bar = None
