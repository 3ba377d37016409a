"""Padded, packed and packed with a shared prompt: the same loss, gradients, scores and metrics."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from align.preference import PreferenceModel
from align.preference.batch import layout_for, parts, sequences
from align.preference.config import PreferenceConfig
from align.preference.objective import PreferenceObjective
from launch import packing
from launch.counters import PREFIX
from launch.errors import DataError
from launch.models import apply_lora
from launch.options import LoraOptions
from tests.align.preference.conftest import lively
from tests.launch.packed import WINDOW, backbone_of
from tests.tiny import make_tokenizer

LAYOUTS: tuple[Any, ...] = ("padded", "packed", "shared")
LIMIT = 48


def row(prompt: str, responses: list[str], *pairs: tuple[int, int]) -> dict[str, Any]:
    return {"prompt": prompt, "responses": responses, "winners": [w for w, _ in pairs],
            "losers": [b for _, b in pairs], "weights": [1.0 + n for n in range(len(pairs))],
            "source": "x:1"}  # fmt: skip


ROWS = {
    "several": [row("Best?", ["a", "bb bb", "ccc"], (0, 1), (1, 2), (2, 0)), row("And now?", ["yes", "no"], (1, 0))],
    "equal answers": [row("Which?", ["same", "other", "same"], (0, 1), (1, 2))],
    "a prefix of another": [row("Count.", ["one", "one two", "one two three"], (2, 0), (1, 0))],
    "the empty answer": [row("Speak.", ["", " ", "word"], (2, 0), (1, 2))],
    "an answer over the limit": [row("Go on.", ["x" * 100, "y", "x" * 99 + "z"], (0, 1), (1, 2))],
    "a prompt that fills the row": [row("p" * LIMIT, ["a", "b"], (0, 1)), row("?", ["a", "b"], (0, 1))],
    "a prompt one short of the limit": [row("p" * (LIMIT - 2), ["a", "b"], (0, 1))],
    "a long prompt": [row("p" * 200, ["a", "b"], (0, 1))],
}


def model_on(folder: Path, kind: str = "hrc") -> PreferenceModel:
    options: Any = {"kind": kind, "seed": 1, "tau": 1.0, "max_length": LIMIT}
    return lively(PreferenceModel.from_backbone(folder, **options))


@pytest.fixture(params=[0, 10**6], ids=["by segment", "dense mask"])
def ways(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both ways that packed rows run under sdpa, whatever the texts' length."""
    monkeypatch.setattr(packing, "SHORT", request.param)


