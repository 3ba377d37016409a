"""What a launch was asked for, and what it got.

Launchers fail in silence: accelerate 1.15 turns a two-process CPU file of type MULTI_CPU into one process, an FSDP
file on CPU into two runs that each believe to be alone or into plain DDP, a DeepSpeed file on CPU into plain DDP. So
what was asked is read from the options, from the launcher's command line (the parent process) with its config file,
and from the environment, and compared with the process group that exists and the wrapper around the model. Any
difference is a `LaunchError`: one line, with the remedy.

Nothing heavy is imported at module level: `prepare_environment` must run before torch and accelerate do.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from launch.errors import LaunchError

if TYPE_CHECKING:
    from launch.options import TrainOptions

_CPU_REMEDY = "on CPU launch with launch/accelerate/cpu.yaml, or torchrun --nproc_per_node N -m launch run …"

_LETTING_GO = 0.2
"""Seconds in which gloo's threads let go of what they hold; microseconds where the machine is idle."""


def prepare_environment() -> None:
    """Set what must be set before accelerate is imported. Costs nothing: the standard library alone.

    Without a CUDA device accelerate believes only ACCELERATE_USE_CPU, whatever its config file says.
    """
    if not _has_cuda_device():
        os.environ.setdefault("ACCELERATE_USE_CPU", "true")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")


def _has_cuda_device() -> bool:
    if os.environ.get("CUDA_VISIBLE_DEVICES", "unset").strip() in ("", "-1"):
        return False
    return any(Path(device).exists() for device in ("/dev/nvidiactl", "/dev/dxg", "/dev/kfd"))


# ---------------------------------------------------------------- the process group


def world_size() -> int:
    """Processes in this run: of the process group if there is one, else of the environment."""
    import torch.distributed as dist

    if dist.is_available() and dist.is_initialized():
        return dist.get_world_size()
    return int(os.environ.get("WORLD_SIZE", "1"))


def rank() -> int:
    """This process's number, from 0."""
    import torch.distributed as dist

    if dist.is_available() and dist.is_initialized():
        return dist.get_rank()
    return int(os.environ.get("RANK", "0"))


def is_main() -> bool:
    """True in the one process that writes files."""
    return rank() == 0


def barrier() -> None:
    """Wait until every process is here."""
    if world_size() > 1:
        import torch.distributed as dist

        dist.barrier()


def gather(item: Any) -> list[Any]:
    """`item` of every process, by rank. Every process must call it."""
    if world_size() == 1:
        return [item]
    import torch.distributed as dist

    found: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(found, item)
    return found


def broadcast(item: Any) -> Any:
    """The main process's `item`."""
    if world_size() == 1:
        return item
    import torch.distributed as dist

    box = [item]
    dist.broadcast_object_list(box, src=0)
    return box[0]


def leave() -> None:
    """End the process group: the last act of a program whose work went well, or was stopped on every rank.

    A thread of gloo lets go of a collective's tensors after the collective has returned, and needs Python for it. If
    Python is ending by then, the process aborts ("terminate called without an active exception", signal 6; PyTorch
    issue 190489), and the launcher calls a job failed that has written everything. Not for a program that failed: with
    a collective under way this would wait for ranks that wait for this one.
    """
    if _group_exists():
        import torch.distributed as dist

        time.sleep(_LETTING_GO)  # and not after the end of the group, which waits for its threads and may keep Python
        dist.destroy_process_group()


def own_device() -> Any:
    """The CUDA device of this process (LOCAL_RANK), or None without one."""
    import torch

    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0"))) if torch.cuda.is_available() else None


def require_same(what: str, facts: dict[str, Any]) -> None:
    """Stop every process with one clear line if they do not agree, instead of hanging in a later collective.

    Raises:
        LaunchError: naming the fact, and its value on each rank.
    """
    everyone = gather(facts)
    for key, value in everyone[0].items():
        seen = [other.get(key) for other in everyone]
        if any(other != value for other in seen):
            shown = ", ".join(f"rank {r}: {v}" for r, v in enumerate(seen[:4]))
            raise LaunchError(
                f"{what}: ranks disagree on {key} ({shown}); every rank must be given the same data, options and model"
            )


def raise_together(error: Exception | None) -> None:
    """Raise on every rank if one of them failed; the others would wait for it for ever.

    Raises:
        the same error where it happened, and a LaunchError of the same text elsewhere.
    """
    texts = gather(None if error is None else str(error))
    if error is not None:
        raise error
    for number, text in enumerate(texts):
        if text is not None:
            raise LaunchError(f"rank {number} failed: {text}")


# ---------------------------------------------------------------- asked


