"""Text as conflict resolution sees it: words with offsets, sentences, normalised names, answers that match.

Everything is regular expressions and counts over one pass of the text, so that a megabyte costs seconds and never
memory of its square. Deliberately not here: stemming, coreference, any model.

    python -c "from reasoning.conflict.text import sentences; print(sentences('Dr. Lee left. She rested.'))"
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import NamedTuple


def split_words(lines: str) -> frozenset[str]:
    """A set of words from a block of text."""
    return frozenset(lines.split())


WORD = re.compile(r"\w+(?:[.,]\d+|['’]\w+)*", re.UNICODE)
_BOUNDARY = re.compile(r"[.!?。！？]+[\"'”’)\]]*\s+|[。！？]+|\n+")
_ABBREVIATIONS = split_words("""
mr mrs ms dr st jr sr prof gen rep sen gov capt lt col sgt vs etc no inc ltd co corp e.g i.e u.s approx ca fl
""")
SENTENCE_WORDS = 80
"""A longer run without an end is cut here: tables and lists would otherwise be one sentence of thousands of words."""

ARTICLES = frozenset(("a", "an", "the"))
STOP_WORDS = split_words("""
a an the of in on at to for from by with and or but nor so as is are was were be been being am do does did has
have had it its he she they them his her their this that these those there which who whom whose what when
where why how not no than then also into over under about after before between during can could would will
shall should may might must i you we our your my me us him
""")
NEGATIONS = split_words("""
not no never none neither nor cannot without unlikely n't
""")
REFUTATIONS = re.compile(
    r"\b(?:contradict\w*|inconsistent\w*|unsupported|unstated|refut\w*|reject\w*|incorrect\w*|mistaken\w*|wrong\w*|"
    r"misinformation|missing|broken|breaks|gap|implausibl\w*|unreliabl\w*|conflicts? with|rather than|instead of|"
    r"(?:not|never|nowhere|isn['’]t|is n['’]t|no) (?:\w+ )?(?:stated|supported|said|given|shown|follow\w*|"
    r"join\w*|link\w*|evidence|support|consistent|connected|reliable|true))\b",
    re.IGNORECASE,
)
"""Cues that a sentence speaks against what it mentions."""
_CLEARED = re.compile(
    r"\b(?:no|without(?: an?y?)?|not any|free of) (?:gaps?|contradictions?|conflicts?|missing links?|broken links?)\b",
    re.IGNORECASE,
)
"""Found nothing wrong: such words speak for what is mentioned, although they look like a cue."""

TRUE_WORDS, FALSE_WORDS = frozenset(("true", "yes")), frozenset(("false", "no"))


class Span(NamedTuple):
    """A piece of a text: ``text[start:end]``."""

    start: int
    end: int


def refutes(text: str) -> bool:
    """Whether a sentence speaks against what it mentions."""
    return REFUTATIONS.search(cleared(text)) is not None


def cleared(text: str) -> str:
    """A sentence without its "no gap", "without a contradiction" and the like."""
    return _CLEARED.sub(" ", text)


def negates(found: Iterable[str]) -> bool:
    """Whether a negation is among these words."""
    return any(w in NEGATIONS or w.endswith(("n't", "n’t")) for w in found)


def words(text: str) -> list[str]:
    """Case-folded words and numbers, in order. Contractions and decimals stay whole."""
    return [match.group().casefold() for match in WORD.finditer(text)]


def singular(word: str) -> str:
    """A word without a plural's or third person's s: dogs and dog, lives and live are one."""
    return word[:-1] if len(word) > 3 and word.endswith("s") and not word.endswith(("ss", "us", "is")) else word


def normalise(name: str) -> str:
    """A name without case, accents' composition, articles, possessive and punctuation: the key of a graph's node."""
    found = [w.removesuffix("'s").removesuffix("’s") for w in words(unicodedata.normalize("NFKC", name))]
    return " ".join(w for w in found if w not in ARTICLES) or " ".join(found)


def sentences(text: str) -> list[Span]:
    """Sentences in order, trimmed, none empty. Abbreviations and initials end no sentence; long runs are cut."""
    spans: list[Span] = []
    start = 0
    for match in _BOUNDARY.finditer(text):
        if text[match.start()] == "." and "\n" not in match.group():
            before = text[max(start, match.start() - 12) : match.start()].rsplit(None, 1)
            last = before[-1].strip("(\"'").casefold() if before else ""
            if last in _ABBREVIATIONS or (len(last) == 1 and last.isalpha()):
                continue
        _add(spans, text, start, match.end())
        start = match.end()
    _add(spans, text, start, len(text))
    return spans


def _add(spans: list[Span], text: str, start: int, end: int) -> None:
    while start < end and text[start].isspace():
        start += 1
    while end > start and text[end - 1].isspace():
        end -= 1
    if start == end:
        return
    if end - start > 4 * SENTENCE_WORDS:  # shorter than that in characters cannot hold so many words
        found = [m.span() for m in re.compile(r"\S+").finditer(text, start, end)]
        for first in range(0, len(found), SENTENCE_WORDS):
            run = found[first : first + SENTENCE_WORDS]
            spans.append(Span(run[0][0], run[-1][1]))
        return
    spans.append(Span(start, end))


def pieces(text: str, size: int) -> list[str]:
    """A text in runs of `size` words between spaces; one empty piece of an empty text."""
    said = text.split()
    return [" ".join(said[i : i + size]) for i in range(0, len(said), size)] or [""]


def contains(haystack: Sequence[str], needle: Sequence[str]) -> int:
    """Index where the words `needle` stand in a row within `haystack`, or -1. An empty needle is nowhere."""
    size = len(needle)
    if not size:
        return -1
    first = needle[0]
    for i in range(len(haystack) - size + 1):
        if haystack[i] == first and list(haystack[i : i + size]) == list(needle):
            return i
    return -1


def token_f1(a: str, b: str) -> float:
    """F1 of two texts' normalised words as bags; 1 when both are empty."""
    left, right = normalise(a).split(), normalise(b).split()
    if not left or not right:
        return float(left == right)
    shared = sum((Counter(left) & Counter(right)).values())
    return 2 * shared / (len(left) + len(right))


