"""What a run will cost before it starts: memory, tokens, FLOPs, time. The arithmetic behind ``--dry-run``.

Counting, not measuring; the formulas are the usual ones (per process, N parameters, L layers, width d, T tokens a
sequence, attention width a = heads x head size):

    weights        4 N_trained + b N_frozen bytes     trained weights and their optimiser state are kept in fp32
    cast copy      2 N_trained                        autocast's low-precision weights, in bf16 and fp16
    gradients      4 N_trained
    optimiser      8 N_trained (AdamW), 4 (RMSprop), 0 (SGD)
    activations    b per stored number; a layer stores about 4 d + 2 a + 2 kv + (4 mlp if gated, else 2 mlp) a token;
                   with gradient checkpointing L d, and one whole layer
    logits         3 fp32 copies of [chunk, vocabulary]: the head runs over `chunk` completion tokens at a time
    FLOPs a token  6 N (8 N with checkpointing; 4 N and 6 N under LoRA, whose frozen weights get no gradient)
                   + 6 L a T for causal attention, twice that when it is not causal; N without embeddings, with the head
                   where it is used

ZeRO and FSDP divide gradients, optimiser state and (FSDP2, ZeRO-3) weights by the processes. Left out: fragmentation,
the CUDA context (about 0.5 GB), activations of attention masks and dropout, and communication. Expect the truth
within about a third; if it must fit, leave that much room.
"""

from __future__ import annotations

import dataclasses
import os
import time
from dataclasses import dataclass, field
from pathlib import Path

from launch.config import Loaded, dump
from launch.errors import CheckpointError, ConfigError
from launch.options import TrainOptions

GB = 1e9
LOGIT_CHUNK = 1024
PEAK_H100_BF16 = 989e12
"""FLOP/s, dense; 40 % of it is what good training code reaches."""
_STATE = {"adamw": 8.0, "rmsprop": 4.0, "sgd": 0.0}
_WIDTH = {"fp32": 4.0, "bf16": 2.0, "fp16": 2.0}


@dataclass(frozen=True)
class ModelShape:
    """A transformer as far as its cost goes."""

    layers: int
    width: int
    heads: int
    kv_heads: int
    head_size: int
    mlp: int
    vocabulary: int
    tied: bool = False
    """Whether the head shares the embedding's weights."""
    gated: bool = True
    """A gated MLP has three matrices, a plain one two."""
    norms: int = 2
    """Weight vectors of width d per layer (Gemma-2 has four)."""
    qkv_bias: bool = False
    causal: bool = True
    counted: int | None = None
    """Parameters without the head, counted from the model itself where the formula does not know its kind."""

    @property
    def attention(self) -> int:
        return self.heads * self.head_size

    @property
    def kv(self) -> int:
        return self.kv_heads * self.head_size

    @property
    def layer_parameters(self) -> int:
        projections = 2 * self.width * (self.attention + self.kv)
        bias = self.attention + 2 * self.kv if self.qkv_bias else 0
        return projections + bias + (3 if self.gated else 2) * self.width * self.mlp + self.norms * self.width

    @property
    def body(self) -> int:
        """Parameters without the vocabulary head: what a preference model keeps."""
        if self.counted is not None:
            return self.counted
        return self.vocabulary * self.width + self.layers * self.layer_parameters + self.width

    @property
    def parameters(self) -> int:
        """All parameters, a tied head counted once."""
        return self.body + (0 if self.tied else self.vocabulary * self.width)

    def matmul_parameters(self, head: bool) -> int:
        """Parameters that a token is multiplied with; `head`: the vocabulary projection too."""
        return self.layers * self.layer_parameters + (self.vocabulary * self.width if head else 0)

    def lora_parameters(self, rank: int) -> int:
        """Adapters of `rank` on every linear layer but the head."""
        d, a, kv, m = self.width, self.attention, self.kv, self.mlp
        return self.layers * rank * (2 * (d + a) + 2 * (d + kv) + (3 if self.gated else 2) * (d + m))


