"""The supervised warm-up of a given model: traces of true contexts that the reward likes, learnt once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from launch.models import tiny_like
from launch.options import LoraOptions, TrainOptions
from launch.runfolder import RunFolder
from reasoning.conflict import Instance, kcr_reward
from reasoning.conflict.completion import chat_prompt
from reasoning.conflict.synthetic import FAULTS, conflict
from reasoning.conflict.warmup import WarmupOptions, traces, warmed_up
from tests.tiny import make_tokenizer

CASES = [conflict(2, FAULTS[seed % 3], seed, distractors=2) for seed in range(6)]
ROWS = [{"prompt": chat_prompt(case, "paths"), "instance": case.to_json()} for case in CASES]


def test_traces_follow_the_true_context_and_earn_all_there_is() -> None:
    found = traces(ROWS, most=4)
    assert [row["prompt"] for row in found] == [row["prompt"] for row in ROWS[:4]]
    for row, case in zip(found, CASES, strict=False):
        true = case.true_indices[0] + 1
        assert f"[Context {true}]" in row["response"] and f"[Context {3 - true}]" not in row["response"]
        assert kcr_reward(row["response"], case)["total"] == pytest.approx(2.1)
    nothing = Instance.from_json(ROWS[0]["instance"])
    lost = Instance(nothing.question, tuple(c for c in nothing.contexts if not c.true), nothing.gold)
    assert traces([{"prompt": "p", "instance": lost.to_json()}], most=1) == []


@pytest.fixture(scope="module")
def qwen(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random model of Qwen2's architecture with room for a prompt."""
    from transformers import Qwen2Config

    folder, tokenizer = tmp_path_factory.mktemp("qwen"), make_tokenizer()
    shape = Qwen2Config(pad_token_id=0, bos_token_id=1, eos_token_id=2, num_key_value_heads=4)
    tiny_like(shape, layers=2, hidden=64, vocab=len(tokenizer)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def weights(folder: Any) -> dict[str, torch.Tensor]:
    return load_file(Path(folder) / "model.safetensors")


@pytest.mark.parametrize("lora", [None, LoraOptions(rank=2)], ids=["full", "lora"])
def test_the_warm_up_is_learnt_once_and_leaves_whole_weights(qwen: Path, tmp_path: Path, lora: Any) -> None:
    """Three steps lower the loss of a trace; adapters are folded in; a second call finds the same folder."""
    train = TrainOptions(learning_rate=1e-2, warmup_ratio=0.0, schedule="constant", batch_size=4, max_steps=3,
                         log_steps=1, lora=lora)  # fmt: skip
    run, options = RunFolder(tmp_path / "run").open({}, 0), WarmupOptions(rows=4, max_length=4096, train=train)
    folder = warmed_up(str(qwen), ROWS, options, run, seed=0)
    losses = [row["loss"] for row in run.metrics() if "loss" in row]
    assert len(losses) == 3 and losses[-1] < losses[0]
    before, after = weights(qwen), weights(folder)
    assert before.keys() == after.keys() and not (Path(folder) / "adapter_config.json").exists()
    assert any(not torch.equal(before[name], after[name].to(before[name].dtype)) for name in before)
    assert warmed_up(str(qwen), ROWS, options, run, seed=0) == folder
    assert len([row for row in run.metrics() if "loss" in row]) == 3


def test_no_rows_no_warm_up(qwen: Path, tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "run").open({}, 0)
    assert warmed_up(str(qwen), ROWS, WarmupOptions(rows=0), run, seed=0) == str(qwen)
