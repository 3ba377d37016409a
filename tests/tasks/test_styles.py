"""The styles world: its game is what it says, its text reads back, its held-out questions are held out."""

import numpy as np
import pytest

from align.preference import game
from launch.contracts import Scorer
from launch.errors import DataError
from tasks.worlds.styles import MALFORMED, STYLES, TYPES, StylesWorld

WORLD = StylesWorld()


def test_true_game_is_skew_and_its_parts_add_up():
    S, S_T, S_C, P = WORLD.game()
    for part in (S, S_T, S_C):
        assert np.array_equal(part, -part.T)
    assert np.array_equal(S, S_T + S_C)
    assert np.allclose(P + P.T, np.ones((7, 7)))


def test_style_goes_in_a_circle_and_right_beats_wrong_in_every_style():
    S = WORLD.game().S
    formal, concise, warm = (TYPES.index(f"right {style}") for style in STYLES)
    assert S[formal, concise] == S[concise, warm] == S[warm, formal] == 1.5
    assert (S[:3, 3:6] > 0).all()  # 2 - 1.5 = 0.5 at the least
    assert (S[:MALFORMED, MALFORMED] > 0).all()


def test_declared_parts_are_the_decomposition_over_the_well_formed_types():
    S, S_T, S_C, _ = WORLD.game()
    f, T, C = game.decompose(S[:MALFORMED, :MALFORMED])
    assert np.allclose(np.asarray(T), S_T[:MALFORMED, :MALFORMED])
    assert np.allclose(np.asarray(C), S_C[:MALFORMED, :MALFORMED])
    assert np.allclose(np.asarray(f), [1, 1, 1, -1, -1, -1])  # half of the 2 logits, up and down


def test_equilibrium_is_right_answers_with_styles_in_equal_shares():
    """By symmetry of the cycle; every wrong type loses to some right type by more than it wins."""
    P = WORLD.game().P
    mixture, value = game.nash(P - 0.5)
    assert np.allclose(np.asarray(mixture), [1 / 3] * 3 + [0] * 4, atol=1e-6)
    assert abs(float(value)) < 1e-8
    assert game.duality_gap(P, np.asarray(mixture)) < 1e-6


def test_gap_of_the_formal_right_policy_by_hand():
    """All on right formal: the best reply, right warm, wins sigmoid(1.5) = 0.81757; gap = 2 (0.81757 - 0.5)."""
    pure = np.eye(7)[0]
    assert game.duality_gap(WORLD.game().P, pure) == pytest.approx(2 * (1 / (1 + np.exp(-1.5)) - 0.5))


@pytest.mark.parametrize("style", STYLES)
def test_describe_inverts_render(style):
    import random

    rng = random.Random(0)
    for prompt in WORLD.prompts("test")[:50]:
        right, wrong = WORLD.answer(prompt), WORLD.wrong(prompt, rng)
        assert right != wrong
        truth = WORLD.describe(prompt, WORLD.render(right, style))
        assert truth["right"] and truth["style"] == style and not truth["malformed"]
        assert TYPES[truth["type"]] == f"right {style}"
        assert TYPES[WORLD.describe(prompt, WORLD.render(wrong, style))["type"]] == f"wrong {style}"


@pytest.mark.parametrize("response", ["", " ", "42 42", "It equals .", "Sure! 42", "it equals 86.", "39 :)", "3 9"])
def test_anything_else_is_malformed(response):
    assert WORLD.describe("34+5=", response)["type"] == MALFORMED


def test_a_number_with_leading_zeros_is_not_the_right_answer():
    assert WORLD.describe("34+5=", "039")["right"] is False


def test_tokenizer_reads_back_every_text_and_keeps_pad_bos_eos_apart():
    tokenizer = WORLD.tokenizer()
    assert len({tokenizer.pad_token_id, tokenizer.bos_token_id, tokenizer.eos_token_id}) == 3
    for row in WORLD.demonstrations(200, seed=1):
        text = row["prompt"] + row["response"]
        ids = tokenizer.encode(text, add_special_tokens=False)
        assert tokenizer.decode(ids) == text
        assert tokenizer.unk_token_id not in ids
        split = [
            i for part in (row["prompt"], row["response"]) for i in tokenizer.encode(part, add_special_tokens=False)
        ]
        assert split == ids  # the prompt's tokens do not depend on what follows


def test_held_out_questions_are_disjoint_and_all_questions_are_there():
    train, test = WORLD.prompts("train"), WORLD.prompts("test")
    assert len(train) + len(test) == len({*train, *test}) == 9 * 55  # nine tens, 55 unit pairs that do not carry
    assert not set(train) & set(test)
    assert 70 <= len(test) <= 130


def test_the_units_of_every_held_out_question_were_seen_beside_other_tens():
    seen = {prompt[1:] for prompt in WORLD.prompts("train")}
    assert all(prompt[1:] in seen for prompt in WORLD.prompts("test"))


def test_demonstrations_follow_the_stated_shares_and_the_seed():
    rows = WORLD.demonstrations(8000, seed=3)
    assert rows == WORLD.demonstrations(8000, seed=3) != WORLD.demonstrations(8000, seed=4)
    train = set(WORLD.prompts("train"))
    assert all(row["prompt"] in train for row in rows)
    truth = [WORLD.describe(**row) for row in rows]
    assert np.mean([t["right"] for t in truth]) == pytest.approx(0.6, abs=0.02)
    assert [np.mean([t["style"] == s for t in truth]) for s in STYLES] == pytest.approx([0.45, 0.45, 0.10], abs=0.02)


def test_votes_follow_the_true_game():
    """4,000 votes on right formal against right concise: the mean is sigmoid(1.5) within 4 standard errors."""
    answers = [WORLD.render(39, "formal"), WORLD.render(39, "concise")]
    votes = WORLD.vote("34+5=", answers, seed=5, annotators=4000)
    assert len({v["annotator"] for v in votes}) == 4000
    won = np.mean([v["winner"] == 0 for v in votes])
    assert won == pytest.approx(1 / (1 + np.exp(-1.5)), abs=4 * 0.5 / 4000**0.5)
    assert votes == WORLD.vote("34+5=", answers, seed=5, annotators=4000)


def test_the_world_is_a_scorer_and_score_is_the_game_at_the_types():
    assert isinstance(WORLD, Scorer)
    scores = WORLD.score("34+5=", ["It equals 39.", "nonsense", "Sure! 38 :)"])
    assert np.array_equal(scores.S, WORLD.game().S[[0, 6, 5]][:, [0, 6, 5]])


@pytest.mark.parametrize(
    "call", [lambda: WORLD.answer("34+5"), lambda: WORLD.prompts("dev"), lambda: WORLD.render(1, "rude")]
)
def test_bad_input_is_one_line_with_a_remedy(call):
    with pytest.raises(DataError) as error:
        call()
    assert "\n" not in str(error.value)


def test_examples_are_one_answer_of_each_type_in_order():
    for prompt in WORLD.prompts("test")[:20]:
        assert [WORLD.describe(prompt, text)["type"] for text in WORLD.examples(prompt)] == list(range(len(TYPES)))
