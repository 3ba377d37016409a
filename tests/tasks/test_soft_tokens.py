"""Soft tokens: equal to words where they are words' own vectors, and indifferent to padding, batch mates and kills."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from torch import nn
from transformers import AutoModelForCausalLM, Gemma3TextConfig, LlamaConfig

from launch.contracts import Sampling
from launch.errors import CheckpointError, ConfigError, DataError, RenderingError
from launch.export import export
from launch.generate import HFGenerator
from launch.logprob import completion_logprobs, completion_logprobs_packed, pack_answers
from launch.models import tiny_like
from launch.options import LoraOptions, TrainOptions
from launch.rendering import Renderer, pad
from launch.runfolder import RunFolder
from launch.supervised import SupervisedObjective, encode_rows
from launch.trainer import fit
from tasks.encoder import SoftTokens, VectorTable, soft
from tests.tiny import make_tokenizer

WORDS = [60, 61, 62, 70, 71]
"""Ids whose embeddings become vectors. Bytes are single tokens here: 60 is one byte, 61 the next."""
GREEDY = Sampling(max_new_tokens=6, temperature=0)


def decoder(tied: bool = False, seed: int = 0) -> Any:
    shape = LlamaConfig(tie_word_embeddings=tied, bos_token_id=1, eos_token_id=2, pad_token_id=0, initializer_range=0.2)
    return tiny_like(shape, vocab=len(make_tokenizer()), seed=seed)


def words_table(body: Any) -> VectorTable:
    """Item "n" is word n's own embedding; item "pair" has two of them."""
    rows = body.get_input_embeddings().weight.detach().numpy()
    made = VectorTable.make([str(w) for w in WORDS], rows[WORDS])
    spans = {**made.spans, "pair": (1, 3)}
    return VectorTable(made.vectors, spans)


@pytest.fixture(scope="module")
def same() -> SoftTokens:
    """A decoder that reads words' own embeddings as vectors."""
    body = decoder()
    return SoftTokens.from_decoder(body, words_table(body), projector="identity")


def learner(projector: Any = "mlp", tokens: int = 1, seed: int = 0, **more: Any) -> SoftTokens:
    """Eight items with vectors of width 5, of which the sign of the first number matters in the tests that learn."""
    vectors = np.random.default_rng(3).normal(size=(8, 5)).astype(np.float32)
    body = more.pop("body", None) or decoder(seed=seed)
    return SoftTokens.from_decoder(body, VectorTable.make(range(8), vectors), projector, tokens, seed=seed, **more)


# ---------------------------------------------------------------- the main law


@pytest.mark.parametrize("shape", [LlamaConfig(), Gemma3TextConfig(sliding_window=64)], ids=["llama", "gemma3"])
def test_words_own_vectors_give_the_words_logits(shape: Any) -> None:
    """An identity projector on embedding rows: ids V + i and the words they came from are the same text."""
    body = tiny_like(shape, vocab=300)
    words = torch.tensor([[5, 60, 9, 61, 62, 7], [70, 8, 71, 60, 60, 6]])
    with torch.no_grad():
        expected = body(input_ids=words).logits.clone()
        model = SoftTokens.from_decoder(body, words_table(body), projector="identity")
        mixed = words.clone()
        for i, word in enumerate(WORDS):
            mixed[words == word] = model.first_id + i
        assert int((mixed >= model.first_id).sum()) == 7
        assert torch.equal(model(input_ids=mixed).logits, expected)


