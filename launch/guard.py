"""Stops a run at the first number that is not finite, and names where it came from, before a weight is touched.

The check of loss and gradient norm is the trainer's, once per optimiser step. Only when it fails does this file run:
it looks for a bad parameter, then runs the step's batches again with a hook on every module, then looks at the
gradients. Under fp16 a gradient that overflows is ordinary (the loss scale is lowered and the step skipped), so there
only a long series counts.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import nn

from launch.errors import ArbiterError

FP16_PATIENCE = 20
"""Skipped fp16 steps in a row before the run stops; each halves the loss scale, so this is a factor of a million."""


class NonFiniteError(ArbiterError):
    """A loss or gradient became NaN or infinite; the weights are those of the step before."""


def finite(tensor: torch.Tensor) -> bool:
    """True if every element is a number; a DTensor is asked for its local part."""
    local = getattr(tensor, "_local_tensor", tensor)
    return not local.is_floating_point() or bool(torch.isfinite(local).all())


def bad_parameter(model: nn.Module) -> str | None:
    """Name of the first parameter, in registration order, that is not finite."""
    return next((name for name, p in model.named_parameters() if not finite(p.detach())), None)


def bad_gradient(model: nn.Module) -> str | None:
    """Name of the parameter nearest to the loss (last registered) whose gradient is not finite."""
    named = list(model.named_parameters())
    return next((name for name, p in reversed(named) if p.grad is not None and not finite(p.grad)), None)


def bad_output(model: nn.Module, replay: Callable[[], Any]) -> str | None:
    """Name of the module whose output is the first not to be finite while `replay` runs `model` forward."""
    found: list[str] = []

    def watch(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, inputs: Any, output: Any) -> None:
            if not found and not all(finite(t) for t in tensors_in(output)):
                found.append(f"{name} ({type(module).__name__})")

        return hook

    hooks = [module.register_forward_hook(watch(name)) for name, module in model.named_modules() if name]
    try:
        with torch.no_grad():
            replay()
    finally:
        for handle in hooks:
            handle.remove()
    return found[0] if found else None


def diagnose(model: nn.Module, replay: Callable[[], Any], step: int) -> NonFiniteError:
    """The error to raise after step `step` gave a loss or gradient that is not finite.

    Args:
        model: the objective's module, unwrapped; parameters still those of the step before.
        replay: runs the step's batches forward once more. Under sharding every rank must be here.
        step: the optimiser step that was about to be made, from 1.
    """
    parameter = bad_parameter(model)
    gradient = bad_gradient(model)
    output = bad_output(model, replay)
    if parameter is not None:
        where = f"parameter {_plain(parameter)} is not finite"
        remedy = "load weights that are"
    elif output is not None:
        where = f"the output of {_plain(output)} is the first that is not finite"
        remedy = "lower the learning rate or use bf16/fp32; look at the batch if it happens at step 1"
    elif gradient is not None:
        where = f"the gradient of {_plain(gradient)} is the first that is not finite"
        remedy = "look for a division by zero or a logarithm of zero in the loss, or lower the learning rate"
    else:
        where = "the loss is not finite although every module's output is"
        remedy = "look at the objective's own arithmetic after the model"
    return NonFiniteError(f"step {step}: {where}; the weights are kept as they were before it; {remedy}")


def overflowed(norm: float | None) -> bool:
    """True if DeepSpeed's norm of the whole gradient is not finite; it reports -1 then, and None if it has none."""
    return norm is not None and not (math.isfinite(norm) and norm >= 0)


def after_the_step(step: int) -> NonFiniteError:
    """The error under DeepSpeed, which steps inside backward: nothing can be replayed with the weights from before."""
    return NonFiniteError(
        f"step {step}: the loss or gradient is not finite, and DeepSpeed has made the step; go on from the checkpoint "
        "before it with a lower learning rate, or run without ZeRO, where the first bad tensor is named"
    )


def tensors_in(value: Any) -> Iterable[torch.Tensor]:
    """All tensors in nested tuples, lists, mappings and model outputs."""
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, dict):
        for item in value.values():
            yield from tensors_in(item)
    elif isinstance(value, tuple | list):
        for item in value:
            yield from tensors_in(item)


def _plain(name: str) -> str:
    """The name in the user's model, without the trainer's own wrapper."""
    return name.removeprefix("module.").removeprefix("model.")
