"""Chain-Aware Encoding: equal to its equations written out, indifferent to order and batch mates, saved to the bit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from transformers import LlamaConfig

from launch.errors import DataError
from launch.models import apply_lora, tiny_like
from launch.options import LoraOptions
from launch.rendering import pad
from reasoning.legal.chains import Chain
from reasoning.legal.encoder import ChainEncoder, ChainModel
from tasks.encoder import soft
from tests.tiny import make_tokenizer

LOW, HIGH = "0 to 12 months", "12 to 36 months"
PROVISIONS: dict[str, Any] = {
    "theft": [Chain("taking", "small", LOW), Chain("taking", "large OR at night", HIGH)],
    "arson": [Chain("burning", "a house AND people OR a field", HIGH)],
    "tax": "Who pays no tax is fined.",
}
VARIANTS = pytest.mark.parametrize("graph", [False, True], ids=["attention", "graph"])


def decoder(seed: int = 0) -> Any:
    shape = LlamaConfig(bos_token_id=1, eos_token_id=2, pad_token_id=0, initializer_range=0.2)
    return tiny_like(shape, vocab=len(make_tokenizer()), seed=seed)


def chain_model(graph: bool = False, **more: Any) -> Any:
    given = {"provisions": PROVISIONS, **more}
    return ChainModel.of(given.pop("decoder", None) or decoder(), make_tokenizer(), graph=graph, **given).eval()


def written_out(model: Any, row: int) -> torch.Tensor:
    """e of one table row by the equations of the module's header, without batches: the slow twin of the attention."""
    enc, H = model.encoder, model.encoder.width
    X = model.table[row].view(3, H)
    mha, heads = enc.attention, enc.attention.num_heads
    q, k, v = (X @ mha.in_proj_weight.T + mha.in_proj_bias).view(3, 3, heads, -1).permute(1, 2, 0, 3)  # [heads, 3, d]
    mixed = torch.softmax(q @ k.transpose(1, 2) / (H // heads) ** 0.5, -1) @ v
    A = X + mha.out_proj(mixed.transpose(0, 1).reshape(3, H))
    o = A.mean(0)
    t = enc.second(torch.relu(enc.first_norm(enc.first(o))))
    u = enc.charge_norm(enc.charges[int(enc.charge_of[row])](t))
    gated = torch.sigmoid(enc.gate(u)) * u
    return enc.fusion_norm(enc.fusion(torch.cat([o, gated])))


# ---------------------------------------------------------------- acceptance


@VARIANTS
def test_legal_acceptance_3_shape(graph: bool) -> None:
    """Theft has two chains, arson one, the tax law none: [2, H], [1, H], [1, H]."""
    model = chain_model(graph)
    assert [tuple(model.encode(charge).shape) for charge in PROVISIONS] == [(2, 64), (1, 64), (1, 64)]
    assert model.encode("theft").dtype == torch.float32


@VARIANTS
def test_legal_acceptance_3_permuting_chains_permutes_outputs(graph: bool) -> None:
    rows = torch.tensor([0, 1, 2])
    order = torch.tensor([2, 0, 1])
    model = chain_model(graph)
    with torch.no_grad():
        assert torch.allclose(model.vectors(rows[order]), model.vectors(rows)[order], atol=1e-6)
    turned = chain_model(graph, provisions={**PROVISIONS, "theft": PROVISIONS["theft"][::-1]})
    turned.encoder.load_state_dict({**model.encoder.state_dict(), **_facts(turned)})
    assert torch.allclose(turned.encode("theft"), model.encode("theft").flip(0), atol=1e-6)


def _facts(model: Any) -> dict[str, torch.Tensor]:
    """What belongs to rows and not to weights."""
    return dict(model.encoder.named_buffers())


@VARIANTS
def test_legal_acceptance_3_gate_zero_leaves_o(graph: bool) -> None:
    """With g = 0, e = LN(Wf [o; 0]): the transform and the charge's layer no longer matter."""
    model = chain_model(graph)
    enc, rows = model.encoder, torch.tensor([0, 1, 2])
    with torch.no_grad():
        enc.gate.weight.zero_()
        enc.gate.bias.fill_(-1e4)
        X = model.table[rows].unflatten(-1, (-1, 64))
        o = enc.pooled(rows, X)
        expected = enc.fusion_norm(enc.fusion(torch.cat([o, torch.zeros_like(o)], -1)))
        assert torch.allclose(model.vectors(rows), expected, atol=1e-6)
        for module in (*enc.charges, enc.first, enc.second, enc.charge_norm):
            nn.init.normal_(module.weight)
        assert torch.allclose(model.vectors(rows), expected, atol=1e-6)


@VARIANTS
@pytest.mark.parametrize("lora", [False, True], ids=["frozen", "lora"])
def test_legal_acceptance_3_gradients(graph: bool, lora: bool) -> None:
    """Of a mixed batch: into every module used, into none of the backbone; an absent charge's layer gets none."""
    provisions = {**PROVISIONS, "forgery": [Chain("forging", "plain", LOW)]}
    model = chain_model(graph, provisions=provisions)
    tokenizer = make_tokenizer()
    renderer = model.renderer(tokenizer)
    learner: Any = apply_lora(model, LoraOptions(rank=2), model.train_whole) if lora else model
    if not lora:
        model.decoder.requires_grad_(False)
    ids, mask = pad([renderer.prompt_ids(f"{soft(c)}case") for c in ("theft", "arson")], 0)
    learner(input_ids=ids, attention_mask=mask.long()).logits[:, -1].square().sum().backward()
    names = {n for n, p in learner.named_parameters() if p.requires_grad}
    moved = {n for n, p in learner.named_parameters() if p.grad is not None and bool(p.grad.abs().sum() > 0)}
    dead = {n for n in names - moved if "lora_A" not in n}  # B starts at zero, so A moves a step later
    assert all("charges.2." in n for n in dead) and len(dead) == 2
    assert all("encoder." in n or "lora_" in n for n in moved)


# ---------------------------------------------------------------- laws


def test_rows_are_means_of_the_words_bos_included() -> None:
    """Bytes are tokens here: E("ab") = (E(<s>) + E(a) + E(b)) / 3."""
    body, tokenizer = decoder(), make_tokenizer()
    words = body.get_input_embeddings().weight.detach()

    def mean(text: str) -> torch.Tensor:
        return words[[1, *tokenizer(text, add_special_tokens=False)["input_ids"]]].mean(0)

    rows, mask = ChainEncoder(body.get_input_embeddings(), tokenizer).fit(PROVISIONS).encode(["theft", "tax"])
    assert mask.tolist() == [[True, True], [True, False]] and rows.shape == (2, 2, 192)
    expected = torch.cat([mean("taking"), mean("large OR at night"), mean(HIGH)])
    assert torch.allclose(torch.from_numpy(rows[0, 1]), expected, atol=1e-6)
    assert torch.allclose(chain_model(decoder=body).encode("tax")[0], mean(PROVISIONS["tax"]), atol=1e-6)


def test_the_encoding_is_its_equations_written_out() -> None:
    model = chain_model()
    with torch.no_grad():
        for row in range(3):
            assert torch.allclose(model.vectors(torch.tensor([row]))[0], written_out(model, row), atol=1e-5)


def test_the_graph_is_evaluated_from_the_operands_up() -> None:
    """Arson: (a house AND people) OR a field. Theft's first chain has one operand: a step, no OR."""
    model = chain_model(graph=True)
    g = model.encoder.graph
    body, tokenizer = model.decoder, make_tokenizer()

    def mean(text: str) -> torch.Tensor:
        ids = [1, *tokenizer(text, add_special_tokens=False)["input_ids"]]
        return body.get_input_embeddings().weight[ids].mean(0)

    def step(x: torch.Tensor) -> torch.Tensor:
        return g.step(torch.cat([x, g.relation]))

    with torch.no_grad():
        p, c = mean("burning"), mean(HIGH)
        both = g.both(torch.cat([(mean("a house") + mean("people")) / 2, p]))
        situation = g.either(torch.cat([(both + mean("a field")) / 2, p]))
        assert torch.allclose(pooled(model, 2), c + step(situation), atol=1e-5)
        single = mean("small") + step(mean("taking"))
        assert torch.allclose(pooled(model, 0), mean(LOW) + step(single), atol=1e-5)


def pooled(model: Any, row: int) -> torch.Tensor:
    rows = torch.tensor([row])
    return model.encoder.pooled(rows, model.table[rows].unflatten(-1, (-1, 64)))[0]


@VARIANTS
def test_charges_mix_in_a_batch(graph: bool) -> None:
    """Each row's logits are those it has alone, whatever charges the others are of, one without chains among them."""
    model, tokenizer = chain_model(graph), make_tokenizer()
    renderer = model.renderer(tokenizer)
    rows = [renderer.prompt_ids(f"{soft(charge)}{charge}") for charge in PROVISIONS]
    assert [sum(i >= model.first_id for i in row) for row in rows] == [2, 1, 1]
    ids, mask = pad(rows, 0)
    with torch.no_grad():
        together = model(input_ids=ids, attention_mask=mask.long()).logits
        for k, row in enumerate(rows):
            alone = model(input_ids=torch.tensor([row])).logits[0, -1]
            assert torch.allclose(together[k, len(row) - 1], alone, atol=1e-5)


def test_one_charge_layer_for_all_reads_new_charges() -> None:
    shared = chain_model(shared=True)
    assert len(shared.encoder.charges) == 1 and len(chain_model().encoder.charges) == 2


def test_what_is_trained_is_fp32_and_starts_as_large_as_words() -> None:
    body = decoder().to(torch.bfloat16)
    model = chain_model(decoder=body)
    assert {p.dtype for p in model.encoder.parameters()} == {torch.float32}
    assert model.decoder.lm_head.weight.dtype == torch.bfloat16
    size = float(model.encode("theft").square().mean().sqrt())
    words = float(body.get_input_embeddings().weight.detach().float().square().mean().sqrt())
    assert size == pytest.approx(words, rel=0.05)


# ---------------------------------------------------------------- disk


@VARIANTS
def test_models_and_encoders_come_back_to_the_bit(tmp_path: Path, graph: bool) -> None:
    model = chain_model(graph)
    model.save_pretrained(tmp_path / "m")
    again = ChainModel.from_pretrained(tmp_path / "m").eval()
    assert all(torch.equal(v, again.state_dict()[n]) for n, v in model.state_dict().items())
    for charge in PROVISIONS:  # weights lie elsewhere in memory, which turns a last bit of a product
        torch.testing.assert_close(again.encode(charge), model.encode(charge), atol=1e-6, rtol=0)
    known = ChainEncoder(model.get_input_embeddings(), make_tokenizer(), graph).fit(PROVISIONS)
    known.save_pretrained(tmp_path / "e")
    rows, mask = ChainEncoder.from_pretrained(tmp_path / "e").encode(list(PROVISIONS))
    expected, where = known.encode(list(PROVISIONS))
    assert np.array_equal(rows, expected) and np.array_equal(mask, where)


def test_what_is_refused() -> None:
    model = chain_model()
    with pytest.raises(DataError, match="charge 'murder' is not among the 3"):
        model.encode("murder")
    known = ChainEncoder(model.get_input_embeddings(), make_tokenizer()).fit(PROVISIONS)
    with pytest.raises(DataError, match="charge 'murder' was not encoded; known are 3, such as theft"):
        known.encode(["murder"])
    with pytest.raises(DataError, match="charge 'murder' has neither chains nor a statute's text"):
        known.fit({"murder": []})
    with pytest.raises(DataError, match="width 64 of the decoder is no multiple of 7"):
        chain_model(heads=7)
