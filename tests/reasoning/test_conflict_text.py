"""Words, sentences and answers: what counts as said."""

import pytest

from reasoning.conflict.text import answer_matches, contains, lcs, normalise, refutes, sentences, token_f1, truth_value


def split(text):
    return [text[a:b] for a, b in sentences(text)]


def test_abbreviations_initials_and_decimals_end_no_sentence():
    assert split("Dr. Lee met J. P. Ives at 3.5 km. She left! Why?\nOk") == [
        "Dr. Lee met J. P. Ives at 3.5 km.",
        "She left!",
        "Why?",
        "Ok",
    ]


def test_sentences_cover_every_word_of_a_text_without_stops():
    text = " ".join(f"w{i}" for i in range(1000))
    pieces = split(text)
    assert " ".join(pieces) == text
    assert max(len(p.split()) for p in pieces) <= 80


def test_normalise_drops_case_article_punctuation_and_possessive():
    assert normalise("The  Beatles’s") == normalise("beatles") == "beatles"
    assert normalise("A") == "a"  # an option letter is no article


@pytest.mark.parametrize(
    ("answer", "gold", "wrong", "expected"),
    [
        ("oslo", ["Oslo"], [], True),
        ("Oslo, Norway", ["Oslo"], [], True),  # twice as long
        ("Oslo, the capital of Norway", ["Oslo"], [], False),  # more than twice
        ("Oslo Rome", ["Oslo"], ["Rome"], False),  # hedging
        ("not Oslo", ["Oslo"], [], False),
        ("True", ["True"], [], True),
        ("yes.", ["True"], [], True),
        ("It is true", ["True"], [], False),
        ("A", ["A"], [], True),
        ("A cat", ["A"], [], False),
        ("", ["Oslo"], [], False),
        ("Christiania", ["Oslo", "Christiania"], [], True),
    ],
)
def test_answers(answer, gold, wrong, expected):
    assert answer_matches(answer, gold, wrong) is expected


def test_truth_values_are_whole_answers():
    assert (truth_value("Yes"), truth_value("false."), truth_value("not true")) == (True, False, None)


def test_refuting_is_not_the_same_as_finding_nothing_wrong():
    assert refutes("Context 2 is not supported.") and refutes("This contradicts itself.")
    assert not refutes("The links join without a gap.") and not refutes("Ann lives in Oslo.")


def test_counts_by_hand():
    """Bags {ann, lee} and {dr, ann, lee} share two words: F1 = 4/5."""
    assert token_f1("Ann Lee", "Dr. Ann Lee") == pytest.approx(0.8)
    assert lcs("abcd", "axcd") == 3
    assert contains(["a", "b", "c", "d"], ["c", "d"]) == 2
    assert contains(["a"], []) == -1