HUB_SHAPES = {
    "google/gemma-2b-it": ModelShape(18, 2048, 8, 1, 256, 16384, 256000, tied=True),
    "google/gemma-2-9b-it": ModelShape(42, 3584, 16, 8, 256, 14336, 256000, tied=True, norms=4),
    "meta-llama/Llama-3.1-8B-Instruct": ModelShape(32, 4096, 32, 8, 128, 14336, 128256),
    "Qwen/Qwen2.5-7B-Instruct": ModelShape(28, 3584, 28, 4, 128, 18944, 152064, qkv_bias=True),
}
"""Shapes of hub models that the shipped configs name, so that a dry run needs no network."""


def model_shape(name: str | Path) -> ModelShape:
    """The shape of a known hub model or of a local folder (its config.json; parameters counted without allocating).

    Raises:
        CheckpointError: neither.
    """
    if str(name) in HUB_SHAPES:
        return HUB_SHAPES[str(name)]
    folder = Path(name)
    if not (folder / "config.json").is_file():
        known = ", ".join(HUB_SHAPES)
        raise CheckpointError(f"no shape for {str(name)!r}: no folder with a config.json, and none of {known}")
    import torch
    from transformers import AutoConfig, AutoModel

    from launch.models import load_extensions

    load_extensions()
    config = AutoConfig.from_pretrained(folder)
    text = config.get_text_config()
    with torch.device("meta"):
        body = sum(p.numel() for p in AutoModel.from_config(config).parameters())
    generates = any("CausalLM" in kind for kind in config.architectures or ())
    heads = text.num_attention_heads
    return ModelShape(
        layers=text.num_hidden_layers,
        width=text.hidden_size,
        heads=heads,
        kv_heads=getattr(text, "num_key_value_heads", None) or heads,
        head_size=getattr(text, "head_dim", None) or text.hidden_size // heads,
        mlp=getattr(text, "intermediate_size", None) or 4 * text.hidden_size,
        vocabulary=text.vocab_size,
        tied=not generates or bool(getattr(config, "tie_word_embeddings", False)),  # an encoder has no head at all
        gated=text.model_type not in _PLAIN_MLP,
        causal=generates or getattr(text, "is_decoder", True),
        counted=body,
    )


_PLAIN_MLP = {"bert", "roberta", "distilbert", "gpt2", "gpt_neox", "opt", "phi", "xlm-roberta", "mpnet"}


# ---------------------------------------------------------------- formulas


@dataclass(frozen=True)
class Memory:
    """Bytes per process."""

    weights: float
    gradients: float
    optimizer: float
    activations: float
    logits: float

    @property
    def total(self) -> float:
        return sum(dataclasses.astuple(self))


def training_memory(
    shape: ModelShape, options: TrainOptions, sequences: int, length: int, head: bool = True, processes: int = 1
) -> Memory:
    """Bytes per process of one micro-step over `sequences` sequences of `length` tokens.

    Args:
        shape: of the model trained.
        options: precision, optimiser, LoRA, quantisation, checkpointing and sharding are read.
        sequences: in a micro-step of one process.
        length: tokens each; the longest allowed gives the peak.
        head: a language model's head is used (a preference model has none).
        processes: world size, over which sharded parts are divided.
    """
    wide = _WIDTH[options.precision]
    trained, frozen = float(shape.parameters if head else shape.body), 0.0
    if options.lora is not None:
        trained, frozen = float(shape.lora_parameters(options.lora.rank)), trained
    frozen_width = 0.56 if options.quantization == "4bit" else wide  # 4 bits, and scales per 64 weights
    copy = 0.0 if options.precision == "fp32" else 2.0
    whole = options.sharding in ("none", "zero2")  # every process holds all weights
    divide_state = 1 if options.sharding == "none" else processes
    weights = ((4 + copy) * trained + frozen_width * frozen) / (1 if whole else processes)
    tokens = sequences * length
    layer = 4 * shape.width + 2 * shape.attention + 2 * shape.kv + (4 if shape.gated else 2) * shape.mlp
    stored = shape.layers * shape.width + layer if options.gradient_checkpointing else shape.layers * layer
    return Memory(
        weights=weights,
        gradients=4 * trained / divide_state,
        optimizer=_STATE[options.optimizer] * trained / divide_state,
        activations=tokens * stored * wide,
        logits=3 * 4.0 * min(tokens, LOGIT_CHUNK) * shape.vocabulary if head else 0.0,
    )


