"""The KCR recipe: from nothing to a report in the embedded world, and two steps on Qwen2.5's architecture."""

from __future__ import annotations

import json
from pathlib import Path

from launch import checkpoint, config
from launch.models import tiny_like
from launch.report import build
from launch.runfolder import RunFolder
from tests.tiny import make_tokenizer

CONFLICTQA = Path(__file__).parents[1] / "fixtures" / "conflict" / "conflictqa.jsonl"


def test_the_embedded_recipe_trains_measures_and_reports(tmp_path: Path) -> None:
    """One run of few steps; given again it computes nothing anew."""
    said = [f"run.folder={tmp_path / 'run'}", f"base.cache={tmp_path}", "base.train.max_steps=3", "train.max_steps=2",
            "train.batch_size=2", "grpo.generations=2", "base.demonstrations=200", "world.train=20", "world.test=20",
            "held_out=4"]  # fmt: skip
    loaded = config.load("reasoning/kcr_conflicts", said)
    result = loaded.recipe.main(loaded.config)
    assert 0 <= result.metrics["before_accuracy"] <= 1 and 0 <= result.metrics["accuracy"] <= 1
    logged = [row for row in RunFolder(result.folder).metrics() if row.get("stage") == "grpo" and "kcr/total" in row]
    assert [row["step"] for row in logged] == [1, 2]
    page = build(result.folder).read_text()
    assert "Conflicts" in page and "Reward and its parts" in page and "Odd input" in page
    assert loaded.recipe.main(loaded.config).metrics == result.metrics


def test_the_qwen_config_trains_two_steps(tmp_path: Path) -> None:
    """LoRA in bf16 on a random model of the architecture, one prompt of two completions a step."""
    from transformers import Qwen2Config

    tokenizer = make_tokenizer()
    shape = Qwen2Config(pad_token_id=0, bos_token_id=1, eos_token_id=2, num_key_value_heads=4)
    tiny_like(shape, layers=2, hidden=64, vocab=len(tokenizer)).save_pretrained(tmp_path / "qwen")
    tokenizer.save_pretrained(tmp_path / "qwen")
    given = [json.loads(line) for line in CONFLICTQA.read_text(encoding="utf-8").split("\n") if line.strip()]
    many = [json.dumps({**row, "question": f"{n} {row['question']}"}) for n in range(30) for row in given]
    (tmp_path / "data.jsonl").write_text("\n".join(many) + "\n")
    said = [f"policy={tmp_path / 'qwen'}", f"data.path={tmp_path / 'data.jsonl'}", "data.balance=[]", "data.tokens=0",
            "warmup.rows=0", "grpo.generations=2", "grpo.max_new_tokens=6", "grpo.rollouts=hf", "train.max_steps=2",
            "train.accumulation=1", "train.processes=0", "held_out=2", f"run.folder={tmp_path / 'run'}"]  # fmt: skip
    loaded = config.load("reasoning/kcr_qwen7b", said)
    result = loaded.recipe.main(loaded.config)
    final = result.folder / "checkpoints" / "grpo" / checkpoint.FINAL
    assert checkpoint.read_facts(final)["steps"] == 2 and (final / "adapter_config.json").is_file()
