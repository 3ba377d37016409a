"""The cases world: its text reads back in both languages, its truth follows from the law, held-out charges are new."""

import numpy as np
import pytest

from launch.contracts import Scorer
from launch.errors import ConfigError, DataError
from tasks.worlds.cases import TYPES, Case, CasesWorld, Law

WORLDS = [CasesWorld(language, told, train=200, test=120) for language in ("en", "zh") for told in (True, False)]
LAW = Law("taking boats", (0, 12, 36, 60), (20, 50))


@pytest.mark.parametrize("world", WORLDS, ids=lambda w: f"{w.language}-{w.told}")
def test_every_text_survives_the_tokenizer(world):
    tokenizer = world.tokenizer()
    for prompt in [*world.prompts("train")[:60], *world.prompts("test")[:60]]:
        for text in (prompt, *world.examples(prompt)):
            ids = tokenizer(text)["input_ids"]
            assert tokenizer.unk_token_id not in ids
            assert tokenizer.decode(ids) == text
    assert len(tokenizer) < 320


@pytest.mark.parametrize(
    ("sum", "night", "circumstance", "range", "months"),
    [
        (19, False, "plain", (0, 12), 6),
        (20, False, "confessed", (12, 36), 12),
        (49, False, "repeated", (12, 36), 36),
        (50, False, "plain", (36, 60), 48),
        (1, True, "plain", (36, 60), 48),
        (50, False, "helper", (12, 36), 24),
        (1, False, "helper", (0, 12), 6),
    ],
)
def test_the_sentence_follows_from_the_law(sum, night, circumstance, range, months):
    case = Case(LAW, sum, night, circumstance)
    assert (case.range, case.months) == (range, months)


@pytest.mark.parametrize("world", WORLDS, ids=lambda w: f"{w.language}-{w.told}")
def test_what_is_told_is_what_is_read(world):
    for prompt, row in zip(world.prompts("test"), world.rows("test"), strict=True):
        case = world.read(prompt)
        assert (world.told_law(case.law) in prompt) == world.told
        assert prompt.endswith(world._case_text(case) + "\n")
        assert (row["charge"], row["months"]) == (case.law.charge, case.months)
        assert row["low"] <= row["months"] <= row["high"]


@pytest.mark.parametrize("world", WORLDS, ids=lambda w: f"{w.language}-{w.told}")
def test_examples_are_of_their_type(world):
    for prompt in world.prompts("test"):
        assert [world.describe(prompt, e)["type"] for e in world.examples(prompt)] == list(range(len(TYPES)))


def test_held_out_charges_never_occur_in_training():
    en, _, zh, _ = WORLDS
    assert not set(en.charges("train")) & set(en.charges("test"))
    assert (len(en.charges("train")), len(en.charges("test"))) == (90, 30) == (len(zh.charges("train")), 30)
    laws = [[w.law(c)[1:] for c in w.charges("test")] for w in (en, zh)]
    assert laws[0] == laws[1] and len(set(laws[0])) > 20
    assert {en.read(p).law.charge for p in en.prompts("test")} <= set(en.charges("test"))


def test_all_tiers_and_circumstances_occur():
    cases = [WORLDS[0].read(p) for p in WORLDS[0].prompts("train")]
    tiers = np.bincount([c.law.tier(c.sum, c.night) for c in cases], minlength=3) / len(cases)
    assert tiers.min() > 0.15
    assert {c.circumstance for c in cases} == {"plain", "confessed", "repeated", "helper"}


def test_chains_say_the_law():
    world = CasesWorld()
    law = world.law("taking boats")
    (a, b, c, d), (low, high) = law.bounds, law.sums
    assert world.chains("taking boats") == [
        ("taking boats", "plain", f"{a} to {b} months"),
        ("taking boats", f"from {low} crowns", f"{b} to {c} months"),
        ("taking boats", f"from {high} crowns or at night", f"{c} to {d} months"),
    ]
    assert world.told_law(law) == (
        f"Law: taking boats: {a} to {b} months; from {low} crowns: {b} to {c} months; "
        f"from {high} crowns or at night: {c} to {d} months."
    )
    chinese = CasesWorld("zh")
    assert chinese.chains("偷取船只")[2] == ("偷取船只", f"{high}元以上或者夜间", f"处{c}至{d}个月")
    assert chinese.told_law(chinese.law("偷取船只")).startswith(f"法条：偷取船只的，处{a}至{b}个月；{low}元以上的，")


def test_demonstrations_are_right_as_often_as_told_and_never_contradict_themselves():
    world = CasesWorld(train=300)
    rows = world.demonstrations(600, seed=1)
    assert rows == world.demonstrations(600, seed=1) != world.demonstrations(600, seed=2)
    told = [world.describe(r["prompt"], r["response"]) for r in rows]
    assert np.mean([t["right"] for t in told]) == pytest.approx(0.6, abs=0.05)
    assert all(t["consistent"] for t in told)


def test_the_game_ranks_types_and_judges_answers():
    world = WORLDS[0]
    prompt = world.prompts("train")[0]
    assert isinstance(world, Scorer)
    scores = world.score(prompt, world.examples(prompt))
    assert np.array_equal(scores.S, world.game().S) and scores.S[0, 1] == 2 and not scores.S_C.any()
    votes = world.vote(prompt, world.examples(prompt), seed=0, annotators=3)
    assert len(votes) == 30 and votes == world.vote(prompt, world.examples(prompt), seed=0, annotators=3)


def test_bad_input_is_named():
    with pytest.raises(DataError, match="is no case of the cases world"):
        WORLDS[0].read("Who lives in Rome?")
    with pytest.raises(DataError, match=r"is no case of the cases world \(zh\)"):
        WORLDS[2].describe(WORLDS[0].prompts("train")[0], "")
    with pytest.raises(DataError, match="no law for 'eating boats'"):
        WORLDS[0].law("eating boats")
    with pytest.raises(DataError, match="no split 'dev'"):
        WORLDS[0].prompts("dev")
    with pytest.raises(ConfigError, match="language 'fr'"):
        CasesWorld("fr")
    assert WORLDS[0].describe(WORLDS[0].prompts("train")[0], "<think> ")["malformed"]
