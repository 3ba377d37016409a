"""Typed options that recipes share. Every field says its unit; no heavy import, so the CLI reads it in no time."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

FREE_OPTIONS = frozenset({"save_steps", "keep_checkpoints", "log_steps", "eval_steps", "processes"})
"""Fields of TrainOptions that may change between a run and its continuation: they do not change what is computed."""


@dataclass
class RunOptions:
    """Where a run lives and what makes it repeatable."""

    folder: str = "runs/run"
    """Run folder. The same command on the same folder continues where it was stopped."""
    seed: int = 0
    """Seeds weights, data order and sampling."""
    fresh: bool = False
    """True refuses a folder that already holds a run instead of continuing it."""
    report_to: list[str] = field(default_factory=list)
    """Trackers of transformers: tensorboard, wandb, trackio … Metrics always go to metrics.jsonl too."""


@dataclass
class LoraOptions:
    """Low-rank adapters (peft)."""

    rank: int = 16
    alpha: int = 32
    dropout: float = 0.0
    target_modules: str | list[str] = "all-linear"
    """A list of module names, or "all-linear"."""


@dataclass
class TrainOptions:
    """How a model is fitted. One optimiser step sees batch_size x accumulation x processes examples."""

    learning_rate: float = 2e-6
    optimizer: Literal["adamw", "rmsprop", "sgd"] = "adamw"
    betas: tuple[float, float] = (0.9, 0.95)
    """AdamW's moment decays."""
    weight_decay: float = 0.0
    schedule: Literal["constant", "linear", "cosine"] = "cosine"
    warmup_ratio: float = 0.03
    """Share of all optimiser steps."""
    max_grad_norm: float = 1.0
    """0 switches clipping off."""
    epochs: float = 1.0
    max_steps: int = -1
    """Optimiser steps; -1 means: by epochs."""
    batch_size: int = 8
    """Examples per process and micro-step (a K-answer group is one example)."""
    accumulation: int = 1
    """Micro-steps per optimiser step."""
    processes: int = 0
    """World size this run must get; 0 accepts what it is launched with."""
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    sharding: Literal["none", "fsdp2", "zero2", "zero3"] = "none"
    """What must really be in force; a launch that does not give it stops."""
    gradient_checkpointing: bool = False
    lora: LoraOptions | None = None
    quantization: Literal["none", "4bit"] = "none"
    """4bit loads the base through bitsandbytes (GPU only) and needs `lora`."""
    save_steps: int = 100
    """Optimiser steps between checkpoints."""
    keep_checkpoints: int = 2
    log_steps: int = 10
    eval_steps: int = 0
    """Optimiser steps between evaluations; 0: only at the end."""


@dataclass
class GRPOOptions:
    """Group-relative policy optimisation. An example of `TrainOptions` is then a prompt with all its completions."""

    generations: int = 8
    """G, completions per prompt."""
    max_new_tokens: int = 1024
    temperature: float = 1.0
    beta: float = 0.01
    """Weight of the KL divergence from the first weights (k3); 0 keeps no second model in memory."""
    clip: float = 0.2
    """Bound on how far a token's probability ratio may leave 1."""
    rollouts: Literal["hf", "vllm"] = "hf"
    """Who samples: the model itself (exact resume), or a vLLM engine on the same GPU."""
    vllm_memory: float = 0.3
    """Share of a GPU's memory for the engine."""