def test_a_text_with_placeholders_is_the_text_with_the_words(same: SoftTokens) -> None:
    """Through the chat template: ids differ in the placeholder's place alone, and greedy answers are the same."""
    tokenizer = make_tokenizer()
    a, b = tokenizer.decode([60]), tokenizer.decode([61, 62])
    soft_chat = [{"role": "user", "content": f"is {soft(60)} near {soft('pair')}?"}]
    hard_chat = [{"role": "user", "content": f"is {a} near {b}?"}]
    renderer = same.renderer(tokenizer)
    ids, plain = renderer.prompt_ids(soft_chat), Renderer(make_tokenizer()).prompt_ids(hard_chat)
    assert [w if w < same.first_id else WORDS[w - same.first_id] for w in ids] == plain
    assert sum(w >= same.first_id for w in ids) == 3
    [[ours]] = HFGenerator(same, tokenizer, renderer).generate([soft_chat], 1, GREEDY)
    [[theirs]] = HFGenerator(same.decoder, make_tokenizer()).generate([hard_chat], 1, GREEDY)
    assert (ours.text, ours.token_ids) == (theirs.text, theirs.token_ids)
    assert ours.logprobs == pytest.approx(theirs.logprobs, abs=1e-5)


def test_packed_rows_equal_padded_ones() -> None:
    """Two answers behind one prompt with soft tokens: one tree, and two padded rows."""
    model = learner(tokens=2)
    v = model.first_id
    prompt, answers = [1, 9, v + 2, v + 3, 8, v + 14], [[30, 31, 2], [32, 2]]
    ids, mask = pad([prompt + answer for answer in answers], 0)
    completion = mask & (torch.arange(ids.shape[1]) >= len(prompt))
    packed, targets = pack_answers([prompt + answer for answer in answers], [len(prompt)] * 2)
    with torch.no_grad():
        padded = completion_logprobs(model, ids, mask, completion)
        shared = completion_logprobs_packed(model, **packed.tensors(), targets=targets, answers=2)
    assert len(packed.input_ids) == 1
    torch.testing.assert_close(shared, padded, atol=1e-5, rtol=0)


def test_batch_mates_and_padding_change_nothing() -> None:
    model = learner()
    v = model.first_id
    rows = [[1, v + 3, 8, v + 3, 9], [1, v + 7, 5], [1, 6, 7, 8, 9, 10, 11]]
    with torch.no_grad():
        alone = [model(input_ids=torch.tensor([row])).logits[0, -1] for row in rows]
        for side in ("left", "right"):
            ids, mask = pad(rows, pad_id=0, side=side)
            positions = (mask.long().cumsum(-1) - 1).clamp(min=0)
            logits = model(input_ids=ids, attention_mask=mask.long(), position_ids=positions).logits
            last = [-1] * 3 if side == "left" else [len(row) - 1 for row in rows]
            for row, (end, expected) in enumerate(zip(last, alone, strict=True)):
                torch.testing.assert_close(logits[row, end], expected, atol=1e-5, rtol=0)


def test_sampling_never_draws_a_soft_token_and_ignores_batch_mates() -> None:
    model, tokenizer = learner(), make_tokenizer()
    generator = HFGenerator(model, tokenizer, model.renderer(tokenizer))
    prompts = [f"{soft(1)} or {soft(2)}", "neither", f"{soft(2)} or {soft(1)} or {soft(3)}"]
    sampling = Sampling(max_new_tokens=8, seed=5)
    together = [[c.token_ids for c in row] for row in generator.generate(prompts, 3, sampling)]
    alone = [[c.token_ids for c in generator.generate([prompt], 3, sampling)[0]] for prompt in prompts]
    assert together == alone
    assert max(t for row in together for ids in row for t in ids) < model.first_id
    assert len({tuple(row) for row in together}) == 3  # which items, and in which order, is seen


def test_soft_tokens_start_as_large_as_words() -> None:
    """Root mean squares agree to rounding for both projectors, whatever the scale of the vectors."""
    for projector in ("mlp", "linear"):
        vectors = 1e3 * np.random.default_rng(0).normal(size=(8, 5)).astype(np.float32)
        model = SoftTokens.from_decoder(decoder(), VectorTable.make(range(8), vectors), projector)
        made, words = model.projector(model.table), model.get_input_embeddings().weight
        assert made.square().mean().item() == pytest.approx(words.square().mean().item(), rel=1e-4)


# ---------------------------------------------------------------- learning


