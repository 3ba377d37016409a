"""How close a written rationale is to the court's: ROUGE, BLEU, METEOR, BERTScore, by libraries on Chinese words.

| score | library | words |
|---|---|---|
| rouge_1, rouge_2, rouge_l | rouge-chinese, F1 | jieba, or the ones you pass |
| bleu_1, bleu_2, bleu | nltk, corpus BLEU of orders 1, 2 and 4 | the same |
| meteor | nltk, exact matches only | the same; English WordNet knows no Chinese |
| bert_score | any encoder you give, or its folder | characters of that encoder's tokenizer |

Texts of fewer than two words count 0 in ROUGE, where the published code leaves them out and so looks better. Needs the
extra `legal`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from launch.errors import CheckpointError, DataError, LaunchError
from tasks.benchmarks.intervals import Estimate, bootstrap

Segment = Callable[[str], list[str]]
"""Text to words."""


def jieba_words(text: str) -> list[str]:
    """Words of a Chinese text, blanks left out."""
    jieba = _library("jieba")
    return [word for word in jieba.cut(text) if word.strip()]


def characters(text: str) -> list[str]:
    """Characters in place of words: no segmenter decides."""
    return [c for c in text if not c.isspace()]


def rouge(true: Sequence[str], written: Sequence[str], words: Segment = jieba_words) -> dict[str, Estimate]:
    """Mean F1 of ROUGE-1, ROUGE-2 and ROUGE-L with a bootstrap interval."""
    scorer = _library("rouge_chinese").Rouge()
    values: dict[str, list[float]] = {"rouge_1": [], "rouge_2": [], "rouge_l": []}
    for t, w in _segmented(true, written, words):
        if min(len(t), len(w)) < 2:
            scores = {"rouge-1": {"f": 0.0}, "rouge-2": {"f": 0.0}, "rouge-l": {"f": 0.0}}
        else:
            scores = scorer.get_scores(" ".join(w), " ".join(t))[0]
        for name in values:
            values[name].append(scores[name.replace("_", "-")]["f"])
    return {name: bootstrap(v) for name, v in values.items()}


def bleu(true: Sequence[str], written: Sequence[str], words: Segment = jieba_words) -> dict[str, float]:
    """Corpus BLEU up to words, pairs, and four in a row; smoothed by epsilon counts where an order has no match."""
    module = _library("nltk.translate.bleu_score")
    pairs = list(_segmented(true, written, words))
    references, hypotheses = [[t] for t, _ in pairs], [w for _, w in pairs]
    smooth = module.SmoothingFunction().method1
    found = {}
    for name, order in (("bleu_1", 1), ("bleu_2", 2), ("bleu", 4)):
        weights = (1 / order,) * order
        found[name] = float(module.corpus_bleu(references, hypotheses, weights=weights, smoothing_function=smooth))
    return found


def meteor(true: Sequence[str], written: Sequence[str], words: Segment = jieba_words) -> Estimate:
    """Mean METEOR with exact matches, its other stages being for English."""
    module = _library("nltk.translate.meteor_score")
    pairs = _segmented(true, written, words)
    return bootstrap([module.single_meteor_score(t, w, stemmer=_NoStemmer(), wordnet=_NoSynonyms()) for t, w in pairs])


def bert_score(
    true: Sequence[str], written: Sequence[str], model: Any, tokenizer: Any = None, layer: int = -1
) -> Estimate:
    """Mean BERTScore F1 (Zhang et al. 2020, equation 3, no idf, no rescaling) under your encoder.

    Every token of one text finds its nearest in the other, by the cosine of their states. As in the authors' package,
    special tokens ([CLS], [SEP]) may be found and do not themselves count in the means. Texts are cut at 512 tokens.

    Args:
        model: folder of an encoder with its tokenizer; or an encoder that gives `hidden_states`, with `tokenizer`.
        tokenizer: its fast tokenizer.
        layer: index of the states: 0 the embeddings, -1 the last layer. JuDGE's bert-base-chinese is read at 8.

    Raises:
        DataError: no such layer, or unequal numbers of texts.
        CheckpointError: the folder cannot be loaded.
    """
    import torch

    if isinstance(model, str | Path):
        model, tokenizer = _encoder_of(model)

    def embed(text: str) -> tuple[torch.Tensor, torch.Tensor]:
        """Unit states float32 [T, D], and which of them count, bool [T]."""
        inputs = tokenizer(text, return_tensors="pt", truncation=True, max_length=512, return_special_tokens_mask=True)
        counts = ~inputs.pop("special_tokens_mask")[0].bool()
        with torch.inference_mode():
            states = model(**inputs.to(model.device), output_hidden_states=True).hidden_states
        if not -len(states) <= layer < len(states):
            raise DataError(f"layer {layer}: the encoder has states 0 to {len(states) - 1}")
        return torch.nn.functional.normalize(states[layer][0].float(), dim=-1), counts.to(model.device)

    values = []
    for t, w in zip(*_checked(true, written), strict=True):
        (own, mine), (other, theirs) = embed(t), embed(w)
        if not (bool(mine.any()) and bool(theirs.any())):
            values.append(0.0)
            continue
        similar = own @ other.T  # [T, T']
        recall, precision = similar.max(1).values[mine].mean(), similar.max(0).values[theirs].mean()
        values.append(float(2 * precision * recall / (precision + recall)))
    return bootstrap(values)


def _encoder_of(folder: str | Path) -> tuple[Any, Any]:
    from transformers import AutoTokenizer

    from launch.models import load_backbone

    model = load_backbone(folder).eval()
    try:
        tokenizer = AutoTokenizer.from_pretrained(str(folder))
    except (OSError, ValueError) as error:
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise CheckpointError(f"cannot load the tokenizer at {str(folder)!r}: {first}") from error
    return model, tokenizer


class _NoStemmer:
    def stem(self, word: str) -> str:
        return word


class _NoSynonyms:
    def synsets(self, word: str) -> list[Any]:
        return []


def _segmented(true: Sequence[str], written: Sequence[str], words: Segment) -> list[tuple[list[str], list[str]]]:
    return [(words(t), words(w)) for t, w in zip(*_checked(true, written), strict=True)]


def _checked(true: Sequence[str], written: Sequence[str]) -> tuple[Sequence[str], Sequence[str]]:
    if not true or len(true) != len(written):
        raise DataError(f"{len(true)} true and {len(written)} written texts: give one for each case")
    return true, written


def _library(name: str) -> Any:
    import importlib

    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise LaunchError(f"{name.split('.')[0]} is not installed; pip install 'arbiter-llm[legal]'") from error