def truth_value(answer: str) -> bool | None:
    """True or False for an answer that is nothing but true, yes, false or no; otherwise None."""
    found = words(answer)
    if len(found) == 1:
        if found[0] in TRUE_WORDS:
            return True
        if found[0] in FALSE_WORDS:
            return False
    return None


def answer_matches(answer: str, accepted: Iterable[str], rejected: Iterable[str] = ()) -> bool:
    """Whether `answer` says one of `accepted`.

    True, False, yes, no and single letters (options) must be the whole answer. Otherwise the normalised texts are
    equal, or one contains the other in a row and is at most twice as long, without a negation in what is left over.
    An answer that also names one of `rejected` outside the accepted text matches nothing: hedging is not answering.
    """
    mine = normalise(answer).split()
    for text in accepted:
        truth = truth_value(text)
        if truth is not None:
            if truth_value(answer) is truth:
                return True
            continue
        theirs = normalise(text).split()
        if not mine or not theirs:
            continue
        if mine == theirs:
            return True
        if len(theirs) == 1 and len(theirs[0]) == 1:
            continue
        long, short = (mine, theirs) if len(mine) >= len(theirs) else (theirs, mine)
        at = contains(long, short)
        if at < 0 or len(short) * 2 < len(long):
            continue
        rest = [*long[:at], "|", *long[at + len(short) :]]
        if NEGATIONS & set(rest) or any(contains(rest, normalise(r).split()) >= 0 for r in rejected):
            continue
        return True
    return False


def lcs(a: Sequence[str], b: Sequence[str]) -> int:
    """Length of the longest common subsequence."""
    row = [0] * (len(b) + 1)
    for x in a:
        diagonal = 0
        for j, y in enumerate(b, 1):
            diagonal, row[j] = row[j], diagonal + 1 if x == y else max(row[j], row[j - 1])
    return row[-1]


def ngrams(tokens: Sequence[str], n: int) -> list[tuple[str, ...]]:
    """All runs of `n` tokens."""
    return [tuple(tokens[i : i + n]) for i in range(len(tokens) - n + 1)]


STEM = 4
"""Words are the same content if they share this many first letters: live, lives, living."""


def content_stems(question: str, names: Iterable[str]) -> set[str]:
    """Stems of a question's words that are neither stop words nor part of a name."""
    named = {w for name in names for w in normalise(name).split()}
    return {w[:STEM] for w in words(question) if w not in STOP_WORDS and w not in named and w not in ("many", "much")}


def coverage(stems: set[str], sentences: Iterable[str]) -> float:
    """Share of `stems` that the sentences hold; 1 if there are none to hold."""
    if not stems:
        return 1.0
    said = {w[:STEM] for s in sentences for w in words(s)}
    return len(stems & said) / len(stems)
