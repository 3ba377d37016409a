"""Log-probabilities of completions without a [tokens x vocabulary] tensor.

Only hidden states in front of completion tokens go through the language-model head (`launch.head`): prompt positions
cost no head work.

`completion_logprobs` reads padded rows. `completion_logprobs_packed` reads trees (`launch.packing`): a prompt goes
through the model once for all its answers, and the first token of each is predicted by the prompt's last state.
`completion_logprobs_naive` is the readable twin of both.

Left out: families that change logits in a way that `launch.head.logit_scale` does not name: those take the naive path
when padded and cannot be packed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch

from launch import packing
from launch.head import causal_lm, logit_scale, token_logprobs
from launch.packing import Layout, Packed, hidden_states, pack, tree_of

Tensor = torch.Tensor


class Targets(NamedTuple):
    """Completion tokens of a packed batch, all int64 [M]."""

    source: Tensor
    """Where the state that predicts each lies, in the rows laid end to end."""
    token: Tensor
    answer: Tensor
    """Which answer each belongs to."""


def completion_logprobs(
    model: torch.nn.Module,
    input_ids: Tensor,  # int64 [B, T]
    attention_mask: Tensor,  # bool [B, T]
    completion_mask: Tensor,  # bool [B, T], True at the tokens whose probability counts
    chunk: int = 0,
) -> Tensor:
    """Sum of log p(token | before) over each row's completion tokens, in nats: float32 [B].

    Args:
        model: a causal LM of transformers, bare or with adapters.
        input_ids: int64 [B, T].
        attention_mask: bool [B, T].
        completion_mask: bool [B, T]; column 0 never counts, since nothing comes before it.
        chunk: positions whose logits exist at once; 0: as many as `LOGIT_BYTES` hold.
    """
    causal = causal_lm(model)
    if logit_scale(causal.config) is None:
        return completion_logprobs_naive(model, input_ids, attention_mask, completion_mask)
    hidden = causal.base_model(
        input_ids=input_ids, attention_mask=attention_mask, position_ids=positions(attention_mask), use_cache=False
    ).last_hidden_state  # [B, T, D]
    rows, columns = completion_mask[:, 1:].nonzero(as_tuple=True)
    per_token, _ = token_logprobs(model, hidden[rows, columns], input_ids[rows, columns + 1], chunk=chunk)
    return per_token.new_zeros(len(input_ids)).index_add(0, rows, per_token)


def completion_logprobs_packed(
    model: torch.nn.Module,
    input_ids: Tensor,
    position_ids: Tensor,
    tree: Tensor,
    branch: Tensor,
    targets: Targets,
    answers: int,
    chunk: int = 0,
) -> Tensor:
    """The same sums for the answers of packed trees: float32 [answers].

    Args:
        model: as in `completion_logprobs`; `layout_for` does not say "padded" for it.
        input_ids: int64 [B, N], with position_ids, tree and branch as `launch.packing.Packed.tensors` gives them.
        targets: from `pack_answers` or `branch_targets`.
        answers: how many there are.
        chunk: as in `completion_logprobs`.
    """
    per_token, _ = packed_token_logprobs(model, input_ids, position_ids, tree, branch, targets, chunk=chunk)
    return per_token.new_zeros(answers).index_add(0, targets.answer, per_token)


def packed_token_logprobs(
    model: torch.nn.Module,
    input_ids: Tensor,
    position_ids: Tensor,
    tree: Tensor,
    branch: Tensor,
    targets: Targets,
    *,
    temperature: float = 1.0,
    entropy: bool = False,
    chunk: int = 0,
) -> tuple[Tensor, Tensor | None]:
    """log p of every target and, if asked, the entropy there, nats: float32 [M] each. See `token_logprobs`."""
    body = causal_lm(model).base_model
    hidden = hidden_states(body, input_ids, position_ids, tree, branch, read=targets.source)  # [B, N, D]
    states = hidden.flatten(0, 1)[targets.source]  # [M, D]
    return token_logprobs(model, states, targets.token, temperature=temperature, entropy=entropy, chunk=chunk)


def pack_answers(
    sequences: Sequence[Sequence[int]], prompt_lengths: Sequence[int], pad_id: int = 0, shared: bool = True
) -> tuple[Packed, Targets]:
    """Rows of prompt and answer to packed trees, one for each different prompt, and their completion tokens.

    Args:
        sequences: token ids, at least one of each behind the prompt; answer n is the n-th.
        prompt_lengths: at least 1 each.
        pad_id: fills the rows' ends; no token sees it.
        shared: False gives every answer a prompt of its own (for kernels that cannot share).
    """
    groups: dict[tuple[int, ...], list[int]] = {}
    for n, (ids, length) in enumerate(zip(sequences, prompt_lengths, strict=True)):
        groups.setdefault(tuple(ids[:length]) if shared else (n,), []).append(n)
    members = list(groups.values())
    packed = pack([tree_of([sequences[n] for n in group], prompt_lengths[group[0]]) for group in members], pad_id)
    return packed, branch_targets(packed, members)


def branch_targets(packed: Packed, numbers: Sequence[Sequence[int]]) -> Targets:
    """Every branch token of `packed` as a completion token; branch k of tree g belongs to answer ``numbers[g][k]``."""
    width = packed.input_ids.shape[1]
    source: list[int] = []
    spots: list[int] = []
    answer: list[int] = []
    for row, spans, mine in zip(packed.rows, packed.branch_spans, numbers, strict=True):
        before = spans[0][0] - 1  # the trunk's last token predicts the first of every branch
        for (start, end), number in zip(spans, mine, strict=True):
            source += [row * width + before, *range(row * width + start, row * width + end - 1)]
            spots += range(row * width + start, row * width + end)
            answer += [number] * (end - start)
    tokens = packed.input_ids.flatten()[torch.tensor(spots, dtype=torch.long)]
    return Targets(torch.tensor(source, dtype=torch.long), tokens, torch.tensor(answer, dtype=torch.long))


def layout_for(model: torch.nn.Module, asked: Layout = "shared") -> tuple[Layout, str | None]:
    """`launch.packing.layout_for` of a causal LM; "padded" if its head takes no states by themselves."""
    causal = causal_lm(model)
    if asked != "padded" and logit_scale(causal.config) is None:
        return "padded", f"{causal.config.model_type} changes its logits after the head"
    return packing.layout_for(causal.base_model, asked)


def completion_logprobs_naive(
    model: torch.nn.Module, input_ids: Tensor, attention_mask: Tensor, completion_mask: Tensor
) -> Tensor:
    """The same sums from full logits [B, T, V]; for reading and for tests."""
    logits = model(
        input_ids=input_ids, attention_mask=attention_mask, position_ids=positions(attention_mask), use_cache=False
    ).logits.float()
    logp = logits[:, :-1].log_softmax(-1).gather(-1, input_ids[:, 1:, None]).squeeze(-1)  # [B, T-1]
    return (logp * completion_mask[:, 1:]).sum(-1)


def positions(attention_mask: Tensor) -> Tensor:
    """Position of each real token counted from its row's first: int64 [B, T]; so padding moves nothing."""
    return (attention_mask.long().cumsum(-1) - 1).clamp(min=0)
