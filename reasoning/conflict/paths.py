"""Reasoning paths (KCR, phase 1): from the entities of a question to an answer, through what one passage states.

1. Names and links of the passage (`extract`), 2. its local graph (`graph`), 3. the K cheapest simple chains of at most
L hops from question entities to nodes that match the answer, 4. as links or as their source sentences. Where there is
none (yes/no questions, an answer the passage does not name, a broken chain), 5. the best sentences by BM25 for question
and answer, in the passage's order.

    python -c "from reasoning.conflict.paths import extract_paths as e; \\
               print(e('Where does the mentor of Ann live?', 'The mentor of Ann is Bob. Bob lives in Oslo.', 'Oslo'))"
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any, NamedTuple

from reasoning.conflict import bm25, graph
from reasoning.conflict.extract import DEFAULT, Extractor
from reasoning.conflict.instance import Context, Instance, Path, PathSet, Triple
from reasoning.conflict.text import answer_matches, content_stems, coverage, normalise, sentences, token_f1, truth_value

if TYPE_CHECKING:
    import networkx

MAX_HOPS, MAX_PATHS, FALLBACK_SENTENCES = 4, 3, 5
TRIED_PER_PATH = 8
"""Chains looked at for each one kept."""


class Local(NamedTuple):
    """A passage as a graph, with where question and answer touch it."""

    graph: networkx.Graph
    sources: list[str]
    """Nodes of the question's entities, in the question's order."""
    targets: list[str]
    """Nodes that match the answer."""
    sentences: list[str]
    names: graph.Names
    """From names as written to nodes."""


def question_entities(question: str, extractor: Extractor = DEFAULT) -> list[str]:
    """Names in a question, as written, in order, each once."""
    return list(dict.fromkeys(m.name for m in extractor.mentions(question)))


def asked_in(question: str, contexts: Iterable[str], extractor: Extractor = DEFAULT) -> list[str]:
    """The names of a question that at least one context holds, as written in the question."""
    asked = question_entities(question, extractor)
    said = [f" {normalise(c)} " for c in contexts] if asked else []
    return [name for name in asked if any(f" {normalise(name)} " in text for text in said)]


def local_graph(
    question: str,
    context: str,
    answer: str,
    extractor: Extractor = DEFAULT,
    aliases: Mapping[str, str] | None = None,
) -> Local:
    """The graph of a passage. Yes/no answers have no targets: `answer` may then be a claim, whose new names count."""
    asked = question_entities(question, extractor)
    wanted = [] if truth_value(answer) is not None or not answer.strip() else [answer]
    names = graph.Names(aliases)
    mentions = extractor.mentions(context, [*asked, *wanted])
    built = graph.build(extractor.triples(context, mentions), names)
    sources = [n for n in dict.fromkeys(names.node(a) for a in asked) if n in built]
    targets: list[str] = []
    if wanted:
        nodes = list(built)
        targets = [n for n in nodes if answer_matches(n, wanted) or token_f1(n, answer) >= graph.MERGE]
        if not targets:
            new = [normalise(m.name) for m in extractor.mentions(answer)]
            targets = [n for n in dict.fromkeys(new) if n in built]
        targets = [t for t in targets if t not in sources]
    return Local(built, sources, targets, [context[s.start : s.end] for s in sentences(context)], names)


def extract_paths(
    question: str,
    context: str,
    answer: str,
    *,
    extractor: Extractor = DEFAULT,
    max_hops: int = MAX_HOPS,
    max_paths: int = MAX_PATHS,
    fallback_sentences: int = FALLBACK_SENTENCES,
    aliases: Mapping[str, str] | None = None,
) -> PathSet:
    """The chains by which `context` leads from `question` to `answer`.

    Args:
        context: one passage, of any length.
        answer: what it is thought to answer; "True" or "False" for yes/no questions.
        max_hops: L, links per chain.
        max_paths: K, chains kept, cheapest first.
        fallback_sentences: n, sentences by BM25 where there is no chain.
        aliases: other spellings to the one to use.

    Returns:
        A PathSet of kind "graph", or "text" for the fall-back; without paths for an empty passage.
    """
    local = local_graph(question, context, answer, extractor, aliases)
    paths = best_paths(question, local, [*local.sources, answer], max_hops, max_paths)
    if paths:
        return PathSet("graph", paths, confidence(paths[0].triples))
    return fallback(question, answer, local.sentences, fallback_sentences, extractor)


def with_paths(instance: Instance, extractor: Extractor = DEFAULT, **options: Any) -> Instance:
    """The instance with every context's paths stored, so that its prompt and its rewards use those of `extractor`.

    Args:
        **options: of `extract_paths`.
    """

    def stored(c: Context) -> Context:
        paths = extract_paths(instance.question, c.text, c.answer, extractor=extractor, **options)
        return replace(c, paths=paths)

    return replace(instance, contexts=tuple(map(stored, instance.contexts)))


def best_paths(question: str, local: Local, names: Sequence[str], max_hops: int, max_paths: int) -> tuple[Path, ...]:
    """The cheapest chains; among those that cost the same, the ones whose sentences hold more of the question's words.

    In a graph of co-occurrences many chains cost the same, and most of them are beside the point.
    """
    tried = graph.chains(local.graph, local.sources, local.targets, max_hops, TRIED_PER_PATH * max_paths)
    stems = content_stems(question, names)
    paths = [chain_path(local, chain) for chain in tried]
    paths.sort(key=lambda p: (round(graph.cost(p.triples), 6), -coverage(stems, p.sentences)))
    return tuple(paths[:max_paths])


def fallback(
    question: str, answer: str, passage: Sequence[str], count: int = FALLBACK_SENTENCES, extractor: Extractor = DEFAULT
) -> PathSet:
    """The best `count` sentences by BM25 for question and answer, as one path without links."""
    query = question if truth_value(answer) is not None else f"{question} {answer}"
    chosen = tuple(passage[i] for i in bm25.top(query, passage, count))
    if not chosen:
        return PathSet()
    names = (normalise(m.name) for s in chosen for m in extractor.mentions(s))
    return PathSet("text", (Path((), chosen, tuple(dict.fromkeys(n for n in names if n))),))


def confidence(triples: Sequence[Triple]) -> float:
    """Mean over links of 1 / cost: 1 for links that are asserted, 1/1.2 for mere co-occurrence."""
    return sum(1 / (1 + graph.COOCCURRENCE_COST * t.cooccurrence) for t in triples) / len(triples) if triples else 0.0


def chain_path(local: Local, chain: Sequence[str]) -> Path:
    """A chain of nodes with, per link, the triple that states it best, and the sentences these are from."""
    triples = []
    for a, b in pairwise(chain):
        stated: list[Triple] = local.graph.edges[a, b]["triples"]
        triples.append(min(stated, key=lambda t: t.cooccurrence))
    said = dict.fromkeys(local.sentences[t.sentence] for t in triples if 0 <= t.sentence < len(local.sentences))
    return Path(tuple(triples), tuple(said), tuple(chain))
