"""Any checkpoint to a plain Hugging Face folder: one that transformers and vLLM load without this project.

    arbiter export runs/a/checkpoints/preference/final exported

Four kinds are known: a plain folder (ours, training state and all), LoRA adapters (folded into their base), an FSDP
checkpoint in torch's distributed format (accelerate's), and a DeepSpeed ZeRO checkpoint. The last two hold no
config.json of their own, so one must stand in the folder or above it, and are pickled, so they need --trust-pickle.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from launch import checkpoint
from launch.errors import CheckpointError, LaunchError
from launch.models import load_extensions
from launch.weights import BASE

_TRAINING_STATE = {
    "optimizer.pt",
    "scheduler.pt",
    "scaler.pt",
    "trainer_state.json",
    checkpoint.MANIFEST,
}
_WEIGHTS = ("model.safetensors", "model.safetensors.index.json")
_TEXT_FILES = ("tokenizer*", "special_tokens_map.json", "chat_template*", "vocab*", "merges.txt")


def export(source: Path, target: Path, trust_pickle: bool = False) -> Path:
    """Write the model of `source` into the new folder `target`.

    Args:
        source: a checkpoint or final folder, a fit's folder (its final one is taken, else the newest whole one), or a
            checkpoint of accelerate's FSDP or of DeepSpeed.
        target: does not exist yet, or is empty; appears whole or not at all.
        trust_pickle: read FSDP and ZeRO checkpoints, whose formats go through pickle: whoever wrote one can have any
            code run here.

    Returns:
        `target`.

    Raises:
        CheckpointError: `source` is no checkpoint or is spoilt; `target` is in the way; adapters without their base; a
            pickled checkpoint without `trust_pickle`.
        LaunchError: a ZeRO checkpoint, and DeepSpeed is not installed.
    """
    source, target = Path(source), Path(target)
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise CheckpointError(f"{target} is in the way; export into a new folder")
    folder = _choose(source)
    if (folder / checkpoint.MANIFEST).is_file():
        wrong = checkpoint.problem(folder)
        if wrong is not None:
            raise CheckpointError(f"{folder} is spoilt: {wrong}; export an earlier checkpoint")
    with checkpoint.writing(target) as out:
        if (folder / "adapter_config.json").is_file():
            _merge_adapters(folder, out)
        elif (folder / "config.json").is_file() and any((folder / name).is_file() for name in _WEIGHTS):
            _copy(folder, out)
        elif (shards := _fsdp_shards(folder)) is not None:
            _check_trust(folder, trust_pickle)
            _save_state(_config_folder(folder), _fsdp_state(shards), out)
        elif _is_zero(folder):
            _check_trust(folder, trust_pickle)
            _save_state(_config_folder(folder), _zero_state(folder), out)
        else:
            raise CheckpointError(
                f"{folder} is no checkpoint: no config.json with safetensors, adapter_config.json, FSDP shards "
                "(.metadata) or ZeRO state in it; give a run's checkpoints/NAME/final"
            )
    return target


def _choose(source: Path) -> Path:
    """A fit's folder stands for its final model, or for its newest whole checkpoint."""
    if not source.is_dir():
        raise CheckpointError(f"{source} is not a folder; give a run's checkpoints/NAME/final")
    if (source / checkpoint.FINAL).is_dir() or checkpoint.step_folders(source):
        found = checkpoint.finished(source) or checkpoint.latest(source)
        if found is None:
            raise CheckpointError(f"{source} holds no checkpoint that is whole")
        return found
    return source


def _copy(folder: Path, out: Path) -> None:
    for file in folder.iterdir():
        if file.name not in _TRAINING_STATE and not file.name.startswith("rng_state"):
            shutil.copytree(file, out / file.name) if file.is_dir() else shutil.copy(file, out / file.name)


def _copy_text_files(folder: Path, out: Path) -> None:
    for pattern in _TEXT_FILES:
        for file in folder.glob(pattern):
            if not (out / file.name).exists():
                shutil.copy(file, out / file.name)


# ---------------------------------------------------------------- LoRA