@dataclass(frozen=True)
class Asked:
    """What somebody asked for; None means that they did not say."""

    source: str
    processes: int | None = None
    precision: str | None = None
    sharding: str | None = None


@dataclass(frozen=True)
class Obtained:
    """What there is."""

    processes: int
    precision: str
    sharding: str
    wrapper: str = ""
    """Class around the model, for the message."""


def asked_of_options(options: TrainOptions) -> Asked:
    return Asked("train", options.processes or None, options.precision, options.sharding)


def asked_of_environment() -> Asked:
    """torchrun, SLURM scripts and accelerate say WORLD_SIZE."""
    size = os.environ.get("WORLD_SIZE")
    return Asked("the environment (WORLD_SIZE)", int(size) if size else None)


def asked_of_launcher(command: Sequence[str] | None = None) -> Asked | None:
    """What ``accelerate launch`` was asked, from its command line and config file.

    Args:
        command: words of the command; None looks for it among the parent processes.

    Returns:
        None if no such launcher is above this process.
    """
    words = list(command) if command is not None else _launcher_command()
    if words is None:
        return None
    flags = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    for name in ("config_file", "num_processes", "mixed_precision", "fsdp_version"):
        flags.add_argument(f"--{name}", f"--{name.replace('_', '-')}", dest=name)
    for name in ("use_fsdp", "use_deepspeed"):
        flags.add_argument(f"--{name}", f"--{name.replace('_', '-')}", dest=name, action="store_true")
    flags.add_argument("--zero_stage", "--zero-stage", dest="zero_stage")
    given, _ = flags.parse_known_args(words)
    file = Path(given.config_file) if given.config_file else _default_accelerate_file()
    said: dict[str, Any] = {}
    if file is not None:
        import yaml

        if not file.is_file():
            return None  # accelerate has refused it already, or the parent runs in another folder
        said = yaml.safe_load(file.read_text()) or {}
    source = f"accelerate launch --config_file {file}" if file else "accelerate launch"
    processes = given.num_processes or said.get("num_processes")
    precision = given.mixed_precision or said.get("mixed_precision")
    return Asked(
        source,
        int(processes) if processes else None,
        {"no": None, None: None}.get(precision, precision),
        _sharding_of(said, given),
    )


def _sharding_of(said: dict[str, Any], given: argparse.Namespace) -> str | None:
    kind = str(said.get("distributed_type", "")).upper()
    if given.use_deepspeed or kind == "DEEPSPEED":
        stage = given.zero_stage or (said.get("deepspeed_config") or {}).get("zero_stage", 2)
        return f"zero{stage}"
    if given.use_fsdp or kind == "FSDP":
        version = given.fsdp_version or (said.get("fsdp_config") or {}).get("fsdp_version", 1)
        return f"fsdp{version}"
    return None


def _default_accelerate_file() -> Path | None:
    home = Path(os.environ.get("HF_HOME", Path("~/.cache/huggingface").expanduser()))
    found = home / "accelerate" / "default_config.yaml"
    return found if found.is_file() else None


def _launcher_command() -> list[str] | None:
    import psutil

    for parent in psutil.Process().parents()[:4]:
        try:
            words = parent.cmdline()
        except (psutil.AccessDenied, psutil.NoSuchProcess):
            continue
        launched = _words_after_launch(words)
        if launched is not None:
            return launched
    return None


def _words_after_launch(words: Sequence[str]) -> list[str] | None:
    """The words after ``accelerate launch``, ``accelerate-launch`` or ``-m accelerate.commands.launch``."""
    for place, word in enumerate(words[:4]):
        name = Path(word).name
        if name == "accelerate-launch" or word == "accelerate.commands.launch":
            return list(words[place + 1 :])
        if name in ("accelerate", "accelerate.commands.accelerate_cli") and list(words[place + 1 : place + 2]) == [
            "launch"
        ]:
            return list(words[place + 2 :])
    return None


# ---------------------------------------------------------------- asked against obtained


def compare(asked: Asked, obtained: Obtained) -> None:
    """Raises LaunchError with one line if `obtained` is not what `asked` says."""
    if asked.processes is not None and asked.processes != obtained.processes:
        raise LaunchError(
            f"{asked.source} asks for {asked.processes} processes, this run has {obtained.processes}; {_CPU_REMEDY}"
            if not _has_cuda_device()
            else f"{asked.source} asks for {asked.processes} processes, this run has {obtained.processes}; "
            "launch with accelerate launch --num_processes N, or set train.processes"
        )
    if asked.sharding is not None and asked.sharding != obtained.sharding:
        wrapper = f" ({obtained.wrapper})" if obtained.wrapper else ""
        raise LaunchError(
            f"{asked.source} asks for sharding {asked.sharding}, the model got {obtained.sharding}{wrapper}; "
            f"set train.sharding={asked.sharding} and launch with the file of launch/accelerate that says the same"
        )
    if asked.precision is not None and asked.precision != obtained.precision:
        raise LaunchError(
            f"{asked.source} asks for precision {asked.precision}, this run computes in {obtained.precision}; "
            f"set train.precision={asked.precision}, or mixed_precision in the accelerate file"
        )


