"""Rewards by hand, their symmetries, their guards, and the cheap tricks they must not pay for.

The instance: Ann Lee's mentor, his town, its country, told by two sources that share only Ann Lee. P+ is
ann lee - bob roe - oslo - norway, P- is ann lee - dan poe - lima - peru; ann lee is left out as common to both.
"""

import json
import random

import pytest

from launch.errors import DataError
from reasoning.conflict import Context, Rules, build_instance, extract_paths, kcr_reward, kcr_rewards
from reasoning.conflict.completion import build_prompt, followed, parse, steps
from reasoning.conflict.instance import Instance
from reasoning.conflict.synthetic import FAULTS, conflict
from reasoning.conflict.warmup import trace_of

QUESTION = "In which country does the mentor of Ann Lee live?"
TRUE = "The mentor of Ann Lee is Bob Roe. Bob Roe lives in Oslo. Oslo lies in Norway."
FALSE = "The mentor of Ann Lee is Dan Poe. Dan Poe lives in Lima. Lima lies in Peru."


def with_paths(text, answer, true):
    return Context(text, answer, true, paths=extract_paths(QUESTION, text, answer))


CASE = build_instance(
    QUESTION, [with_paths(TRUE, "Norway", True), with_paths(FALSE, "Peru", False)], ["Norway", "Norge"]
)

RIGHT_CHAIN = (
    "[Context 1] The mentor of Ann Lee is Bob Roe. [Context 1] Bob Roe lives in Oslo. [Context 1] Oslo lies in Norway."
)
WRONG_CHAIN = (
    "[Context 2] The mentor of Ann Lee is Dan Poe. [Context 2] Dan Poe lives in Lima. [Context 2] Lima lies in Peru."
)
EMPTY = "I read both of the contexts with care and I weigh what they say. So the answer is Norway."


def write(trace, answer):
    return f"<think> {trace} </think> <answer> {answer} </answer>"


def total(trace, answer, instance=CASE, **rules):
    return kcr_reward(write(trace, answer), instance, Rules(**rules))["total"]


@pytest.mark.parametrize(
    ("trace", "answer", "expected"),
    [
        # 0.1 + 1 + 0.5·1 + 0.5·1
        (f"{RIGHT_CHAIN} So the answer is Norway.", "Norway", 2.1),
        # nothing supported: r_l = 0, r_mix = 0
        (EMPTY, "Norway", 1.1),
        # both supported in full: r_l = 1 - 1 = 0, r_mix = 1 - 1/1 = 0
        (f"{RIGHT_CHAIN} {WRONG_CHAIN} So the answer is Norway.", "Norway", 1.1),
        # 0.1 + 1 - 0.5; the trace concludes Peru, so r_ans = 0
        (f"{WRONG_CHAIN} So the answer is Peru.", "Norway", 0.6),
        # 0.1 + 0 + 0.5; concludes Norway
        (f"{RIGHT_CHAIN} So the answer is Norway.", "Peru", 0.6),
        # 0.1 + 0 - 0.5 + 0.5: wrong, but of one piece
        (f"{WRONG_CHAIN} So the answer is Peru.", "Peru", 0.1),
    ],
)
def test_kcr_acceptance_2_hand_written_values(trace, answer, expected):
    assert total(trace, answer) == pytest.approx(expected)


@pytest.mark.parametrize("answer", ["Norway", "Peru", "Chile"])
@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_kcr_acceptance_2_both_chains_always_score_below_one(order, answer):
    chains = [RIGHT_CHAIN, WRONG_CHAIN]
    for candidate in ("Norway", "Peru"):
        both = total(f"{chains[order[0]]} {chains[order[1]]} So the answer is {candidate}.", answer)
        assert both < total(f"{RIGHT_CHAIN} So the answer is {candidate}.", answer)
    assert both <= 1.1 + 1e-9


