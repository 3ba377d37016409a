"""Export: whatever the checkpoint, the result is loaded by plain transformers and computes the same logits."""

from __future__ import annotations

import pickle
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from launch.errors import CheckpointError, LaunchError
from launch.export import export
from tests.launch.toy import fit_toy, flat, llama, rows


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        return model.eval()(input_ids=torch.tensor([rows()[0]])).logits


def plain(folder: Path) -> Any:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder)


@pytest.fixture(scope="module")
def lora_run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Path]:
    """A LoRA fit of a base that came from no folder: the final folder must carry it."""
    model, result = fit_toy(tmp_path_factory.mktemp("lora"), epochs=1, lora={"rank": 2, "alpha": 4})
    return model, result.folder


def test_lora_is_folded_into_its_base(lora_run: tuple[Any, Path], tmp_path: Path) -> None:
    """The exported model's logits are those of the model that `fit` gave back merged."""
    model, folder = lora_run
    assert (folder / "adapter_model.safetensors").is_file()
    assert not any("lora" in name for name, _ in model.named_parameters())
    exported = plain(export(folder, tmp_path / "out"))
    assert torch.allclose(logits(exported), logits(model), atol=1e-6)


def test_lora_moves_the_model(lora_run: tuple[Any, Path]) -> None:
    """The law above would hold for adapters that learned nothing."""
    assert float((logits(lora_run[0]) - logits(llama())).abs().max()) > 1e-3


def test_training_checkpoint_loses_only_its_training_state(tmp_path: Path) -> None:
    """The fit's own folder stands for its final model; a step's folder is copied without the optimiser."""
    model, result = fit_toy(tmp_path / "run", epochs=1)
    final = export(result.folder.parent, tmp_path / "final")
    assert torch.equal(flat(plain(final)), flat(model))
    step = export(result.folder.parent / "step-00000002", tmp_path / "step")
    assert not (step / "optimizer.pt").exists()
    assert plain(step).num_parameters() == model.num_parameters()


@pytest.mark.parametrize("prefix", ["", "model."])
def test_fsdp_shards_are_merged(tmp_path: Path, prefix: str) -> None:
    """A checkpoint in torch's distributed format, under the model's names or the trainer's, gives the same logits."""
    import torch.distributed.checkpoint as dcp

    model = llama(seed=3)
    state = {f"{prefix}{name}": value for name, value in model.state_dict().items()}
    dcp.save({"model": state}, checkpoint_id=tmp_path / "sharded" / "pytorch_model_fsdp_0", no_dist=True)
    model.config.architectures = ["LlamaForCausalLM"]
    model.config.save_pretrained(tmp_path / "sharded")
    with pytest.raises(CheckpointError, match="give --trust-pickle"):
        export(tmp_path / "sharded", tmp_path / "out")
    assert not (tmp_path / "out").exists()
    merged = plain(export(tmp_path / "sharded", tmp_path / "out", trust_pickle=True))
    assert torch.equal(logits(merged), logits(model))


def test_zero_without_deepspeed_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """DeepSpeed is hidden from the import system, as where it is not installed."""
    import importlib.util

    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *a: None if name == "deepspeed" else found(name, *a))
    (tmp_path / "zero" / "global_step4").mkdir(parents=True)
    llama().config.save_pretrained(tmp_path / "zero")
    with pytest.raises(LaunchError, match="pip install"):
        export(tmp_path / "zero", tmp_path / "out", trust_pickle=True)
    assert not (tmp_path / "out").exists()


def test_pickled_checkpoints_are_not_opened_unless_trusted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A `.metadata` that would write a file when it is unpickled: the command refuses it in one line, nothing runs."""
    from launch.cli import main

    class Bomb:
        def __reduce__(self) -> Any:
            return Path.touch, (tmp_path / "ran",)

    for folder in ("fsdp", "zero/global_step4"):
        (tmp_path / folder).mkdir(parents=True)
        llama().config.save_pretrained(tmp_path / folder.split("/")[0])
    (tmp_path / "fsdp" / ".metadata").write_bytes(pickle.dumps(Bomb()))
    for kind in ("fsdp", "zero"):
        assert main(["export", str(tmp_path / kind), str(tmp_path / "out")]) == 1
        error = capsys.readouterr().err
        assert "give --trust-pickle" in error and error.count("\n") == 1
    assert not (tmp_path / "ran").exists() and not (tmp_path / "out").exists()


def test_what_is_no_checkpoint_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "a.txt").write_text("nothing")
    with pytest.raises(CheckpointError, match="is no checkpoint"):
        export(tmp_path / "notes", tmp_path / "out")
    with pytest.raises(CheckpointError, match="is not a folder"):
        export(tmp_path / "nowhere", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_spoilt_checkpoint_and_occupied_target_are_refused(lora_run: tuple[Any, Path], tmp_path: Path) -> None:
    spoilt = shutil.copytree(lora_run[1], tmp_path / "spoilt")
    file = spoilt / "adapter_model.safetensors"
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(CheckpointError, match=r"adapter_model.safetensors has \d+ of \d+ bytes"):
        export(spoilt, tmp_path / "out")
    with pytest.raises(CheckpointError, match="in the way"):
        export(lora_run[1], spoilt)
