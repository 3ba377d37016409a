"""The epoch that does best on validation edges, as CSG's authors choose it: by the sum of AUC and F1.

`Selection` is a callback of `launch.trainer.fit`. It looks every few epochs, keeps the best weights in memory and, with
each checkpoint, in a file of the run, so that a killed training goes on with the best of before. Published code does
not say which F1; macro is taken, since that of the positive class follows the share of positive edges.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from safetensors import safe_open
from safetensors.torch import save_file

from launch import runtime
from launch.errors import CheckpointError, DataError
from tasks.graph.signed.edges import SignedGraph
from tasks.graph.signed.metrics import sign_metrics
from tasks.graph.signed.scorer import PairHead

EVERY = 5
"""Epochs between two looks; the last epoch is looked at as well."""

ReadOut = Callable[[torch.nn.Module, SignedGraph], tuple[np.ndarray, PairHead]]


class Selection(transformers.TrainerCallback):
    """Keeps the weights of `model` with the largest AUC + macro-F1 on validation edges; the earlier of equals.

    Args:
        model: what is trained.
        graph: the training edges.
        edges: int64 [k, 3], the validation edges, by the ids of `graph`.
        read_out: embeddings and pair head of a model.
        file: where the best weights are kept.

    Raises:
        DataError: validation edges of one sign only, or with a node that the graph does not have.
    """

    def __init__(
        self, model: torch.nn.Module, graph: SignedGraph, edges: np.ndarray, read_out: ReadOut, file: Path
    ) -> None:
        self.model, self.graph, self.read_out, self.file = model, graph, read_out, file
        self.at, self.signs = graph.positions(edges[:, :2]), edges[:, 2]
        if len(np.unique(self.signs)) < 2:
            raise DataError(f"all {len(edges)} validation edges have one sign; an epoch is chosen by edges of both")
        self.epoch, self.value = 0, float("-inf")
        self.weights: dict[str, torch.Tensor] = {}

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.global_step and self.file.is_file():
            self._read()

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        epoch = state.global_step  # that are done
        if epoch % EVERY and epoch != state.max_steps:
            return
        z, head = self.read_out(self.model, self.graph)
        found = sign_metrics(head.score(z[self.at[:, 0]], z[self.at[:, 1]]), self.signs)
        value = found["auc"] + found["f1_macro"]
        if value > self.value:
            self.epoch, self.value = epoch, value
            self.weights = {name: p.detach().cpu().clone() for name, p in self.model.named_parameters()}

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._write()

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._write()

    @torch.no_grad()
    def restore(self) -> int:
        """Put the best weights into the model; returns after how many epochs they were there.

        Raises:
            CheckpointError: nothing was kept, or it does not fit the model.
        """
        if not self.weights:
            self._read()
        mine = dict(self.model.named_parameters())
        if {n: p.shape for n, p in mine.items()} != {n: t.shape for n, t in self.weights.items()}:
            raise CheckpointError(f"{self.file} holds other weights than are trained here; choose another run.folder")
        for name, parameter in mine.items():
            parameter.copy_(self.weights[name])
        return self.epoch

    def _write(self) -> None:
        if not self.weights or not runtime.is_main():
            return
        self.file.parent.mkdir(parents=True, exist_ok=True)
        building = self.file.with_name(f".building-{self.file.name}")
        save_file(self.weights, str(building), {"epoch": str(self.epoch), "value": repr(self.value)})
        building.replace(self.file)

    def _read(self) -> None:
        try:
            with safe_open(str(self.file), "pt") as kept:
                facts = kept.metadata()
                self.weights = {name: kept.get_tensor(name) for name in kept.keys()}  # noqa: SIM118
        except Exception as error:  # safetensors raises a class of its own beside OSError
            raise CheckpointError(f"{self.file}: no weights of a chosen epoch ({error}); train again") from error
        self.epoch, self.value = int(facts["epoch"]), float(facts["value"])
