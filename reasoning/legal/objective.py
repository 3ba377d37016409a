"""The Objective of LegalChainReasoner: write the opinion, and the sentence clause once more.

    L = L_gen + w L_sent        means over a case's completion tokens and over those of its sentence clause; w = 1

Facts and soft tokens are masked. Tokens of the clause are found by character offsets, since a clause tokenised alone
may differ at its borders. The unit is the case, so eight batches of one weigh as one batch of eight; for one case this
is the published loss. A clause token counts 1/N + 1/M where another counts 1/N (N, M tokens in completion and clause):
far more than twice in a long opinion.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from launch.contracts import Loss
from launch.errors import DataError
from launch.head import causal_lm, token_logprobs
from launch.logprob import positions
from launch.rendering import Renderer, pad


class OpinionObjective:
    """Learns opinions. Examples are ``{"ids", "prompt_length", "clause": [first, end)}`` (see `encode_opinions`).

    Args:
        pad_id: any token id; it is masked.
        sentence: w, weight of the sentence clause's own loss.
    """

    def __init__(self, pad_id: int = 0, sentence: float = 1.0) -> None:
        self.pad_id, self.sentence = pad_id, sentence

    def collate(self, examples: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """input_ids and labels int64, attention_mask, written and clause bool [B, T]; count (cases) and tokens."""
        ids, mask = pad([row["ids"] for row in examples], self.pad_id)
        at = torch.arange(ids.shape[1])
        prompt = torch.tensor([row["prompt_length"] for row in examples])[:, None]
        clause = torch.tensor([row["clause"] for row in examples])  # [B, 2]
        return {
            "input_ids": ids,
            "labels": ids.clone(),
            "attention_mask": mask,
            "written": mask & (at >= prompt),
            "clause": (at >= clause[:, :1]) & (at < clause[:, 1:]),
            "count": float(len(examples)),
            "tokens": float(mask.sum()),
        }

    def loss(self, model: torch.nn.Module, batch: dict[str, Any]) -> Loss:
        """Sum over cases, in nats a token. Metrics: generation and sentence (L_gen, L_sent), clause_nats (whole)."""
        mask, written, clause = batch["attention_mask"], batch["written"], batch["clause"]
        hidden = (
            causal_lm(model)
            .base_model(
                input_ids=batch["input_ids"], attention_mask=mask, position_ids=positions(mask), use_cache=False
            )
            .last_hidden_state
        )  # [B, T, D]
        rows, before = written[:, 1:].nonzero(as_tuple=True)
        logp, _ = token_logprobs(model, hidden[rows, before], batch["labels"][rows, before + 1])
        lost = torch.zeros(written.shape, device=logp.device).index_put((rows, before + 1), -logp)  # [B, T]
        generation = (lost.sum(1) / written.sum(1)).sum()
        clause_nats = (lost * clause).sum(1)
        sentence = (clause_nats / clause.sum(1)).sum()
        metrics = {
            "generation": generation.detach(),
            "sentence": sentence.detach(),
            "clause_nats": clause_nats.sum().detach(),
        }
        return Loss(generation + self.sentence * sentence, batch["count"], metrics)


def encode_opinions(rows: Sequence[Mapping[str, Any]], renderer: Renderer) -> list[dict[str, Any]]:
    """Rows ``{"prompt", "response", "clause": [first, end) in characters of the response}`` to examples.

    Raises:
        DataError: a row that is too long (its prompt begins with the law, so nothing is cut), or a clause without
            tokens.
    """
    out = []
    for number, row in enumerate(rows, 1):
        prompt = renderer.prompt_ids(row["prompt"])
        told = renderer.tokenizer(row["response"], add_special_tokens=False, return_offsets_mapping=True)
        first, end = row["clause"]
        inside = [k for k, (a, b) in enumerate(told["offset_mapping"]) if b > first and a < end]
        ids = [*prompt, *told["input_ids"], renderer.eos]
        if len(ids) > renderer.max_length:
            raise DataError(f"case {number}: {len(ids)} tokens, more than {renderer.max_length}; cut facts or opinion")
        if not inside:
            raise DataError(f"case {number}: no token of its response lies in the sentence clause {first} to {end}")
        clause = [len(prompt) + inside[0], len(prompt) + inside[-1] + 1]
        out.append({"ids": ids, "prompt_length": len(prompt), "clause": clause})
    return out
