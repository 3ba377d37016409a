"""The chunked head equals full logits, gradients included, and never builds a [tokens x vocabulary] tensor."""

import pytest
import torch
from transformers import CohereConfig, Gemma2Config, GraniteConfig, LlamaConfig, Qwen3Config

from launch.head import token_logprobs
from launch.logprob import completion_logprobs, completion_logprobs_naive
from launch.models import apply_lora, tiny_like
from launch.options import LoraOptions

CONFIGS = {
    "llama": LlamaConfig(vocab_size=96, tie_word_embeddings=True),
    "qwen3": Qwen3Config(vocab_size=96),
    "gemma2": Gemma2Config(vocab_size=96, final_logit_softcapping=3.0, sliding_window=4),
    "cohere": CohereConfig(vocab_size=96, logit_scale=0.25),
    "granite": GraniteConfig(vocab_size=96, logits_scaling=4.0),
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


def naive_tokens(model, states, tokens, temperature):
    """log p and entropy from full logits over the head called as a module."""
    cap = getattr(model.config, "final_logit_softcapping", None)
    logits = model.lm_head(states).float() * getattr(model.config, "logit_scale", 1.0)
    logits = (cap * torch.tanh(logits / cap) if cap else logits) / temperature
    logp = logits.log_softmax(-1)
    return logp.gather(-1, tokens[:, None]).squeeze(-1), -(logp.exp() * logp).sum(-1)


@pytest.mark.parametrize("family", ["llama", "gemma2", "cohere"])
@pytest.mark.parametrize("asked", ["logp", "both"])
@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("hooked", [False, True])
def test_log_probability_and_entropy_of_tokens_with_gradients(family, asked, frozen, hooked):
    """At temperature 0.7, in chunks of 3: the matrix path, the stored slopes of a frozen head, and the module path."""
    model = tiny_like(CONFIGS[family])
    draw = torch.Generator().manual_seed(3)
    states = (2 * torch.randn(8, 64, generator=draw)).requires_grad_()
    tokens = torch.randint(0, 96, (8,), generator=draw)
    weigh = torch.randn(2, 8, generator=draw)
    model.requires_grad_(not frozen)
    if hooked:
        model.lm_head.register_forward_hook(lambda *_: None)
    found = []
    for fast in (True, False):
        states.grad = model.lm_head.weight.grad = None
        if fast:
            logp, h = token_logprobs(model, states, tokens, temperature=0.7, entropy=asked == "both", chunk=3)
            assert (h is not None) == (asked == "both")
        else:
            logp, h = naive_tokens(model, states, tokens, 0.7)
        total = (weigh[0] * logp).sum() + ((weigh[1] * h).sum() if asked == "both" else 0.0)
        total.backward()
        found.append((logp, states.grad.clone(), *([] if frozen else [model.lm_head.weight.grad.clone()])))
    for one, two in zip(*found, strict=True):
        torch.testing.assert_close(one, two, rtol=1e-4, atol=1e-5)


def test_a_head_that_is_trained_alone_learns_too():
    model = tiny_like(CONFIGS["llama"]).requires_grad_(False)
    model.lm_head.weight.requires_grad_(True)
    fast = completion_logprobs(model, *batch())
    fast.sum().backward()
    gradient = model.lm_head.weight.grad.clone()
    model.lm_head.weight.grad = None
    completion_logprobs_naive(model, *batch()).sum().backward()
    torch.testing.assert_close(gradient, model.lm_head.weight.grad, rtol=1e-4, atol=1e-5)


def test_the_logits_of_one_chunk_are_all_that_exists():
    """50 completion tokens, V = 4096: 800 kB of logits. In chunks of 8, no tensor above 8 x 4096 floats (128 kB) but
    the head's own gradient (V x 64 floats, 1 MB) is made, forward or backward."""
    from torch.utils._python_dispatch import TorchDispatchMode

    class Largest(TorchDispatchMode):
        def __init__(self) -> None:
            super().__init__()
            self.seen: set[tuple[int, ...]] = set()

        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            out = func(*args, **(kwargs or {}))
            for tensor in out if isinstance(out, tuple | list) else (out,):
                if isinstance(tensor, torch.Tensor):
                    self.seen.add(tuple(tensor.shape))
            return out

    model = tiny_like(LlamaConfig(vocab_size=4096, tie_word_embeddings=False))
    ids = torch.randint(0, 4096, (1, 60), generator=torch.Generator().manual_seed(0))
    answer = torch.zeros(1, 60, dtype=torch.bool)
    answer[:, 10:] = True
    with Largest() as watch:
        completion_logprobs(model, ids, torch.ones_like(answer), answer, chunk=8).sum().backward()
    vocabulary_wide = {shape for shape in watch.seen if shape[-1:] == (4096,) and len(shape) > 1}
    assert vocabulary_wide and max(shape[0] for shape in vocabulary_wide if shape[0] != 64) == 8
