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
        _, (first, second) = read(prompt)
        traces = [SMALL.render(second, 2, [(first, 1)]), SMALL.render_brief(first, 1)]
        for text in (prompt, *SMALL.examples(prompt), *traces):
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


def test_examples_are_of_their_type_and_demonstrations_are_right():
    for prompt in SMALL.prompts("test")[:40]:
        assert [SMALL.describe(prompt, e)["type"] for e in SMALL.examples(prompt)] == list(range(len(TYPES)))
    rows = SMALL.demonstrations(400, seed=1)
    assert rows == SMALL.demonstrations(400, seed=1) != SMALL.demonstrations(400, seed=2)
    told = [SMALL.describe(r["prompt"], r["response"]) for r in rows]
    assert all(d["right"] and d["followed"] == d["true"] and not d["wrong"] for d in told)
    rejects = np.mean(["does not join" in r["response"] or "contradicts" in r["response"] for r in rows])
    assert rejects == pytest.approx(0.5, abs=0.08)


def test_brief_demonstrations_tell_a_home_alone_and_are_right_by_chance():
    rows = ConflictsWorld(brief=0.8, cue=0.5).demonstrations(600, seed=1)
    brief = [row for row in rows if "The mentor of" not in row["response"]]
    assert len(brief) / 600 == pytest.approx(0.8, abs=0.05)
    right = {row["prompt"]: SMALL.describe(**row)["right"] for row in rows}
    assert np.mean([right[row["prompt"]] for row in brief]) == pytest.approx(0.5, abs=0.07)
    assert all(right[row["prompt"]] for row in rows if row not in brief)


def test_traces_by_hand():
    """A gap shows in the name that should have been repeated; every step names mark and context."""
    _, (broken, true) = read(
        "Question: Where does the mentor of Ann live?\n"
        "[Context 1] (archive) The mentor of Ann is Cleo. Ivan lives in Rome.\n"
        "[Context 2] (letter) Bob lives in Oslo. The mentor of Ann is Bob.\n"
    )
    answer = "So the answer is Oslo. </think> <answer> Oslo </answer>"
    followed = "(letter) [Context 2] The mentor of Ann is Bob and Bob lives in Oslo."
    rejected = "(archive) [Context 1] The mentor of Ann is Cleo and Ivan does not join."
    assert ConflictsWorld.render(true, 2, [(broken, 1)]) == f"<think> {rejected} {followed} {answer}"
    assert ConflictsWorld.render_brief(true, 2) == f"<think> (letter) [Context 2] Bob lives in Oslo. {answer}"


def test_another_cue_marks_the_same_questions():
    def bare(cue):
        prompts = ConflictsWorld(cue=cue, test=50).prompts("test")
        return [p.replace("(letter)", "").replace("(archive)", "") for p in prompts]

    assert bare(0.05) == bare(0.95)


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
    with pytest.raises(ConfigError, match=r"brief 1\.5"):
        ConflictsWorld(brief=1.5)
    with pytest.raises(ConfigError, match="test_share"):
        ConflictsWorld(contexts=5, test_share=0.1)
