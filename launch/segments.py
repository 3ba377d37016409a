"""Attention over packed rows without an [N, N] mask: trunk and branches of a tree as attention calls of their own.

A dense mask computes every pair of a row's tokens and throws away those that may not see each other; between K answers
that is most of them. Here each *segment*, a trunk or a branch, attends to its own tokens and to its trunk's:

    trunk    softmax(q_t k_t^T + causal) v_t                       P^2 / 2 pairs (the kernel's own causal mode)
    branch   softmax(q_b [k_t; k_b]^T + causal) [v_t; v_b]         R (P + R) pairs

Positions in such a key sequence are contiguous, so that a sliding window is a band of it. The rows themselves no longer
matter: all real tokens of a batch run as one row, without padding.

Where a caller says which states it reads (a preference model: one for each answer and prompt), the last layer makes
queries and the feed-forward part for those tokens only; its keys and values are still of all. That is a saving of about
1 / layers, exact like the rest.

It enters a decoder as an attention kernel of transformers' registry, `KERNEL`. Called without segments it is plain
sdpa, so that a backbone that has been switched to it works everywhere as before.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.nn.functional import scaled_dot_product_attention

from launch.errors import DataError

KERNEL = "sdpa_by_segment"


@dataclass
class Segments:
    """The M real tokens of packed rows, row by row, as S runs of one trunk or one branch each."""

    lengths: list[int]
    """Tokens of each run; they sum to M."""
    trunks: list[int | None]
    """Per run, the run of the trunk it continues; None for trunks and for branches without one."""
    tokens: torch.Tensor
    """int64 [M]: where each token lies in the flattened rows [B * N]."""
    read: torch.Tensor | None = None
    """int64 [m], ascending: which of the M tokens the last layer is needed at; None: all."""
    read_in: list[torch.Tensor] = field(default_factory=list)
    """Per run, those of them that lie in it, counted from its start."""
    last_layer: int | None = None
    """The layer that works at `read` only; None: no layer does."""
    masks: dict[tuple[int, int, int | None], torch.Tensor | None] = field(default_factory=dict)
    """Masks made so far; layers of one pass share them."""

    @classmethod
    def of(cls, tree: torch.Tensor, branch: torch.Tensor) -> Segments:
        """From `tree` and `branch` [B, N] as packed rows carry them.

        Raises:
            DataError: columns of a trunk or a branch do not lie together.
        """
        rows = torch.arange(len(tree), device=tree.device)[:, None].expand_as(tree)
        kinds = torch.stack((rows, tree, branch), -1).reshape(-1, 3)  # int64 [B * N, 3]
        tokens = (kinds[:, 1] >= 0).nonzero().flatten()
        runs, counts = torch.unique_consecutive(kinds[tokens], dim=0, return_counts=True)
        found = [tuple(run) for run in runs.tolist()]
        if len(set(found)) < len(found):
            raise DataError("columns of one trunk or branch lie apart in a row; pack rows with launch.packing.pack")
        number = {run: n for n, run in enumerate(found)}
        trunks = [number.get((row, one, 0)) if k else None for row, one, k in found]
        return cls(counts.tolist(), trunks, tokens)

    def reading(self, places: torch.Tensor) -> None:
        """Only these places of the flattened rows [B * N] are read: real tokens, in any order, repeated or not."""
        self.read = torch.searchsorted(self.tokens, places.unique())
        ends = torch.tensor(self.lengths, device=places.device).cumsum(0)
        counts = torch.bincount(torch.bucketize(self.read, ends, right=True), minlength=len(self.lengths)).tolist()
        starts = (ends - torch.tensor(self.lengths, device=places.device)).tolist()
        parts = self.read.split(counts)
        self.read_in = [part - start for part, start in zip(parts, starts, strict=True)]

    def mask(self, before: int, length: int, window: int | None, device: torch.device) -> torch.Tensor | None:
        """bool [length, before + length] for queries behind `before` keys of a trunk; None where all keys are seen or
        the kernel's causal mode says the same."""
        if window is not None and window >= before + length:
            window = None
        if window is None and (before == 0 or length == 1):
            return None
        made = (before, length, window)
        if made not in self.masks:
            self.masks[made] = _band(torch.arange(length, device=device), before, length, window)
        return self.masks[made]


def _band(queries: torch.Tensor, before: int, length: int, window: int | None) -> torch.Tensor:
    """bool [len(queries), before + length]: what these tokens of a segment see of its trunk and of itself."""
    distance = before + queries[:, None] - torch.arange(before + length, device=queries.device)
    return (distance >= 0) if window is None else (distance >= 0) & (distance < window)


