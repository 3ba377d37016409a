"""BM25 (Robertson and Zaragoza 2009, by `bm25s`) over the sentences of one passage, where no chain is found.

Okapi's term weight tf (k1 + 1) / (tf + k1 (1 - b + b |d| / mean |d|)) with Lucene's idf ln(1 + (N - n + ½) / (n + ½)),
which is above 0 even for a word that one of two passages holds. Plurals count as their singular.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

from reasoning.conflict.text import STOP_WORDS, singular, words

K1, B = 1.5, 0.75


def scores(query: str, documents: Sequence[str]) -> list[float]:
    """One score per document, 0 where it shares no content word with the query."""
    wanted = list(dict.fromkeys(content(query)))
    bags = [content(document) for document in documents]
    if not wanted or not any(bags):
        return [0.0] * len(bags)
    import bm25s

    bm25s.logger.setLevel(logging.WARNING)  # it sets itself to DEBUG, and would fill every log with its progress
    index = bm25s.BM25(k1=K1, b=B, method="atire", idf_method="lucene", dtype="float64")
    index.index(bags, show_progress=False)
    return [float(score) for score in index.get_scores(wanted)]


def top(query: str, documents: Sequence[str], count: int) -> list[int]:
    """Indices of the best `count` documents with a score above 0, in document order."""
    scored = scores(query, documents)
    best = sorted((i for i, s in enumerate(scored) if s > 0), key=lambda i: (-scored[i], i))[:count]
    return sorted(best)


def content(text: str) -> list[str]:
    """Words that carry content, in the singular."""
    return [singular(w) for w in words(text) if w not in STOP_WORDS]
