"""The conflicts world: its text reads back, its truth is in the links alone, its mark reverses."""

import json
from collections import Counter

import numpy as np
import pytest

from launch.contracts import Scorer
from launch.errors import ConfigError, DataError
from tasks.worlds.conflicts import CITIES, CUE, PEOPLE, TYPES, ConflictsWorld, read

SMALL = ConflictsWorld(train=300, test=200)


def test_every_text_survives_the_tokenizer():
    tokenizer = SMALL.tokenizer()
    for prompt in SMALL.prompts("train")[:60]:
        for text in (prompt, *SMALL.examples(prompt)):
            ids = tokenizer(text)["input_ids"]
            assert tokenizer.unk_token_id not in ids
            assert tokenizer.decode(ids) == text
    assert len(tokenizer) < 120


@pytest.mark.parametrize("contexts", [2, 3, 5])
def test_exactly_one_context_holds_together(contexts):
    world = ConflictsWorld(contexts=contexts, train=60)
    for prompt in world.prompts("train"):
        asked, told = read(prompt)
        assert len(told) == contexts and len({c.city for c in told}) == contexts
        for c in told:
            (pupil, _, mentor), (owner, _, city) = c.chain
            assert pupil == asked and f"{owner} lives in {city}." in c.text
            joins = mentor == owner and c.text.count(f"The mentor of {asked} is") == 1
            assert joins == (c.fault == "")
        assert sum(c.fault == "" for c in told) == 1


def test_the_mark_reverses_and_place_says_nothing():
    """95 % in training, 5 % in testing; the true context is first in about half."""
    for split, expected in (("train", 0.95), ("test", 0.05)):
        told = [read(p)[1] for p in SMALL.prompts(split)]
        true = [next(c for c in cs if not c.fault) for cs in told]
        assert np.mean([c.cue == CUE for c in true]) == pytest.approx(expected, abs=0.05)
        assert np.mean([not cs[0].fault for cs in told]) == pytest.approx(0.5, abs=0.1)
        assert all(sum(c.cue == CUE for c in cs) == 1 for cs in told)


def test_surface_of_true_and_broken_contexts_is_the_same():
    """Three sentences, the same words but names; each city equally often on either side, up to chance."""
    sides = {True: Counter(), False: Counter()}
    for prompt in SMALL.prompts("train"):
        for c in read(prompt)[1]:
            assert len(c.text.split()) == 6 + 6 + 4
            sides[not c.fault][c.city] += 1
    shares = np.array([[sides[k][city] / 300 for city in CITIES] for k in (True, False)])
    assert np.abs(shares[0] - shares[1]).max() < 0.08


def test_held_out_pairs_never_meet_in_training():
    homes = {
        split: {(c.chain[1][0], c.city) for p in SMALL.prompts(split) for c in read(p)[1]}
        for split in ("train", "test")
    }
    assert not homes["train"] & homes["test"]
    assert {p for p, _ in homes["test"]} <= set(PEOPLE)


def test_prompts_are_the_same_every_time_and_nested():
    assert SMALL.prompts("train") == ConflictsWorld(train=300).prompts("train")
    assert ConflictsWorld(train=10).prompts("train") == SMALL.prompts("train")[:10]


def test_examples_are_of_their_type_and_demonstrations_are_right_as_often_as_told():
    for prompt in SMALL.prompts("test")[:40]:
        assert [SMALL.describe(prompt, e)["type"] for e in SMALL.examples(prompt)] == list(range(len(TYPES)))
    rows = SMALL.demonstrations(400, seed=1)
    assert rows == SMALL.demonstrations(400, seed=1) != SMALL.demonstrations(400, seed=2)
    told = [SMALL.describe(r["prompt"], r["response"]) for r in rows]
    assert all(d["right"] == (d["followed"] == d["true"]) and d["right"] != d["wrong"] for d in told)
    assert np.mean([d["right"] for d in told]) == pytest.approx(0.6, abs=0.07)


def test_game_is_a_ranking_and_the_world_a_scorer():
    S, S_T, S_C, P = SMALL.game()
    assert np.array_equal(S, -S.T) and np.array_equal(S, S_T) and not S_C.any()
    assert np.allclose(P + P.T, 1)
    assert isinstance(SMALL, Scorer)
    prompt = SMALL.prompts("test")[0]
    assert np.array_equal(SMALL.score(prompt, SMALL.examples(prompt)).S, S)
    votes = SMALL.vote(prompt, SMALL.examples(prompt), seed=0, annotators=200)
    wins = np.mean([v["winner"] == 0 for v in votes if {v["winner"], v["loser"]} == {0, 1}])
    assert wins == pytest.approx(1 / (1 + np.exp(-2)), abs=0.07)


def test_rows_carry_the_instance_as_json():
    row = next(SMALL.rows("test"))
    instance = json.loads(row["instance"])
    assert [c["true"] for c in instance["contexts"]].count(True) == 1
    assert instance["gold"][0] in row["prompt"]


def test_bad_input_is_refused_in_one_line():
    with pytest.raises(DataError, match="no split 'dev'"):
        SMALL.prompts("dev")  # type: ignore[arg-type]
    with pytest.raises(DataError, match="not a question of the conflicts world"):
        SMALL.describe("34+5=", "39")
    with pytest.raises(DataError, match="plain text"):
        SMALL.score([{"role": "user", "content": "x"}], ["y"])
    with pytest.raises(ConfigError, match="contexts 6"):
        ConflictsWorld(contexts=6)
    with pytest.raises(ConfigError, match="test_share"):
        ConflictsWorld(contexts=5, test_share=0.1)
