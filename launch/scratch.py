"""Small language models made on the spot: what the embedded worlds start from, without a hub.

A model learns demonstrations from scratch and is cached under the content it was made from, so that a second run, or
another configuration of what comes after, does not train it again. A kill in the middle costs at most
``train.save_steps`` steps: the cache entry is a run folder like any other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from launch.options import TrainOptions
from launch.runfolder import RunFolder, content_hash

HEAD = 32
"""Size of an attention head; vLLM's CPU attention takes no smaller one."""


def small_model(
    name: str,
    tokenizer: Any,
    rows: Sequence[dict[str, str]],
    *,
    hidden_size: int,
    layers: int,
    length: int,
    train: TrainOptions,
    cache: str | Path,
    seed: int,
    initializer_range: float = 0.02,
) -> Path:
    """Folder of a small Llama that has learnt `rows`, trained now or found in the cache.

    Args:
        name: begins the name of its folder in `cache`.
        tokenizer: its fast tokenizer.
        rows: "prompt" and "response".
        hidden_size: a multiple of `HEAD`.
        length: positions, and the most tokens of a row.
        seed: of the first weights and of the training.
        initializer_range: standard deviation of the first weights.
    """
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from launch import runtime
    from launch.rendering import Renderer
    from launch.supervised import SupervisedObjective, encode_rows
    from launch.trainer import fit

    key = {
        "model": [hidden_size, layers, length, initializer_range],
        "train": asdict(train),
        "rows": content_hash(rows),
        "vocabulary": tokenizer.get_vocab(),
        "seed": seed,
    }
    if runtime.world_size() > 1:  # each process adds a batch of its own to a step: another model comes out
        key["processes"] = runtime.world_size()
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=hidden_size,
        num_hidden_layers=layers,
        num_attention_heads=hidden_size // HEAD,
        num_key_value_heads=hidden_size // HEAD,
        head_dim=HEAD,
        intermediate_size=hidden_size * 8 // 3,
        max_position_embeddings=length,
        initializer_range=initializer_range,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        tie_word_embeddings=False,
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = LlamaForCausalLM(config)
    result = fit(
        model,
        SupervisedObjective(tokenizer.pad_token_id),
        encode_rows(rows, Renderer(tokenizer, length)),
        options=train,
        run=RunFolder(Path(cache) / f"{name}-{content_hash(key)[:16]}"),
        name="supervised",
        seed=seed,
        tokenizer=tokenizer,
    )
    return result.folder