def check_possible(options: TrainOptions) -> None:
    """Refuse, before anything is loaded, what this machine cannot give.

    Raises:
        LaunchError: fp16, 4-bit or ZeRO without a CUDA device; 4-bit without adapters; DeepSpeed not installed;
            sharding asked for one process.
    """
    import importlib.util

    import torch

    cuda = torch.cuda.is_available()
    if options.quantization == "4bit" and not cuda:
        raise LaunchError("train.quantization=4bit needs a CUDA device (bitsandbytes); use quantization: none here")
    if options.quantization == "4bit" and options.lora is None:
        raise LaunchError("train.quantization=4bit freezes the base; add train.lora, or use quantization: none")
    if options.precision == "fp16" and not cuda:
        raise LaunchError("train.precision=fp16 needs a CUDA device; use bf16 or fp32 here")
    if options.precision == "bf16" and cuda and not torch.cuda.is_bf16_supported():
        raise LaunchError("train.precision=bf16 is not supported by this GPU; use fp16 or fp32")
    if options.sharding.startswith("zero"):
        if not cuda:
            raise LaunchError(f"train.sharding={options.sharding} needs CUDA devices; on CPU use fsdp2 or none")
        if importlib.util.find_spec("deepspeed") is None:
            raise LaunchError(
                f"train.sharding={options.sharding} needs DeepSpeed: pip install 'arbiter-llm[deepspeed]'"
            )


def check_processes(options: TrainOptions) -> None:
    """Compare the process group with what the options, the launcher and the environment ask for.

    Called once the process group exists and before any work is done.

    Raises:
        LaunchError: see `compare`; also if sharding is asked for but there is one process only.
    """
    processes = world_size() if _group_exists() else 1
    for asked in (asked_of_options(options), asked_of_launcher(), asked_of_environment()):
        if asked is not None:
            compare(Asked(asked.source, asked.processes), Obtained(processes, "", ""))
    launcher = asked_of_launcher()
    if launcher is not None and launcher.sharding is not None:
        compare(
            Asked(launcher.source, None, None, launcher.sharding), Obtained(processes, "", options.sharding, "options")
        )
    if options.sharding == "fsdp2" and processes == 1:
        raise LaunchError(
            f"train.sharding=fsdp2 shards over processes and there is one; {_CPU_REMEDY}, or set train.sharding=none"
        )


def _group_exists() -> bool:
    import torch.distributed as dist

    return dist.is_available() and dist.is_initialized()


def obtained_by(trainer: Any) -> Obtained:
    """Look at the wrapped model and the accelerator, not at any option."""
    wrapped = trainer.model_wrapped
    return Obtained(
        trainer.accelerator.num_processes,
        {"no": "fp32"}.get(trainer.accelerator.mixed_precision, trainer.accelerator.mixed_precision),
        sharding_of(trainer, wrapped),
        type(wrapped).__name__,
    )


def sharding_of(trainer: Any, wrapped: Any) -> str:
    """none, fsdp2, zero2 or zero3: from the parameters themselves, or DeepSpeed's engine."""
    from torch.distributed.tensor import DTensor

    if trainer.is_deepspeed_enabled:
        return f"zero{wrapped.zero_optimization_stage()}"
    if any(isinstance(p, DTensor) for p in wrapped.parameters()):
        return "fsdp2"
    return "none"


def check_obtained(options: TrainOptions, trainer: Any) -> None:
    """Compare the wrapped model with the options and the launcher. Called once, after the model is wrapped.

    Raises:
        LaunchError: see `compare`; also if several processes hold a model that nothing keeps in step.
    """
    obtained = obtained_by(trainer)
    for asked in (asked_of_options(options), asked_of_launcher()):
        if asked is not None:
            compare(asked, obtained)
    alone = obtained.sharding == "none" and obtained.wrapper != "DistributedDataParallel"
    if obtained.processes > 1 and alone:
        raise LaunchError(
            f"{obtained.processes} processes, but the model is a bare {obtained.wrapper}: gradients would not be "
            f"shared; {_CPU_REMEDY}"
        )