def attention(
    module: torch.nn.Module,
    query: torch.Tensor,  # [1, H, M, D]
    key: torch.Tensor,  # [1, H_kv, M, D]
    value: torch.Tensor,
    attention_mask: Any,
    tree_segments: Segments | None = None,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """transformers' signature; with segments `attention_mask` is not looked at. Returns [1, M, H, D]."""
    from transformers.integrations.sdpa_attention import repeat_kv, sdpa_attention_forward

    if tree_segments is None:
        return sdpa_attention_forward(module, query, key, value, attention_mask, **kwargs)
    s, window = tree_segments, kwargs.get("sliding_window")
    some = s.read if s.last_layer is not None and s.last_layer == module.layer_idx else None
    repeat = query.shape[1] // key.shape[1]
    queries = query.split(s.lengths, dim=2)
    keys = repeat_kv(key, repeat).split(s.lengths, dim=2)
    values = repeat_kv(value, repeat).split(s.lengths, dim=2)
    out = []
    for run, (trunk, length) in enumerate(zip(s.trunks, s.lengths, strict=True)):
        before = 0 if trunk is None else s.lengths[trunk]
        q = queries[run]
        if some is None:
            mask = s.mask(before, length, window, query.device)
        elif len(s.read_in[run]):
            q, mask = q[:, :, s.read_in[run]], _band(s.read_in[run], before, length, window)
        else:
            continue
        made = scaled_dot_product_attention(
            q,
            keys[run] if trunk is None else torch.cat((keys[trunk], keys[run]), 2),
            values[run] if trunk is None else torch.cat((values[trunk], values[run]), 2),
            attn_mask=mask,
            dropout_p=kwargs.get("dropout", 0.0),
            is_causal=mask is None and before == 0,
            scale=kwargs.get("scaling"),
        )
        out.append(made.transpose(1, 2))  # [1, R, H, D]
    joined = torch.cat(out, 1)
    return (joined if some is None else _spread(joined, some, query.shape[2])).contiguous(), None


def _spread(found: torch.Tensor, places: torch.Tensor, size: int) -> torch.Tensor:
    """[1, m, …] into zeros of [1, size, …]."""
    return found.new_zeros(1, size, *found.shape[2:]).index_copy(1, places, found)


@contextmanager
def _last_layer_where_read(layer: Any, segments: Segments) -> Iterator[None]:
    """The last layer's queries, output projection and feed-forward part at `read` only, and zeros elsewhere."""
    places, size = segments.read, len(segments.tokens)
    # Checkpointing runs the layer again in the backward pass, when the hooks are gone.
    if places is None or (getattr(layer, "gradient_checkpointing", False) and layer.training):
        yield
        return

    def take(_: Any, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        return (inputs[0][:, places], *inputs[1:])

    def give(_: Any, inputs: tuple[Any, ...], output: torch.Tensor) -> torch.Tensor:
        return _spread(output, places, size)

    with ExitStack() as stack:
        segments.last_layer = layer.self_attn.layer_idx
        for part in (layer.self_attn.q_proj, layer.self_attn.o_proj, layer.mlp):
            stack.callback(part.register_forward_pre_hook(take).remove)
            stack.callback(part.register_forward_hook(give).remove)
        yield


def register() -> None:
    """Make transformers know the kernel, with sdpa's own masks for calls without segments."""
    from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS, sdpa_mask
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    if KERNEL not in ALL_ATTENTION_FUNCTIONS:
        ALL_ATTENTION_FUNCTIONS.register(KERNEL, attention)
        ALL_MASK_ATTENTION_FUNCTIONS.register(KERNEL, sdpa_mask)


def hidden_states(
    backbone: Any, input_ids: torch.Tensor, position_ids: torch.Tensor, segments: Segments
) -> torch.Tensor:
    """`launch.packing.hidden_states` by segments, for a backbone under sdpa, which is switched to `KERNEL` for good.

    (For good, because gradient checkpointing runs the layers again in the backward pass.)
    """
    register()
    inner = backbone.get_base_model() if hasattr(backbone, "get_base_model") else backbone
    config = inner.config.get_text_config()
    if config._attn_implementation != KERNEL:
        config._attn_implementation = KERNEL
    # A decoder takes a mask of four dimensions as it is, and would build one of [M, M] itself if there were none.
    unused = torch.ones((1, 1, 1, 1), dtype=torch.bool, device=input_ids.device)
    kinds = set(getattr(config, "layer_types", None) or ())
    with _last_layer_where_read(inner.layers[-1], segments):
        found = backbone(
            input_ids=input_ids.reshape(1, -1)[:, segments.tokens],
            position_ids=position_ids.reshape(1, -1)[:, segments.tokens],
            attention_mask=dict.fromkeys(kinds, unused) if kinds else unused,
            use_cache=False,
            tree_segments=segments,
        ).last_hidden_state[0]
    rows = found.new_zeros(input_ids.numel(), found.shape[-1]).index_copy(0, segments.tokens, found)
    return rows.reshape(*input_ids.shape, -1)
