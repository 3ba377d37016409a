"""Arguments of verbs, read off dependency trees: who does it, and to what.

Subjects are `nsubj` and passive agents, objects are direct objects and passive subjects, in the labels of Universal
Dependencies 2 (obj, nsubj:pass, obl:agent) or of Stanford's and ClearNLP's (dobj, nsubjpass, agent). An argument is a
noun or a name; pronouns are in no taxonomy. Its term is the longest phrase of the taxonomy in its subtree that holds
its head, else the head's lemma. Its patterns are what its quality is judged by: one for each child, one for each
sibling, punctuation left out.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator
from typing import Literal, NamedTuple

from reasoning.verbs.conllu import Sentence

Role = Literal["subject", "object"]
ROLES: tuple[Role, ...] = ("subject", "object")
Pattern = tuple[str, str, str, str, str]
"""("child" or "sibling", part of speech and label of the argument, part of speech and label of the other word)."""
_ROLE: dict[str, Role] = {
    "nsubj": "subject", "agent": "subject", "obl:agent": "subject",
    "obj": "object", "dobj": "object", "nsubj:pass": "object", "nsubjpass": "object",
}  # fmt: skip
NOUNS = frozenset(("NOUN", "PROPN"))
PHRASE_WORDS = 6


class Argument(NamedTuple):
    """One instance: `verb` is a lemma, `term` a word or phrase in small letters."""

    verb: str
    role: Role
    term: str
    patterns: tuple[Pattern, ...]


def arguments(sentences: Iterable[Sentence], known: Container[str] = ()) -> Iterator[Argument]:
    """The arguments of all verbs, in the order of the text.

    Args:
        known: terms of the taxonomy, for phrases ("ice cream").
    """
    for sentence in sentences:
        children: dict[int, list[int]] = {}
        for i, token in enumerate(sentence, 1):
            children.setdefault(token.head, []).append(i)
        for i, token in enumerate(sentence, 1):
            role = _ROLE.get(token.deprel)
            if role is None or token.upos not in NOUNS or not token.head:
                continue
            verb = sentence[token.head - 1]
            if verb.upos == "VERB":
                term = phrase(sentence, i, children, known)
                lemma = verb.lemma if verb.lemma != "_" else verb.form
                yield Argument(lemma.casefold(), role, term, tuple(_patterns(sentence, i, children)))


def phrase(sentence: Sentence, head: int, children: dict[int, list[int]], known: Container[str]) -> str:
    """The longest known phrase in the subtree of token `head` that holds it; else the head's lemma."""
    subtree, edge = {head}, [head]
    while edge:
        edge = [c for e in edge for c in children.get(e, ())]
        subtree.update(edge)
    places = sorted(subtree)
    at = places.index(head)
    lemma = (sentence[head - 1].lemma if sentence[head - 1].lemma != "_" else sentence[head - 1].form).casefold()
    forms = [sentence[p - 1].form.casefold() for p in places]
    for size in range(min(PHRASE_WORDS, len(places)), 1, -1):
        for start in range(max(0, at - size + 1), min(at, len(places) - size) + 1):
            words = forms[start : start + size]
            base = [*words[: at - start], lemma, *words[at - start + 1 :]]
            for candidate in (" ".join(words), " ".join(base)):
                if candidate in known:
                    return candidate
    return lemma


def _patterns(sentence: Sentence, i: int, children: dict[int, list[int]]) -> Iterator[Pattern]:
    own = sentence[i - 1]
    for kind, others in (("child", children.get(i, ())), ("sibling", children[own.head])):
        for j in others:
            other = sentence[j - 1]
            if j != i and other.upos != "PUNCT":
                yield kind, own.upos, own.deprel, other.upos, other.deprel
