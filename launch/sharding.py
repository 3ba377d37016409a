"""FSDP2 by torch's own ``fully_shard``, on GPUs (NCCL) and on CPU (gloo) alike.

accelerate's FSDP branch leaves CPU out, and a path that only a GPU can run is a path that no test runs. So the model
is sharded here, before the trainer sees it, and accelerate is told that it owns its placement already
(``is_distributed_loading_by_transformers``): it then neither wraps it in DDP nor shards it again.

Each decoder block is one unit, all the rest (embeddings, norms, heads, tied weights) the root unit. The root is the
objective's module, so inside its forward an objective may use any submodule. Gradients are averaged over ranks, as
under DDP, and the trainer's loss scale is the same.

Left out: tensor and sequence parallelism, CPU offload, and 4-bit bases under sharding.
"""

from __future__ import annotations

import os
from typing import Any

import torch
from torch import nn

from launch.errors import LaunchError
from launch.options import TrainOptions


def shard(module: nn.Module, options: TrainOptions, device: torch.device) -> nn.Module:
    """Shard `module` in place over all processes.

    Args:
        module: the objective's module, whole and equal on every rank.
        options: precision decides the dtype of compute; gradients are reduced in fp32.
        device: this rank's device.

    Raises:
        LaunchError: 4-bit weights, which cannot be sharded.
    """
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

    if options.quantization != "none":
        raise LaunchError("train.sharding=fsdp2 cannot shard 4-bit weights; use sharding: none with quantization: 4bit")
    mesh = init_device_mesh(device.type, (torch.distributed.get_world_size(),))
    mixed = options.precision == "bf16" and device.type == "cuda"
    policy = MixedPrecisionPolicy(torch.bfloat16, torch.float32) if mixed else MixedPrecisionPolicy()
    for block in blocks(module):
        fully_shard(block, mesh=mesh, mp_policy=policy)
    fully_shard(module, mesh=mesh, mp_policy=policy)
    # Read by transformers.Trainer and, through it, by accelerate.
    module.is_distributed_loading_by_transformers = True  # type: ignore[assignment]
    return module


def own_sharding() -> None:
    """Keep accelerate's FSDP branch off when a launch file switched it on: `shard` does the work."""
    os.environ.pop("ACCELERATE_USE_FSDP", None)


def load_whole() -> None:
    """Have later models loaded whole: while ZeRO-3 arguments live, transformers would load each of them in parts."""
    from transformers.integrations.deepspeed import unset_hf_deepspeed_config

    unset_hf_deepspeed_config()


def blocks(module: nn.Module) -> list[nn.Module]:
    """The repeated layers of a transformer, by the class names that transformers says must not be split."""
    names: set[str] = set()
    for part in module.modules():
        names.update(getattr(part, "_no_split_modules", None) or [])
    return [part for part in module.modules() if type(part).__name__ in names]


def full_weights(module: nn.Module) -> dict[str, torch.Tensor]:
    """Whole weights on the CPU of the main process, {} elsewhere. Every rank must call it."""
    from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict

    state: dict[str, Any] = get_model_state_dict(
        module, options=StateDictOptions(full_state_dict=True, cpu_offload=True)
    )
    return state


def full_optimizer(module: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """Whole optimiser state by parameter name on the main process, {} elsewhere. Every rank must call it."""
    from torch.distributed.checkpoint.state_dict import StateDictOptions, get_optimizer_state_dict

    return get_optimizer_state_dict(module, optimizer, options=StateDictOptions(full_state_dict=True, cpu_offload=True))


def load_full_optimizer(module: nn.Module, optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    """The way back: `state` is read on the main process and dealt out."""
    from torch.distributed.checkpoint.state_dict import StateDictOptions, set_optimizer_state_dict

    set_optimizer_state_dict(
        module, optimizer, state, options=StateDictOptions(full_state_dict=True, broadcast_from_rank0=True)
    )


def zero_config(options: TrainOptions) -> dict[str, Any]:
    """DeepSpeed's configuration for ZeRO-2 or ZeRO-3; numbers come from `options`, nothing is left to "auto"."""
    stage = int(options.sharding.removeprefix("zero"))
    zero: dict[str, Any] = {"stage": stage, "overlap_comm": True, "contiguous_gradients": True}
    if stage == 3:
        zero["stage3_gather_16bit_weights_on_model_save"] = True
    return {
        "train_micro_batch_size_per_gpu": options.batch_size,
        "gradient_accumulation_steps": options.accumulation,
        "gradient_clipping": options.max_grad_norm,
        "zero_optimization": zero,
        "bf16": {"enabled": options.precision == "bf16"},
        "fp16": {"enabled": options.precision == "fp16"},
        "zero_allow_untested_optimizer": True,
    }