def training_flops(shape: ModelShape, options: TrainOptions, tokens: float, length: int, head: bool = True) -> float:
    """FLOPs of forward and backward over `tokens` tokens in sequences of `length`."""
    forwards = 3.0 - (1.0 if options.lora is not None else 0.0) + (1.0 if options.gradient_checkpointing else 0.0)
    attention = (3 + options.gradient_checkpointing) * attention_flops(shape, length)
    return tokens * (2 * forwards * shape.matmul_parameters(head) + attention)


def forward_flops(shape: ModelShape, tokens: float, length: int, head: bool = True) -> float:
    """FLOPs of a forward pass alone: scoring, reference log-probabilities, prefill; decoding costs the same."""
    return tokens * (2 * shape.matmul_parameters(head) + attention_flops(shape, length))


def attention_flops(shape: ModelShape, length: int) -> float:
    """FLOPs a token and forward of the two products with the keys and values, half of them if causal."""
    return 4 * shape.layers * shape.attention * length * (0.5 if shape.causal else 1.0)


# ---------------------------------------------------------------- what a dry run prints


@dataclass
class Estimate:
    """What a recipe's ``estimate(config)`` returns: lines of (what, amount as text, how it comes about)."""

    lines: list[tuple[str, str, str]] = field(default_factory=list)
    flops: float = 0.0
    """Of the whole run, all processes."""

    def add(self, what: str, amount: str, how: str = "") -> None:
        self.lines.append((what, amount, how))

    def training(
        self,
        name: str,
        model: str | Path,
        options: TrainOptions,
        length: int,
        sequences: int = 1,
        examples: int | None = None,
        head: bool = True,
    ) -> None:
        """Add a fit of `model` on examples of `sequences` sequences of at most `length` tokens.

        `examples` is the size of the training set; None when it is known only once the data are read, and then
        tokens and FLOPs are those of `options.max_steps`, or of one step.
        """
        shape = model_shape(model)
        world = options.processes or int(os.environ.get("WORLD_SIZE", "1"))
        memory = training_memory(shape, options, options.batch_size * sequences, length, head, world)
        size = shape.parameters if head else shape.body
        self.add(f"{name}: model", f"{_count(size)} parameters", str(model))
        if options.lora is not None:
            share = shape.lora_parameters(options.lora.rank)
            self.add(f"{name}: trained", f"{_count(share)} parameters", f"LoRA rank {options.lora.rank}")
        for part, size in dataclasses.asdict(memory).items():
            self.add(f"{name}: {part}", _bytes(size), _HOW[part])
        self.add(f"{name}: memory", _bytes(memory.total), f"each of {world} process(es), {options.sharding} sharding")
        per_step = options.batch_size * options.accumulation * world
        steps, how = _steps(options, examples, per_step)
        tokens = steps * per_step * sequences * length
        flops = training_flops(shape, options, tokens, length, head)
        self.flops += flops
        self.add(f"{name}: steps", str(steps), how)
        self.add(f"{name}: tokens", _count(tokens), f"at most: {per_step} x {sequences} sequences x {length} a step")
        self.add(f"{name}: compute", f"{flops:.3g} FLOPs", "forward and backward")

    def forward(self, name: str, model: str | Path, tokens: float, length: int, head: bool = True) -> None:
        """Add `tokens` tokens that go through `model` once: sampling, scoring, reference log-probabilities."""
        flops = forward_flops(model_shape(model), tokens, length, head)
        self.flops += flops
        self.add(f"{name}: tokens", _count(tokens), "at most")
        self.add(f"{name}: compute", f"{flops:.3g} FLOPs", "forward")

    def add_time(self, processes: int = 1) -> None:
        """Add how long `flops` take here (speed measured now) and on one H100."""
        speed, device = measured_speed()
        self.add("time here", _duration(self.flops / (0.7 * speed * processes)), f"{device}, 70 % of its matmul speed")
        how = f"{PEAK_H100_BF16 / 1e12:.0f} TFLOP/s bf16 at 40 %"
        self.add("time on one H100", _duration(self.flops / (0.4 * PEAK_H100_BF16)), how)

    def text(self) -> str:
        """Aligned lines."""
        wide = max((len(what) for what, _, _ in self.lines), default=0)
        long = max((len(amount) for _, amount, _ in self.lines), default=0)
        return "\n".join(f"{what:<{wide}}  {amount:>{long}}  {how}".rstrip() for what, amount, how in self.lines)


