"""The KCR recipe: from nothing to a report in the embedded world, and two steps on Qwen2.5's architecture."""

from __future__ import annotations

import json
from pathlib import Path

from launch import checkpoint, config
from launch.models import tiny_like
from launch.report import build
from launch.runfolder import RunFolder
from reasoning.conflict import Context, build_instance
from tests.tiny import make_tokenizer

CONFLICTQA = Path(__file__).parents[1] / "fixtures" / "conflict" / "conflictqa.jsonl"


def test_the_embedded_recipe_trains_measures_and_reports(tmp_path: Path) -> None:
    """One run of few steps; given again it computes nothing anew."""
    said = [f"run.folder={tmp_path / 'run'}", f"base.cache={tmp_path}", "base.train.max_steps=3", "train.max_steps=2",
            "train.batch_size=2", "grpo.generations=2", "base.demonstrations=200", "base.habit_demonstrations=64",
            "world.train=20", "world.test=20", "held_out=4"]  # fmt: skip
    loaded = config.load("reasoning/kcr_conflicts", said)
    result = loaded.recipe.main(loaded.config)
    assert 0 <= result.metrics["before_accuracy"] <= 1 and 0 <= result.metrics["accuracy"] <= 1
    logged = [row for row in RunFolder(result.folder).metrics() if row.get("stage") == "grpo" and "kcr/total" in row]
    assert [row["step"] for row in logged] == [1, 2]
    page = build(result.folder).read_text()
    assert "Conflicts" in page and "Reward and its parts" in page and "Odd input" in page
    assert loaded.recipe.main(loaded.config).metrics == result.metrics


ODD = {
    "one_context": [Context("Ann Lee lives in Oslo.", "Oslo", True)],
    "empty_context": [Context("", "Oslo", True), Context("Ann Lee lives in Rome.", "Rome", False)],
    "agree": [Context("Ann Lee lives in Oslo.", "Oslo", True), Context("Ann Lee: Oslo.", "oslo", True)],
    "all_false": [Context("Ann Lee lives in Rome.", "Rome", False), Context("Ann Lee: Lima.", "Lima", False)],
    "no_entity": [Context("she lives in Oslo.", "Oslo", True), Context("she lives in Rome.", "Rome", False)],
    "answer_nowhere": [Context("Ann Lee lives there.", "Oslo", True), Context("Ann Lee: Rome.", "Rome", False)],
    "huge_context": [Context("Ann Lee: Oslo. " * 70_000, "Oslo", True), Context("Ann Lee: Rome.", "Rome", False)],
    "mixed_scripts": [Context("Ann Lee: Oslo.", "Oslo", True), Context("Энн Ли живёт в Риме.", "Rome", False)],
    "": [Context("Ann Lee lives in Oslo.", "Oslo", True), Context("Ann Lee lives in Rome.", "Rome", False)],
}
"""Contexts by what is odd about them; a megabyte is the longest."""
COPIES = 8


def test_a_run_over_every_kind_of_odd_conflict_ends_and_counts_each(tmp_path: Path) -> None:
    """Three steps of a random model, whose completions have no form; the megabyte is shown as its paths alone."""
    cases = [
        build_instance(f"Where does Ann Lee live, {n}?", contexts, ["Oslo"])
        for n in range(COPIES)
        for kind, contexts in ODD.items()
        if n == 0 or kind != "huge_context"
    ]
    (tmp_path / "odd.jsonl").write_text("".join(case.to_json() + "\n" for case in cases))
    said = [f"policy={tmp_path / 'qwen'}", f"data.path={tmp_path / 'odd.jsonl'}", "data.kind=instances",
            "data.budget=50", "grpo.generations=2", "grpo.max_new_tokens=4", "train.batch_size=4", "train.max_steps=3",
            "held_out=2", f"run.folder={tmp_path / 'run'}"]  # fmt: skip
    _write_qwen(tmp_path / "qwen")
    loaded = config.load("reasoning/kcr_conflicts", said)
    result = loaded.recipe.main(loaded.config)
    run = RunFolder(result.folder)
    data = json.loads((run.path / "artifacts" / "conflict-data.json").read_text())
    # Nor is the gold answer anywhere where no context is true, or the true one is empty.
    assert data["odd"] == {kind: COPIES for kind in ODD if kind} | {"answer_nowhere": 3 * COPIES, "huge_context": 1}
    assert data["train"] + data["test"] <= len(cases) and data["test"] == 2
    logged = [row for row in run.metrics() if row.get("stage") == "grpo" and "kcr/total" in row]
    assert [row["kcr/total"] for row in logged] == [0.0] * 3 and logged[0]["kcr/verdict_no_think"] == 1.0
    page = build(result.folder).read_text()
    odd = page[page.index("Odd input") :]
    assert all(kind in odd for kind in ODD) and "no_think" in odd and "24" in odd


def _write_qwen(folder: Path) -> None:
    """A random model of the architecture with room for a prompt."""
    from transformers import Qwen2Config

    tokenizer = make_tokenizer()
    shape = Qwen2Config(pad_token_id=0, bos_token_id=1, eos_token_id=2, num_key_value_heads=4)
    tiny_like(shape, layers=2, hidden=64, vocab=len(tokenizer)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def test_the_qwen_config_trains_two_steps(tmp_path: Path) -> None:
    """LoRA in bf16 on a random model of the architecture, one prompt of two completions a step."""
    _write_qwen(tmp_path / "qwen")
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