def _merge_adapters(folder: Path, out: Path) -> None:
    from peft import PeftModel

    origin = folder / BASE
    if not origin.is_dir():
        named = json.loads((folder / "adapter_config.json").read_text()).get("base_model_name_or_path")
        if not named:
            raise CheckpointError(
                f"{folder}: adapter_config.json names no base model; set base_model_name_or_path in it"
            )
        origin = Path(named)
    base = _load(origin)
    PeftModel.from_pretrained(base, str(folder)).merge_and_unload().save_pretrained(out)
    _copy_text_files(folder, out)


# ---------------------------------------------------------------- sharded


def _check_trust(folder: Path, trusted: bool) -> None:
    if not trusted:
        raise CheckpointError(
            f"{folder} is read through pickle, which runs whatever code its writer put there; "
            "if you trust the writer, give --trust-pickle"
        )


def _fsdp_shards(folder: Path) -> Path | None:
    """The folder of a distributed checkpoint of torch: `folder` itself, or accelerate's place in it."""
    candidates = [folder, *sorted(folder.glob("pytorch_model_fsdp*")), *sorted(folder.glob("*_fsdp_*"))]
    return next((c for c in candidates if (c / ".metadata").is_file() and "optimizer" not in c.name), None)


def _fsdp_state(shards: Path) -> dict[str, Any]:
    import tempfile

    from accelerate.utils import merge_fsdp_weights
    from safetensors.torch import load_file

    with tempfile.TemporaryDirectory() as merged:
        merge_fsdp_weights(str(shards), merged, safe_serialization=True)
        return load_file(str(Path(merged) / "model.safetensors"))


def _is_zero(folder: Path) -> bool:
    return any(folder.glob("global_step*")) or any(folder.glob("*_optim_states.pt"))


def _zero_state(folder: Path) -> dict[str, Any]:
    import importlib.util

    if importlib.util.find_spec("deepspeed") is None:
        raise LaunchError(
            f"{folder} is a ZeRO checkpoint; merging needs DeepSpeed: pip install 'arbiter-llm[deepspeed]'"
        )
    from deepspeed.utils.zero_to_fp32 import get_fp32_state_dict_from_zero_checkpoint

    state: dict[str, Any] = get_fp32_state_dict_from_zero_checkpoint(str(folder))
    return state


def _config_folder(folder: Path) -> Path:
    for candidate in (folder, folder.parent, folder.parent.parent):
        if (candidate / "config.json").is_file():
            return candidate
    raise CheckpointError(f"{folder} holds shards but no config.json stands in it or above it; copy the model's there")


def _save_state(origin: Path, state: dict[str, Any], out: Path) -> None:
    """Put merged weights, under the trainer's or the model's own names, into a model of `origin`'s kind."""
    cls, config = _class_and_config(origin)
    model = cls(config)
    own = set(model.state_dict())
    for prefix in ("", "module.", "model.", "module.model."):
        plain = {name.removeprefix(prefix): value for name, value in state.items()}
        if len(own & plain.keys()) == len(plain):
            break
    else:
        raise CheckpointError(f"{origin}/config.json describes another model than the shards: {next(iter(state))} …")
    missing = model.load_state_dict(plain, strict=False).missing_keys
    tied = {name for name, _ in model.named_parameters(remove_duplicate=False)}
    tied -= {name for name, _ in model.named_parameters()}
    if set(missing) - tied:
        raise CheckpointError(f"{origin}: the shards lack {sorted(set(missing) - tied)[0]}")
    model.save_pretrained(out)
    _copy_text_files(origin, out)


# ---------------------------------------------------------------- the model's own class


def _class_and_config(origin: Path) -> tuple[Any, Any]:
    import transformers

    load_extensions()
    try:
        config = transformers.AutoConfig.from_pretrained(str(origin))
    except (OSError, ValueError) as error:
        first = str(error).strip().splitlines()[0]
        raise CheckpointError(f"cannot read the base model's config at {origin}: {first}") from error
    name = (config.architectures or [""])[0]
    cls = getattr(transformers, name, None) or transformers.AutoModel._model_mapping[type(config)]
    return cls, config


def _load(origin: Path) -> Any:
    cls, _ = _class_and_config(origin)
    try:
        return cls.from_pretrained(str(origin), dtype="auto", use_safetensors=True)
    except (OSError, ValueError) as error:
        first = str(error).strip().splitlines()[0]
        raise CheckpointError(f"cannot load the base model at {origin}: {first}") from error