ROWS = [{"prompt": f"is {soft(i)} good?", "response": "yn"[i % 2]} for i in range(8)]
OPTIONS: dict[str, Any] = {"learning_rate": 3e-3, "batch_size": 4, "max_steps": 4, "schedule": "constant",
                           "warmup_ratio": 0.0, "save_steps": 1, "log_steps": 1}  # fmt: skip


class Kill(transformers.TrainerCallback):
    """Ends the fit after a step, when its checkpoint is written."""

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.global_step == 2:
            raise KeyboardInterrupt


def taught(model: SoftTokens, folder: Path, callbacks: Any = (), **changes: Any) -> Any:
    tokenizer = make_tokenizer()
    rows = encode_rows(ROWS, model.renderer(tokenizer))
    options = TrainOptions(**{**OPTIONS, **changes})
    run = RunFolder(folder).open({}, 0)
    return fit(model, SupervisedObjective(), rows, options=options, run=run, name="soft", seed=0, callbacks=callbacks)


def state(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.detach().clone() for name, value in model.state_dict().items()}


@pytest.mark.parametrize("lora", [None, LoraOptions(rank=2)], ids=["full", "lora"])
def test_a_killed_fit_goes_on_to_the_same_bits(tmp_path: Path, lora: LoraOptions | None) -> None:
    whole, again = learner(), learner()
    before = state(whole)
    taught(whole, tmp_path / "whole", lora=lora)
    with pytest.raises(KeyboardInterrupt):
        taught(again, tmp_path / "killed", callbacks=[Kill()], lora=lora)
    again = learner()
    taught(again, tmp_path / "killed", lora=lora)
    mine, theirs = state(whole), state(again)
    assert all(torch.equal(mine[name], theirs[name]) for name in mine)
    moved = {name for name in mine if not torch.equal(mine[name], before[name])}
    assert any(name.startswith("projector.") for name in moved) and "table" not in moved
    assert ("decoder.model.embed_tokens.weight" in moved) == (lora is None)


def test_adapters_train_projector_and_low_ranks_alone(tmp_path: Path) -> None:
    from launch.models import apply_lora

    base = learner()
    model = apply_lora(base, LoraOptions(rank=2), base.train_whole)
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    assert all("lora_" in name or "projector.modules_to_save" in name for name in trained)
    assert not any("projector" in name and "lora_" in name for name in trained)
    taught(model, tmp_path, lora=LoraOptions(rank=2))
    ids = torch.tensor([[1, model.first_id + 2, 9]])
    with torch.no_grad():
        adapted = model(input_ids=ids).logits
        merged = model.merge_and_unload()
        torch.testing.assert_close(merged(input_ids=ids).logits, adapted, atol=1e-5, rtol=0)


def test_a_frozen_decoder_leaves_the_projector_to_learn(tmp_path: Path) -> None:
    model = learner()
    model.decoder.requires_grad_(False)
    before = state(model)
    taught(model, tmp_path)
    moved = {name for name, value in state(model).items() if not torch.equal(value, before[name])}
    assert moved == {name for name in before if name.startswith("projector.")}


class Turned(SoftTokens):
    """An encoder that learns along: a linear map of the table's vectors, and one learned number per row."""

    class Turn(nn.Module):
        def __init__(self, rows: int, wide: int, width: int) -> None:
            super().__init__()
            self.map, self.own = nn.Linear(wide, width), nn.Embedding(rows, 1)

        def forward(self, rows: torch.Tensor, vectors: torch.Tensor) -> torch.Tensor:
            return self.map(vectors) + self.own(rows)

    def build_encoder(self, config: Any) -> nn.Module:
        assert config.encoder == {"kind": "turn"}
        return Turned.Turn(config.rows, config.table_width, config.width)


