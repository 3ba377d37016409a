"""Loading language models, tokenizers and adapters, and making tiny random ones of the same architecture.

Safetensors only, and never code from a checkpoint.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from launch.errors import CheckpointError, ConfigError, LaunchError, RenderingError
from launch.options import LoraOptions

if TYPE_CHECKING:
    import torch
    from transformers import PretrainedConfig, PreTrainedModel

Precision = Literal["fp32", "bf16", "fp16"]


def load_extensions() -> None:
    """Register the project's own model types with AutoConfig and AutoModel (entry points ``arbiter.models``)."""
    for point in entry_points(group="arbiter.models"):
        point.load()()


def torch_dtype(precision: Precision) -> torch.dtype:
    import torch

    return {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]


def load_tokenizer(path: str | Path) -> Any:
    """A fast tokenizer that has an EOS and a PAD token.

    A missing PAD takes EOS's id: padding is masked everywhere here, so no score or loss can see it.
    """
    from transformers import AutoTokenizer

    tokenizer = _load(AutoTokenizer.from_pretrained, path, "tokenizer")
    if not tokenizer.is_fast:
        raise RenderingError(f"tokenizer of {path} is not a fast one; convert it with transformers' convert_slow")
    if tokenizer.eos_token_id is None:
        raise RenderingError(f"tokenizer of {path} has no EOS token; set eos_token in its tokenizer_config.json")
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def load_causal_lm(
    path: str | Path,
    precision: Precision = "fp32",
    quantization: Literal["none", "4bit"] = "none",
    attention: str | None = None,
) -> PreTrainedModel:
    """A causal language model with its head.

    Args:
        path: a local folder or a hub name.
        precision: dtype of the weights.
        quantization: "4bit" quantises the base through bitsandbytes; needs a CUDA device.
        attention: "sdpa", "eager", "flash_attention_2" …; None lets `attention_for` choose.
    """
    from transformers import AutoModelForCausalLM

    return _load_model(AutoModelForCausalLM, path, precision, quantization, attention)


def load_backbone(
    path: str | Path,
    precision: Precision = "fp32",
    quantization: Literal["none", "4bit"] = "none",
    attention: str | None = None,
) -> PreTrainedModel:
    """The same without a language-model head: hidden states only, causal or bidirectional."""
    from transformers import AutoModel

    load_extensions()
    return _load_model(AutoModel, path, precision, quantization, attention)


def _load_model(auto: Any, path: str | Path, precision: Precision, quantization: str, attention: str | None) -> Any:
    from transformers import AutoConfig

    config = _load(AutoConfig.from_pretrained, path, "model")
    extra: dict[str, Any] = {"attn_implementation": attention or attention_for(config)}
    if quantization == "4bit":
        extra["quantization_config"] = _four_bit(precision)
    # transformers reports dropped heads and, in the same breath, weights that it drew at random; the former is what was
    # asked for, the latter is never wanted here, so its report is replaced by a check.
    with _quiet():
        model, info = _load(
            auto.from_pretrained,
            path,
            "model",
            dtype=torch_dtype(precision),
            use_safetensors=True,
            output_loading_info=True,
            **extra,
        )
    missing = sorted(key for key in info["missing_keys"] if "pooler" not in key)  # BERT's, which nothing reads
    if missing:
        raise CheckpointError(
            f"{path} lacks {len(missing)} weights, such as {missing[0]}; it is not a whole checkpoint"
        )
    return model


@contextmanager
def _quiet() -> Iterator[None]:
    from transformers.utils import logging

    before = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(before)


def attention_for(config: PretrainedConfig) -> str | None:
    """Eager for Gemma-2, whose soft-capping plain SDPA drops without a word; None: the library's default."""
    return "eager" if getattr(config.get_text_config(), "attn_logit_softcapping", None) else None


def _four_bit(precision: Precision) -> Any:
    import torch

    if not torch.cuda.is_available():
        raise LaunchError("quantization: 4bit needs a CUDA device; use quantization: none here")
    from transformers import BitsAndBytesConfig

    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch_dtype(precision),
    )


def apply_lora(
    model: PreTrainedModel, options: LoraOptions, train_whole: tuple[str, ...] = (), seed: int = 0
) -> torch.nn.Module:
    """Freeze `model` and put low-rank adapters on it (peft).

    Args:
        model: the base.
        options: rank, alpha, dropout, target modules.
        train_whole: names of modules trained in full beside the adapters (a model's own heads).
        seed: draws the adapters' first weights, whatever was drawn before.
    """
    import torch
    from peft import get_peft_model

    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return get_peft_model(model, lora_config(options, train_whole))


def lora_config(options: LoraOptions, train_whole: tuple[str, ...] = ()) -> Any:
    """peft's LoraConfig for our options; see `apply_lora`."""
    from peft import LoraConfig

    return LoraConfig(
        r=options.rank,
        lora_alpha=options.alpha,
        lora_dropout=options.dropout,
        target_modules=options.target_modules,
        modules_to_save=list(train_whole) or None,
    )


def merge_lora(model: Any) -> Any:
    """The base model with its adapters folded into its weights."""
    return model.merge_and_unload()


def tiny_like(
    source: str | Path | PretrainedConfig,
    layers: int = 2,
    hidden: int = 64,
    vocab: int | None = None,
    seed: int = 0,
    auto: Any = None,
) -> PreTrainedModel:
    """A random-weight model of the same architecture, small enough for a test.

    Args:
        source: a folder with a config.json, or a config.
        layers: decoder layers.
        hidden: width; the head size becomes 32, the smallest that vLLM serves, so `hidden` is a multiple of 32.
        vocab: vocabulary; None keeps the source's.
        seed: draws the weights.
        auto: an Auto class of transformers; None means AutoModelForCausalLM.
    """
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, PretrainedConfig

    if hidden % 32:
        raise ConfigError(f"hidden {hidden} is not a multiple of the head size 32; use 32, 64 or 96")
    config = source if isinstance(source, PretrainedConfig) else _load(AutoConfig.from_pretrained, source, "model")
    shape = config.to_dict()
    heads = hidden // 32
    shape.update(hidden_size=hidden, num_hidden_layers=layers, intermediate_size=2 * hidden, num_attention_heads=heads)
    for name, value in {"num_key_value_heads": 1, "head_dim": 32, "vocab_size": vocab}.items():
        if name in shape and value is not None:
            shape[name] = value
    if shape.get("layer_types"):
        shape["layer_types"] = shape["layer_types"][:layers]
    tiny = type(config).from_dict(shape)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return (auto or AutoModelForCausalLM).from_config(tiny, attn_implementation=attention_for(tiny)).float()


def _load(loader: Any, path: str | Path, what: str, **extra: Any) -> Any:
    from safetensors import SafetensorError

    try:
        return loader(str(path), **extra)
    except (OSError, ValueError, SafetensorError) as error:
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise CheckpointError(f"cannot load the {what} at {str(path)!r}: {first}") from error
