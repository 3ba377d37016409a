"""The packing rule (`launch.packing`) in the form that each attention kernel takes.

| kernel | takes | what goes silently wrong otherwise |
|---|---|---|
| sdpa | bool [B, 1, N, N], true where a token may look | it drops Gemma-2's soft-capping, which is refused |
| eager | floats [B, 1, N, N], 0 or the dtype's minimum | a bool mask is added as 0 and 1 |
| flex_attention | a BlockMask of the rule itself | |
| flash_attention_2 | no mask: positions that start again mark sequences | a branch would not see its trunk: refused |

Sliding windows count positions, not columns: a branch that lies far behind its trunk still sees the trunk's end. Hybrid
decoders (Qwen, Gemma-2 and 3) take one mask for each type of layer.
"""

from __future__ import annotations

from typing import Any

import torch

from launch import segments
from launch.errors import LaunchError
from launch.models import attention_for

# How a decoder takes masks, as read in its source: one for all layers, or a dict by type of layer. A family is served
# when tests/launch/test_packing_families.py holds it equal to one sequence at a time.
_ONE_MASK = frozenset({"llama", "gemma", "mistral"})
_BY_LAYER = frozenset({"qwen2", "qwen3", "gemma2", "gemma3_text"})
FAMILIES = _ONE_MASK | _BY_LAYER
KERNELS = ("sdpa", "eager", "flex_attention", "flash_attention_2")


def unservable(config_or_model: Any, shared: bool = True) -> str | None:
    """One line why an architecture or its attention kernel cannot be packed, else None; see `launch.packing`."""
    config = _text_config(config_or_model)
    family, kernel = config.model_type, kernel_of(config)
    if family not in FAMILIES:
        return f"{family} is not among the packed families ({', '.join(sorted(FAMILIES))})"
    if not getattr(config, "is_causal", True) or getattr(config, "use_bidirectional_attention", False):
        return f"this {family} looks both ways, so a prompt's states depend on its answer"
    if kernel not in KERNELS:
        return f"attention kernel {kernel} takes no packing mask; use sdpa, eager or flex_attention"
    if kernel == "sdpa" and attention_for(config) == "eager":
        return f"sdpa drops the soft-capping of {family}; use eager or flex_attention"
    if kernel == "flash_attention_2" and shared:
        return "flash_attention_2 takes no mask, so prompts cannot be shared; use sdpa or flex_attention to share"
    scaled = {parameters.get("rope_type") for parameters in _rope(config)} & {"dynamic", "longrope"}
    if scaled:
        return f"rope type {scaled.pop()} of {family} changes with the longest text of a batch"
    return None


def check(backbone: Any, branch: torch.Tensor) -> None:
    """Raise LaunchError if `unservable` has something against these rows in this backbone."""
    shared = kernel_of(backbone) != "flash_attention_2" or bool((branch > 1).any())
    reason = unservable(backbone, shared)
    if reason is not None:
        raise LaunchError(f"cannot pack: {reason}")


def kernel_of(config_or_model: Any) -> str:
    """The attention kernel of a config; one that names none gets what `launch.models` would load it with."""
    config = _text_config(config_or_model)
    kernel = getattr(config, "_attn_implementation", None) or attention_for(config) or "sdpa"
    return "sdpa" if kernel == segments.KERNEL else kernel


def windows(config: Any) -> dict[str, int | None]:
    """Sliding window in tokens (None: all) of each type of layer that the decoder has."""
    if config.model_type in _ONE_MASK:
        return {"every": getattr(config, "sliding_window", None)}
    size = {"full_attention": None, "sliding_attention": config.sliding_window}
    return {kind: size[kind] for kind in sorted(set(config.layer_types))}


def allowed(
    position_ids: torch.Tensor, tree: torch.Tensor, branch: torch.Tensor, window: int | None = None
) -> torch.Tensor:
    """The rule as a bool mask [B, 1, N, N], query by key. Padding sees itself, so that no row of it is empty."""
    distance = position_ids[:, :, None] - position_ids[:, None, :]
    see = (tree[:, :, None] == tree[:, None, :]) & (distance >= 0)
    see &= (branch[:, None, :] == 0) | (branch[:, :, None] == branch[:, None, :])
    if window is not None:
        see &= distance < window
    see &= (tree >= 0)[:, :, None]
    see |= torch.eye(tree.shape[1], dtype=torch.bool, device=tree.device)
    return see[:, None]


def additive(mask: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """A bool mask as the floats that eager attention adds to its scores."""
    return torch.zeros(mask.shape, dtype=dtype, device=mask.device).masked_fill_(~mask, torch.finfo(dtype).min)


def block_mask(position_ids: torch.Tensor, tree: torch.Tensor, branch: torch.Tensor, window: int | None = None) -> Any:
    """The rule as FlexAttention's BlockMask, which skips the blocks of tokens that nothing may see."""
    from torch.nn.attention.flex_attention import create_block_mask

    def rule(b: Any, h: Any, q: Any, k: Any) -> Any:
        distance = position_ids[b, q] - position_ids[b, k]
        see = (tree[b, q] == tree[b, k]) & (tree[b, q] >= 0) & (distance >= 0)
        see = see & ((branch[b, k] == 0) | (branch[b, k] == branch[b, q]))
        if window is not None:
            see = see & (distance < window)
        return see | (q == k)

    rows, columns = tree.shape
    return create_block_mask(
        rule, B=rows, H=None, Q_LEN=columns, KV_LEN=columns, device=tree.device, _compile=tree.is_cuda
    )


def of_kernel(backbone: Any, position_ids: torch.Tensor, tree: torch.Tensor, branch: torch.Tensor) -> Any:
    """What a decoder takes as `attention_mask`: one mask, or a dict of them by type of layer."""
    config, kernel = _text_config(backbone), kernel_of(backbone)

    def made(window: int | None) -> Any:
        if kernel == "flex_attention":
            return block_mask(position_ids, tree, branch, window)
        mask = allowed(position_ids, tree, branch, window)
        return mask if kernel == "sdpa" else additive(mask, backbone.get_input_embeddings().weight.dtype)

    masks = {kind: made(window) for kind, window in windows(config).items()}
    return masks["every"] if config.model_type in _ONE_MASK else masks


def _text_config(config_or_model: Any) -> Any:
    return getattr(config_or_model, "config", config_or_model).get_text_config()


def _rope(config: Any) -> list[dict[str, Any]]:
    """A decoder's rotary parameters, one set or one for each type of layer."""
    found = getattr(config, "rope_parameters", None) or {}
    return [v for v in found.values() if isinstance(v, dict)] or [found]
