"""Heads of many sequences under no gradient, batch by batch: packed rows, and padded rows as the readable twin."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from align.preference.batch import Part, Sequences, padded, parts, rows_of
from launch.errors import DataError

if TYPE_CHECKING:
    from align.preference.model import PreferenceModel

Heads = tuple[np.ndarray, np.ndarray, np.ndarray]
"""r float32 [N], v float32 [N, 2d], lambda^2 float32 [G, d]."""


def padded_heads(
    model: PreferenceModel, ids: list[list[int]], gates: dict[int, int], at: list[int], batch_size: int
) -> Heads:
    """Of sequences, and of gates {g: row of ids} read at token at[g]; batched by length, in eval mode."""
    r, v, lambda_sq = _empty(model, len(ids), len(gates))
    order = sorted(range(len(ids)), key=lambda n: len(ids[n]))
    gate_of = {row: g for g, row in gates.items()}  # a sequence belongs to one group
    with evaluating(model):
        for start in range(0, len(order), batch_size):
            rows = order[start : start + batch_size]
            here = [(gate_of[row], place) for place, row in enumerate(rows) if row in gate_of]
            tokens, mask = padded([ids[n] for n in rows], model.renderer.tokenizer.pad_token_id or 0)
            out = model(
                input_ids=tokens.to(model.device),
                attention_mask=mask.to(model.device),
                gate_rows=torch.tensor([row for _, row in here], dtype=torch.long, device=model.device),
                gate_positions=torch.tensor([at[g] for g, _ in here], dtype=torch.long, device=model.device),
            )
            r[rows], v[rows] = out.r.cpu().numpy(), out.v.cpu().numpy()
            lambda_sq[[g for g, _ in here]] = out.lambda_sq.cpu().numpy()
    return finite(r, v, lambda_sq)


def packed_heads(model: PreferenceModel, plan: Sequences, batch_size: int, shared: bool = True) -> Heads:
    """Of a plan's sequences and groups; a forward takes as many tokens as `batch_size` of its longest sequences."""
    r, v, lambda_sq = _empty(model, len(plan.ids), len(plan.answers))
    budget = batch_size * max(map(len, plan.ids))
    with evaluating(model):
        for some in _batches(sorted(parts(plan, shared, budget), key=lambda part: len(part.tree)), budget):
            inputs, members, groups, _ = rows_of(some, model.renderer.tokenizer.pad_token_id or 0)
            out = model(**{name: tensor.to(model.device) for name, tensor in inputs.items()})
            r[members], v[members] = out.r.cpu().numpy(), out.v.cpu().numpy()
            lambda_sq[groups] = out.lambda_sq.cpu().numpy()
    return finite(r, v, lambda_sq)


def _batches(some: list[Part], budget: int) -> Iterator[list[Part]]:
    """Runs of parts with at most `budget` tokens, or one part each."""
    batch: list[Part] = []
    tokens = 0
    for part in some:
        if batch and tokens + len(part.tree) > budget:
            yield batch
            batch, tokens = [], 0
        batch.append(part)
        tokens += len(part.tree)
    yield batch


def _empty(model: Any, sequences: int, groups: int) -> Heads:
    dims = model.config.dims
    shapes = (sequences,), (sequences, dims), (groups, dims // 2)
    r, v, lambda_sq = (np.zeros(shape, np.float32) for shape in shapes)
    return r, v, lambda_sq


@contextmanager
def evaluating(model: torch.nn.Module) -> Iterator[None]:
    """Eval mode, and the old mode afterwards."""
    training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(training)


def finite(r: np.ndarray, v: np.ndarray, lambda_sq: np.ndarray) -> Heads:
    """The heads as they are; raises DataError if one is not finite."""
    for name, values in (("r", r), ("v", v), ("lambda_sq", lambda_sq)):
        if not np.isfinite(values).all():
            bad = int(np.argwhere(~np.isfinite(values))[0][0])
            raise DataError(f"the model's {name} is not finite in row {bad}; its weights or precision are broken")
    return r, v, lambda_sq
