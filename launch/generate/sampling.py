"""What every backend agrees on: valid settings, seeds, which token is drawn, where a text ends.

Seeds. The stream of one completion is named by (sampling.seed, the prompt's token ids, how many times the same
prompt stood earlier in the same call, the number of the completion). So a prompt's samples are the same whatever
is sampled beside it, in whatever order and batch size, and two copies of one prompt still get different samples.

Drawing. One uniform number per token, inverted through the cumulative distribution in float64: a rounding of 1e-7
in the logits then changes a token with probability about 1e-7, not always.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from launch.contracts import Sampling
from launch.errors import ConfigError

if TYPE_CHECKING:
    import torch

TAIL = 6
"""Prompt tokens decoded together with the answer, so that a leading space or a split character comes out right."""


def check(sampling: Sampling, n: int) -> None:
    """Raise ConfigError unless the settings mean something."""
    if n < 1:
        raise ConfigError(f"n {n} asks for no completion; use 1 or more", field="n")
    if sampling.max_new_tokens < 1:
        raise ConfigError(f"max_new_tokens {sampling.max_new_tokens}: use 1 or more", field="max_new_tokens")
    if not sampling.temperature >= 0:
        raise ConfigError(f"temperature {sampling.temperature}: use 0 (greedy) or more", field="temperature")
    if not 0 < sampling.top_p <= 1:
        raise ConfigError(f"top_p {sampling.top_p}: use more than 0 and at most 1 (1 is off)", field="top_p")
    if sampling.top_k < 0:
        raise ConfigError(f"top_k {sampling.top_k}: use 0 (off) or more", field="top_k")
    if not 0 < sampling.repetition_penalty < float("inf"):
        said = f"repetition_penalty {sampling.repetition_penalty}: use a number above 0 (1 is off)"
        raise ConfigError(said, field="repetition_penalty")
    if "" in sampling.stop:
        raise ConfigError("an empty stop string ends every text at once; remove it", field="stop")


def stable_hash(*parts: object) -> int:
    """A 62-bit number that depends on the parts' text alone: equal in every process and version of Python."""
    text = "\x1f".join(map(str, parts))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 2


def prompt_seeds(prompts: Sequence[object], seed: int) -> list[int]:
    """One seed per prompt, from the prompt itself and how often it came before; see the module header."""
    seen: dict[str, int] = {}
    seeds = []
    for prompt in prompts:
        key = str(prompt)
        seeds.append(stable_hash(seed, key, seen.get(key, 0)))
        seen[key] = seen.get(key, 0) + 1
    return seeds


def uniforms(seed: int, n: int, length: int) -> torch.Tensor:
    """Uniform numbers in [0, 1) for n completions of one prompt, float64 [n, length] on the CPU.

    Row k depends on (seed, k) alone and a longer row continues a shorter one. No global generator is touched.
    """
    import torch

    rows = []
    for k in range(n):
        source = torch.Generator().manual_seed(stable_hash(seed, k))
        rows.append(torch.rand(length, generator=source, dtype=torch.float64))
    return torch.stack(rows)


def draw(
    logits: torch.Tensor, uniform: torch.Tensor, sampling: Sampling, seen: torch.Tensor | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Draw one token per row: ids int64 [R] and their untempered log-probabilities fp32 [R].

    The repetition penalty first, temperature next, then top-k (ties with the k-th token stay), then top-p (the token
    that reaches p stays): the order of transformers and vLLM.

    Args:
        logits: fp32 [R, V].
        uniform: float64 [R] in [0, 1), unused at temperature 0.
        seen: bool [R, V], tokens that the penalty is for; None: none.
    """
    import torch

    scores = logits
    if seen is not None:
        penalty = sampling.repetition_penalty
        scores = torch.where(seen, torch.where(logits > 0, logits / penalty, logits * penalty), logits)
    if sampling.temperature == 0:
        ids = scores.argmax(-1)
    else:
        scores = scores / sampling.temperature
        if 0 < sampling.top_k < scores.shape[-1]:
            least = scores.topk(sampling.top_k, dim=-1).values[:, -1:]
            scores = scores.masked_fill(scores < least, -torch.inf)
        probs = scores.double().softmax(-1)
        if sampling.top_p < 1:
            ordered, index = probs.sort(dim=-1, descending=True, stable=True)
            beyond = ordered.cumsum(-1) - ordered >= sampling.top_p
            probs = probs.masked_fill(torch.zeros_like(beyond).scatter(-1, index, beyond), 0.0)
        total = probs.cumsum(-1)
        # Strictly below the last total, so that rounding cannot pick a token of probability zero behind it.
        mark = torch.minimum(uniform[:, None] * total[:, -1:], total[:, -1:].nextafter(torch.zeros_like(total[:, -1:])))
        # With NaN logits searchsorted answers V; the caller finds the NaN in the log-probability.
        ids = torch.searchsorted(total, mark, right=True)[:, 0].clamp(max=logits.shape[-1] - 1)
    return ids, logits.gather(-1, ids[:, None])[:, 0] - logits.logsumexp(-1)


def end_ids(tokenizer: Any, *configs: Any) -> frozenset[int]:
    """Every id that ends a text: the tokenizer's EOS and those a model's (generation) configs list."""
    found = {tokenizer.eos_token_id}
    for config in configs:
        listed = getattr(config, "eos_token_id", None)
        found.update(listed if isinstance(listed, list | tuple) else [listed])
    return frozenset(i for i in found if i is not None)


def decode(tokenizer: Any, prompt_ids: Sequence[int], token_ids: Sequence[int]) -> str:
    """The text that `token_ids` add behind the prompt: special tokens and an unfinished last character left out.

    Decoding the answer alone would lose the leading space of sentencepiece-like tokenizers.
    """
    tail = list(prompt_ids[-TAIL:])
    before = tokenizer.decode(tail, skip_special_tokens=True, clean_up_tokenization_spaces=False)
    whole = tokenizer.decode(tail + list(token_ids), skip_special_tokens=True, clean_up_tokenization_spaces=False)
    if not whole.startswith(before):  # the prompt's last character was completed by the answer
        whole, before = (
            tokenizer.decode(list(token_ids), skip_special_tokens=True, clean_up_tokenization_spaces=False),
            "",
        )
    return whole[len(before) :].rstrip("\ufffd")


def cut_at_stop(text: str, stop: Sequence[str]) -> str | None:
    """The text before the earliest stop string, or None if it has none."""
    found = [at for at in (text.find(s) for s in stop) if at >= 0]
    return text[: min(found)] if found else None
