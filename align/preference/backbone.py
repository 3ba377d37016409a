"""What must be known of a backbone: where its state is read, how its positions count, what ends its texts."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedConfig

from align.preference.config import Pooling
from launch.errors import CheckpointError, ConfigError, RenderingError


def pooling_of(config: PreTrainedConfig) -> Pooling:
    """ "last" for a causal backbone, "mean" for a bidirectional one.

    Raises:
        ConfigError: an encoder-decoder, or an architecture known as neither.
    """
    from transformers.models.auto.modeling_auto import (
        MODEL_FOR_CAUSAL_LM_MAPPING_NAMES as CAUSAL,
    )
    from transformers.models.auto.modeling_auto import (
        MODEL_FOR_MASKED_LM_MAPPING_NAMES as MASKED,
    )

    name = config.model_type
    if not config.is_encoder_decoder:
        # BERT and its kin are in both lists, as decoders in the causal one.
        if name in MASKED and not getattr(config, "is_decoder", False):
            return "mean"
        if name in CAUSAL:
            return "last"
    raise ConfigError(
        f"backbone {name!r} is no causal or bidirectional encoder; pass pooling='last' or 'mean'", "pooling"
    )


def positions_of(backbone: torch.nn.Module) -> tuple[int, bool]:
    """What to add to positions counted from 0, and whether the backbone takes them at all.

    RoBERTa's kin start after their padding index, and would otherwise derive positions from the pad id.
    """
    takes = "position_ids" in inspect.signature(backbone.forward).parameters
    for name, module in backbone.named_modules():
        if name.endswith("position_embeddings") and getattr(module, "padding_idx", None) is not None:
            return module.padding_idx + 1, takes
    return 0, takes


def backbone_tokenizer(path: str | Path) -> Any:
    """The backbone's tokenizer; BERT's kin end and start a text with their own SEP and CLS."""
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(str(path))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"cannot load the tokenizer at {str(path)!r}: {str(error).splitlines()[0]}") from error
    if tokenizer.eos_token_id is None and tokenizer.sep_token_id is not None:
        tokenizer.eos_token, tokenizer.bos_token = tokenizer.sep_token, tokenizer.cls_token
    elif tokenizer.eos_token_id is None:
        raise RenderingError(f"tokenizer of {path} has no EOS or SEP token; set eos_token in its tokenizer_config.json")
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer
