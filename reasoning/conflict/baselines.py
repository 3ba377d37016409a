"""What a resolver must beat: the first context, the majority, the longest context, BM25, and an embedding.

All choose a context by its text and the answer it gives; contexts that give none are passed over. Each is a function
``(question, contexts, answers) -> index or None``, as is `structural`, so that `compare` can measure them alike.

    compare(instances, BASELINES | {"structural": structural, "embedding": embedding(by_minilm)})
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np

from reasoning.conflict import bm25
from reasoning.conflict.instance import Instance
from reasoning.conflict.metrics import Encode, Prediction, by_minilm, evaluate
from reasoning.conflict.resolver import resolve
from reasoning.conflict.text import normalise, pieces, words
from tasks.benchmarks.intervals import Estimate

CHUNK = 150
"""Words of a piece that is embedded: what all-MiniLM-L6-v2 reads of English at once."""

Choose = Callable[[str, Sequence[str], Sequence[str]], int | None]


def first(question: str, contexts: Sequence[str], answers: Sequence[str]) -> int | None:
    """The first context that answers."""
    return next((j for j, a in enumerate(answers) if a.strip()), None)


def majority(question: str, contexts: Sequence[str], answers: Sequence[str]) -> int | None:
    """The answer that most contexts give; at a tie the one given first."""
    groups = [normalise(a) for a in answers]
    counts = Counter(g for g in groups if g)
    return groups.index(counts.most_common(1)[0][0]) if counts else None


def longest(question: str, contexts: Sequence[str], answers: Sequence[str]) -> int | None:
    """The longest context, in words."""
    return _best([float(len(words(c))) for c in contexts], answers)


def by_bm25(question: str, contexts: Sequence[str], answers: Sequence[str]) -> int | None:
    """The context most like the question, by BM25 among the contexts."""
    return _best(bm25.scores(question, contexts), answers)


def embedding(encode: Encode, words_each: int = CHUNK, separator: str = "") -> Choose:
    """The context whose nearest piece of `words_each` words is nearest to the question and the context's own answer.

    Args:
        separator: where given, pieces end there too: `lengthen.SEPARATOR` keeps the passages of filled contexts apart,
            so that `remembered` meets them again.
    """

    def choose(question: str, contexts: Sequence[str], answers: Sequence[str]) -> int | None:
        asked = encode([f"{question} {a}" for a in answers])
        blocks = [c.split(separator) if separator else [c] for c in contexts]
        split = [[p for block in passages for p in pieces(block, words_each)] for passages in blocks]
        found = iter(encode([p for piece in split for p in piece]))
        near = [max(float(a @ next(found)) for _ in piece) for a, piece in zip(asked, split, strict=True)]
        return _best(near, answers)

    return choose


def remembered(encode: Encode) -> Encode:
    """`encode`, which embeds no text twice; memory grows with the number of different texts, 1.5 kB each for MiniLM."""
    known: dict[str, np.ndarray] = {}

    def encoded(texts: Sequence[str]) -> np.ndarray:
        new = [text for text in dict.fromkeys(texts) if text not in known]
        if new:
            known.update(zip(new, encode(new), strict=True))
        return np.stack([known[text] for text in texts])

    return encoded


def structural(question: str, contexts: Sequence[str], answers: Sequence[str]) -> int | None:
    """`resolver.resolve`, told the answers."""
    return resolve(question, contexts, answers)["followed"]


BASELINES: dict[str, Choose] = {"first": first, "majority": majority, "longest": longest, "bm25": by_bm25}


def predict(instances: Sequence[Instance], choose: Choose) -> list[Prediction]:
    """What is answered by following the chosen contexts; nothing where none is chosen."""
    predictions = []
    for instance in instances:
        answers = [c.answer for c in instance.contexts]
        at = choose(instance.question, [c.text for c in instance.contexts], answers)
        predictions.append(Prediction("" if at is None else answers[at], at))
    return predictions


def compare(
    instances: Iterable[Instance], chooser: Mapping[str, Choose], encode: Encode | None = by_minilm
) -> dict[str, dict[str, Estimate]]:
    """`metrics.evaluate` of every chooser on the same instances."""
    known = list(instances)
    return {name: evaluate(known, predict(known, choose), encode) for name, choose in chooser.items()}


def _best(scores: Sequence[float], answers: Sequence[str]) -> int | None:
    answering = [j for j, a in enumerate(answers) if a.strip()]
    return max(answering, key=lambda j: scores[j], default=None)
