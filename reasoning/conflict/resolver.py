"""Which of several contexts to follow, decided by structure alone: no model, no training.

For every context: the answer it gives (told, or `proposer.propose`), the chain that leads there, and how well the chain
holds. A chain that joins question and answer beats one with a gap; a chain whose links the same context contradicts is
halved per contradiction; chains that cover more of the question's words, by links that are asserted, come first.

    score = joined (½ + ½ coverage) · confidence · ½^contradictions      or      ¼ coverage where there is a gap

A context that is consistently wrong looks as good as one that is right: structure sees gaps and contradictions, not
falsehood. Ties go to the answer that more contexts give, then to the first context.

    python -c "from reasoning.conflict import resolve; print(resolve('Where does the mentor of Ann live?', \\
        ['The mentor of Ann is Bob. Dan lives in Rome.', 'The mentor of Ann is Bob. Bob lives in Oslo.']))"
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypedDict

from launch.errors import DataError
from reasoning.conflict.extract import DEFAULT, Extractor
from reasoning.conflict.instance import PathSet, Triple
from reasoning.conflict.paths import (
    FALLBACK_SENTENCES,
    MAX_HOPS,
    MAX_PATHS,
    Local,
    asked_in,
    best_paths,
    confidence,
    fallback,
    local_graph,
)
from reasoning.conflict.proposer import propose
from reasoning.conflict.text import content_stems, coverage, negates, normalise, truth_value, words


class Fault(TypedDict):
    """Where a context's chain breaks. `kind`: "gap" (nothing joins the two), "contradiction", or "nothing"."""

    kind: str
    link: list[str]
    """Head, relation, tail of the link in question; of a gap, the ends that nothing joins and "" between them."""
    against: list[str]
    """The link that contradicts it; [] for gaps."""


class PathView(TypedDict):
    """What was found in a context, JSON-ready."""

    kind: str
    answer: str
    links: list[list[str]]
    """The chain's links as [head, relation, tail]."""
    sentences: list[str]
    score: float
    faults: list[Fault]


class Resolution(TypedDict):
    """The decision. JSON-ready."""

    answer: str
    """ "" where no context answers."""
    followed: int | None
    """Index of the context followed, from 0."""
    rejected: list[int]
    """Contexts that give another answer."""
    paths: list[PathView]
    """One per context, in their order."""
    confidence: float
    """0 to 1: the followed score's share among the best scores of each answer, scaled by how well its chain holds."""
    trace: str
    """The reasoning in words, in the form that the reward reads."""
    notes: list[str]
    """one_context, empty_context, agree, no_entity (of the question, in no context), no_answer: what was odd."""


@dataclass(frozen=True)
class _Judged:
    answer: str
    paths: PathSet
    score: float
    faults: tuple[Fault, ...]


def resolve(
    question: str,
    contexts: Sequence[str],
    answers: Sequence[str] | None = None,
    *,
    extractor: Extractor = DEFAULT,
    max_hops: int = MAX_HOPS,
) -> Resolution:
    """Choose among contexts that may contradict each other.

    Args:
        contexts: passages of any number and length; empty ones are never followed.
        answers: the answer each context gives, if known; "" for one that gives none.

    Raises:
        DataError: `answers` and `contexts` differ in number.
    """
    if answers is not None and len(answers) != len(contexts):
        raise DataError(f"{len(contexts)} contexts but {len(answers)} answers; give one answer each, '' for none")
    given = [
        a if answers is not None else propose(question, c, extractor, max_hops) for a, c in _pairs(contexts, answers)
    ]
    judged = [_judge(question, c, a, extractor, max_hops) for c, a in zip(contexts, given, strict=True)]
    groups = [_group(j.answer) for j in judged]
    votes = {g: groups.count(g) for g in groups}
    order = sorted(
        (i for i, j in enumerate(judged) if groups[i] and contexts[i].strip()),
        key=lambda i: (-round(judged[i].score, 9), -votes[groups[i]], i),
    )
    best = order[0] if order else None
    notes = _notes(question, contexts, groups, extractor, best)
    views = [_view(j) for j in judged]
    if best is None:
        return Resolution(
            answer="", followed=None, rejected=[], paths=views, confidence=0.0, trace="No context answers.", notes=notes
        )
    rejected = [i for i, g in enumerate(groups) if g and g != groups[best]]
    rival = max((judged[i].score for i in rejected), default=0.0)
    score = judged[best].score
    sure = score * (score / (score + rival)) if score else 0.0
    return Resolution(
        answer=judged[best].answer,
        followed=best,
        rejected=rejected,
        paths=views,
        confidence=round(min(1.0, sure), 6),
        trace=_trace(judged, best, rejected),
        notes=notes,
    )


def conflict_paths(question: str, passage: str, answer: str = "") -> PathView:
    """The evidence chain by which a passage leads from a question to an answer.

    Args:
        question: What is asked, in plain words.
        passage: The text to search.
        answer: The answer to lead to; empty to take what the passage itself answers.
    """
    answer = answer or propose(question, passage)
    return _view(_judge(question, passage, answer, DEFAULT, MAX_HOPS))