def dry_run(loaded: Loaded) -> str:
    """The resolved config and the recipe's estimate; a recipe without ``estimate`` gets the config alone."""
    parts = [dump(loaded.resolved)]
    estimate = getattr(loaded.recipe, "estimate", None)
    if estimate is None:
        parts.append(f"# {loaded.recipe.__name__} makes no estimate of its cost\n")
    else:
        predicted: Estimate = estimate(loaded.config)
        train = getattr(loaded.config, "train", None)
        predicted.add_time(max(1, getattr(train, "processes", 1)))
        parts.append("\n".join(f"# {line}" for line in predicted.text().splitlines()) + "\n")
    return "\n".join(parts)


def measured_speed(seconds: float = 0.3) -> tuple[float, str]:
    """FLOP/s of a matrix product on this machine's device, measured for about `seconds`, and the device's name."""
    import torch

    cuda = torch.cuda.is_available()
    n, device = (4096, torch.device("cuda")) if cuda else (768, torch.device("cpu"))
    a = torch.ones((n, n), device=device, dtype=torch.bfloat16 if cuda else torch.float32)
    (a @ a).sum().item()
    done, start = 0, time.perf_counter()
    while time.perf_counter() - start < seconds:
        (a @ a)[0, 0].item()
        done += 1
    speed = done * 2 * n**3 / (time.perf_counter() - start)
    name = torch.cuda.get_device_name() if cuda else f"CPU, {torch.get_num_threads()} thread(s)"
    return speed, f"{name}: {speed / 1e9:,.0f} GFLOP/s"


_HOW = {
    "weights": "trained in fp32 with a low-precision copy, frozen as loaded",
    "gradients": "4 bytes a trained parameter",
    "optimizer": "8 bytes a trained parameter (AdamW), 4 (RMSprop), 0 (SGD)",
    "activations": "longest sequences; gradient checkpointing lowers it",
    "logits": f"3 fp32 copies of a {LOGIT_CHUNK}-token chunk",
}


def _steps(options: TrainOptions, examples: int | None, per_step: int) -> tuple[int, str]:
    if options.max_steps > 0:
        return options.max_steps, "train.max_steps"
    if examples is None:
        return 1, "one optimiser step; the data say how many"
    if per_step < 1:
        raise ConfigError("train.batch_size and train.accumulation must be 1 or more", field="train.batch_size")
    return max(1, round(examples * options.epochs / per_step)), f"{examples} examples x {options.epochs:g} epochs"


def _bytes(size: float) -> str:
    return f"{size / GB:.2f} GB" if size >= 0.01 * GB else f"{size / 1e6:.2f} MB"


def _count(number: float) -> str:
    for unit, factor in (("T", 1e12), ("B", 1e9), ("M", 1e6), ("k", 1e3)):
        if number >= factor:
            return f"{number / factor:.3g} {unit}"
    return f"{number:.0f}"


def _duration(seconds: float) -> str:
    for unit, size in (("days", 86400), ("h", 3600), ("min", 60)):
        if seconds >= size:
            return f"{seconds / size:.2g} {unit}" if seconds < 100 * size else f"{seconds / size:.0f} {unit}"
    return f"{seconds:.2g} s"
