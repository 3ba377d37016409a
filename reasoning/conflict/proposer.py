"""What one passage answers, read off its graph without a model.

From the question's entities every node within L hops is a possible answer. It is worth the share of the question's
content words that its chain's sentences hold, if its kind fits the question word; long chains cost a little. Yes/no
questions are answered by whether the nearest sentences negate. This finds answers that are names, dates and numbers:
an answer in small letters ("film", "a novelist") is out of its reach, and then the passage proposes nothing.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

from reasoning.conflict import bm25
from reasoning.conflict.extract import DEFAULT, Extractor
from reasoning.conflict.paths import MAX_HOPS, local_graph, question_entities
from reasoning.conflict.text import content_stems, coverage, negates, normalise, words

if TYPE_CHECKING:
    import networkx

HOP_COST = 0.02
_YES_NO = re.compile(
    r"^\s*(?:is|are|was|were|do|does|did|can|could|would|will|has|have|had|should|may|might|must)\b", re.I
)
_NUMBER = re.compile(
    r"\b(?:how (?:many|much|long|old|far|tall|high|large)|population|length|number|percentage)\b", re.I
)
_DATE = re.compile(r"\b(?:when|what (?:year|date|day|month)|which (?:year|date))\b", re.I)
_YEAR = re.compile(r"\b[12]\d{3}\b")


def is_yes_no(question: str) -> bool:
    """Whether a question starts with an auxiliary verb."""
    return _YES_NO.match(question) is not None


def fits(question: str, name: str) -> bool:
    """Whether a name's kind is what the question asks for: a date, a number, or neither."""
    digit = name[:1].isdigit() or _YEAR.search(name) is not None
    if _DATE.search(question):
        return _YEAR.search(name) is not None
    if _NUMBER.search(question):
        return name[:1].isdigit()
    return not digit


def propose(question: str, context: str, extractor: Extractor = DEFAULT, max_hops: int = MAX_HOPS) -> str:
    """The answer that a passage gives to a question; "" where it gives none."""
    if not context.strip():
        return ""
    local = local_graph(question, context, "", extractor)
    asked = question_entities(question, extractor)
    stems = content_stems(question, asked)
    if is_yes_no(question):
        near = bm25.top(question, local.sentences, 3)
        if not near:
            return ""
        return "False" if sum(negates(words(local.sentences[i])) for i in near) * 2 > len(near) else "True"
    written: dict[str, str] = {}  # a node's name as it stands in the passage
    for _, _, data in local.graph.edges(data=True):
        for t in data["triples"]:
            for name in (t.head, t.tail):
                written.setdefault(normalise(name), name)
    skip = {normalise(a) for a in asked}
    best, found = 0.0, ""
    for node, chain in _reachable(local.graph, local.sources, max_hops).items():
        if node in skip or not fits(question, written.get(node, node)):
            continue
        said = _chain_sentences(local.graph, chain, local.sentences)
        value = coverage(stems, said) - HOP_COST * (len(chain) - 1) + 1e-3
        if value > best:
            best, found = value, written.get(node, node)
    return found or _nearest(question, local.sentences, skip, extractor)


def _reachable(graph: networkx.Graph, sources: Sequence[str], max_hops: int) -> dict[str, list[str]]:
    """Every node within reach, with its cheapest chain from a question entity."""
    import networkx

    if not sources:
        return {}
    _, chains = networkx.multi_source_dijkstra(graph, set(sources), weight="cost")
    return {node: chains[node] for node in graph if node in chains and 2 <= len(chains[node]) <= max_hops + 1}


def _chain_sentences(graph: networkx.Graph, chain: Sequence[str], sentences: Sequence[str]) -> list[str]:
    used = {graph.edges[a, b]["triples"][0].sentence for a, b in pairwise(chain)}
    return [sentences[i] for i in sorted(used)]


def _nearest(question: str, sentences: Sequence[str], skip: set[str], extractor: Extractor) -> str:
    """The first fitting name in the best sentence by BM25, for passages that do not name the question's entities."""
    scored = bm25.scores(question, sentences)
    for i in sorted(range(len(sentences)), key=lambda i: (-scored[i], i))[:3]:
        if scored[i] > 0:
            for mention in extractor.mentions(sentences[i]):
                if normalise(mention.name) not in skip and fits(question, mention.name):
                    return mention.name
    return ""
