"""What the benchmarks are run on: random-weight models, a tokenizer of words, random texts of given lengths.

The models are Llamas of 4 layers and width 256 unless a benchmark says otherwise. Their weights are random: what is
measured is work, not quality.
"""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

from launch.counters import Work, cost_of
from launch.head import causal_lm

VOCABULARY = 2000
LAYERS, WIDTH = 4, 256
Lengths = tuple[int, int]
"""Fewest and most words."""


def tokenizer() -> Any:
    """Words w0, w1 … and three special tokens; every text of these benchmarks is one id a word."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = ["<pad>", "<eos>", "<unk>", *(f"w{i}" for i in range(VOCABULARY - 3))]
    core = Tokenizer(models.WordLevel({w: i for i, w in enumerate(words)}, unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=core, pad_token="<pad>", eos_token="<eos>", unk_token="<unk>")


def text(draw: random.Random, words: int) -> str:
    return " ".join(f"w{draw.randrange(VOCABULARY - 3)}" for _ in range(words))


def groups(count: int, answers: int, prompt: Lengths, answer: Lengths, seed: int = 0) -> list[dict[str, Any]]:
    """Random groups in the normal form of preference data: answers 0, 2, 4 … beat 1, 3, 5 …, each answer in one pair.

    So a trainer of pairs and one of groups see every answer equally often.
    """
    draw = random.Random(seed)
    rows = []
    for i in range(count):
        wins = list(range(0, answers - 1, 2))
        rows.append(
            {
                "prompt": text(draw, draw.randint(*prompt)),
                "responses": [" " + text(draw, draw.randint(*answer)) for _ in range(answers)],
                "winners": wins,
                "losers": [w + 1 for w in wins],
                "weights": [1.0] * len(wins),
                "ties": [],
                "source": f"synthetic:{i}",
            }
        )
    return rows


def ids(draw: random.Random, count: int, vocabulary: int = VOCABULARY) -> list[int]:
    """Random token ids, none of them special."""
    return [draw.randrange(3, vocabulary) for _ in range(count)]


def llama(layers: int = LAYERS, hidden: int = WIDTH, vocabulary: int = VOCABULARY, seed: int = 0, **more: Any) -> Any:
    """A random-weight causal LM; its pad and EOS ids are the tokenizer's."""
    from transformers import LlamaConfig

    from launch.models import tiny_like

    config = LlamaConfig(vocab_size=vocabulary, pad_token_id=0, bos_token_id=None, eos_token_id=1, **more)
    return tiny_like(config, layers=layers, hidden=hidden, seed=seed)


def save_llama(folder: Path, **shape: Any) -> Path:
    """Model and tokenizer in one folder."""
    llama(**shape).save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    return folder


def preference_model(folder: Path, kind: Any = "hrc") -> Any:
    """Heads on a fresh random backbone; tau 1 and no clip, so that scores stay where differences show."""
    from align.preference import PreferenceModel

    save_llama(folder)
    return PreferenceModel.from_backbone(folder, kind=kind, dims=4, tau=1.0, clip=False, max_length=4096)


def read_flops(model: Any, work: Work, read: int, passes: float = 1.0) -> float:
    """FLOPs of packed work whose last layer makes queries and feed-forward at `read` tokens only, as `launch.segments`
    does; its keys and values are still of all."""
    cost, text = cost_of(model), causal_lm(model).config
    text = getattr(text, "backbone_config", text)
    layers, width = text.num_hidden_layers, text.hidden_size
    kept = 2 * width * text.num_key_value_heads * text.head_dim
    unread = 1 - read / work.tokens
    saved = 2.0 * work.tokens * (cost.body / layers - kept) + 4.0 * cost.attention / layers * work.pairs
    return cost.flops(work, passes) - passes * unread * saved


def gradient_norms(model: Any, prefix: str) -> list[float]:
    """Norm of every parameter's gradient, in the order of names without `prefix`."""
    found = {
        name.removeprefix(prefix): float(p.grad.norm()) for name, p in model.named_parameters() if p.grad is not None
    }
    return [found[name] for name in sorted(found)]
