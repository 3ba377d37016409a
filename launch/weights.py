"""Model weights to and from a plain Hugging Face folder (safetensors), whatever kind of model it is.

Four kinds: a peft model (adapters, and the base beside them when nothing else holds it), a transformers model, any
object with its own ``save_pretrained``/``from_pretrained``, and a bare ``nn.Module``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn

from launch.errors import CheckpointError

WEIGHTS = "model.safetensors"
BASE = "base"


def is_adapted(model: Any) -> bool:
    """True for a peft model."""
    return hasattr(model, "peft_config") and hasattr(model, "get_base_model")


def save_weights(
    model: Any, folder: Path, state: dict[str, torch.Tensor] | None = None, with_base: bool = True
) -> None:
    """Write `model` into `folder`.

    Args:
        model: the model, unwrapped.
        folder: exists.
        state: whole weights by the model's own names, when its parameters are shards; None takes the model's.
        with_base: adapters: also keep a base that no folder or hub name holds.
    """
    from transformers import PreTrainedModel
    from transformers.utils import logging

    logging.disable_progress_bar()  # of shards: one line a checkpoint would tear the trainer's own bar
    if is_adapted(model):
        model.save_pretrained(folder, state_dict=state, save_embedding_layers=False)
        if with_base:
            _save_base(model, folder, state)
    elif isinstance(model, PreTrainedModel):
        model.save_pretrained(folder) if state is None else model.save_pretrained(
            folder, state_dict=untied(model, state)
        )
    elif state is None and hasattr(model, "save_pretrained"):
        model.save_pretrained(folder)
    else:
        from safetensors.torch import save_file, save_model

        if state is None:
            save_model(model, str(folder / WEIGHTS))
        else:
            save_file({k: v.contiguous() for k, v in untied(model, state).items()}, str(folder / WEIGHTS))


def load_weights(model: Any, folder: Path) -> None:
    """Copy the weights of `folder` into `model`, in place and exactly.

    Raises:
        CheckpointError: the folder holds other weights than the model has.
    """
    from transformers import PreTrainedModel

    try:
        if is_adapted(model):
            from peft.utils import load_peft_weights, set_peft_model_state_dict

            device = str(next(model.parameters()).device)
            result: Any = set_peft_model_state_dict(model, load_peft_weights(str(folder), device=device))
            if result.unexpected_keys:
                raise CheckpointError(f"{folder}: adapter weights that the model lacks: {result.unexpected_keys[0]} …")
        elif isinstance(model, PreTrainedModel) or hasattr(type(model), "from_pretrained"):
            from transformers.utils import logging

            logging.disable_progress_bar()
            extra = {"dtype": "auto"} if isinstance(model, PreTrainedModel) else {}
            saved = type(model).from_pretrained(folder, **extra)
            model.load_state_dict(saved.state_dict())
        else:
            from safetensors.torch import load_model

            load_model(model, str(folder / WEIGHTS))
    except (RuntimeError, OSError, ValueError) as error:
        raise CheckpointError(
            f"{folder}: weights do not fit the model: {str(error).strip().splitlines()[0]}"
        ) from error


def untied(model: nn.Module, state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """`state` without the second names of tied weights: gathered shards no longer share their memory."""
    second = {name for name, _ in model.named_parameters(remove_duplicate=False)}
    second -= {name for name, _ in model.named_parameters()}
    return {name: value for name, value in state.items() if name not in second}


def own_names(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The model's weights out of the state of the objective's module, which calls it `model`."""
    return {name.removeprefix("model."): value for name, value in state.items() if name.startswith("model.")}


def _save_base(model: Any, folder: Path, state: dict[str, torch.Tensor] | None) -> None:
    """Adapters are worth nothing without their base: keep it too when it came from no folder or hub name."""
    from transformers import PreTrainedModel

    base = model.get_base_model()
    origin = str(getattr(base, "name_or_path", "") or "")
    if origin or not isinstance(base, PreTrainedModel):
        return
    raw = state if state is not None else model.state_dict()
    base.save_pretrained(folder / BASE, state_dict=untied(base, base_state(raw)))


def base_state(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The base's own weights out of a peft model's state: adapters dropped, wrapped layers under their old names."""
    found: dict[str, torch.Tensor] = {}
    for name, value in state.items():
        if "lora_" in name or ".modules_to_save." in name:
            continue
        plain = name.removeprefix("base_model.model.")
        found[plain.replace(".base_layer.", ".").replace(".original_module.", ".")] = value
    return found


def keep_trained_in_fp32(model: nn.Module) -> None:
    """Mixed precision computes in half precision and updates in fp32: small updates would round to nothing else."""
    for parameter in model.parameters():
        if parameter.requires_grad and parameter.dtype in (torch.bfloat16, torch.float16):
            parameter.data = parameter.data.float()
