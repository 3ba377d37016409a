"""A prompt read once for its answers gives the log-probabilities, and all gradients, of one row per answer."""

import pytest
import torch
from transformers import Gemma2Config, GPT2Config, GraniteConfig, LlamaConfig, Qwen3Config

from launch.logprob import (
    completion_logprobs_naive,
    completion_logprobs_packed,
    layout_for,
    pack_answers,
    packed_token_logprobs,
)
from launch.models import apply_lora, tiny_like
from launch.options import LoraOptions
from launch.rendering import pad

CONFIGS = {
    "llama": LlamaConfig(vocab_size=96, tie_word_embeddings=True),
    "qwen3": Qwen3Config(vocab_size=96),
    "gemma2": Gemma2Config(vocab_size=96, final_logit_softcapping=3.0, sliding_window=4),
}
PROMPTS = [[5, 9, 11, 7, 5, 8, 30], [5, 9, 4]]
ANSWERS = [(0, [1, 2, 3]), (1, [7]), (0, [1, 2, 3, 4, 90]), (0, [60, 61]), (1, [8, 8, 8, 8])]


def sequences() -> tuple[list[list[int]], list[int]]:
    """Five answers to two prompts, not in order; two begin alike."""
    return [PROMPTS[p] + answer for p, answer in ANSWERS], [len(PROMPTS[p]) for p, _ in ANSWERS]


def naive(model: torch.nn.Module) -> torch.Tensor:
    ids, lengths = sequences()
    rows, mask = pad(ids, 0)
    completion = mask & (torch.arange(rows.shape[1]) >= torch.tensor(lengths)[:, None])
    return completion_logprobs_naive(model, rows, mask, completion)


def fast(model: torch.nn.Module, shared: bool = True, chunk: int = 0) -> torch.Tensor:
    packed, targets = pack_answers(*sequences(), shared=shared)
    return completion_logprobs_packed(model, **packed.tensors(), targets=targets, answers=5, chunk=chunk)


def gradients(model: torch.nn.Module, values: torch.Tensor) -> dict[str, torch.Tensor]:
    model.zero_grad()
    (values * torch.tensor([1.0, -2.0, 0.5, 3.0, 1.0])).sum().backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def assert_equal(model: torch.nn.Module, **how: object) -> None:
    one, two = fast(model, **how), naive(model)
    torch.testing.assert_close(one, two, rtol=1e-5, atol=1e-5)
    mine, theirs = gradients(model, one), gradients(model, two)
    assert mine.keys() == theirs.keys()
    for name in mine:
        torch.testing.assert_close(mine[name], theirs[name], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("family", CONFIGS)
@pytest.mark.parametrize("shared", [True, False])
def test_packed_equals_naive_with_all_gradients(family, shared):
    """Gemma-2's window of 4 is shorter than the prompt of 7, and its logits are soft-capped."""
    assert_equal(tiny_like(CONFIGS[family]), shared=shared, chunk=3)


def test_under_adapters_and_under_gradient_checkpointing():
    model = apply_lora(tiny_like(CONFIGS["qwen3"]), LoraOptions(rank=4))
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.05, generator=torch.Generator().manual_seed(1))
    assert_equal(model)
    plain = tiny_like(CONFIGS["llama"]).train()
    plain.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    assert_equal(plain)


def test_each_token_comes_from_the_state_before_it():
    """Two prompts (7 and 3 tokens) and answers of 3, 5, 2 and 1, 4: 17 + 8 tokens in place of 10 + 4 + 12 + 9 + 7.

    The first tokens of answers 0, 2 and 3 share one source, the prompt's last column; all else follows its neighbour.
    """
    packed, targets = pack_answers(*sequences())
    assert int((packed.tree >= 0).sum()) == 17 + 8
    assert targets.token.tolist() == [1, 2, 3, 1, 2, 3, 4, 90, 60, 61, 7, 8, 8, 8, 8]
    assert targets.answer.tolist() == [0] * 3 + [2] * 5 + [3] * 2 + [1] + [4] * 4
    ids, tree = packed.input_ids.flatten(), packed.tree.flatten()
    assert ids[targets.source].tolist() == [30, 1, 2, 30, 1, 2, 3, 4, 30, 60, 4, 4, 8, 8, 8]
    assert (tree[targets.source] >= 0).all()


def test_tokens_one_by_one_sum_to_the_answers_and_know_their_entropy():
    """At temperature 1 the sums are the answers'; entropies lie between 0 and log 96."""
    model = tiny_like(CONFIGS["llama"])
    packed, targets = pack_answers(*sequences())
    with torch.no_grad():
        logp, entropy = packed_token_logprobs(model, **packed.tensors(), targets=targets, entropy=True)
        sums = torch.zeros(5).index_add(0, targets.answer, logp)
        torch.testing.assert_close(sums, naive(model), rtol=1e-5, atol=1e-5)
    assert entropy is not None and bool(((entropy > 0) & (entropy <= torch.tensor(96.0).log() + 1e-5)).all())


def test_what_cannot_be_packed_is_padded_and_says_why():
    assert layout_for(tiny_like(CONFIGS["gemma2"])) == ("shared", None)
    layout, reason = layout_for(tiny_like(GraniteConfig(vocab_size=96)))
    assert layout == "padded" and "granite" in str(reason)
    layout, reason = layout_for(tiny_like(GPT2Config(vocab_size=96, n_embd=64, n_head=2, n_layer=2)))
    assert layout == "padded" and "gpt2" in str(reason)
    flash = tiny_like(CONFIGS["llama"])
    flash.config._attn_implementation = "flash_attention_2"
    layout, reason = layout_for(flash)
    assert layout == "packed" and "flash_attention_2" in str(reason)