def test_an_encoder_that_learns_along_is_trained_saved_and_resumed(tmp_path: Path) -> None:
    vectors = np.random.default_rng(3).normal(size=(8, 5)).astype(np.float32)

    def fresh() -> Turned:
        table = VectorTable.make(range(8), vectors)
        return Turned.from_decoder(decoder(), table, width=6, encoder={"kind": "turn"})

    model = fresh()
    before = state(model)
    result = taught(model, tmp_path / "whole")
    moved = {name for name, value in state(model).items() if not torch.equal(value, before[name])}
    assert {"encoder.map.weight", "encoder.own.weight"} <= moved and "table" not in moved
    loaded = Turned.from_pretrained(result.folder)
    assert all(torch.equal(value, state(loaded)[name]) for name, value in state(model).items())
    with pytest.raises(KeyboardInterrupt):
        taught(fresh(), tmp_path / "killed", callbacks=[Kill()])
    again = fresh()
    taught(again, tmp_path / "killed")
    assert all(torch.equal(value, state(again)[name]) for name, value in state(model).items())


def test_what_only_the_vectors_tell_is_learned(tmp_path: Path) -> None:
    """64 training and 64 other items, the answer is the sign of one of 5 numbers; all prompts read the same, so text
    alone gets half of them right. Through the shared trainer and the generator the projector learns the rule.
    """
    vectors = np.random.default_rng(1).normal(size=(128, 5)).astype(np.float32)
    vectors[:, 0] = np.where(np.arange(128) % 2, 1, -1) * (0.3 + np.abs(vectors[:, 0]))
    model = SoftTokens.from_decoder(decoder(), VectorTable.make(range(128), vectors), "mlp")
    tokenizer = make_tokenizer()
    renderer = model.renderer(tokenizer)
    rows = [{"prompt": f"{soft(i)}?", "response": "ny"[i % 2]} for i in range(128)]
    options = TrainOptions(**{**OPTIONS, "batch_size": 32, "max_steps": 40, "save_steps": 1000, "log_steps": 40})
    run = RunFolder(tmp_path).open({}, 0)
    fit(model, SupervisedObjective(), encode_rows(rows[:64], renderer), options=options, run=run, name="s", seed=0)
    generator = HFGenerator(model, tokenizer, renderer, batch_size=64)
    answers = generator.generate([row["prompt"] for row in rows[64:]], 1, Sampling(max_new_tokens=1, temperature=0))
    right = np.mean([a.text == row["response"] for [a], row in zip(answers, rows[64:], strict=True)])
    assert right >= 0.9


# ---------------------------------------------------------------- standardised vectors


def test_standardize_is_reading_the_standardised_table(tmp_path: Path) -> None:
    """Columns 3 + 0.01 N(0, 1), one of them constant: logits and the projector's gradients are those of a model that
    reads (x - mean) / std as it is, with 0 for the constant column. The statistics are saved, and stay.
    """
    vectors = (3 + 0.01 * np.random.default_rng(3).normal(size=(8, 5))).astype(np.float32)
    vectors[:, 2] = 0.1
    wide = vectors.astype(np.float64)
    by_hand = ((wide - wide.mean(0)) / wide.std(0)).astype(np.float32)
    by_hand[:, 2] = 0
    model = SoftTokens.from_decoder(decoder(), VectorTable.make(range(8), vectors), standardize=True)
    twin = SoftTokens.from_decoder(decoder(), VectorTable.make(range(8), by_hand))
    ids = torch.tensor([[1, model.first_id + 5, 9, model.first_id + 7]])
    outputs = [one(input_ids=ids, labels=ids.clamp(max=9)) for one in (model, twin)]
    torch.testing.assert_close(outputs[0].logits, outputs[1].logits, atol=1e-3, rtol=1e-3)
    for output in outputs:
        output.loss.backward()
    for mine, theirs in zip(model.projector.parameters(), twin.projector.parameters(), strict=True):
        torch.testing.assert_close(mine.grad, theirs.grad, atol=1e-3, rtol=1e-3)

    model.read(VectorTable.make(["5"], vectors[[5]]))  # one row alone has no variance of its own
    model.save_pretrained(tmp_path / "m")
    again = SoftTokens.from_pretrained(tmp_path / "m")
    for one in (model, again):
        torch.testing.assert_close(one.vectors(torch.tensor([0])), torch.from_numpy(by_hand[[5]]), atol=1e-3, rtol=1e-3)


