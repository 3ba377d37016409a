"""Self-play on real text: pairs that length cannot tell apart, and what is counted of win rates and texts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from align.preference import PreferenceModel
from align.preference.objective import check
from benchmarks import real_data, real_judge, real_selfplay
from benchmarks.real_judge import Contest, contests, groups, length_only
from benchmarks.real_selfplay import best_of, over_seeds, published, summary, text_numbers, wins
from launch.models import load_tokenizer


def test_text_numbers_by_hand() -> None:
    """ "a b a b" has bigrams ab, ba, ab: 2 of 3 differ; "" has none. Words: a, b of 4."""
    found = text_numbers([["a b a b", ""]])
    assert found == {
        "words": 2.0,
        "empty": 0.5,
        "distinct_1": 0.5,
        "distinct_2": pytest.approx(2 / 3),
        "distinct_2_within": pytest.approx(2 / 3),
    }


def test_one_group_for_each_opening_and_every_cut_beats_its_own_sample() -> None:
    pairs = [
        Contest(0, "A", " real one", " fake"),
        Contest(0, "A", " real", " lie"),
        Contest(0, "A", " real", " hoax"),
        Contest(1, "B", " true", " false"),
    ]
    first, second = groups(pairs)
    check(first)
    beats = [
        (first["responses"][w], first["responses"][b]) for w, b in zip(first["winners"], first["losers"], strict=True)
    ]
    assert beats == [(" real one", " fake"), (" real", " lie"), (" real", " hoax")]
    assert len(first["responses"]) == 5
    assert second["responses"] == [" true", " false"]


def test_length_alone_is_told_in_the_direction_that_was_learnt() -> None:
    """Taught that the shorter text is real; of two test pairs one is so, and one is even: (1 + 1/2) / 2."""
    learn = [Contest(0, "A", " b", " longer")]
    test = [Contest(1, "B", " c", " longer"), Contest(2, "C", " same", " even")]
    found = length_only(learn, test)
    assert found["characters only"] == pytest.approx(0.75)
    assert found["words only"] == pytest.approx(0.5)


def test_wins_do_not_depend_on_who_else_is_measured(tiny_llama: Path) -> None:
    model = PreferenceModel.from_backbone(tiny_llama, kind="hrc", dims=4, max_length=64).eval()
    openings = ["one", "two"]
    base, a, b = [["x y", "z"], ["q", "r"]], [["aa"], ["bb"]], [["c", "d d"], ["e", "f"]]
    together = wins(model, openings, [a, b], base)
    np.testing.assert_allclose(together[0], wins(model, openings, [a], base)[0], atol=1e-4)
    by_hand = model.score("two", ["e", "f", "q", "r"]).P[:2, 2:].mean()
    assert together[1][1] == pytest.approx(by_hand, abs=1e-4)
    np.testing.assert_allclose(wins(model, openings, [base], base)[0], 0.5, atol=1e-9)


def test_best_of_takes_the_answer_that_wins_most_among_each_k(tiny_llama: Path) -> None:
    model = PreferenceModel.from_backbone(tiny_llama, kind="bt", max_length=64).eval()
    many = [[f"answer {n}" for n in range(2 * real_selfplay.K)], [f"other {n}" for n in range(2 * real_selfplay.K)]]
    found = best_of(model, ["p", "q"], many)
    for opening, row, best in zip(["p", "q"], many, found, strict=True):
        for part, answer in zip((row[: real_selfplay.K], row[real_selfplay.K :]), best, strict=True):
            assert answer == part[int(model.score(opening, part).rank_value.argmax())]


def test_intervals_over_openings_and_seeds() -> None:
    """One hundred openings, half won: .5 +- 1.96 x .05; two seeds that agree leave it as wide or wider."""
    each = np.tile([0.0, 1.0], 50)
    one, two = summary(each), summary(np.stack([each, each]))
    assert one["win"] == two["win"] == 0.5
    assert one["high"] - one["low"] == pytest.approx(0.196, abs=0.03)
    assert two["high"] - two["low"] == pytest.approx(0.196, abs=0.03)


def test_the_mean_over_seeds_keeps_no_lists() -> None:
    rows: list[dict] = [
        {"rows": [{"who": "round 0", "nll": 1.0 + seed, "own judge": {"win": 0.5, "each": [0.25 * seed, 0.75]}}]}
        for seed in (0, 1)
    ]
    (row,) = over_seeds(rows)
    assert row["nll"] == 1.5
    assert row["own judge"]["win"] == pytest.approx((0.0 + 0.75 + 0.25 + 0.75) / 4)
    assert published(rows)[0]["rows"][0]["own judge"] == {"win": 0.5}


@pytest.mark.data
def test_real_and_sampled_continuations_have_as_many_tokens(data_dir: Path) -> None:
    """As the judge's pairs are made: the same opening, alike in tokens, both begin with a space, the real one is the
    story's own text."""
    policy, stories = data_dir / "lm" / "stories260K", real_data.stories(6)
    tokenizer = load_tokenizer(policy)
    pairs, lost = contests(policy, stories, 2, seed=3)
    assert len(pairs) + round(12 * sum(lost.values())) == 12
    assert pairs
    for pair in pairs:
        count = [len(tokenizer(text, add_special_tokens=False)["input_ids"]) for text in (pair.real, pair.sampled)]
        assert count[0] == count[1]
        assert stories[pair.story].startswith(pair.opening + pair.real)
        assert pair.sampled.startswith(" ")


def test_no_story_is_on_two_sides() -> None:
    parts = (real_judge.PLAY, real_judge.LEARN, real_judge.VALID, real_judge.HELD_OUT)
    numbers = [set(range(1000)[part]) for part in parts]
    assert sum(map(len, numbers)) == len(set().union(*numbers)) == 1000


def test_a_mark_of_the_making_is_found_out() -> None:
    """Real texts end in a space and sampled ones do not: a mark, right in every pair; the words alone tell nothing."""
    words = ["sun", "sea", "tree", "dog", "cat", "house"]
    pairs = [Contest(n, "A", f" {a} ", f" {b}") for n, (a, b) in enumerate(zip(words, reversed(words), strict=True))]
    plain = [Contest(c.story, "A", c.real.rstrip(), c.sampled) for c in pairs]
    assert real_judge.marks_only(pairs, pairs)["marks only"] == 1.0
    assert real_judge.marks_only(plain, plain)["marks only"] == pytest.approx(0.5)