@pytest.mark.parametrize(
    ("text", "verdict"),
    [
        ("", "no_think"),
        ("Norway", "no_think"),
        ("<think> x </think> Norway", "no_answer"),
        ("<think> x </think><answer> a </answer><answer> b </answer>", "repeated"),
        ("<think> x <think> y </think></think><answer> a </answer>", "repeated"),
        ("<think> x <answer> a </answer> </think>", "disordered"),
        ("<answer> a </answer><think> x </think>", "disordered"),
        ("</think> x <think><answer> a </answer>", "disordered"),
        ("Sure! <think> x </think><answer> a </answer>", "outside"),
        ("<think> x </think> hm <answer> a </answer>", "outside"),
        ("<think> ... </think><answer> a </answer>", "empty_think"),
        ("<think> x </think><answer> </answer>", "empty_answer"),
        (None, "not_text"),
        (7, "not_text"),
        ([], "not_text"),
        ([{"role": "assistant"}], "not_text"),
    ],
)
def test_kcr_acceptance_4_malformed_completions_score_nothing(text, verdict):
    parts = kcr_reward(text, CASE)
    assert parts["verdict"] == verdict
    assert all(value == 0 for name, value in parts.items() if name != "verdict")


def test_chat_completions_are_read_at_their_last_turn():
    text = write(f"{RIGHT_CHAIN} So the answer is Norway.", "Norway")
    assert kcr_reward([{"role": "assistant", "content": text}], CASE) == kcr_reward(text, CASE)


TRACES = [
    (f"{RIGHT_CHAIN} So the answer is Norway.", "Norway"),
    (f"{WRONG_CHAIN} So the answer is Peru.", "Norway"),
    (f"{RIGHT_CHAIN} [Context 2] Dan Poe lives in Lima. So the answer is Norway.", "Norway"),
    (f"{RIGHT_CHAIN} [Context 2] The claim that Lima lies in Peru is not supported. So the answer is Norway.", "Peru"),
    (EMPTY, "Peru"),
]


@pytest.mark.parametrize(("trace", "answer"), TRACES)
def test_kcr_acceptance_3_order_of_contexts_changes_nothing(trace, answer):
    """With the citations renamed along with the contexts, and even without."""
    renamed = trace.replace("[Context 1]", "[Context 9]").replace("[Context 2]", "[Context 1]")
    renamed = renamed.replace("[Context 9]", "[Context 2]")
    other = CASE.reordered([1, 0])
    expected = kcr_reward(write(trace, answer), CASE)
    assert kcr_reward(write(renamed, answer), other) == expected
    assert kcr_reward(write(trace, answer), other) == expected


@pytest.mark.parametrize(("trace", "answer"), TRACES)
def test_kcr_acceptance_3_swapping_the_sides_negates_logic(trace, answer):
    mine, theirs = (kcr_reward(write(trace, answer), i) for i in (CASE, CASE.swapped()))
    assert mine["logic"] == -theirs["logic"]
    assert (mine["support_true"], mine["support_false"]) == (theirs["support_false"], theirs["support_true"])


def test_kcr_acceptance_4_invented_names_lower_consistency():
    """Four names of the trace are told (Ann Lee, Bob Roe, Oslo, Norway), the fifth is not: 4/5."""
    clean = kcr_reward(write(f"{RIGHT_CHAIN} So the answer is Norway.", "Norway"), CASE)
    dirty = kcr_reward(write(f"{RIGHT_CHAIN} As Zorgon Quux wrote. So the answer is Norway.", "Norway"), CASE)
    assert clean["grounded"] == 1 and dirty["grounded"] == pytest.approx(4 / 5)
    assert dirty["consistency"] == pytest.approx(4 / 5)


