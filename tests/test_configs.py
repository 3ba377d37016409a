"""Every shipped config passes a dry run; those of the paper's set-up train, made tiny, on their own architectures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from launch import checkpoint, cli, config, yamltree
from launch.models import tiny_like
from launch.runfolder import RunFolder
from tests.conftest import DATA
from tests.tiny import make_tokenizer

FIXTURES = Path(__file__).parent / "fixtures"
HERE = ["train.processes=0", "train.sharding=none", "train.quantization=none", "train.gradient_checkpointing=false"]


def architecture(name: str) -> Any:
    """The architecture's own config, as the hub models of the paper have it, up to sizes."""
    from transformers import Gemma2Config, GemmaConfig, LlamaConfig

    if name == "gemma":
        return GemmaConfig(num_key_value_heads=1, head_dim=256)
    if name == "gemma2":
        return Gemma2Config(sliding_window=64)
    rope = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
            "original_max_position_embeddings": 8192, "rope_theta": 500000.0}  # fmt: skip
    return LlamaConfig(num_key_value_heads=8, rope_parameters=rope)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Random-weight models of each architecture, two layers, with a byte tokenizer that has a chat template."""
    made = {}
    tokenizer = make_tokenizer()
    for name in ("gemma", "gemma2", "llama"):
        folder = tmp_path_factory.mktemp(name)
        shape = architecture(name)
        shape.pad_token_id, shape.bos_token_id, shape.eos_token_id = 0, 1, 2
        tiny_like(shape, layers=2, hidden=64, vocab=len(tokenizer)).save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        made[name] = str(folder)
    return made


def made_before(name: str, models: dict[str, str]) -> list[str]:
    """Stand-ins for what a user makes before starting this config (its comment says how)."""
    prompts = FIXTURES / "chat_prompts.jsonl"
    return {
        "align/dsppo_llama8b": [f"prompts={prompts}"],
        "align/dsppo_gemma2_9b": [f"prompts={prompts}"],
        "align/selfplay_stories": [f"prompts={prompts}", f"eval_prompts={prompts}"],
        "align/selfplay_styles": [f"policy={models['llama']}"],
    }.get(name, [])


def shared(value: yamltree.Value, key: str = "") -> list[str]:
    """Overrides that point a config's paths into ../shared/data to where the data are on this machine."""
    if isinstance(value.data, dict):
        return [text for name, item in value.data.items() for text in shared(item, f"{key}.{name}".strip("."))]
    if isinstance(value.data, str) and value.data.startswith("../shared/data/"):
        return [f"{key}={DATA / value.data.removeprefix('../shared/data/')}"]
    return []


def on_real_data(name: str) -> Any:
    """Configs that name the real data are tested where it is."""
    return pytest.param(name, marks=pytest.mark.data if "shared/data" in config.shipped()[name].read_text() else ())


@pytest.mark.parametrize("name", [on_real_data(name) for name in sorted(config.shipped())])
def test_every_config_passes_a_dry_run(name: str, models: dict[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    here = shared(yamltree.read(config.shipped()[name]))
    assert bool(here) == ("../shared/data" in config.shipped()[name].read_text())
    assert cli.main(["run", name, "--dry-run", *here, *made_before(name, models)]) == 0
    assert capsys.readouterr().out.startswith("recipe: ")


@pytest.mark.parametrize(("name", "model"), [("hrc_gemma2b", "gemma"), ("hrc_llama8b", "llama")])
@pytest.mark.parametrize("kind", [[], ["model.kind=gpm"], ["model.kind=bt"]], ids=["hrc", "gpm", "bt"])
def test_paper_preference_config_trains_two_steps(
    name: str, model: str, kind: list[str], models: dict[str, str], tmp_path: Path
) -> None:
    """Two optimiser steps of 8 pairs, in bf16 as the paper, on 11 pairs; one is held out."""
    loaded = config.load(
        f"align/{name}",
        [f"model.path={models[model]}", f"data.path={FIXTURES / 'chat_pairs.jsonl'}", "data.test_fraction=0.1",
         "model.max_length=256", "train.max_steps=2", "train.eval_steps=0", f"run.folder={tmp_path / 'run'}",
         *HERE, *kind],
    )  # fmt: skip
    result = loaded.recipe.main(loaded.config)
    assert steps(result.folder, "preference") == 2
    assert result.metrics["accuracy_count"] == 1


@pytest.mark.parametrize(("name", "model"), [("dsppo_llama8b", "llama"), ("dsppo_gemma2_9b", "gemma2")])
def test_paper_selfplay_config_plays_with_two_steps_a_round(
    name: str, model: str, models: dict[str, str], tmp_path: Path
) -> None:
    """All three rounds at K = 5, two optimiser steps each, judged by an HRC model of random heads."""
    from align.preference import PreferenceModel

    judge = PreferenceModel.from_backbone(models["gemma"], kind="hrc", dims=4, max_length=256)
    judge.save_pretrained(tmp_path / "judge")
    judge.renderer.tokenizer.save_pretrained(tmp_path / "judge")
    loaded = config.load(
        f"align/{name}",
        [f"policy={models[model]}", f"preference={tmp_path / 'judge'}", f"prompts={FIXTURES / 'chat_prompts.jsonl'}",
         "sampling.max_new_tokens=8", "max_length=256", "generator=hf", "train.max_steps=2", "train.batch_size=2",
         "train.accumulation=1", f"run.folder={tmp_path / 'run'}", *HERE],
    )  # fmt: skip
    result = loaded.recipe.main(loaded.config)
    rows = RunFolder(result.folder).metrics()
    assert len([row for row in rows if row.get("stage") == "selfplay"]) == 3
    rounds = [folder.name for folder in sorted((result.folder / "checkpoints").iterdir())]
    assert [steps(result.folder, name) for name in rounds] == [2, 2, 2]


def steps(folder: Path, fit: str) -> int:
    """Optimiser steps of a finished fit."""
    return checkpoint.read_facts(folder / "checkpoints" / fit / checkpoint.FINAL)["steps"]
