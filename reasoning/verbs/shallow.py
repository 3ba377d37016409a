"""Trees of plain English sentences by rules and WordNet: for text that nobody has parsed.

No parser's model is needed: parts of speech come from closed lists, from how often WordNet's tagged texts use a lemma
as which part, and from the neighbours; then noun phrases and verb groups are chunked and joined. Only what argument
extraction reads is right more often than not (subjects, objects, passive agents, and what stands around them);
everything else hangs on the first verb as "dep". A parser is better: write its CoNLL-U and read that. What these rules
are worth is measured in docs/results/verb_identification.md.

    python -c "from reasoning.verbs.shallow import parse; print(parse('The old dog was chased by two cats.'))"
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from functools import lru_cache
from typing import NamedTuple

from reasoning.conflict.text import split_words
from reasoning.verbs.conllu import Sentence, Token
from reasoning.verbs.wordnet import Part, load, sense_counts

_WORD = re.compile(r"[A-Za-z]+(?:-[A-Za-z]+)*(?=n['’]t\b)|n['’]t\b|['’](?:s|re|ve|ll|d|m)\b|\w+(?:[-.,]\w+)*|[^\w\s]")
_CLOSED: dict[str, str] = {
    word: tag
    for tag, words in {
        "DET": "a an the this that these those my your his her its our their every each some any no another all both "
        "'s one's what which whose such either neither",
        "PRON": "i you he she it we they me him us them who whom myself yourself himself herself itself ourselves "
        "themselves one something anything nothing everything someone anyone everyone nobody everybody somebody "
        "there mine yours hers ours theirs",
        "ADP": "of in on at by for with from into onto about over under through between among against during before "
        "after without within across behind beyond toward towards upon off out up down around near along like per "
        "despite except inside outside above below than as via",
        "AUX": "am is are was were be been being have has had do does did will would shall should can could may might "
        "must ought 're 've 'll 'd 'm ca wo let",
        "CCONJ": "and or but nor",
        "SCONJ": "if because although while when where whereas unless until since whether though why how",
        "PART": "to not n't n’t",
        "ADV": "very too so also never always often then now here again just still already ever away back only well",
        "ADJ": "many much few several more most other own same",
        "NUM": "one two three four five six seven eight nine ten hundred thousand million",
    }.items()
    for word in words.split()
}
_NOMINATIVE = split_words("i you he she it we they who")
_BE = split_words("am is are was were be been being 're 'm get got gets getting")
_HAVE_DO = split_words("have has had do does did")
_PARTS: dict[Part, str] = {"noun": "NOUN", "verb": "VERB", "adj": "ADJ", "adv": "ADV"}
_PARTICLES = split_words("up out off away back")
"""Words before an object that are adverbs more often than prepositions."""


class Chunk(NamedTuple):
    """Tokens ``start`` to ``end`` (excluded) of a noun phrase, the last noun its head."""

    start: int
    end: int
    head: int


def parse(text: str) -> Sentence:
    """The tree of one sentence; empty for a text without words."""
    forms = _WORD.findall(text)
    if not forms:
        return ()
    low = [f.casefold().replace("’", "'") for f in forms]
    tags = _tags(forms, low)
    return _tree(forms, low, tags)


def parse_all(texts: Iterable[str]) -> Iterator[Sentence]:
    """The trees of sentences, those without words left out."""
    return (tree for tree in map(parse, texts) if tree)


# ---------------------------------------------------------------- parts of speech


@lru_cache(50_000)
def _uses(word: str) -> dict[str, float]:
    """How often a word is used as each part: counts of its lemmas in tagged texts, and something for every one."""
    found = {}
    for part, tag in _PARTS.items():
        lemmas = load(part).lemmas(word)
        if lemmas:
            found[tag] = 0.5 + max(sense_counts().get(lemma, {}).get(part, 0) for lemma in lemmas)
    if "VERB" in found and word.endswith("ing"):
        found["VERB"] *= 2
    return found


@lru_cache(50_000)
def lemma(word: str, part: Part) -> str:
    """The base form used most; the word itself if WordNet has none."""
    counts = sense_counts()
    found = load(part).lemmas(word)
    return max(found, key=lambda base: counts.get(base, {}).get(part, 0)) if found else word


def _tags(forms: list[str], low: list[str]) -> list[str]:
    tags: list[str] = []
    for i, (form, word) in enumerate(zip(forms, low, strict=True)):
        tags.append(_tag(form, word, low, tags, i))
    return tags


def _tag(form: str, word: str, low: list[str], tags: list[str], i: int) -> str:
    """The part of speech of token `i`, those before it being known."""
    before = tags[i - 1] if i else ""
    if not word[0].isalnum() and word not in _CLOSED:
        return "PUNCT"
    if word[0].isdigit():
        return "NUM"
    if word in _CLOSED:
        tag = _CLOSED[word]
        if word in _HAVE_DO and not _verb_ahead(low, i):
            return "VERB"
        if word == "that" and before in ("NOUN", "VERB"):
            return "SCONJ"
        if word == "'s" and before in ("PRON", "SCONJ"):
            return "AUX"
        return tag
    if form[0].isupper() and i:
        return "PROPN"
    uses = dict(_uses(word))
    if not uses:
        return "ADV" if word.endswith("ly") else "NOUN"
    finite = word.endswith(("s", "ed")) or word in load("verb").exceptions
    if "VERB" in uses:
        if before in ("DET", "ADJ", "NUM") or (before == "ADP" and not word.endswith("ing")):
            uses["VERB"] *= 0.02
        elif (i and low[i - 1] == "to") or before == "AUX" or (i and low[i - 1] in _NOMINATIVE):
            uses["VERB"] *= 50
        elif i == 0:
            uses["VERB"] *= 0.3 if finite else 3
        elif before in ("NOUN", "PROPN") and finite and "VERB" not in tags:
            uses["VERB"] *= 5
        elif before == "VERB":
            uses["VERB"] *= 0.1
    if before in ("DET", "ADJ"):
        uses = {tag: n * (0.1 if tag == "ADV" else 1) for tag, n in uses.items()}
    if "ADJ" in uses and "NOUN" in uses and not _noun_ahead(low, i):
        uses["ADJ"] *= 0.2 if before in ("DET", "ADJ", "VERB", "ADP") else 1
    return max(uses, key=lambda tag: uses[tag])


def _verb_ahead(low: list[str], i: int) -> bool:
    """Whether have or do at `i` helps another verb: a participle or base form, pronouns and adverbs passed over."""
    for word in low[i + 1 : i + 4]:
        tag = _CLOSED.get(word, "")
        if tag in ("PRON", "PART", "ADV") and word != "to":
            continue
        if tag:
            return word in _BE or word in _HAVE_DO
        uses = _uses(word)
        if low[i] in ("do", "does", "did"):
            return "VERB" in uses and uses["VERB"] >= uses.get("NOUN", 0) / 4
        return _participle(word) and "VERB" in uses
    return False


def _participle(word: str) -> bool:
    return word.endswith("ed") or word in load("verb").exceptions


def _noun_ahead(low: list[str], i: int) -> bool:
    ahead = low[i + 1] if i + 1 < len(low) else ""
    return bool(ahead) and ahead not in _CLOSED and bool({"NOUN", "ADJ"} & _uses(ahead).keys())


# ---------------------------------------------------------------- trees


def _tree(forms: list[str], low: list[str], tags: list[str]) -> Sentence:
    verbs = [i for i, tag in enumerate(tags) if tag == "VERB" and not _inside_phrase(tags, i)]
    chunks = _chunks(low, tags, set(verbs))
    heads: dict[int, tuple[int, str]] = {}
    root = verbs[0] if verbs else next((c.head for c in chunks), 0)
    taken: set[int] = set()
    for at, verb in enumerate(verbs):
        after = verbs[at + 1] if at + 1 < len(verbs) else len(tags)
        previous = verbs[at - 1] if at else -1
        _arguments(low, tags, chunks, heads, taken, verb, previous, after)
    for chunk in chunks:
        _inside(low, tags, chunk, heads)
        preposition = _preposition(tags, chunk)
        if preposition is not None:
            heads.setdefault(preposition, (chunk.head, "case"))
        if chunk.head not in heads and chunk.head != root:
            heads[chunk.head] = _attach(low, chunks, verbs, chunk, preposition, root)
    for verb in verbs:
        if verb != root:
            heads[verb] = (root, "conj")
        for i in range(verb - 1, -1, -1):
            if tags[i] not in ("AUX", "ADV", "PART"):
                break
            heads.setdefault(i, (verb, {"AUX": "aux", "ADV": "advmod", "PART": "mark"}[tags[i]]))
    heads[root] = (-1, "root")
    out = []
    for i, form in enumerate(forms):
        head, label = heads.get(i, (root, "punct" if tags[i] == "PUNCT" else "dep"))
        part: Part = "verb" if tags[i] in ("VERB", "AUX") else "noun"
        base = lemma(low[i], part) if tags[i] in ("VERB", "AUX", "NOUN") else low[i]
        out.append(Token(form, base, tags[i], head + 1, label))
    return tuple(out)


def _inside_phrase(tags: list[str], i: int) -> bool:
    """A participle between an article and a noun describes the noun."""
    return i > 0 and tags[i - 1] in ("DET", "ADJ", "NUM") and i + 1 < len(tags) and tags[i + 1] in ("NOUN", "ADJ")


def _chunks(low: list[str], tags: list[str], verbs: set[int]) -> list[Chunk]:
    """Noun phrases and pronouns from left to right."""
    found, i = [], 0
    while i < len(tags):
        start = i
        while i < len(tags) and (tags[i] in ("DET", "ADJ", "NUM") or (tags[i] == "VERB" and i not in verbs)):
            i += 1
        nouns = i
        while i < len(tags) and tags[i] in ("NOUN", "PROPN"):
            i += 1
        if i == nouns and i < len(tags) and tags[i] == "PRON" and start == i:
            i += 1
        if i > nouns:
            found.append(Chunk(start, i, i - 1))
            if i < len(tags) and low[i] == "'s" and i + 1 < len(tags) and tags[i + 1] not in ("PUNCT", "VERB", "DET"):
                found.pop()  # a possessive belongs to what follows
                i += 1
        elif i == start:
            i += 1
    return found


def _arguments(
    low: list[str], tags: list[str], chunks: list[Chunk], heads: dict[int, tuple[int, str]], taken: set[int],
    verb: int, previous: int, after: int,
) -> None:  # fmt: skip
    """Hang subject, object and agent of one verb on it."""
    begin = verb
    while begin and tags[begin - 1] in ("AUX", "ADV", "PART"):
        begin -= 1
    helpers = low[begin:verb]
    passive = _participle(low[verb]) and any(w in _BE for w in helpers) and not low[verb].endswith("ing")
    if "to" not in helpers:
        subject = _subject(tags, chunks, begin, previous)
        if subject is not None and subject.head not in taken:
            heads[subject.head] = (verb, "nsubj:pass" if passive else "nsubj")
            taken.add(subject.head)
    right = [c for c in chunks if verb < c.start < after]
    if passive:
        agent = next((c for c in right if c.start and low[c.start - 1] == "by"), None)
        if agent is not None:
            heads[agent.head] = (verb, "obl:agent")
            taken.add(agent.head)
        return
    at = verb + 1
    while at < len(tags) and (tags[at] == "ADV" or low[at] in _PARTICLES):
        at += 1
    first = next((c for c in right if c.start == at), None)
    if first is None or _starts_clause(low, tags, first):
        return
    second = next((c for c in right if c.start == first.end), None)
    if second is not None and tags[first.head] in ("PRON", "PROPN", "NOUN") and not _starts_clause(low, tags, second):
        heads[first.head] = (verb, "iobj")
        taken.add(first.head)
        first = second
    heads[first.head] = (verb, "obj")
    taken.add(first.head)


def _starts_clause(low: list[str], tags: list[str], chunk: Chunk) -> bool:
    """Whether a verb follows a phrase at once: then it is that verb's subject ("said the dog barked")."""
    at = chunk.end
    while at < len(tags) and tags[at] == "ADV":
        at += 1
    return at < len(tags) and (tags[at] == "AUX" or (tags[at] == "VERB" and not low[at].endswith("ing")))


