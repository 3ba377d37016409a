"""Names and links from Hugging Face models that a user names: the first step of KCR with the models it was made for.

Names come from a token-classification model. Links come from a sequence-to-sequence model that writes REBEL's form
(Huguet Cabot and Navigli 2021), ``<triplet> head <subj> tail <obj> relation <subj> tail <obj> relation <triplet> …``;
they are added, as asserted, to those of the rules. A link counts only if its sentence holds both names: what a model
invents is no evidence.

    make_extractor("ner:dslim/bert-base-NER re:Babelscape/rebel-large")
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from launch.errors import ConfigError
from reasoning.conflict.extract import Mention, RuleExtractor
from reasoning.conflict.instance import Triple
from reasoning.conflict.text import contains, normalise, sentences

BATCH = 16
LINK_TOKENS = 128
"""Tokens that a relation model may write about one sentence."""


class ModelExtractor(RuleExtractor):
    """Names and links by models; what no model is named for is done by the rules.

    Args:
        names: folder or hub name of a token-classification model and its fast tokenizer; "" for the rules.
        relations: folder or hub name of a sequence-to-sequence model that writes REBEL's form; "" for the rules alone.

    Raises:
        ConfigError: there is no such model, or it is of another kind.
    """

    def __init__(self, names: str = "", relations: str = "") -> None:
        self._names = _names_model(names) if names else None
        self._relations = _relation_model(relations) if relations else None

    def mentions(self, text: str, known: Iterable[str] = ()) -> list[Mention]:
        """`known` names wherever they stand, and what the model finds beside them; in order, none overlapping."""
        known = list(known)
        ruled = super().mentions(text, known)
        if self._names is None:
            return ruled
        asked = {normalise(name) for name in known}
        given = [m for m in ruled if normalise(m.name) in asked]
        spans = sentences(text)
        found = self._names([text[s.start : s.end] for s in spans], batch_size=BATCH) if spans else []
        free = [
            Mention(text[s.start + e["start"] : s.start + e["end"]], s.start + e["start"], s.start + e["end"], i)
            for i, (s, entities) in enumerate(zip(spans, found, strict=True))
            for e in entities
        ]
        free = [m for m in free if not any(m.start < g.end and g.start < m.end for g in given)]
        return sorted((*given, *free), key=lambda m: m.start)

    def triples(self, text: str, mentions: Sequence[Mention]) -> list[Triple]:
        """The rules' links, and those that the model writes about sentences with at least two names."""
        ruled = super().triples(text, mentions)
        if self._relations is None:
            return ruled
        spans = sentences(text)
        counted = [m.sentence for m in mentions]
        asked = [i for i in dict.fromkeys(counted) if counted.count(i) > 1]
        said = [text[spans[i].start : spans[i].end] for i in asked]
        stated = []
        for i, sentence, written in zip(asked, said, self._written(said), strict=True):
            bag = normalise(sentence).split()
            for head, relation, tail in links(written):
                if all(contains(bag, normalise(name).split()) >= 0 for name in (head, tail)):
                    stated.append(Triple(head, relation, tail, i, cooccurrence=False))
        return sorted((*ruled, *stated), key=lambda t: t.sentence)

    def _written(self, said: Sequence[str]) -> Iterator[str]:
        """What the relation model writes about each sentence, greedily."""
        import torch

        tokenizer, model = self._relations  # type: ignore[misc]
        for start in range(0, len(said), BATCH):
            batch = tokenizer(said[start : start + BATCH], padding=True, truncation=True, return_tensors="pt")
            batch = {name: batch[name].to(model.device) for name in ("input_ids", "attention_mask")}
            with torch.inference_mode():
                out = model.generate(**batch, max_new_tokens=LINK_TOKENS, num_beams=1, do_sample=False)
            yield from tokenizer.batch_decode(out, skip_special_tokens=False)


_MARK = re.compile(r"<(triplet|subj|obj)>")
_ENDS = re.compile(r"</?s>|<pad>")


def links(written: str) -> list[tuple[str, str, str]]:
    """(head, relation, tail) of a text in REBEL's form; incomplete ones are left out."""
    found = []
    head = tail = ""
    _, *pieces = _MARK.split(_ENDS.sub(" ", written))
    for mark, piece in zip(pieces[::2], pieces[1::2], strict=True):
        value = " ".join(piece.split())
        if mark == "triplet":
            head, tail = value, ""
        elif mark == "subj":
            tail = value
        else:
            if head and tail and value:
                found.append((head, value, tail))
            tail = ""
    return found


def _names_model(name: str) -> Any:
    from transformers import pipeline

    try:
        return pipeline("token-classification", model=name, aggregation_strategy="simple")
    except (OSError, ValueError) as error:
        raise _unusable("ner", name, error) from error


def _relation_model(name: str) -> tuple[Any, Any]:
    from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(name), AutoModelForSeq2SeqLM.from_pretrained(name, use_safetensors=True)
    except (OSError, ValueError) as error:
        raise _unusable("re", name, error) from error


def _unusable(kind: str, name: str, error: Exception) -> ConfigError:
    reason = str(error).splitlines()[0][:120]
    return ConfigError(f"extractor {kind}:{name} cannot be loaded ({reason}); give a local folder of such a model")
