"""Pairwise preference loss over groups of K answers: sum of w * -log sigmoid(s / tau), the same for BT, GPM and HRC.

HRC (arXiv 2605.17342) and GPM (arXiv 2410.02197) both train on the mean of -log sigmoid(s_theta(x, y_w, y_l) / tau),
end to end; tau divides the whole score. Here a row is one prompt with K answers and any number of judged pairs (see
``data``), and each different answer goes through the backbone once, however many pairs it is in. A pair of weight w
counts as w equal pairs; the batch's count is the sum of weights, so the mean is over votes, not over prompts.

Left out: margins and tie terms (training pairs are strict), and GPM's optional auxiliary SFT loss (off in HRC; it would
need the language-model head that is dropped here).

A prompt is encoded once for all its answers, in packed rows without padding (docs/packing.md); `packing` chooses the
readable twins, which give the same loss and gradients.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch.nn.functional import logsigmoid

from align.preference.batch import Sequences, layout_for, padded, parts, rows_of, sequences
from align.preference.config import PreferenceConfig
from align.preference.heads import score_pairs
from launch.contracts import Loss
from launch.counters import Work, work_metrics
from launch.errors import DataError
from launch.masks import kernel_of
from launch.packing import Layout
from launch.rendering import Renderer

PADDED = ("input_ids", "attention_mask", "gate_rows", "gate_positions")
PACKED = ("input_ids", "position_ids", "tree", "branch", "ends", "gates")
"""What of a batch the model takes, by its layout."""


def preference_loss(s: torch.Tensor, weight: torch.Tensor, tau: float) -> torch.Tensor:
    """Sum over pairs of weight * -log sigmoid(s / tau): raw scores [Q] of winner over loser, weights [Q] -> scalar."""
    return -(weight * logsigmoid(s.float() / tau)).sum()


class PreferenceObjective:
    """Fulfils ``launch.contracts.Objective`` for a `PreferenceModel`, bare or with adapters.

    Args:
        renderer: the model's (``model.renderer``).
        config: the model's.
        packing: "shared" encodes a prompt once for its answers, "packed" once per answer but unpadded, "padded" one
            row per answer. A backbone that cannot do it gets the nearest that it can (see ``batch.layout_for``).
    """

    def __init__(self, renderer: Renderer, config: PreferenceConfig, packing: Layout = "shared") -> None:
        self.renderer = renderer
        self.config = config
        self.layout = layout_for(config, packing)
        self.kernel = kernel_of(config.backbone_config)

    def collate(self, examples: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """Rows of ``data``'s normal form to one batch.

        Returns:
            What the model's forward takes of N sequences, each different (prompt, answer) once: padded, input_ids
            int64 and attention_mask bool [N, T], longest first, gate_rows and gate_positions int64 [G]; packed, see
            ``batch.Rows``. Then winner, loser (of N), group (of G) int64 [Q]; weight float32 [Q]; count: float, the
            sum of weights; tokens and work_*: floats, see ``launch.counters.Work``.

        Raises:
            DataError: a row without answers or with an index, a weight or a pair that means nothing.
        """
        for row in examples:
            check(row)
        plan = sequences(self.renderer, [(row["prompt"], row["responses"]) for row in examples], self.config.pooling)  # type: ignore[arg-type]
        inputs, place, gate = self._inputs(plan)
        pairs = [
            (place[answers[w]], place[answers[b]], gate[group], float(weight))
            for group, (row, answers) in enumerate(zip(examples, plan.answers, strict=True))
            for w, b, weight in zip(row["winners"], row["losers"], row["weights"], strict=True)
        ]
        weight = torch.tensor([p[3] for p in pairs], dtype=torch.float32)
        return {
            **inputs,
            "winner": torch.tensor([p[0] for p in pairs], dtype=torch.long),
            "loser": torch.tensor([p[1] for p in pairs], dtype=torch.long),
            "group": torch.tensor([p[2] for p in pairs], dtype=torch.long),
            "weight": weight,
            "count": float(weight.sum()),
        }

    def _inputs(self, plan: Sequences) -> tuple[dict[str, Any], dict[int, int], dict[int, int]]:
        """What the model takes with its work, which of its outputs is each sequence, and which gate each group's."""
        pad_id = self.renderer.tokenizer.pad_token_id or 0
        if self.layout != "padded":
            rows = rows_of(list(parts(plan, self.layout == "shared")), pad_id)
            inputs = {**rows.inputs, **Work.packed(rows.packed, kernel=self.kernel).facts()}
            return inputs, {n: k for k, n in enumerate(rows.members)}, {g: k for k, g in enumerate(rows.groups)}
        # Longest first: lengths that lie together pack tightly, and memory peaks in the first batch, not mid-run.
        order = sorted(range(len(plan.ids)), key=lambda n: -len(plan.ids[n]))
        place = {n: row for row, n in enumerate(order)}
        ids, mask = padded([plan.ids[n] for n in order], pad_id)
        inputs = {
            "input_ids": ids,
            "attention_mask": mask,
            "gate_rows": torch.tensor([place[n] for n in plan.gate_rows]),
            "gate_positions": torch.tensor(plan.gate_positions),
            **Work.padded(mask, causal=self.config.pooling == "last").facts(),
        }
        return inputs, place, {g: g for g in range(len(plan.gate_rows))}

    def loss(self, model: torch.nn.Module, batch: dict[str, Any]) -> Loss:
        """Weighted sum of pair losses.

        Metrics (each a weighted sum over pairs): accuracy, s > 0, a score of exactly 0 counting as wrong; saturated,
        share of r at the clip, where its gradient is 0; lambda_sq, the gate's mean weight; cyclic_share,
        |s_C| / (|s_T| + |s_C|); with gradients also work_*, sums over the batch.
        """
        c = self.config
        out = model(**{k: batch[k] for k in (PACKED if "tree" in batch else PADDED)})
        w, b, weight = batch["winner"], batch["loser"], batch["weight"]
        s_T, s_C = score_pairs(out.r[w], out.r[b], out.v[w], out.v[b], out.lambda_sq[batch["group"]], c.c1, c.c2)
        s = s_T + s_C
        total = preference_loss(s, weight, c.tau)
        with torch.no_grad():
            metrics: dict[str, torch.Tensor | float] = {"accuracy": (weight * (s > 0)).sum()}
            if c.kind != "gpm" and c.clip:
                at_clip = (out.r.abs() >= c.delta).float()
                metrics["saturated"] = (weight * (at_clip[w] + at_clip[b]) / 2).sum()
            if c.kind != "bt":
                size = s_T.abs() + s_C.abs()
                metrics["lambda_sq"] = (weight * out.lambda_sq.mean(-1)[batch["group"]]).sum()
                metrics["cyclic_share"] = (weight * s_C.abs() / size.clamp_min(1e-12)).sum()
        # What a fit is from its limit is told of training; held-out rows have metrics of their own.
        if torch.is_grad_enabled():
            metrics.update(work_metrics(batch))
        return Loss(total, batch["count"], metrics)


def check(row: Mapping[str, Any]) -> None:
    """Raise DataError unless a row's pairs name two different answers of it, with weights above 0."""
    where = row.get("source", "a row without source")
    missing = [name for name in ("prompt", "responses", "winners", "losers", "weights") if name not in row]
    if missing:
        raise DataError(f"{where}: no {', '.join(missing)}; rows are made by align.preference.data.load_groups")
    K = len(row["responses"])
    if not len(row["winners"]) == len(row["losers"]) == len(row["weights"]):
        raise DataError(f"{where}: winners, losers and weights differ in length; give one of each per judged pair")
    for w, b, weight in zip(row["winners"], row["losers"], row["weights"], strict=True):
        if not (0 <= w < K and 0 <= b < K) or w == b:
            raise DataError(f"{where}: pair ({w}, {b}) does not name two of {K} answers; count answers from 0")
        if not (math.isfinite(weight) and weight > 0):
            raise DataError(f"{where}: pair ({w}, {b}) has weight {weight}; weights are finite and above 0")