def _subject(tags: list[str], chunks: list[Chunk], begin: int, previous: int) -> Chunk | None:
    """The phrase before a verb group, phrases after prepositions passed over."""
    end = begin
    for chunk in reversed([c for c in chunks if previous < c.start < begin]):
        if chunk.end != end:
            return None
        before = tags[chunk.start - 1] if chunk.start else ""
        joined = before == "CCONJ" and any(c.end == chunk.start - 1 for c in chunks)
        if before != "ADP" and not joined:
            return chunk
        end = chunk.start - 1  # "the roof of the house fell", "dogs and cats play": the head stands further left
    return None


def _preposition(tags: list[str], chunk: Chunk) -> int | None:
    return chunk.start - 1 if chunk.start and tags[chunk.start - 1] == "ADP" else None


def _attach(
    low: list[str], chunks: list[Chunk], verbs: list[int], chunk: Chunk, preposition: int | None, root: int
) -> tuple[int, str]:
    """Where a phrase without a role hangs: after "of" on the phrase before it, else on the verb before it."""
    if preposition is None:
        return root, "dep"
    left = next((c for c in chunks if c.end == preposition), None)
    verb = next((v for v in reversed(verbs) if v < chunk.start), None)
    if left is not None and (low[preposition] == "of" or verb is None):
        return left.head, "nmod"
    return (verb if verb is not None else root), "obl"


def _inside(low: list[str], tags: list[str], chunk: Chunk, heads: dict[int, tuple[int, str]]) -> None:
    """Articles, adjectives, numbers and nouns before the head."""
    labels = {"DET": "det", "ADJ": "amod", "NUM": "nummod", "NOUN": "compound", "PROPN": "compound", "VERB": "amod"}
    for i in range(chunk.start, chunk.end):
        if i != chunk.head:
            heads[i] = (chunk.head, labels.get(tags[i], "dep"))
