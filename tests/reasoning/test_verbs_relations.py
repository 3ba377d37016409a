"""Relations named by WordNet's verbs: what changes, what must not."""

from __future__ import annotations

import pytest

from launch.errors import ConfigError
from reasoning.conflict import resolve
from reasoning.conflict.extract import make_extractor
from reasoning.verbs.relations import NormalisedRelations, normalise_relation, normalise_text, verb_name

RULES = make_extractor("rules")
QUESTION = "Who is at the end of the line, if Balina employs one, who leads one?"
HOLDS = "Balina employs Kelsa. Kelsa leads Hulric. Kelsa praises Jortor."
BROKEN = "Balina employs Tarana. Tarana leads Velmir. Tarana {again} Rinwen. Balina praises Tardan."


@pytest.mark.parametrize(
    ("word", "lemma", "synset", "hypernym"),
    [
        ("taught", "teach", "teach", "inform"),
        ("instructed", "instruct", "teach", "inform"),
        ("encountered", "encounter", "meet", "meet"),
        ("is", "is", "is", "is"),  # stop words stay
        ("mentor", "mentor", "mentor", "mentor"),  # as often a noun
        ("table", "table", "table", "table"),  # a noun more often
    ],
)
def test_names_of_verbs(word: str, lemma: str, synset: str, hypernym: str) -> None:
    assert [verb_name(word, level) for level in ("lemma", "synset", "hypernym")] == [lemma, synset, hypernym]


def test_a_relation_begins_with_a_verb_and_a_text_keeps_names_and_negations() -> None:
    assert normalise_relation("lives in", "lemma") == "live in" and normalise_text("lives in", "lemma") == "lives in"
    assert normalise_relation("", "lemma") == "" and normalise_relation("did not teach", "lemma") == "did not teach"
    assert normalise_text("Ann Taught taught Bob, not Cleo.", "synset") == "Ann Taught teach Bob, not Cleo."


def test_only_relations_change() -> None:
    text = "Ann taught Bob. The mentor of Bob is Cleo."
    plain, named = RULES.mentions(text), NormalisedRelations(RULES, "synset").mentions(text)
    assert plain == named
    before, after = RULES.triples(text, plain), NormalisedRelations(RULES, "synset").triples(text, named)
    assert [t._replace(relation="") for t in before] == [t._replace(relation="") for t in after]
    assert [t.relation for t in after] == ["teach", "mentor"]
    with pytest.raises(ConfigError, match="level 'root'"):
        NormalisedRelations(RULES, "root")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("again", "seen_as_it_is", "seen_by_lemma"), [("leads", 1, 1), ("led", 0, 1), ("guided", 0, 0), ("praises", 0, 0)]
)
def test_another_tense_is_the_same_relation(again: str, seen_as_it_is: int, seen_by_lemma: int) -> None:
    def faults(extractor) -> int:
        got = resolve(QUESTION, [BROKEN.format(again=again), HOLDS], ["Velmir", "Hulric"], extractor=extractor)
        return sum(f["kind"] == "contradiction" for p in got["paths"] for f in p["faults"])

    assert faults(RULES) == seen_as_it_is
    assert faults(NormalisedRelations(RULES, "lemma")) == seen_by_lemma
