"""The structural resolver: chains that hold beat chains with a gap or a contradiction, and odd input has a result."""

import json
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from launch.errors import DataError
from reasoning.conflict import conflict_paths, kcr_reward, resolve
from reasoning.conflict.baselines import BASELINES, compare, embedding, predict, remembered, structural
from reasoning.conflict.lengthen import SEPARATOR
from reasoning.conflict.synthetic import FAULTS, conflict

HOLDS = "The mentor of Ann is Bob. Bob lives in Oslo."
GAP = "The mentor of Ann is Cleo. Ivan lives in Rome."
CLASH = "The mentor of Ann is Cleo. The mentor of Ann is Ivan. Cleo lives in Rome."
QUESTION = "Where does the mentor of Ann live?"


@pytest.mark.parametrize("told", [True, False])
def test_kcr_acceptance_6_structural_verifier(told):
    """2 to 4 links, one dropped, contradicted or renamed on the false side: 95 %; first position about half."""
    right = first = cases = 0
    for fault in FAULTS:
        for hops in (2, 3, 4):
            for seed in range(8):
                case = conflict(hops, fault, seed)
                answers = [c.answer for c in case.contexts] if told else None
                got = resolve(case.question, [c.text for c in case.contexts], answers)
                cases += 1
                right += got["followed"] in case.true_indices and got["answer"] == case.gold[0]
                first += case.contexts[0].true
    assert right >= 0.95 * cases
    assert 0.35 * cases <= first <= 0.65 * cases


@pytest.mark.parametrize("broken", [GAP, CLASH])
def test_the_whole_chain_is_followed_wherever_it_stands(broken):
    for order in ((HOLDS, broken), (broken, HOLDS), (broken, HOLDS, broken)):
        got = resolve(QUESTION, order)
        followed = order.index(HOLDS)
        assert (got["answer"], got["followed"]) == ("Oslo", followed)
        assert got["rejected"] == [j for j in range(len(order)) if j != followed]
        assert 0.5 < got["confidence"] <= 1


def test_the_fault_is_named():
    got = resolve(QUESTION, [HOLDS, GAP, CLASH], ["Oslo", "Rome", "Rome"])
    kinds = [[f["kind"] for f in p["faults"]] for p in got["paths"]]
    assert kinds == [[], ["gap"], ["contradiction"]]
    assert got["paths"][1]["faults"][0]["link"] == ["cleo", "", "rome"]
    assert got["paths"][2]["faults"][0]["link"] == ["Ann", "mentor", "Cleo"]
    assert got["paths"][2]["faults"][0]["against"] == ["Ann", "mentor", "Ivan"]


def test_a_denied_link_is_a_contradiction():
    denied = resolve(QUESTION, [HOLDS + " Bob does not live in Oslo.", HOLDS.replace("Oslo", "Lima")])
    assert (denied["answer"], denied["followed"]) == ("Lima", 1)


def test_equal_chains_go_to_the_answer_that_more_contexts_give():
    rome = HOLDS.replace("Oslo", "Rome")
    assert resolve(QUESTION, [HOLDS, rome, rome])["answer"] == "Rome"
    assert resolve(QUESTION, [HOLDS, rome])["answer"] == "Oslo"


def test_the_decision_is_json_and_its_trace_is_what_the_reward_reads():
    case = conflict(3, "drop", 1)
    got = resolve(case.question, [c.text for c in case.contexts])
    assert json.loads(json.dumps(got)) == got
    parts = kcr_reward(f"<think>{got['trace']}</think><answer>{got['answer']}</answer>", case)
    assert parts["total"] == pytest.approx(2.1)


@pytest.mark.parametrize(
    ("contexts", "answer", "followed", "note"),
    [
        ([], "", None, "no_answer"),
        ([""], "", None, "empty_context"),
        (["", HOLDS], "Oslo", 1, "empty_context"),
        ([HOLDS], "Oslo", 0, "one_context"),
        ([HOLDS, HOLDS], "Oslo", 0, "agree"),
        (["Nothing is said here.", "nor here"], "", None, "no_answer"),
        (["кот живёт", "猫在奥斯陆。"], "", None, "no_answer"),
    ],
)
def test_odd_contexts(contexts, answer, followed, note):
    got = resolve(QUESTION, contexts)
    assert (got["answer"], got["followed"]) == (answer, followed)
    assert note in got["notes"]


def test_a_question_without_names_falls_back_to_the_nearest_sentences():
    got = resolve("do dogs hear bells?", ["Dogs hear bells well.", "Dogs do not hear bells."])
    assert got["notes"] == ["no_entity"] and got["answer"] in ("True", "False")
    assert {p["answer"] for p in got["paths"]} == {"True", "False"}


def test_answers_must_be_one_per_context():
    with pytest.raises(DataError, match="2 contexts but 1 answers"):
        resolve(QUESTION, [HOLDS, GAP], ["Oslo"])


def test_paths_as_a_tool():
    assert conflict_paths(QUESTION, HOLDS)["links"] == [["Ann", "mentor", "Bob"], ["Bob", "lives in", "Oslo"]]
    assert conflict_paths(QUESTION, HOLDS, "Rome")["faults"][0]["kind"] == "gap"


def test_baselines_are_blind_to_what_structure_sees():
    """Two contexts as long as each other, in shuffled order: first and majority follow position."""
    cases = [conflict(2, "drop", seed) for seed in range(12)]
    report = compare(cases, {**BASELINES, "structural": structural})
    assert report["structural"]["semantic"].value == 1.0
    share = sum(c.contexts[0].true for c in cases) / len(cases)
    assert report["first"]["followed"].value == report["majority"]["followed"].value == pytest.approx(share)
    assert report["first"]["conflict_error"].value == pytest.approx(1 - share)


def test_an_embedding_remembers_every_text_and_chooses_as_without():
    """Hashed words as vectors: the passage that shares most words with question and answer, each embedded once."""
    asked: Counter[str] = Counter()

    def by_words(texts):
        asked.update(texts)
        rows = np.zeros((len(texts), 997), np.float32)
        for row, text in zip(rows, texts, strict=True):
            for word in text.lower().split():
                row[sum(word.encode()) % 997] += 1
        return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-9)

    cases = [conflict(2, "drop", seed) for seed in range(6)]
    filler = SEPARATOR.join(["It rained all day.", "Nobody came."] * 40)
    long = [
        replace(c, contexts=tuple(replace(k, text=f"{filler}{SEPARATOR}{k.text}") for k in c.contexts)) for c in cases
    ]
    plain = [p.context for p in predict(long, embedding(by_words, separator=SEPARATOR))]
    assert max(asked.values()) > 100
    asked.clear()
    once = [p.context for p in predict(long, embedding(remembered(by_words), separator=SEPARATOR))]
    assert once == plain == [p.context for p in predict(cases, embedding(by_words))]
    assert asked["It rained all day."] == asked["Nobody came."] == 1