# ---------------------------------------------------------------- one context


def _judge(question: str, context: str, answer: str, extractor: Extractor, max_hops: int) -> _Judged:
    if not context.strip() or not answer.strip():
        return _Judged(answer, PathSet(), 0.0, ())
    local = local_graph(question, context, answer, extractor)
    stems = content_stems(question, [*local.sources, answer])
    best: _Judged | None = None
    for path in best_paths(question, local, [*local.sources, answer], max_hops, MAX_PATHS):
        faults = _contradictions(local, path.triples)
        sure = confidence(path.triples)
        score = (0.5 + 0.5 * coverage(stems, path.sentences)) * sure * 0.5 ** len(faults)
        if best is None or score > best.score:
            best = _Judged(answer, PathSet("graph", (path,), sure), score, tuple(faults))
    if best is not None:
        return best
    loose = fallback(question, answer, local.sentences, FALLBACK_SENTENCES, extractor)
    said = [s for p in loose.paths for s in p.sentences]
    score = 0.25 * coverage(stems, said)
    if truth_value(answer) is not None:
        # No chain leads to a yes or a no: what is left is how much of the question the passage speaks about.
        return _Judged(answer, loose, score, ())
    return _Judged(answer, loose, score, (_gap(local, answer),))


def _contradictions(local: Local, triples: Sequence[Triple]) -> list[Fault]:
    """Links of the chain that the same passage states with another end, or denies."""
    faults = []
    for triple in triples:
        head, tail = normalise(triple.head), normalise(triple.tail)
        relation = _relation(triple)
        found: Triple | None = None
        for _, _, data in local.graph.edges(head, data=True) if head in local.graph else ():
            for other in data["triples"]:
                if normalise(other.head) != head:
                    continue
                same_end = normalise(other.tail) == tail
                denied = same_end and negates(words(other.relation)) != negates(words(triple.relation))
                elsewhere = not same_end and relation and _relation(other) == relation
                # The same sentence may list several ends ("met Bob and Dan"); that is no contradiction.
                if denied or (elsewhere and other.sentence != triple.sentence):
                    found = other
        if found is not None:
            against = [found.head, found.relation, found.tail]
            faults.append(Fault(kind="contradiction", link=list(triple[:3]), against=against))
    return faults


def _relation(triple: Triple) -> tuple[str, ...]:
    """A relation for comparison. Mere co-occurrence over several words asserts nothing that could be contradicted."""
    said = tuple(w for w in words(triple.relation) if w not in ("the", "a", "an"))
    return said if not triple.cooccurrence or 0 < len(said) <= 3 else ()


def _gap(local: Local, answer: str) -> Fault:
    """The ends that nothing joins: the last node that the question leads to, and the answer."""
    if not local.sources and not local.targets:
        return Fault(kind="nothing", link=[], against=[])
    reached = local.sources[0] if local.sources else ""
    if reached:
        onward = list(local.graph.adj[reached])
        reached = onward[0] if onward else reached
    return Fault(kind="gap", link=[reached, "", local.targets[0] if local.targets else answer], against=[])


# ---------------------------------------------------------------- the decision in words


def _pairs(contexts: Sequence[str], answers: Sequence[str] | None) -> list[tuple[str, str]]:
    return list(zip(answers if answers is not None else [""] * len(contexts), contexts, strict=True))


def _group(answer: str) -> str:
    truth = truth_value(answer)
    return normalise(answer) if truth is None else str(truth)


def _notes(
    question: str, contexts: Sequence[str], groups: Sequence[str], extractor: Extractor, best: int | None
) -> list[str]:
    notes = []
    if len(contexts) == 1:
        notes.append("one_context")
    if any(not c.strip() for c in contexts):
        notes.append("empty_context")
    said = {g for g in groups if g}
    if len(contexts) > 1 and len(said) == 1:
        notes.append("agree")
    if not asked_in(question, contexts, extractor):
        notes.append("no_entity")
    if best is None:
        notes.append("no_answer")
    return notes


def _view(judged: _Judged) -> PathView:
    first = judged.paths.paths[0] if judged.paths.paths else None
    return PathView(
        kind=judged.paths.kind,
        answer=judged.answer,
        links=[list(t[:3]) for t in first.triples] if first else [],
        sentences=list(first.sentences) if first else [],
        score=round(judged.score, 6),
        faults=list(judged.faults),
    )


def _trace(judged: Sequence[_Judged], best: int, rejected: Sequence[int]) -> str:
    lines = [f"[Context {best + 1}] {s}" for p in judged[best].paths.paths[:1] for s in p.sentences]
    for i in rejected:
        for fault in judged[i].faults[:1]:
            if fault["kind"] == "gap" and all((fault["link"][0], fault["link"][2])):
                lines.append(f"[Context {i + 1}] No stated link joins {fault['link'][0]} and {fault['link'][2]}.")
            elif fault["kind"] == "contradiction":
                lines.append(f"[Context {i + 1}] It contradicts itself about {fault['link'][0]}.")
    return "\n".join([*lines, f"So the answer is {judged[best].answer}."])
