"""A fit steered by held-out terms that ends itself at a chosen instant, in forked children of one process.

``python -m tests.reasoning.killed_legal FOLDER`` imports the trainer once, forks for every case children that fit in
FOLDER/CASE until one ends by itself, and prints ``{"case": [exit codes]}``.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from functools import partial
from pathlib import Path
from typing import Any

import transformers

from tests.launch.forked import before_forks, in_child

CASES: dict[str, list[int]] = {
    "never": [],
    "before the first halving, and after it": [1, 4],
    "at the evaluation that ends the fit": [-1],
}
"""Steps at whose beginning successive runs die; -1: when the fit has been told to stop."""
STOPPED = "stopped in every step"
"""A further case, of SIGTERM: each run makes one step, and leaves its evaluation to the next."""
PATIENCE, STOP_AFTER = 1, 5


class Die(transformers.TrainerCallback):
    """SIGKILL at the beginning of a step, or (-1) as soon as an evaluation has ended the fit; SIGTERM in any step."""

    def __init__(self, at: int | str | None) -> None:
        self.at = at

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if self.at == STOPPED:
            os.kill(os.getpid(), signal.SIGTERM)
        if state.global_step == self.at:
            os.kill(os.getpid(), signal.SIGKILL)

    def on_evaluate(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if self.at == -1 and control.should_training_stop:
            os.kill(os.getpid(), signal.SIGKILL)


def fit_legal(folder: Path, die: int | str | None) -> None:
    """Two cases to learn and to be measured on; RMSE seldom moves, so that rates are halved and the fit ends early."""
    from launch.options import TrainOptions
    from launch.rendering import Renderer
    from launch.runfolder import RunFolder
    from launch.trainer import fit
    from reasoning.legal.objective import OpinionObjective, encode_opinions
    from reasoning.legal.opinion import COURT
    from reasoning.legal.plateau import Plateau, TermError
    from reasoning.legal.selection import Selection
    from tests.reasoning.test_legal_objective import decoder, row
    from tests.tiny import make_tokenizer

    options = TrainOptions(learning_rate=1e-3, schedule="linear", warmup_ratio=0.1, batch_size=1, max_steps=40,
                           eval_steps=1, save_steps=1, log_steps=1)  # fmt: skip
    model, renderer = decoder(), Renderer(make_tokenizer())
    rows = [row(), row(months=30)]
    run = RunFolder(folder).open({}, 0)
    callbacks = [
        TermError(model, renderer, rows, COURT, 2, run),
        Selection(model, run.path / "selected", "eval_rmse"),
        Plateau("eval_rmse", PATIENCE, 0.5, STOP_AFTER),
        Die(die),
    ]
    examples = encode_opinions(rows, renderer)
    fit(model, OpinionObjective(), examples, options=options, run=run, name="legal", seed=0, evaluate=examples,
        callbacks=callbacks)  # fmt: skip


def main(folder: Path) -> None:
    import launch.trainer  # noqa: F401 (imported once, before the forks)

    before_forks()

    ended = {
        case: [in_child(partial(fit_legal, folder / case.replace(" ", "_"), die)) for die in (*dies, None)]
        for case, dies in CASES.items()
    }
    ended[STOPPED] = codes = []
    while 0 not in codes and len(codes) < 60:
        codes.append(in_child(partial(fit_legal, folder / STOPPED.replace(" ", "_"), STOPPED)))
    print(json.dumps(ended))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