def test_kcr_acceptance_4_short_traces_have_no_logic_and_no_consistency():
    """[Context 1] Bob Roe lives in Oslo (7 words) and 5 of conclusion: 12 < 16."""
    parts = kcr_reward(write("[Context 1] Bob Roe lives in Oslo. So the answer is Norway.", "Norway"), CASE)
    assert (parts["logic"], parts["consistency"], parts["verdict"]) == (0, 0, "too_short")
    assert parts["total"] == pytest.approx(1.1)


# ---------------------------------------------------------------- cheap tricks


def test_repeating_a_chain_pays_nothing():
    parts = kcr_reward(write(f"{' '.join([RIGHT_CHAIN] * 4)} So the answer is Norway.", "Norway"), CASE)
    assert parts["verdict"] == "repetitive" and parts["logic"] == parts["consistency"] == 0


def test_endless_traces_pay_nothing():
    long = " ".join(f"[Context 1] w{i} x{i} y{i} z{i}." for i in range(300))
    assert kcr_reward(write(f"{RIGHT_CHAIN} {long}", "Norway"), CASE)["verdict"] == "too_long"


def test_dumping_a_passage_pays_nothing():
    """The passage has 17 words in a row behind one citation: of the 11 runs of 12 words in 22, 6 are copied."""
    parts = kcr_reward(write(f"[Context 1] {TRUE} So the answer is Norway.", "Norway"), CASE)
    assert parts["copied"] > 0.5 and parts["verdict"] == "copied"
    assert parts["total"] == pytest.approx(1.1)


def test_steps_without_a_citation_are_no_evidence():
    bare = RIGHT_CHAIN.replace("[Context 1] ", "")
    parts = kcr_reward(write(f"I think that {bare} So the answer is Norway.", "Norway"), CASE, Rules(max_copied=1))
    assert parts["support_true"] == 0 and parts["total"] == pytest.approx(1.1)
    far = RIGHT_CHAIN.replace("[Context 1]", "[Context 7]")  # there is no such context
    assert kcr_reward(write(f"{far} So the answer is Norway.", "Norway"), CASE)["support_true"] == 0


def test_a_bag_of_names_states_no_link():
    """All names in the order of the chain backwards, one step: LCS 1 of 3 names, no link head before tail."""
    bag = "[Context 1] It is about Norway and Oslo and Bob Roe and also of course about Ann Lee herself."
    parts = kcr_reward(write(f"{bag} So the answer is Norway.", "Norway"), CASE)
    assert parts["support_true"] == pytest.approx((1 / 3 + 0) / 2)


def test_the_right_word_after_the_wrong_chain_is_not_consistent():
    """Following P- and naming Norway at the end: logic -1 and no consistency."""
    assert total(f"{WRONG_CHAIN} So the answer is Norway.", "Norway") == pytest.approx(0.6)


def test_answers_inside_the_trace_and_hedged_answers_do_not_count():
    assert total(f"{RIGHT_CHAIN} So the answer is Norway.", "Peru or Norway") < 1
    assert kcr_reward(write(f"{RIGHT_CHAIN} Norway, Norway.", "none of them"), CASE)["answer"] == 0


def test_refuting_the_other_chain_is_not_following_it():
    refuted = "[Context 2] The link that Dan Poe lives in Lima is not stated elsewhere and contradicts the rest."
    parts = kcr_reward(write(f"{RIGHT_CHAIN} {refuted} So the answer is Norway, not Peru.", "Norway"), CASE)
    assert parts["support_false"] == 0 and parts["total"] == pytest.approx(2.1)


def test_refuting_everything_supports_nothing():
    doubt = RIGHT_CHAIN.replace(".", ", which is not supported.")
    assert kcr_reward(write(f"{doubt} So the answer is Norway.", "Norway"), CASE)["support_true"] == 0


def test_a_wrong_candidate_may_cost():
    trace = f"{WRONG_CHAIN} So the answer is Peru."
    assert total(trace, "Peru", wrong_answer=0.5) == pytest.approx(0.1 - 0.5)
    assert total(trace, "Chile", wrong_answer=0.5) == pytest.approx(0.1 - 0.5)  # nothing off, but r_l = -1, r_c = 0


