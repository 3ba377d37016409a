"""The weights that do best on held-out cases, kept while a fit goes on.

`Selection` is a callback of `launch.trainer.fit`: after every evaluation it keeps the trained weights if they are the
best so far. They lie on disk with their number, so a fit that is killed goes on with the best of before.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from transformers import TrainerCallback

from launch import checkpoint, runtime
from launch.errors import CheckpointError
from launch.runfolder import write_json

_TENSORS, _FACTS = "selected.safetensors", "selected.json"


class Selection(TrainerCallback):
    """Keeps the best weights of `model` by a metric; smaller is better.

    Args:
        model: what `fit` is given, adapters and all.
        folder: where they are kept.
        metric: as the trainer logs it, e.g. "eval_sentence".
    """

    def __init__(self, model: torch.nn.Module, folder: Path, metric: str) -> None:
        self.model, self.folder, self.metric = model, folder, metric

    @property
    def facts(self) -> dict[str, Any] | None:
        """{"step", metric} of what is kept; None before the first evaluation."""
        file = self.folder / _FACTS
        return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else None

    def on_evaluate(self, args: Any, state: Any, control: Any, metrics: Any = None, **_: Any) -> None:
        if not runtime.is_main():
            return
        known = self.facts
        if known is not None and known[self.metric] <= metrics[self.metric]:
            return
        kept = {n: p.detach().cpu().contiguous().clone() for n, p in self.model.named_parameters() if p.requires_grad}
        with checkpoint.writing(self.folder, sum(t.numel() * t.element_size() for t in kept.values())) as out:
            save_file(kept, str(out / _TENSORS))
            write_json(out / _FACTS, {"step": state.global_step, self.metric: metrics[self.metric]})

    @torch.no_grad()
    def restore(self) -> dict[str, Any]:
        """Put the kept weights into the model; returns their `facts`.

        Raises:
            CheckpointError: nothing was kept, or it does not fit.
        """
        facts = self.facts
        if facts is None:
            raise CheckpointError(f"{self.folder} holds no selected weights; evaluate at least once")
        kept = load_file(str(self.folder / _TENSORS))
        mine = {n: p for n, p in self.model.named_parameters() if p.requires_grad}
        if set(kept) != set(mine):
            raise CheckpointError(f"{self.folder} holds other weights than are trained here; choose another run.folder")
        for name, parameter in mine.items():
            parameter.copy_(kept[name])
        return facts