def saved(family: str, folder: Path) -> Path:
    tokenizer = make_tokenizer()
    backbone_of(family, vocabulary=len(tokenizer)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def results(learner: Any, model: PreferenceModel, rows: list[dict[str, Any]]) -> dict[str, dict[str, torch.Tensor]]:
    """Loss, metrics and all gradients in each layout; not the work, which is what layouts differ by."""
    found = {}
    for layout in LAYOUTS:
        objective = PreferenceObjective(model.renderer, model.config, layout)
        assert objective.layout == layout
        learner.zero_grad()
        total, count, metrics = objective.loss(learner, objective.collate(rows))
        total.backward()
        found[layout] = {
            "loss": total.detach(), "count": torch.tensor(count),
            **{k: torch.as_tensor(v) for k, v in metrics.items() if not k.startswith(PREFIX)},
            **{n: p.grad.clone() for n, p in learner.named_parameters() if p.grad is not None},
        }  # fmt: skip
    return found


def assert_equal(found: dict[str, dict[str, torch.Tensor]]) -> None:
    wanted = found.pop("padded")
    assert len(wanted) > 10
    for layout, values in found.items():
        assert values.keys() == wanted.keys()
        for name, value in wanted.items():
            scale = max(1.0, float(value.abs().max()))
            assert float((values[name] - value).abs().max()) < 1e-5 * scale, (layout, name)


@pytest.mark.usefixtures("ways")
@pytest.mark.parametrize("case", ROWS)
def test_layouts_agree_in_loss_gradients_and_metrics(tiny_llama: Path, case: str) -> None:
    model = model_on(tiny_llama)
    assert_equal(results(model, model, ROWS[case]))


@pytest.mark.parametrize("kind", ["bt", "gpm"])
def test_layouts_agree_for_every_kind(tiny_llama: Path, kind: str) -> None:
    model = model_on(tiny_llama, kind)
    assert_equal(results(model, model, ROWS["several"]))


def adapted(model: PreferenceModel) -> Any:
    """LoRA on every linear layer, its B not 0 but small: at 0.05 padded rows alone and together part by 0.8e-5 too."""
    learner = apply_lora(model, LoraOptions(rank=2), model.train_whole)
    g = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in learner.named_parameters():
            if "lora_B" in name:
                parameter.copy_(0.03 * torch.randn(parameter.shape, generator=g))
    return learner


def checkpointed(learner: Any) -> Any:
    """As the trainer sets it."""
    learner.train()
    learner.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    return learner


@pytest.mark.usefixtures("ways")
@pytest.mark.parametrize("lora", [False, True])
@pytest.mark.parametrize("checkpointing", [False, True])
def test_layouts_agree_with_adapters_and_checkpoints(tiny_llama: Path, lora: bool, checkpointing: bool) -> None:
    model = model_on(tiny_llama)
    learner = (adapted(model) if lora else model).train()
    if checkpointing:
        checkpointed(learner)
    assert_equal(results(learner, model, ROWS["several"] + ([] if lora else ROWS["a prefix of another"])))


FAMILIES = ["qwen2", "qwen3", "gemma", "gemma2", "gemma3", "mistral_window"]
BEYOND_THE_WINDOW = [
    row("p" * (3 * WINDOW) + "!", ["yes, indeed", "no", "yes"], (0, 1), (2, 0)), row("?", ["a", "b"], (0, 1))
]  # fmt: skip


@pytest.mark.usefixtures("ways")
@pytest.mark.parametrize("family", FAMILIES)
def test_layouts_agree_in_every_family_with_adapters_and_checkpoints(family: str, tmp_path: Path) -> None:
    model = model_on(saved(family, tmp_path))
    assert_equal(results(checkpointed(adapted(model)), model, BEYOND_THE_WINDOW))


@pytest.mark.usefixtures("ways")
@pytest.mark.parametrize("family", FAMILIES)
def test_layouts_agree_in_every_family(family: str, tmp_path: Path) -> None:
    """Prompts longer than the window, read from a folder as a user would; Gemma-2 comes out under eager attention."""
    model, rows = model_on(saved(family, tmp_path)), BEYOND_THE_WINDOW
    assert layout_for(model.config) == "shared"
    assert_equal(results(model, model, rows))
    model.save_pretrained(tmp_path / "saved")
    again = PreferenceModel.from_pretrained(tmp_path / "saved")
    assert layout_for(again.config) == "shared"
    a = again.score_many([(r["prompt"], r["responses"]) for r in rows])
    b = model.score_many([(r["prompt"], r["responses"]) for r in rows], packing="padded")
    assert all(np.abs(x.S - y.S).max() < 1e-4 for x, y in zip(a, b, strict=True))


@pytest.mark.usefixtures("ways")
def test_scores_agree_whatever_the_layout_and_the_budget(tiny_llama: Path) -> None:
    """Down to a budget of one sequence, under which a group is encoded in parts."""
    model = model_on(tiny_llama)
    groups = [(r["prompt"], r["responses"]) for rows in ROWS.values() for r in rows]
    alone = [model.score_many([group], 1, "padded")[0] for group in groups]
    for layout in LAYOUTS:
        for size in (1, 3, 64):
            for mine, theirs in zip(model.score_many(groups, size, layout), alone, strict=True):
                assert np.abs(mine.r - theirs.r).max() < 1e-5  # type: ignore[operator]
                assert np.abs(mine.vectors - theirs.vectors).max() < 1e-5  # type: ignore[operator]
                assert np.abs(mine.lambda_sq - theirs.lambda_sq).max() < 1e-5
                assert np.abs(mine.S - theirs.S).max() < 1e-5 * max(1.0, np.abs(theirs.S).max())


def test_the_gate_lies_in_the_trunk_also_at_the_limit(tiny_llama: Path) -> None:
    """The prompt's last token is shared by all answers; a prompt that fills the row is read one token early."""
    model = model_on(tiny_llama)
    for rows in ROWS.values():
        plan = sequences(model.renderer, [(r["prompt"], r["responses"]) for r in rows], "last")
        for part in parts(plan):
            assert part.gate is not None and part.gate[2] < len(part.tree.trunk)


def test_a_budget_cuts_groups_into_parts_with_one_gate(tiny_llama: Path) -> None:
    """Prompt of 7, answers of 3: two at a time within 13 tokens, and one at least within 1."""
    model = model_on(tiny_llama)
    plan = sequences(model.renderer, [("prompt", [f"{k}!" for k in range(5)])], "last")
    for most, sizes in ((0, [5]), (13, [2, 2, 1]), (1, [1] * 5)):
        found = list(parts(plan, most=most))
        assert [len(p.members) for p in found] == sizes
        assert [p.gate is not None for p in found] == [True] + [False] * (len(sizes) - 1)
        assert [n for p in found for n in p.members] == list(range(5))


# ---------------------------------------------------------------- sessions


@pytest.mark.parametrize("kind", ["bt", "gpm", "hrc"])
def test_a_session_scores_as_all_at_once_and_reads_the_prompt_once(backbone: Path, kind: str) -> None:
    """One pass over an answer's own tokens; an answer known already costs none. A bidirectional backbone reads all."""
    model = model_on(backbone, kind)
    prompt, answers = "Which fruit is best?", ["Apples.", "Pears, as they are soft", "", "Apples.", "x" * 100]
    session = model.train().session(prompt)
    causal = model.config.pooling == "last"
    head = len(model.renderer.prompt_ids(prompt))
    assert session.tokens_encoded == head
    for n, answer in enumerate(answers):
        assert session.add(answer) == n
    lengths = [len(model.renderer.encode(prompt, a).ids) for a in dict.fromkeys(answers)]
    assert session.tokens_encoded == head + sum(lengths) - causal * head * len(lengths)
    assert model.training
    mine, theirs = session.scores(), model.score(prompt, answers)
    assert np.abs(mine.S - theirs.S).max() < 1e-4
    assert np.allclose(mine.lambda_sq, theirs.lambda_sq, atol=1e-5)
    assert np.abs(mine.r - theirs.r).max() < 1e-5  # type: ignore[operator]


def test_a_session_makes_the_prompt_into_tokens_once(backbone: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What reaches the tokenizer behind the first call: each different answer, and no prompt."""
    model = model_on(backbone)
    seen: list[str] = []
    call = type(model.renderer.tokenizer).__call__

    def noted(self: Any, text: Any, *args: Any, **kwargs: Any) -> Any:
        seen.append(text)
        return call(self, text, *args, **kwargs)

    session = model.session("Which fruit is best?")
    monkeypatch.setattr(type(model.renderer.tokenizer), "__call__", noted)
    for answer in ("Apples.", "x" * 100, "Apples."):
        session.add(answer)
    session.scores()
    assert seen == ["Apples.", "x" * 100]


@pytest.mark.parametrize("family", ["qwen3", "gemma2", "gemma3", "mistral_window"])
def test_a_session_keeps_what_a_sliding_window_needs(family: str, tmp_path: Path) -> None:
    """Cut back to the prompt after each answer, beyond the window too; a prompt that fills the row as well."""
    model = model_on(saved(family, tmp_path))
    for prompt in ("p" * 30, "q" * LIMIT, "?"):
        session = model.session(prompt)
        for answer in ("a long answer indeed", "b", "and a third"):
            session.add(answer)
        theirs = model.score_many([(prompt, session.answers)], packing="padded")[0]
        assert np.abs(session.scores().S - theirs.S).max() < 1e-4


def test_a_session_names_what_it_cannot_take(tiny_llama: Path) -> None:
    session = model_on(tiny_llama).session("?")
    with pytest.raises(DataError, match="at least one"):
        session.scores()
    with pytest.raises(DataError, match="answer 0 is NoneType"):
        session.add(None)  # type: ignore[arg-type]


# ---------------------------------------------------------------- what cannot be packed


def test_what_cannot_be_packed_is_padded_with_one_line(
    tiny_bert: Path, tiny_llama: Path, caplog: pytest.LogCaptureFixture
) -> None:
    from transformers import Gemma2Config, GPT2Config, LlamaConfig

    with caplog.at_level(logging.INFO, "align.preference.batch"):
        bert = model_on(tiny_bert)
        assert PreferenceObjective(bert.renderer, bert.config).layout == "padded"
        gpt = PreferenceConfig(backbone_config=GPT2Config(n_embd=32))
        assert [layout_for(gpt) for _ in range(3)] == ["padded"] * 3
        capped = PreferenceConfig(backbone_config=Gemma2Config(attn_implementation="sdpa"))
        assert layout_for(capped) == "padded"
        flash = LlamaConfig()
        flash._attn_implementation = "flash_attention_2"
        assert layout_for(PreferenceConfig(backbone_config=flash)) == "packed"
    lines = [record.getMessage() for record in caplog.records]
    assert sum("gpt2 is not among the packed families" in line for line in lines) == 1
    assert sum("soft-capping of gemma2" in line for line in lines) == 1
    assert sum("rows are packed instead" in line for line in lines) == 1
    assert all("\n" not in line for line in lines)