def test_aliases_of_the_gold_answer_count_in_trace_and_answer():
    chain = RIGHT_CHAIN.replace("Norway", "Norge")
    parts = kcr_reward(write(f"{chain} So the answer is Norge.", "Norge"), CASE)
    assert (parts["answer"], parts["support_true"], parts["agrees"]) == (1, 1, 1)


# ---------------------------------------------------------------- yes/no


YES = "Dogs hear bells from far away. Trainers ring bells for dogs every day."
NO = "Dogs are deaf to high notes. Seals do not hear bells under water at all."
BOOLEAN = build_instance(
    "Would a dog respond to a bell?", [Context(YES, "True", True), Context(NO, "False", False)], ["True"]
)


def test_yes_no_questions_are_read_at_the_answer_alone():
    trace = "[Context 1] Trainers ring bells for dogs and dogs hear bells from far. That is true of false ones. So yes."
    right = kcr_reward(write(trace, "True"), BOOLEAN)
    assert (right["answer"], right["agrees"]) == (1, 1) and right["logic"] > 0.5
    wrong = kcr_reward(write(trace, "False"), BOOLEAN)
    assert (wrong["answer"], wrong["wrong"], wrong["agrees"]) == (0, 1, 0)


def test_a_chain_that_says_not_may_be_followed():
    """The false side's own sentence is negated, so repeating it supports it."""
    trace = "[Context 2] Seals do not hear bells under water and dogs are deaf to high notes as is said. So no."
    parts = kcr_reward(write(trace, "False"), BOOLEAN)
    assert parts["support_false"] > 0.5 and parts["support_true"] == 0


# ---------------------------------------------------------------- odd instances


@pytest.mark.parametrize(
    "instance",
    [
        build_instance(QUESTION, [Context(TRUE, "Norway", True)], ["Norway"]),
        build_instance(QUESTION, [Context("", "Norway", True), Context("", "Peru", False)], ["Norway"]),
        build_instance(QUESTION, [Context(TRUE, "Norway", True), Context(TRUE, "Norway", True)], ["Norway"]),
        build_instance("where", [Context("no name", "x", True), Context("none", "y", False)], ["z"]),
        build_instance(
            QUESTION, [Context("кот живёт в Осло", "Осло", True), Context("猫在利马。", "利马", False)], ["Осло"]
        ),
        build_instance(QUESTION, [Context(TRUE, "Norway", True), Context("noise", "", False)], ["Norway"]),
    ],
)
def test_odd_instances_have_defined_rewards(instance):
    for trace, answer in TRACES:
        parts = kcr_reward(write(trace, answer), instance)
        assert 0 - 0.5 <= parts["total"] <= 2.1 + 1e-9
        assert -1 <= parts["logic"] <= 1 and 0 <= parts["consistency"] <= 1


def test_contexts_that_agree_give_no_logic():
    same = build_instance(QUESTION, [Context(TRUE, "Norway", True), Context(TRUE, "Norway", False)], ["Norway"])
    assert total(f"{RIGHT_CHAIN} So the answer is Norway.", "Norway", same) == pytest.approx(1.1)


# ---------------------------------------------------------------- batches


def test_batches_equal_single_rewards_and_report_their_parts():
    texts = [write(trace, answer) for trace, answer in TRACES] + ["nonsense"]
    metrics, extra = {}, {}
    column = [CASE.to_json()] * len(texts)
    got = kcr_rewards(
        ["p"] * len(texts),
        texts,
        column,
        log_metric=metrics.__setitem__,
        log_extra=extra.__setitem__,
        trainer_state=None,
    )
    assert got == [kcr_reward(t, CASE)["total"] for t in texts]
    assert metrics["kcr/total"] == pytest.approx(sum(got) / len(got))
    assert metrics["kcr/verdict_no_think"] == pytest.approx(1 / 6)
    assert extra["verdict"][-1] == "no_think"


