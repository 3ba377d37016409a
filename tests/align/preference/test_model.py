"""A preference model's scores: from K sequences, whatever the padding, and the same after saving and loading."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from align.preference import PreferenceModel
from align.preference.batch import padded, sequences
from align.preference.config import HEADS, PreferenceConfig
from align.preference.encode import padded_heads
from launch.contracts import Scorer
from launch.errors import CheckpointError, ConfigError, DataError, RenderingError
from launch.models import apply_lora, merge_lora
from launch.options import LoraOptions
from launch.rendering import Renderer
from tests.align.preference.conftest import lively

PROMPT = "Which fruit is best?"
ANSWERS = ["Apples.", "Pears, because they are sweet and soft.", "Plums", "", " ", "A quince: nobody dislikes it!"]


@pytest.mark.parametrize("kind", ["bt", "gpm", "hrc"])
def test_hrc_acceptance_2_model(backbone: Path, kind: Any) -> None:
    """S is skew with diagonal 0, P + P^T = 1, |S_C| <= C2 lambda_max^2 / tau, S = S_T + S_C; on both backbones."""
    model = lively(PreferenceModel.from_backbone(backbone, kind=kind, dims=4, seed=1, c2=0.5, lambda_sq_max=3.0))
    s = model.score(PROMPT, ANSWERS)
    assert isinstance(model, Scorer)
    assert s.S.shape == (6, 6)
    assert np.abs(s.S + s.S.T).max() < 1e-6
    assert np.abs(np.diagonal(s.S)).max() == 0
    assert np.allclose(s.P + s.P.T, 1, atol=1e-12)
    assert np.allclose(s.P, 1 / (1 + np.exp(-s.S)))
    assert np.array_equal(s.S, s.S_T + s.S_C)
    assert np.abs(s.S_C).max() <= 0.5 * 3.0 / 0.1 + 1e-6
    if kind == "bt":
        assert not s.S_C.any()
    if kind == "gpm":
        assert not s.S_T.any()


def test_s_is_divided_by_tau(tiny_llama: Path) -> None:
    """The exported scores are logits: the same heads at tau 1 give a tenth of those at tau 0.1."""
    a = PreferenceModel.from_backbone(tiny_llama, tau=0.1, seed=1).score(PROMPT, ANSWERS)
    b = PreferenceModel.from_backbone(tiny_llama, tau=1.0, seed=1).score(PROMPT, ANSWERS)
    assert np.allclose(a.S, 10 * b.S)
    assert np.allclose(a.S_T[0, 1], (a.r[0] - a.r[1]) / 0.1)  # type: ignore[index]


def test_hrc_acceptance_3_encoder_calls(backbone: Path) -> None:
    """A causal backbone reads one prompt and K different answers, token by token once; a bidirectional one, or the
    padded twin, reads K sequences, and the former the prompt by itself."""
    model = PreferenceModel.from_backbone(backbone)
    causal = model.config.pooling == "last"
    seen: list[torch.Tensor] = []
    model.backbone.register_forward_pre_hook(lambda _, args, kwargs: seen.append(kwargs["input_ids"]), with_kwargs=True)
    prompt = len(model.renderer.prompt_ids(PROMPT))
    answers = [len(model.renderer.encode(PROMPT, answer).ids) - prompt for answer in ANSWERS]
    for responses, size in ((ANSWERS, 16), ([*ANSWERS, *ANSWERS], 16)):
        seen.clear()
        model.score(PROMPT, responses, batch_size=size)
        if causal:
            assert sum(ids.numel() for ids in seen) == prompt + sum(answers)
        else:
            assert sum(len(ids) for ids in seen) == len(ANSWERS) + 1
    seen.clear()
    model.score_many([(PROMPT, ANSWERS)], batch_size=4, packing="padded")
    assert sum(len(ids) for ids in seen) == len(ANSWERS) + (not causal)


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("pad_id", [0, 2, 17])
def test_hrc_acceptance_3_padding(backbone: Path, side: Any, pad_id: int) -> None:
    """Heads change by less than 1e-5 with 0, 5 or 50 padding tokens, on either side, of any id (EOS too)."""
    model = lively(PreferenceModel.from_backbone(backbone, seed=1)).eval()
    plan = sequences(model.renderer, [(PROMPT, ANSWERS)], model.config.pooling)  # type: ignore[arg-type]
    where = {"gate_rows": torch.tensor(plan.gate_rows), "gate_positions": torch.tensor(plan.gate_positions)}
    with torch.no_grad():
        alone = [model(torch.tensor([ids])) for ids in plan.ids]
        r, v = torch.cat([o.r for o in alone]), torch.cat([o.v for o in alone])
        gate = model(
            torch.tensor([plan.ids[plan.gate_rows[0]]]), None, torch.zeros(1, dtype=torch.long), where["gate_positions"]
        ).lambda_sq
        for more in (0, 5, 50):
            ids, mask = padded(plan.ids, pad_id, side)
            extra_ids, extra_mask = torch.full((len(ids), more), pad_id), torch.zeros(len(ids), more, dtype=torch.bool)
            order = (extra_ids, ids) if side == "left" else (ids, extra_ids)
            masks = (extra_mask, mask) if side == "left" else (mask, extra_mask)
            out = model(torch.cat(order, 1), torch.cat(masks, 1), **where)
            assert (out.r - r).abs().max() < 1e-5
            assert (out.v - v).abs().max() < 1e-5
            assert (out.lambda_sq - gate).abs().max() < 1e-5


def test_batch_mates_and_batch_size_change_nothing(backbone: Path) -> None:
    model = lively(PreferenceModel.from_backbone(backbone, seed=1))
    groups = [(PROMPT, ANSWERS), ("Say hello.", ["hello", "hi there, how do you do? " * 3]), ("?", ["!"])]
    alone = [model.score(*group, batch_size=1) for group in groups]
    for size in (2, 5, 64):
        for mine, theirs in zip(model.score_many(groups, batch_size=size), alone, strict=True):
            assert np.abs(mine.S - theirs.S).max() < 1e-4  # logits at tau 0.1: raw scores within 1e-5
            assert np.abs(mine.lambda_sq - theirs.lambda_sq).max() < 1e-5


def test_gates_are_looked_through_once(hrc: PreferenceModel) -> None:
    """However many batches there are: scoring stays linear in the number of prompts. Each prompt keeps its own gate."""

    class Counting(dict):
        looks = 0

        def items(self) -> Any:
            self.looks += 1
            return super().items()

    plan = sequences(hrc.renderer, [(f"{n}?", ["a", "b"]) for n in range(8)], "last")
    gates = Counting(enumerate(plan.gate_rows))
    with torch.no_grad():
        found = padded_heads(hrc, plan.ids, gates, plan.gate_positions, 2)[2]
    assert gates.looks == 1
    assert np.allclose(found, [hrc.gate(f"{n}?") for n in range(8)], atol=1e-5)


def test_order_of_answers_is_the_order_of_scores(hrc: PreferenceModel) -> None:
    order = [3, 0, 5, 1, 4, 2]
    s, shuffled = hrc.score(PROMPT, ANSWERS), hrc.score(PROMPT, [ANSWERS[k] for k in order])
    assert np.abs(shuffled.S - s.S[np.ix_(order, order)]).max() < 1e-4


def test_gate_is_the_same_for_all_answers_and_differs_between_prompts(backbone: Path) -> None:
    model = lively(PreferenceModel.from_backbone(backbone, seed=1))
    gates = [model.score(PROMPT, [answer]).lambda_sq for answer in ANSWERS]
    for gate in gates:
        assert np.allclose(gate, model.gate(PROMPT), atol=1e-5)
    assert np.abs(model.gate(PROMPT) - model.gate("Add 2 and 2.")).max() > 1e-3


def test_cached_embeddings_score_the_same(backbone: Path) -> None:
    model = lively(PreferenceModel.from_backbone(backbone, seed=1))
    kept = [model.embed(PROMPT, answer) for answer in ANSWERS]
    assert isinstance(kept[0]["r"], float)
    assert kept[0]["v"].shape == (4,)
    assert np.abs(model.compare(kept, model.gate(PROMPT)).S - model.score(PROMPT, ANSWERS).S).max() < 1e-4


def test_chat_prompts_and_plain_prompts(hrc: PreferenceModel) -> None:
    chat = [
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "Yes?"},
        {"role": "user", "content": "?"},
    ]
    assert hrc.score(chat, ["a", "b"]).S.shape == (2, 2)  # type: ignore[arg-type]
    with pytest.raises(DataError, match="user turn"):
        hrc.score(chat[:2], ["a", "b"])  # type: ignore[arg-type]


# ---------------------------------------------------------------- unusual and bad input


def test_one_answer_and_equal_answers(hrc: PreferenceModel) -> None:
    one = hrc.score(PROMPT, ["only"])
    assert one.S.tolist() == [[0]]
    assert (one.winner, one.nash.tolist(), one.cyclicity) == (0, [1], 0)
    twins = hrc.score(PROMPT, ["same", "other words", "same"])
    assert twins.S[0, 2] == 0
    assert np.array_equal(twins.S[0, 1], twins.S[2, 1])


def test_bad_input_is_named(hrc: PreferenceModel) -> None:
    for responses, words in (([], "at least one"), ("text", "no list"), (["a", None], "answer 1 is NoneType")):
        with pytest.raises(DataError, match=words):
            hrc.score(PROMPT, responses)  # type: ignore[arg-type]
    with torch.no_grad():
        next(hrc.backbone.parameters())[5:] = float("nan")
    with pytest.raises(DataError, match="not finite"):
        hrc.score(PROMPT, ANSWERS)


def test_long_texts_are_cut_on_the_right_and_end_in_eos(tiny_llama: Path) -> None:
    """Beyond 20 tokens nothing counts: answers that differ only there tie exactly in r and v up to rounding, and so do
    all answers when the prompt alone fills the sequence."""
    model = lively(PreferenceModel.from_backbone(tiny_llama, max_length=20))
    assert model.renderer.max_length == 20
    s = model.score("prompt", ["answer " + "x" * 30, "answer " + "x" * 29 + "y", "other"])
    assert abs(s.S[0, 1]) < 1e-4
    assert abs(s.S[0, 2]) > 1e-3
    filled = model.score("p" * 100, ["a", "b"])
    assert np.abs(filled.S).max() < 1e-4
    assert np.allclose(filled.lambda_sq, model.gate("p" * 100), atol=1e-5)


@pytest.mark.parametrize(
    ("option", "value"), [("kind", "elo"), ("gate", "sigmoid"), ("dims", 3), ("dims", 0), ("tau", 0.0), ("delta", -1.0)]
)
def test_impossible_options_are_refused(tiny_llama: Path, option: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=option) as raised:
        PreferenceModel.from_backbone(tiny_llama, **{option: value})
    assert raised.value.field == option


# ---------------------------------------------------------------- saving and loading


def test_save_and_load(backbone: Path, tmp_path: Path) -> None:
    model = lively(PreferenceModel.from_backbone(backbone, kind="hrc", dims=2, tau=0.3, delta=2.0, seed=3))
    model.save_pretrained(tmp_path)
    assert (tmp_path / "model.safetensors").is_file()
    assert not list(tmp_path.glob("*.bin"))
    again = PreferenceModel.from_pretrained(tmp_path)
    before, after = model.score(PROMPT, ANSWERS), again.score(PROMPT, ANSWERS)
    assert np.abs(before.S - after.S).max() < 1e-5  # not 0: products round by where in memory the weights lie
    for name, value in model.state_dict().items():
        assert torch.equal(value, again.state_dict()[name])
    assert again.config.tau == 0.3
    assert again.config.rendering == model.config.rendering
    assert [n for n in HEADS if hasattr(again, n)] == list(HEADS)
    again.save_pretrained(tmp_path / "twice")
    assert PreferenceModel.from_pretrained(tmp_path / "twice").config.rendering == model.config.rendering


def test_plain_transformers_loads_it(hrc: PreferenceModel, tmp_path: Path) -> None:
    """AutoModel scores alike after load_extensions, by the entry point of pyproject.toml, and after an import."""
    root = Path(__file__).parents[3]
    points = tomllib.loads((root / "pyproject.toml").read_text())["project"]["entry-points"]["arbiter.models"]
    info = tmp_path / "path" / "declared-0.dist-info"  # as an installer writes it, so that none is needed
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: declared\nVersion: 0\n")
    lines = "".join(f"{name} = {target}\n" for name, target in points.items())
    (info / "entry_points.txt").write_text(f"[arbiter.models]\n{lines}")
    hrc.save_pretrained(tmp_path)
    expected = hrc.score(PROMPT, ANSWERS).S
    for first_line in ("from launch.models import load_extensions; load_extensions()", "import align.preference"):
        code = (
            f"{first_line}\nfrom transformers import AutoConfig, AutoModel\nimport json, sys\n"
            "model = AutoModel.from_pretrained(sys.argv[1])\n"
            "assert AutoConfig.from_pretrained(sys.argv[1]).model_type == 'arbiter_preference'\n"
            "print(json.dumps(model.score(sys.argv[2], json.loads(sys.argv[3])).S.tolist()))"
        )
        done = subprocess.run(
            [sys.executable, "-c", code, str(tmp_path), PROMPT, json.dumps(ANSWERS)],
            capture_output=True, text=True, check=False, cwd=root,
            env={**os.environ, "PYTHONPATH": f"{info.parent}{os.pathsep}{root}"},
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert np.allclose(json.loads(done.stdout.splitlines()[-1]), expected, atol=1e-6)


def test_another_rendering_is_refused(hrc: PreferenceModel, tmp_path: Path) -> None:
    hrc.save_pretrained(tmp_path)

    def loaded() -> PreferenceModel:
        return PreferenceModel.from_pretrained(tmp_path)

    model = loaded()
    model.renderer.tokenizer.chat_template = "{{ messages }}"
    with pytest.raises(RenderingError, match="chat_template"):
        model.score(PROMPT, ANSWERS)
    model = loaded()
    with pytest.raises(RenderingError, match="max_length: saved 512, now 64"):
        model.use(Renderer(model.renderer.tokenizer, 64))
    with pytest.raises(RenderingError, match="end"):
        model.use(Renderer(model.renderer.tokenizer, 512, end="keep"))
    model = loaded()
    model.config.tau = 0.2
    with pytest.raises(RenderingError, match=r"tau 0\.1"):
        model.score(PROMPT, ANSWERS)
    file = tmp_path / "tokenizer.json"
    text = json.loads(file.read_text())
    vocab = text["model"]["vocab"]
    vocab["a"], vocab["b"] = vocab["b"], vocab["a"]
    file.write_text(json.dumps(text))
    with pytest.raises(RenderingError, match="tokenizer"):
        loaded()


def test_without_a_tokenizer_it_loads_but_reads_no_text(hrc: PreferenceModel, tmp_path: Path) -> None:
    hrc.save_pretrained(tmp_path)
    tokenizer = hrc.renderer.tokenizer
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (tmp_path / name).unlink()
    model = PreferenceModel.from_pretrained(tmp_path)
    with pytest.raises(RenderingError, match="no tokenizer"):
        model.score(PROMPT, ANSWERS)
    model.use(Renderer(tokenizer, 512))
    assert np.allclose(model.score(PROMPT, ANSWERS).S, hrc.score(PROMPT, ANSWERS).S, atol=1e-4)


def test_broken_checkpoints_are_named(hrc: PreferenceModel, tiny_llama: Path, tmp_path: Path) -> None:
    good = tmp_path / "good"
    hrc.save_pretrained(good)
    cut = tmp_path / "cut"
    shutil.copytree(good, cut)
    weights = (cut / "model.safetensors").read_bytes()
    (cut / "model.safetensors").write_bytes(weights[: len(weights) // 2])
    lacking = tmp_path / "lacking"
    shutil.copytree(good, lacking)
    from safetensors.torch import load_file, save_file

    state = load_file(lacking / "model.safetensors")
    del state["rank_head.weight"]
    save_file(state, lacking / "model.safetensors", metadata={"format": "pt"})
    for folder, words in (
        (cut, "cannot load"),
        (lacking, "rank_head"),
        (tmp_path / "none", "cannot load"),
        (tiny_llama, "from_backbone"),
    ):
        with pytest.raises(CheckpointError, match=words) as raised:
            PreferenceModel.from_pretrained(folder)
        assert "\n" not in str(raised.value)


def test_heads_are_float32_on_a_bf16_backbone(tiny_llama: Path, tmp_path: Path) -> None:
    model = lively(PreferenceModel.from_backbone(tiny_llama, precision="bf16", seed=1))
    assert next(model.backbone.parameters()).dtype == torch.bfloat16
    for name in HEADS:
        assert {p.dtype for p in getattr(model, name).parameters()} == {torch.float32}
    s = model.score(PROMPT, ANSWERS)
    full = lively(PreferenceModel.from_backbone(tiny_llama, seed=1)).score(PROMPT, ANSWERS)
    assert np.abs(s.S - full.S).max() < 0.1 * np.abs(full.S).max()
    model.save_pretrained(tmp_path)
    again = PreferenceModel.from_pretrained(tmp_path, dtype="auto")
    assert next(again.backbone.parameters()).dtype == torch.bfloat16
    assert next(again.rank_head.parameters()).dtype == torch.float32
    assert np.allclose(again.score(PROMPT, ANSWERS).S, s.S, atol=0.3)  # bf16 has 8 bits


@pytest.mark.parametrize("kind", ["bt", "gpm", "hrc"])
def test_lora(tiny_llama: Path, tmp_path: Path, kind: Any) -> None:
    """Adapters on the backbone, heads trained in full; merged, saved and loaded it scores as before."""
    model = PreferenceModel.from_backbone(tiny_llama, kind=kind, seed=1)
    base = model.score(PROMPT, ANSWERS).S
    adapted: Any = apply_lora(model, LoraOptions(rank=4), model.train_whole)
    trained = [n for n, p in adapted.named_parameters() if p.requires_grad]
    assert all("lora_" in n or "_head.modules_to_save" in n for n in trained)
    assert {h for h in HEADS if any(h in n for n in trained)} == set(model.train_whole)
    g = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for _, p in adapted.named_parameters():
            if p.requires_grad:
                p += 0.05 * torch.randn(p.shape, generator=g)
    changed = adapted.score(PROMPT, ANSWERS).S
    assert np.abs(changed - base).max() > 1e-2
    merged = merge_lora(adapted)
    assert np.abs(merged.score(PROMPT, ANSWERS).S - changed).max() < 1e-3
    merged.save_pretrained(tmp_path)
    assert np.abs(PreferenceModel.from_pretrained(tmp_path).score(PROMPT, ANSWERS).S - changed).max() < 1e-3


def test_scoring_leaves_training_mode_and_the_random_state_alone(hrc: PreferenceModel) -> None:
    hrc.train()
    state = torch.random.get_rng_state()
    hrc.score(PROMPT, ANSWERS)
    assert hrc.training
    assert torch.equal(torch.random.get_rng_state(), state)


def test_same_seed_same_heads(tiny_llama: Path) -> None:
    torch.manual_seed(5)
    a = PreferenceModel.from_backbone(tiny_llama, seed=1).score(PROMPT, ANSWERS).S
    torch.manual_seed(6)
    assert np.array_equal(PreferenceModel.from_backbone(tiny_llama, seed=1).score(PROMPT, ANSWERS).S, a)
    assert not np.array_equal(PreferenceModel.from_backbone(tiny_llama, seed=2).score(PROMPT, ANSWERS).S, a)


def test_ablations_are_options(tiny_llama: Path) -> None:
    """Every combination builds and stays a game; no clip leaves r beyond delta, no unit norm leaves |v| != 1."""
    for gate in ("none", "scalar", "softmax", "softplus"):
        assert PreferenceModel.from_backbone(tiny_llama, gate=gate).score(PROMPT, ANSWERS).S.shape == (6, 6)  # type: ignore[arg-type]
    clipped = PreferenceModel.from_backbone(tiny_llama, delta=1e-3).score(PROMPT, ANSWERS)
    free = PreferenceModel.from_backbone(tiny_llama, delta=1e-3, clip=False, unit_norm=False).score(PROMPT, ANSWERS)
    assert np.abs(clipped.r).max() <= 1e-3 + 1e-9  # type: ignore[arg-type]
    assert np.abs(free.r).max() > 1e-3  # type: ignore[arg-type]
    assert np.abs(np.linalg.norm(free.vectors, axis=1) - 1).max() > 1e-2  # type: ignore[arg-type]
    assert np.allclose(np.linalg.norm(clipped.vectors, axis=1), 1)  # type: ignore[arg-type]


def test_an_encoder_decoder_is_refused(tmp_path: Path) -> None:
    from transformers import T5Config

    from align.preference.backbone import pooling_of

    with pytest.raises(ConfigError, match="t5"):
        pooling_of(T5Config())


def test_config_round_trip(hrc: PreferenceModel) -> None:
    again = PreferenceConfig.from_dict(hrc.config.to_dict())
    assert again.to_dict() == hrc.config.to_dict()
