"""Names and links of a passage, behind one interface; the default needs no model, no hub and no other library.

An extractor is any object with ``mentions(text, known)`` and ``triples(text, mentions)``. How to get one:

    make_extractor("rules")              the default: capitalised names, dates, numbers; a few OpenIE-like patterns
                                         ("the R of X is Y", "X's R is Y"); else co-occurrence inside a sentence
    make_extractor("cooccurrence")       without the patterns
    make_extractor("ner:FOLDER")         names from a token-classification model, links as above (`extract_models`)
    make_extractor("re:FOLDER")          names as above, links from a sequence-to-sequence relation model beside those
    make_extractor("ner:FOLDER re:FOLDER")
    make_extractor("package.module:Name")  your own class, made without arguments

Left out: coreference (a pronoun links nothing), and dependency parsing: no maker of a parser puts its model on a
package registry, and copies that others put there are not used.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import NamedTuple, Protocol

from launch.errors import ConfigError
from reasoning.conflict.instance import Triple
from reasoning.conflict.text import STOP_WORDS, WORD, Span, sentences, split_words

WINDOW = 4
"""A name is linked to at most this many names after it in its sentence, so that lists cost no square."""
RELATION_WORDS = 12
NAME_WORDS = 8


class Mention(NamedTuple):
    """A name where it stands: ``text[start:end] == name``."""

    name: str
    start: int
    end: int
    sentence: int


class Extractor(Protocol):
    """What finds names and links. `known` are names to be found whatever their case: question entities, answers."""

    def mentions(self, text: str, known: Iterable[str] = ()) -> list[Mention]: ...

    def triples(self, text: str, mentions: Sequence[Mention]) -> list[Triple]: ...


_MONTHS = split_words("""
january february march april may june july august september october november december jan feb mar apr jun jul
aug sep sept oct nov dec
""")
_CONNECTORS = split_words("""
of the de la le van von der den del di du da al bin ibn y
""")
_ORDINARY = STOP_WORDS | split_words("""
according additionally although because both but compare comparing conclusion consequently context contexts
each either even every everyone evidence few finally first following furthermore given hence however if indeed
instead just later like link links many meanwhile moreover most much my next nobody now often once one only
other others passage perhaps question answer read second several similarly since some sometimes source sources
still step such therefore third though thus today together two three until unlike unless when whenever whereas
wherever whether while yes yet true false nothing none never please let note check who which whose neither
there here see all any another again overall last between within without upon toward despite throughout across
along among per via name list tell say says said find did are is was were has have had can could would will
should do does chain chains claim claims fact facts document documents paragraph sentence statement so thereby
hereby
""")
"""Words that are no name although they begin a sentence with a capital."""


class CooccurrenceExtractor:
    """Names by capitals, digits and `known`; a link for every two names near each other in one sentence."""

    def mentions(self, text: str, known: Iterable[str] = ()) -> list[Mention]:
        """Names in order, none overlapping another."""
        wanted: dict[str, list[list[str]]] = {}
        for name in known:
            pieces = [m.group().casefold() for m in WORD.finditer(name)]
            if pieces:
                wanted.setdefault(pieces[0], []).append(pieces)
        for names in wanted.values():
            names.sort(key=len, reverse=True)
        found: list[Mention] = []
        for index, span in enumerate(sentences(text)):
            tokens = list(WORD.finditer(text, span.start, span.end))
            low = [t.group().casefold() for t in tokens]
            i = 0
            while i < len(tokens):
                size = max(_known(low, i, wanted), _name(text, tokens, low, i))
                if not size:
                    i += 1
                    continue
                start, end = tokens[i].start(), tokens[i + size - 1].end()
                if text[end - 2 : end] in ("'s", "’s") and end - start > 2:
                    end -= 2  # the possessive is no part of the name
                found.append(Mention(text[start:end], start, end, index))
                i += size
        return found

    def triples(self, text: str, mentions: Sequence[Mention]) -> list[Triple]:
        """Links in text order; the relation is the words between the two names."""
        found = []
        for i, head in enumerate(mentions):
            for tail in mentions[i + 1 : i + 1 + WINDOW]:
                if tail.sentence != head.sentence:
                    break
                between = [m.group() for m in WORD.finditer(text, head.end, tail.start)][:RELATION_WORDS]
                found.append(Triple(head.name, " ".join(between), tail.name, head.sentence))
        return found


class RuleExtractor(CooccurrenceExtractor):
    """Co-occurrence, with the links that a pattern asserts named by their noun and marked as asserted."""

    def triples(self, text: str, mentions: Sequence[Mention]) -> list[Triple]:
        spans = sentences(text)
        asserted: dict[tuple[int, str, str], str] = {}
        for head, tail in pairwise(mentions):
            if head.sentence == tail.sentence:
                relation = _pattern(text, spans[head.sentence], head, tail)
                if relation:
                    asserted[head.sentence, head.name, tail.name] = relation
        linked = super().triples(text, mentions)
        return [
            t._replace(relation=asserted[key], cooccurrence=False)
            if (key := (t.sentence, t.head, t.tail)) in asserted
            else t
            for t in linked
        ]


_OF = re.compile(r"(?:^|[\s,;(])(?:the|a|an)\s+((?:[\w-]+\s+){1,4})of\s+(?:the\s+)?$", re.IGNORECASE)
_COPULA = re.compile(r"^\s*,?\s*(?:is|was|are|were|became)\s+(?:the\s+|a\s+|an\s+)?$", re.IGNORECASE)
_POSSESSIVE = re.compile(
    r"^['’]s?\s+((?:[\w-]+\s+){1,4}?)(?:is|was|are|were|became)\s+(?:the\s+|a\s+|an\s+)?$", re.IGNORECASE
)
_VERB = re.compile(
    r"^\s+((?:(?:is|was|are|were|has|had)\s+)?(?:[a-z]+ly\s+)?[a-z]+(?:s|ed|en|t)(?:\s+[a-z]+){0,3}?\s+)(?:the\s+)?$"
)


def _pattern(text: str, sentence: Span, head: Mention, tail: Mention) -> str:
    """The relation that the words around two neighbouring names assert, or ""."""
    before, between = text[sentence.start : head.start], text[head.end : tail.start]
    of = _OF.search(before)
    if of and _COPULA.match(between):
        return of[1].strip().casefold()
    for pattern in (_POSSESSIVE, _VERB):
        match = pattern.match(between)
        if match:
            return match[1].strip().casefold()
    return ""


def _known(low: list[str], i: int, wanted: dict[str, list[list[str]]]) -> int:
    for pieces in wanted.get(low[i], wanted.get(low[i].removesuffix("'s").removesuffix("’s"), ())):
        if len(pieces) == 1 or low[i : i + len(pieces)] == pieces or _possessive(low[i : i + len(pieces)]) == pieces:
            return len(pieces)
    return 0


def _possessive(row: list[str]) -> list[str]:
    return [*row[:-1], row[-1].removesuffix("'s").removesuffix("’s")]


def _name(text: str, tokens: list[re.Match[str]], low: list[str], i: int) -> int:
    """How many tokens from `i` on make a name, date or number; 0 for none."""
    if low[i][0].isdigit():
        return _number(tokens, low, i)
    if not _capital(tokens[i]):
        return 0
    # A capital at the start of a sentence is only a name if the word is not an ordinary one. Elsewhere articles and
    # pronouns in capitals ("I", "The") do not begin one either.
    if low[i] in _ORDINARY or (i == 0 and low[i].endswith(("ing", "ly")) and not _follows(tokens, 1)):
        return 0
    if low[i] in _MONTHS and i + 1 < len(low) and low[i + 1][0].isdigit():
        return 1 + _number(tokens, low, i + 1)
    size = 1
    while size < NAME_WORDS and i + size < len(tokens):
        gap = text[tokens[i + size - 1].end() : tokens[i + size].start()]
        if gap not in (" ", "-", " & ", ". ", ".") or (gap in (". ", ".") and len(low[i + size - 1]) > 2):
            break
        if low[i + size - 1].endswith(("'s", "’s")):
            break
        if _capital(tokens[i + size]) and low[i + size] not in _ORDINARY:
            size += 1
            continue
        reach = size
        while reach < size + 2 and i + reach < len(tokens) and low[i + reach] in _CONNECTORS:
            reach += 1
        joined = reach > size and i + reach < len(tokens) and _capital(tokens[i + reach])
        if not joined or text[tokens[i + size].end() : tokens[i + reach].start()].strip(" abcdefghijklmnopqrstuvwxyz"):
            break
        size = reach + 1
    return size


def _number(tokens: list[re.Match[str]], low: list[str], i: int) -> int:
    """A number; with a month and a year beside it, a date."""
    if not low[i].replace(",", "").replace(".", "").isdigit():
        return 0
    size = 1
    if i + 1 < len(low) and low[i + 1] in _MONTHS and _capital(tokens[i + 1]):
        size = 2
    if i + size < len(low) and low[i + size].isdigit() and len(low[i + size]) == 4 and len(low[i]) <= 2:
        size += 1
    return size


def _capital(token: re.Match[str]) -> bool:
    return token.group()[0].isupper()


def _follows(tokens: list[re.Match[str]], i: int) -> bool:
    """Whether the next token goes on with a name."""
    return i < len(tokens) and _capital(tokens[i])


DEFAULT = RuleExtractor()


def make_extractor(name: str) -> Extractor:
    """An extractor by name (see the module's header). Raises ConfigError for a name that leads nowhere."""
    if name == "rules":
        return DEFAULT
    if name == "cooccurrence":
        return CooccurrenceExtractor()
    if name.startswith(("ner:", "re:")):
        from reasoning.conflict.extract_models import ModelExtractor

        names, _, relations = f" {name}".partition(" re:")
        return ModelExtractor(names.strip().removeprefix("ner:"), relations.strip())
    if ":" in name:
        from importlib import import_module

        module, _, attribute = name.partition(":")
        try:
            return getattr(import_module(module), attribute)()
        except (ImportError, AttributeError) as error:
            raise ConfigError(f"extractor {name!r} cannot be imported ({error}); write package.module:Class") from error
    raise ConfigError(
        f"unknown extractor {name!r}; one of rules, cooccurrence, ner:FOLDER, re:FOLDER, package.module:Class"
    )