# ---------------------------------------------------------------- disk


@pytest.mark.parametrize("tied", [False, True])
def test_saved_models_come_back_to_the_bit(tmp_path: Path, tied: bool) -> None:
    model = learner(tokens=2, body=decoder(tied))
    model.save_pretrained(tmp_path / "m")
    again = SoftTokens.from_pretrained(tmp_path / "m")
    assert all(torch.equal(value, state(again)[name]) for name, value in state(model).items())
    ids = torch.tensor([[1, model.first_id + 5, 9, model.first_id + 15]])
    with torch.no_grad():
        assert torch.equal(again(input_ids=ids).logits, model(input_ids=ids).logits)
    assert again.spans == model.spans and again.config.tokens == 2
    assert HFGenerator(again, make_tokenizer()).end_ids == HFGenerator(model.decoder, make_tokenizer()).end_ids
    assert (again.decoder.lm_head.weight is again.decoder.model.embed_tokens.weight) == tied
    model.decoder.save_pretrained(tmp_path / "plain")  # a plain folder for everything else
    plain = AutoModelForCausalLM.from_pretrained(tmp_path / "plain")
    assert torch.equal(plain.lm_head.weight, model.decoder.lm_head.weight)


def test_a_lora_fit_is_exported_as_a_soft_token_model(tmp_path: Path) -> None:
    model = learner()
    result = taught(model, tmp_path / "run", lora=LoraOptions(rank=2))
    out = export(result.folder, tmp_path / "out")
    again = SoftTokens.from_pretrained(out)
    for name, value in state(model).items():
        torch.testing.assert_close(state(again)[name], value, atol=1e-6, rtol=0, msg=name)
    assert again.spans == model.spans


def test_other_items_can_be_read(same: SoftTokens) -> None:
    """The table is exchanged, the projector stays: vectors of a word under a new name give that word."""
    body = decoder()
    model = SoftTokens.from_decoder(body, words_table(body), projector="identity")
    before = model.renderer(make_tokenizer())
    model.read(VectorTable.make(["new"], body.get_input_embeddings().weight.detach().numpy()[[33]]))
    ids = model.renderer(make_tokenizer()).prompt_ids(f"a{soft('new')}")
    assert before.prompt_ids(f"a{soft('new')}") == ids  # a renderer that was there follows
    with torch.no_grad():
        hard = body(input_ids=torch.tensor([[w if w < model.first_id else 33 for w in ids]])).logits
        assert torch.equal(model(input_ids=torch.tensor([ids])).logits, hard)
    with pytest.raises(DataError, match="width 3, this model reads 64"):
        model.read(VectorTable.make("a", np.zeros((1, 3))))
    with pytest.raises(DataError, match="soft token of row 4, but the table has 1 rows"):
        model(input_ids=torch.tensor([[model.first_id + 4]]))


# ---------------------------------------------------------------- what is refused


def test_what_is_refused(same: SoftTokens, tmp_path: Path, tiny_llama: Path) -> None:
    tokenizer = make_tokenizer()
    renderer = same.renderer(tokenizer)
    with pytest.raises(DataError, match="no vectors for item '9'; the table has 6 items, such as 60, 61, 62"):
        renderer.prompt_ids(f"is {soft(9)} there?")
    with pytest.raises(DataError, match=r"the prompt holds <\|soft\|> itself"):
        renderer.prompt_ids("is <|soft|> there?")
    with pytest.raises(RenderingError, match="soft tokens are read and never written"):
        renderer.encode("who?", "it is <|soft|>")
    with pytest.raises(DataError, match="cannot stand in a placeholder"):
        soft("a|>b")
    with pytest.raises(ConfigError, match="vectors of width 5 are no 64 numbers"):
        learner("identity")
    with pytest.raises(CheckpointError, match="holds no soft-token model"):
        SoftTokens.from_pretrained(tiny_llama)
