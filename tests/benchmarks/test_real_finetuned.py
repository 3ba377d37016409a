"""The measurements with whole backbones trained: what is read of each set, and that scores land on the right pairs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from transformers import AutoTokenizer

from align.preference import PreferenceModel
from align.preference.files import read_rows
from align.preference.formats import Judged, Vote
from benchmarks import real_data
from benchmarks.frozen_heads import Pairs
from benchmarks.real_finetuned import Plan, ending, fewer, score_rows, small_group, training_groups
from benchmarks.real_preferences import TRAIN_SETS, Items, Sides, baselines, shown_first

PLAN = Plan(length=24, groups=4, answers=3, batch=2, rates=(1e-3,), seeds={"BT": 1})


def ranked(prompt: str, n: int) -> Judged:
    """n answers, each better than all after it, but the last two tied."""
    votes = [Vote(i, j, tie=i == n - 2) for i in range(n) for j in range(i + 1, n)]
    return Judged(prompt, [f"{prompt} answer {k}" for k in range(n)], votes, "made")


def test_a_small_group_keeps_the_direction_of_its_pairs_and_weighs_one(tiny_llama: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny_llama)
    for seed in range(20):
        group = small_group(tokenizer, ranked("q", 6), PLAN, np.random.default_rng(seed))
        numbers = [int(text.split()[-1]) for text in group["responses"]]
        assert len(numbers) == len(set(numbers)) == PLAN.answers
        assert group["winners"]
        assert all(numbers[w] < numbers[b] for w, b in zip(group["winners"], group["losers"], strict=True))
        assert sum(group["weights"]) == pytest.approx(1.0)


def test_training_groups_count_alike_and_differ_by_seed(tiny_llama: Path) -> None:
    tokenizer, plan = AutoTokenizer.from_pretrained(tiny_llama), replace(PLAN, length=200)
    split = {name: Sides([ranked(f"{name} {n}", 5) for n in range(3)], [], []) for name in TRAIN_SETS}
    first, again, other = (training_groups(tokenizer, split, plan, seed) for seed in (0, 0, 1))
    assert first == again != other
    assert [sum(group["prompt"].startswith(name) for group in first) for name in split] == [PLAN.groups] * len(split)


def test_the_end_of_a_long_prompt_leaves_room_for_the_answer(tiny_llama: Path) -> None:
    """Of 24 tokens a quarter, less the tokenizer's two, is the prompt's least share; short prompts stay whole."""
    tokenizer = AutoTokenizer.from_pretrained(tiny_llama)
    long = "one two three four five six seven eight nine ten " * 5
    kept = ending(tokenizer, long, ["word " * 100], 24)
    assert long.endswith(kept)
    assert 1 <= len(tokenizer(kept, add_special_tokens=False)["input_ids"]) <= 24 // 4
    assert ending(tokenizer, "hi", ["word " * 100], 24) == "hi"


def test_fewer_draws_prompts_and_answers_whole() -> None:
    """Ten prompts of four answers with all six pairs: three prompts of two answers leave one pair each."""
    rows = [(4 * p + i, 4 * p + j, p) for p in range(10) for i in range(4) for j in range(i + 1, 4)]
    items = Items(*np.array(rows).T)
    kept = fewer(items, prompts=3, answers=2)
    assert len(kept.winner) == len(set(kept.prompt)) == 3
    assert {*zip(kept.winner, kept.loser, kept.prompt, strict=True)} <= {*rows}
    whole = fewer(items, prompts=10, answers=4)
    assert len(whole.winner) == len(rows)


def test_scores_of_rows_are_those_of_their_texts(tiny_llama: Path) -> None:
    model = PreferenceModel.from_backbone(tiny_llama, kind="hrc", dims=4, max_length=64).eval()
    sets = {"a": [ranked("first", 3)], "b": [ranked("second", 2), ranked("third", 4)]}
    tests = {"x": Items(np.array([1, 5]), np.array([2, 8]), np.array([0, 2]))}
    found = score_rows(model, sets, tests)
    assert found[1, 2] == pytest.approx(model.score("first", ["first answer 1", "first answer 2"]).S[0, 1], abs=1e-4)
    assert found[5, 8] == pytest.approx(model.score("third", ["third answer 0", "third answer 3"]).S[0, 1], abs=1e-4)


@pytest.mark.data
def test_the_first_shown_wins_half_and_is_known_where_the_set_says_it() -> None:
    """PandaLM's file names model_1 first: a baseline that always takes it must say so for every judged pair."""
    sets = {"pandalm": real_data.pandalm(), "hh_rlhf": real_data.hh_rlhf()[:5]}
    first = shown_first(sets)
    pair = sets["pandalm"][0].votes[0]
    both = frozenset((pair.winner, pair.loser))
    seen = first[both]
    _, shown = next(iter(read_rows(real_data.preference_file("pandalm/pandalm_testset.jsonl.gz"))))
    assert sets["pandalm"][0].responses[seen] == shown["response_1"]
    (other,) = both - {seen}
    start = sum(len(row.responses) for row in sets["pandalm"])
    tests = {
        "told": Items(*np.array([[seen, other, 0]]).T),
        "not told": Items(*np.array([[start, start + 1, len(sets["pandalm"])]]).T),
    }
    train = Pairs(np.array([0]), np.array([1]), np.array([0]), np.array([1.0]))
    found = baselines(train, tests, np.ones((start + 10, 3)), first)["first shown"]
    assert found["told"][1].tolist() == [[1.0]]
    assert "not told" not in found
