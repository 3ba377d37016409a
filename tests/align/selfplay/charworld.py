"""A character world small enough to train in seconds: three letters in a cycle, and a mark that everybody likes.

A prompt is a digit and a colon. An answer is a letter (a, b or c), a filler, and a mark: "!" (dominant) or ".". The
preference is rule-based and skew: 2 logits for the mark, 1.5 around a > b > c > a.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

LETTERS, FILLERS, MARKS = "abc", "xyz", ".!"
SPECIAL = ("<pad>", "<s>", "</s>")
CYCLE = np.array([[0.0, 1, -1], [-1, 0, 1], [1, -1, 0]])


def prompts() -> list[str]:
    return [f"{a}{b}:" for a in range(10) for b in range(10)]


def held_out() -> list[str]:
    """Digits in an order that the training prompts have too: the world's answers do not depend on the prompt."""
    return prompts()[::5]


class Table(NamedTuple):
    S_T: np.ndarray
    S_C: np.ndarray


class CharGame:
    """The true game, a Scorer. Malformed answers are the worst."""

    def __repr__(self) -> str:
        return "CharGame(2, 1.5)"

    def score(self, prompt: str, responses: Sequence[str]) -> Table:
        value = np.array([-2.0 if not well_formed(text) else 2.0 * text.endswith("!") for text in responses])
        kind = [LETTERS.index(text[0]) if well_formed(text) else None for text in responses]
        S_C = np.array([[0.0 if i is None or j is None else 1.5 * CYCLE[i, j] for j in kind] for i in kind])
        return Table(value[:, None] - value[None, :], S_C)


def well_formed(text: str) -> bool:
    return len(text) == 3 and text[0] in LETTERS and text[1] in FILLERS and text[2] in MARKS


def describe(prompt: str, response: str) -> dict[str, Any]:
    return {"right": response.endswith("!"), "malformed": not well_formed(response), "style": response[:1] or None}


def make_tokenizer() -> Any:
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    pieces = [*SPECIAL, *"0123456789:", *LETTERS, *FILLERS, *MARKS]
    core = Tokenizer(models.WordLevel({piece: i for i, piece in enumerate(pieces)}, unk_token="<pad>"))
    core.pre_tokenizer = pre_tokenizers.Split(Regex("."), behavior="isolated")
    core.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(
        tokenizer_object=core, pad_token="<pad>", bos_token="<s>", eos_token="</s>", clean_up_tokenization_spaces=False
    )


def make_policy(folder: Path, steps: int = 150, seed: int = 0) -> Path:
    """Train a 2-layer transformer on random answers, one in five with the mark; a few seconds."""
    from transformers import LlamaConfig, LlamaForCausalLM

    tokenizer = make_tokenizer()
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=2, max_position_embeddings=64, pad_token_id=0, bos_token_id=1, eos_token_id=2,
    )  # fmt: skip
    rng = np.random.default_rng(seed)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = LlamaForCausalLM(config)
        optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
        for _ in range(steps):
            texts = [
                f"{rng.integers(10)}{rng.integers(10)}:{rng.choice(list(LETTERS), p=[0.4, 0.35, 0.25])}"
                f"{rng.choice(list(FILLERS))}{'!' if rng.random() < 0.2 else '.'}</s>"
                for _ in range(32)
            ]
            ids = torch.tensor(tokenizer(texts)["input_ids"])
            labels = ids.masked_fill(torch.arange(ids.shape[1]) < 3, -100)
            model(input_ids=ids, labels=labels).loss.backward()
            optimizer.step()
            optimizer.zero_grad()
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
