"""Small decoders made on the spot, for machines without a hub: word by word for the cases world, character by character
for Chinese law.

Both learn with `launch.scratch.small_model` and are kept in a cache, addressed by what they were made from.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from launch.options import TrainOptions
from reasoning.legal.opinion import WORLD
from tasks.worlds.cases import CasesWorld


@dataclass
class BaseOptions:
    """The small decoder, and how it learns to read before it learns to judge."""

    hidden_size: int = 96
    """A multiple of 32, the size of an attention head."""
    layers: int = 3
    initializer_range: float = 0.1
    """1 / sqrt(hidden_size); at the usual 0.02 attention takes several times as long to find what to look at."""
    demonstrations: int = 20000
    """Of the embedded world, law in the prompt."""
    rare: int = 2
    """Characters that occur less often in the texts are unknown to a character-level decoder."""
    length: int = 1024
    """Positions of a character-level decoder."""
    chunk: int = 256
    """Characters of a text that are read at once."""
    seed: int = 0
    """Of the decoder alone, so that runs of several seeds start from one."""
    cache: str = ".cache/arbiter"
    """Where decoders are kept between runs."""
    train: TrainOptions = field(
        default_factory=lambda: TrainOptions(
            learning_rate=2e-3, weight_decay=0.01, warmup_ratio=0.05, batch_size=48, max_steps=300, save_steps=250
        )
    )


def of_world(world: CasesWorld, options: BaseOptions, reasons: bool = True) -> Path:
    """Folder of a small Llama that has learnt `world`'s demonstrations, the law told in words.

    Args:
        reasons: False cuts them off: it learns to say the term at once.
    """
    from launch.scratch import small_model

    told = replace(world, told=True)
    decides = WORLD[world.language].decides
    rows = told.demonstrations(options.demonstrations, options.seed)
    if not reasons:
        rows = [{**row, "response": decides + row["response"].partition(decides)[2]} for row in rows]
    return small_model(
        world.name,
        told.tokenizer(),
        rows,
        hidden_size=options.hidden_size,
        layers=options.layers,
        length=192,
        train=options.train,
        cache=options.cache,
        seed=options.seed,
        initializer_range=options.initializer_range,
    )


def of_texts(texts: Sequence[str], options: BaseOptions) -> Path:
    """Folder of a small Llama that has read `texts`, character by character."""
    from launch.scratch import small_model

    chunks = [t[k : k + options.chunk] for t in texts for k in range(0, len(t), options.chunk)]
    return small_model(
        "characters",
        character_tokenizer(texts, options.rare, options.length),
        [{"prompt": "", "response": chunk} for chunk in chunks if chunk.strip()],
        hidden_size=options.hidden_size,
        layers=options.layers,
        length=options.length,
        train=options.train,
        cache=options.cache,
        seed=options.seed,
        initializer_range=options.initializer_range,
    )


def character_tokenizer(texts: Iterable[str], rare: int, length: int) -> Any:
    """One token a character, BOS in front; what the texts hold less than `rare` times is <unk>. Digits always are."""
    from collections import Counter

    from tokenizers import processors

    from tasks.worlds.typed import word_tokenizer

    counted = Counter(c for text in texts for c in text)
    known = sorted({c for c, n in counted.items() if n >= rare} | set("0123456789判处有期徒刑个月。决理由如下："))
    tokenizer = word_tokenizer(["<pad>", "<bos>", "<eos>", "<unk>", *known], r"[\s\S]", length)
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<bos> $A", special_tokens=[("<bos>", tokenizer.bos_token_id)]
    )
    return tokenizer
