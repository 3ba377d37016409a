"""The chunked head equals full logits, gradients included, and never builds a [tokens x vocabulary] tensor."""

import pytest
import torch
from transformers import Gemma2Config, LlamaConfig, Qwen3Config

from launch.logprob import completion_logprobs, completion_logprobs_naive
from launch.models import apply_lora, tiny_like
from launch.options import LoraOptions

CONFIGS = {
    "llama": LlamaConfig(vocab_size=96, tie_word_embeddings=True),
    "qwen3": Qwen3Config(vocab_size=96),
    "gemma2": Gemma2Config(vocab_size=96, final_logit_softcapping=3.0, sliding_window=4),
}


def batch(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    draw = torch.Generator().manual_seed(seed)
    ids = torch.randint(0, 96, (3, 11), generator=draw)
    real = torch.ones(3, 11, dtype=torch.bool)
    real[1, :4] = False  # left padding
    real[2, 8:] = False  # right padding
    answer = real.clone()
    answer[:, :6] = False
    return ids, real, answer


@pytest.mark.parametrize("family", CONFIGS)
@pytest.mark.parametrize("chunk", [1, 4, 1024])
def test_chunked_head_equals_full_logits_with_gradients(family, chunk):
    model = tiny_like(CONFIGS[family])
    fast = completion_logprobs(model, *batch(), chunk=chunk)
    fast.sum().backward()
    gradients = {n: p.grad.clone() for n, p in model.named_parameters()}
    model.zero_grad()
    slow = completion_logprobs_naive(model, *batch())
    slow.sum().backward()
    torch.testing.assert_close(fast, slow, rtol=1e-5, atol=1e-5)
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(gradients[name], parameter.grad, rtol=1e-4, atol=1e-5)


def test_adapters_are_seen_by_both():
    model = apply_lora(tiny_like(CONFIGS["llama"]), LoraOptions(rank=4))
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(completion_logprobs(model, *batch()), completion_logprobs_naive(model, *batch()))


def test_padding_moves_nothing():
    model = tiny_like(CONFIGS["llama"])
    ids, real, answer = batch()
    row = ids[1:2, 4:]
    alone = completion_logprobs(model, row, torch.ones_like(row, dtype=torch.bool), answer[1:2, 4:])
    torch.testing.assert_close(alone, completion_logprobs(model, ids, real, answer)[1:2], rtol=1e-5, atol=1e-5)


def test_no_completion_is_zero():
    ids, real, _ = batch()
    assert completion_logprobs(tiny_like(CONFIGS["llama"]), ids, real, torch.zeros_like(real)).tolist() == [0, 0, 0]


def test_head_sees_only_completion_positions_in_chunks():
    """15 completion tokens in chunks of 4: the head is called on 4, 4, 4 and 3 rows, never on the other 18."""
    model = tiny_like(CONFIGS["llama"])
    rows: list[int] = []
    model.lm_head.register_forward_pre_hook(lambda _, inputs: rows.append(inputs[0].shape[0]))
    ids, real, answer = batch()
    answer[:, :] = False
    answer[:, 6:] = True
    with torch.no_grad():
        completion_logprobs(model, ids, torch.ones_like(real), answer, chunk=4)
    assert rows == [4, 4, 4, 3]
