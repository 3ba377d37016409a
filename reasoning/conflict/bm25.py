"""Okapi BM25 (Robertson and Zaragoza 2009) over the sentences of one passage: the fall-back where no chain is found.

score(q, d) = sum over words w of q of idf(w) · tf (k1 + 1) / (tf + k1 (1 - b + b |d| / mean |d|)), with
idf(w) = ln(1 + (N - n_w + ½) / (n_w + ½)), which is never negative. Plurals count as their singular.
A passage is indexed and forgotten, so there is nothing for a retrieval library to keep. rank-bm25's Okapi was looked
at: its idf is 0 for a word that one of two passages holds, the case that matters here.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

from reasoning.conflict.text import STOP_WORDS, singular, words

K1, B = 1.5, 0.75


def scores(query: str, documents: Sequence[str]) -> list[float]:
    """One score per document, 0 where it shares no content word with the query."""
    bags = [Counter(singular(w) for w in words(document) if w not in STOP_WORDS) for document in documents]
    lengths = [sum(bag.values()) for bag in bags]
    mean = sum(lengths) / len(lengths) if any(lengths) else 1.0
    wanted = {singular(w) for w in words(query) if w not in STOP_WORDS}
    total = len(bags)
    idf = {w: math.log(1 + (total - n + 0.5) / (n + 0.5)) for w in wanted if (n := sum(w in bag for bag in bags))}
    return [
        sum(idf[w] * bag[w] * (K1 + 1) / (bag[w] + K1 * (1 - B + B * length / mean)) for w in sorted(idf) if w in bag)
        for bag, length in zip(bags, lengths, strict=True)
    ]


def top(query: str, documents: Sequence[str], count: int) -> list[int]:
    """Indices of the best `count` documents with a score above 0, in document order."""
    scored = scores(query, documents)
    best = sorted((i for i, s in enumerate(scored) if s > 0), key=lambda i: (-scored[i], i))[:count]
    return sorted(best)
