"""One relation, one name: "employed", "employs" and "hired" said the same way, for graphs of links.

    resolve(question, passages, extractor=NormalisedRelations(make_extractor("rules"), "synset"))

An option, not a default: what it is worth is measured in docs/results/verb_relations.md.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Literal

from launch.errors import ConfigError
from reasoning.conflict.extract import Extractor, Mention
from reasoning.conflict.instance import Triple
from reasoning.conflict.text import STOP_WORDS, WORD
from reasoning.verbs.shallow import lemma
from reasoning.verbs.wordnet import load, sense_counts

Level = Literal["lemma", "synset", "hypernym"]
LEVELS: tuple[Level, ...] = ("lemma", "synset", "hypernym")


class NormalisedRelations:
    """An extractor whose links name their relation by WordNet's verbs; names and passages stay as they are."""

    def __init__(self, base: Extractor, level: Level = "synset") -> None:
        """Wrap another extractor.

        Args:
            level: "lemma" for base forms, "synset" for the first word of a verb's most frequent meaning, "hypernym" for
                that of the meaning one step above it.

        Raises:
            ConfigError: another level.
        """
        if level not in LEVELS:
            raise ConfigError(f"level {level!r} of relations; use {', '.join(LEVELS)}")
        self.base, self.level = base, level

    def mentions(self, text: str, known: Iterable[str] = ()) -> list[Mention]:
        """Those of the wrapped extractor."""
        return self.base.mentions(text, known)

    def triples(self, text: str, mentions: Sequence[Mention]) -> list[Triple]:
        """Those of the wrapped extractor, their relations normalised."""
        found = self.base.triples(text, mentions)
        return [t._replace(relation=normalise_relation(t.relation, self.level)) for t in found]


def normalise_relation(relation: str, level: Level) -> str:
    """The words between two names, its verbs named as `level` says.

    The first word is a verb if its form is one's ("lives", "led"); later ones if they are verbs most of the time.
    """
    first, *rest = relation.split(" ")
    return " ".join([verb_name(first, level, inflected=True), *(verb_name(word, level) for word in rest)])


def normalise_text(text: str, level: Level) -> str:
    """A text whose words in small letters that are verbs most of the time are named as `level` says."""
    return WORD.sub(lambda match: verb_name(match.group(), level) if match.group().islower() else match.group(), text)


@lru_cache(50_000)
def verb_name(word: str, level: Level, inflected: bool = False) -> str:
    """How a word is called as a verb; the word itself if it is a stop word, no verb, or a noun at least as often.

    Args:
        inflected: take it for a verb, however often it is a noun, if its form is not the base form.
    """
    verbs = load("verb")
    base = lemma(word, "verb")
    if word in STOP_WORDS or base not in verbs.senses:
        return word
    counts, noun = sense_counts(), lemma(word, "noun")
    as_noun = counts.get(noun, {}).get("noun", 0) if noun in load("noun").senses else -1
    often_noun = as_noun >= counts.get(base, {}).get("verb", 0)
    if often_noun and not (inflected and word != base):
        return word
    if level == "lemma":
        return base
    synset = verbs.synsets[verbs.senses[base][0]]
    if level == "hypernym" and synset.hypernyms:
        synset = verbs.synsets[synset.hypernyms[0]]
    return synset.words[0]
