"""Log-probabilities of completions without a [tokens x vocabulary] tensor.

Only hidden states at completion positions go through the language-model head, in chunks whose logits are recomputed
in the backward pass: peak memory is chunk x vocabulary, whatever the batch, and prompt positions cost no head work.
`completion_logprobs_naive` is the readable twin.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.utils.checkpoint import checkpoint

_LOGIT_SCALES = ("logit_scale", "logits_scaling", "lm_head_multiplier")


def completion_logprobs(
    model: torch.nn.Module,
    input_ids: torch.Tensor,  # int64 [B, T]
    attention_mask: torch.Tensor,  # bool [B, T]
    completion_mask: torch.Tensor,  # bool [B, T], True at the tokens whose probability counts
    chunk: int = 1024,
) -> torch.Tensor:
    """Sum of log p(token | before) over each row's completion tokens, in nats: float32 [B].

    Args:
        model: a causal LM of transformers, bare or with adapters.
        input_ids: int64 [B, T].
        attention_mask: bool [B, T].
        completion_mask: bool [B, T]; column 0 never counts, since nothing comes before it.
        chunk: positions whose logits exist at once.
    """
    causal = _causal_lm(model)
    scaled = [k for k in _LOGIT_SCALES if getattr(causal.config.get_text_config(), k, None) not in (None, 1, 1.0)]
    if scaled:
        # These families change the logits after the head; only their own forward knows how.
        return completion_logprobs_naive(model, input_ids, attention_mask, completion_mask)
    hidden = causal.base_model(
        input_ids=input_ids, attention_mask=attention_mask, position_ids=positions(attention_mask), use_cache=False
    ).last_hidden_state  # [B, T, D]
    rows, columns = completion_mask[:, 1:].nonzero(as_tuple=True)
    states = hidden[rows, columns]  # [N, D]: the state before each completion token
    targets = input_ids[rows, columns + 1]  # [N]
    head, cap = causal.get_output_embeddings(), _softcap(causal.config)
    per_token = [
        checkpoint(_token_logprobs, head, cap, s, t, use_reentrant=False)
        for s, t in zip(states.split(chunk), targets.split(chunk), strict=True)
    ]
    total = states.new_zeros(len(input_ids), dtype=torch.float32)
    return total.index_add(0, rows, torch.cat(per_token)) if per_token else total


def completion_logprobs_naive(
    model: torch.nn.Module,
    input_ids: torch.Tensor,
    attention_mask: torch.Tensor,
    completion_mask: torch.Tensor,
) -> torch.Tensor:
    """The same sums from full logits [B, T, V]; for reading and for tests."""
    logits = model(
        input_ids=input_ids, attention_mask=attention_mask, position_ids=positions(attention_mask), use_cache=False
    ).logits.float()
    logp = logits[:, :-1].log_softmax(-1).gather(-1, input_ids[:, 1:, None]).squeeze(-1)  # [B, T-1]
    return (logp * completion_mask[:, 1:]).sum(-1)


def positions(attention_mask: torch.Tensor) -> torch.Tensor:
    """Position of each real token counted from its row's first: int64 [B, T]; so padding moves nothing."""
    return (attention_mask.long().cumsum(-1) - 1).clamp(min=0)


def _token_logprobs(
    head: torch.nn.Module, cap: float | None, states: torch.Tensor, targets: torch.Tensor
) -> torch.Tensor:
    logits = head(states).float()  # [n, V]; through the module, so that sharded and adapted heads work
    if cap is not None:
        logits = cap * torch.tanh(logits / cap)
    return logits.gather(-1, targets[:, None]).squeeze(-1) - logits.logsumexp(-1)


def _softcap(config: Any) -> float | None:
    """Gemma-2 squashes its final logits; every other family returns None here."""
    return getattr(config.get_text_config(), "final_logit_softcapping", None)


def _causal_lm(model: torch.nn.Module) -> Any:
    """The causal LM inside adapters, whose `base_model` (the decoder without head) and head are used apart."""
    inner: Any = model
    while hasattr(inner, "peft_config") and hasattr(inner, "get_base_model"):
        inner = inner.get_base_model()
    return inner