def test_a_batch_of_mixed_conflicts_in_any_order_is_each_reward_alone():
    """72 rows of conflicts that agree, answer yes or no, hold nothing, or were made by rule, shuffled."""
    cases = [conflict(hops, fault, seed) for fault in FAULTS for hops, seed in ((2, 1), (3, 2), (4, 3))]
    agree = build_instance(
        "Where is Ann?", [Context("Ann: Oslo", "Oslo", True), Context("Oslo", "oslo", True)], ["Oslo"]
    )
    boolean = build_instance("Did Ann run?", [Context("Ann ran.", "True", True), Context("", "False", False)], ["True"])
    alone = build_instance("q", [Context("", "", False)], ["a"])
    pairs = [(text, case) for case in (*cases, agree, boolean, alone) for text in (
            trace_of(case), write("[Context 1] So it is. " * 5, case.gold[0]),
        write("[Context 1] I am sure of it. " * 4, case.contexts[-1].answer or "nothing"),
        "<think>a<think>b</think><answer>c</answer>", "", "<think>x</think><answer>y</answer><answer>z</answer>",
    )]  # fmt: skip
    random.Random(0).shuffle(pairs)
    assert len(pairs) == 72
    expected = [kcr_reward(text, case)["total"] for text, case in pairs]
    texts, column = [text for text, _ in pairs], [case.to_json() for _, case in pairs]
    assert kcr_rewards(["p"] * 72, texts, column) == expected
    assert {round(value, 6) for value in expected} >= {0.0, 0.1, 1.1, 2.1}
    halves = kcr_rewards(["p"] * 25, texts[:25], column[:25]) + kcr_rewards(["p"] * 47, texts[25:], column[25:])
    assert halves == expected


def test_instances_survive_json_and_broken_ones_are_refused():
    assert Instance.from_json(CASE.to_json()) == CASE
    for text in ("", "[]", '{"question": "q"}', json.dumps({"question": "q", "contexts": [{}], "gold": ["a"]})):
        with pytest.raises(DataError, match="is not a conflict instance"):
            kcr_rewards(["p"], ["c"], [text])
    with pytest.raises(DataError, match="2 completions but 1 instances"):
        kcr_rewards(["p", "p"], ["c", "c"], [CASE.to_json()])


# ---------------------------------------------------------------- prompts and steps


def test_prompts_name_contexts_by_number_and_nothing_else():
    prompt = build_prompt(CASE)
    assert prompt.index("[Context 1] The mentor") < prompt.index("[Context 2] The mentor")
    assert "(Oslo | lies in | Norway)" in prompt
    swapped = build_prompt(CASE.swapped())
    assert prompt == swapped  # which side is true leaves no trace
    assert TRUE not in build_prompt(CASE, mode="paths") and "lies in |" not in build_prompt(CASE, mode="context")
    assert build_prompt(CASE, budget=10) == build_prompt(CASE, mode="paths")


def test_citations_belong_to_their_sentence():
    found = steps("[Context 1] Ann saw Bob. Bob saw Cleo. [Context 2]\nCleo saw Dora [Context 2].\nSo Dora.")
    assert [(s.text, s.cited) for s in found] == [
        ("Ann saw Bob.", (0,)),
        ("Bob saw Cleo.", (1,)),
        ("Cleo saw Dora .", (1,)),
        ("So Dora.", ()),
    ]
    assert followed("[Context 2] Ann saw Bob.", 2) == 1
    assert followed("[Context 1] Ann ran. [Context 2] Bob ran.", 2) is None


def test_parsing_never_raises_on_a_megabyte_of_tags():
    assert parse("<think>" * 150_000).verdict == "no_think"
    assert parse("<think>x</think><answer>" + "a " * 500_000 + "</answer>").verdict == "ok"
