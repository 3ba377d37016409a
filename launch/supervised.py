"""Supervised fine-tuning as an Objective: the negative log-likelihood of what follows the prompt, per token.

    loss = - sum over completion tokens of log p(token | before),     count = number of completion tokens

so the trainer's division gives the mean over tokens of the whole optimiser step, however long each example is. The
head sees completion positions only (`launch.logprob`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from launch.contracts import Loss
from launch.errors import DataError
from launch.logprob import completion_logprobs
from launch.rendering import Renderer, pad


class SupervisedObjective:
    """Learns to continue prompts. Examples are ``{"ids": [int], "prompt_length": int}`` (see `encode_rows`).

    Args:
        pad_id: any token id; it is masked.
        chunk: positions whose logits exist at once.
    """

    def __init__(self, pad_id: int = 0, chunk: int = 1024) -> None:
        self.pad_id, self.chunk = pad_id, chunk

    def collate(self, examples: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """input_ids int64, attention_mask and completion_mask bool [B, T]; count and tokens."""
        ids, mask = pad([row["ids"] for row in examples], self.pad_id)
        starts = torch.tensor([max(row["prompt_length"], 1) for row in examples])  # nothing comes before token 0
        completion = mask & (torch.arange(ids.shape[1]) >= starts[:, None])
        return {
            "input_ids": ids,
            "attention_mask": mask,
            "completion_mask": completion,
            "count": float(completion.sum()),
            "tokens": float(mask.sum()),
        }

    def loss(self, model: torch.nn.Module, batch: dict[str, Any]) -> Loss:
        """Sum of negative log-probabilities, in nats."""
        logps = completion_logprobs(
            model, batch["input_ids"], batch["attention_mask"], batch["completion_mask"], chunk=self.chunk
        )
        return Loss(-logps.sum(), batch["count"], {})


def encode_rows(rows: Sequence[Mapping[str, Any]], renderer: Renderer) -> list[dict[str, Any]]:
    """Rows ``{"prompt", "response"}`` to examples, in order.

    Raises:
        DataError: a row without prompt or response, or one whose answer is cut away whole.
    """
    out = []
    for number, row in enumerate(rows, 1):
        missing = [key for key in ("prompt", "response") if key not in row]
        if missing:
            raise DataError(f"row {number}: no {' or '.join(missing)} but {', '.join(sorted(row))}; rename the columns")
        encoded = renderer.encode(row["prompt"], row["response"])
        if encoded.prompt_length >= len(encoded.ids):
            raise DataError(f"row {number}: the length limit {renderer.max_length} leaves nothing of the answer")
        out.append({"ids": encoded.ids, "prompt_length": encoded.prompt_length})
    return out
