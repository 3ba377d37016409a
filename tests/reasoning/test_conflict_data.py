"""From raw rows to instances: what is read, what is left out, what is balanced, and that nothing tells the truth."""

import gc
import json
import tracemalloc
from collections import Counter
from pathlib import Path

import pytest

from launch.errors import DataError
from launch.jsonlines import rows
from reasoning.conflict import Context, build_instance, diagnose, kcr_rewards, with_paths
from reasoning.conflict.balance import SHORTCUTS, balance, orders, place, probe, split_of
from reasoning.conflict.lengthen import approximate_tokens, choose, lengthen, passages, shuffled
from reasoning.conflict.sources import conflictqa, paired, ramdocs, strategyqa
from reasoning.conflict.substitute import distractor, substitute, substituted
from reasoning.conflict.text import normalise

FIXTURES = Path(__file__).parents[1] / "fixtures" / "conflict"


def make(name="i", true="Oslo is the town of Ann.", false="Rome is the town of Ann.", **meta):
    contexts = [Context(true, "Oslo", True), Context(false, "Rome", False)]
    return build_instance(f"Where does Ann live, {name}?", contexts, ["Oslo"], id=name, meta=meta)


# ---------------------------------------------------------------- readers


def test_conflictqa_sides_by_negation_then_by_facts():
    """Rows 1 to 3 are decided by the one negated answer, row 4 only by the human facts, row 5 lacks evidence."""
    skipped: Counter[str] = Counter()
    read = list(conflictqa(FIXTURES / "conflictqa.jsonl", skipped=skipped))
    assert skipped == {"undecided": 1, "empty evidence": 1}
    assert [(i.gold, i.wrong, i.meta["memory_right"]) for i in read] == [
        (("True",), ("False",), True),
        (("False",), ("True",), False),
        (("False",), ("True",), True),
    ]
    assert [[(c.source, c.answer, c.true) for c in i.contexts] for i in read][1] == [
        ("memory", "True", False),
        ("counter", "False", True),
    ]
    assert "\u2028" in read[0].contexts[0].text  # no end of line
    facts = {c.question: c.facts for c in strategyqa(FIXTURES / "strategyqa.json")}
    more = list(conflictqa(FIXTURES / "conflictqa.jsonl", facts))
    assert len(more) == 4 and more[3].meta["memory_right"]


def test_ramdocs_keeps_every_document_and_noise_answers_nothing():
    first, second = ramdocs(FIXTURES / "ramdocs.jsonl")
    assert [(c.source, c.answer, c.true) for c in first.contexts] == [
        ("correct", "812 metres", True),
        ("misinfo", "99 metres", False),
        ("noise", "", False),
    ]
    assert second.gold == ("Una Kell", "Ros Dane") and second.wrong == ()


def test_pairs_without_their_answer_or_with_a_leak_are_left_out():
    skipped: Counter[str] = Counter()
    (kept,) = paired(FIXTURES / "golden.json", FIXTURES / "negative.json", skipped)
    assert kept.id == "p1" and (kept.gold, kept.wrong) == (("Marn",), ("Tess",))
    assert kept.meta["options"] == ["Marn", "Tess", "Other"]
    assert skipped == {"counterfactual answer not in its passage": 1, "gold answer in the counterfactual passage": 1}


def test_kcr_acceptance_8_pairs_match_by_id_with_different_answers(tmp_path):
    every = list(paired(FIXTURES / "golden.json", FIXTURES / "negative.json", keep_leaks=True))
    assert len(every) == 3
    assert all(normalise(i.gold[0]) != normalise(i.wrong[0]) for i in every)
    other = json.loads((FIXTURES / "negative.json").read_text())
    other[0]["id"] = "p9"
    (tmp_path / "negative.json").write_text(json.dumps(other))
    with pytest.raises(DataError, match="2 ids are in only one"):
        list(paired(FIXTURES / "golden.json", tmp_path / "negative.json"))
    other[0] |= {"id": "p1", "answer": " marn "}
    (tmp_path / "negative.json").write_text(json.dumps(other))
    with pytest.raises(DataError, match="'p1' has the gold answer 'Marn'"):
        list(paired(FIXTURES / "golden.json", tmp_path / "negative.json"))


def test_kcr_acceptance_8_counts_of_ramdocs(data_dir):
    read = list(ramdocs(data_dir / "conflict" / "ramdocs" / "RAMDocs_test.jsonl.gz"))
    assert len(read) == 500
    kinds = Counter(c.source for i in read for c in i.contexts)
    assert kinds == {"correct": 1918, "noise": 541, "misinfo": 307}


def test_kcr_acceptance_8_counts_of_conflictqa(data_dir):
    """The two recipes for the right side, negation and aligned evidence, leave the published counts as they are."""
    file = data_dir / "conflict" / "conflictqa" / "strategyqa_gpt4.jsonl.gz"
    truths = Counter(row["ground_truth"][0] for _, row in rows(file))
    assert truths == {"True": 780, "False": 576}
    skipped: Counter[str] = Counter()
    read = list(conflictqa(file, skipped=skipped))
    assert len(read) + skipped.total() == 1356 and len(read) > 0.9 * 1356
    assert sum(i.meta["memory_right"] for i in read) / len(read) == pytest.approx(0.75, abs=0.01)


def test_bad_rows_name_their_line(tmp_path):
    file = tmp_path / "bad.jsonl"
    file.write_text('{"a": 1}\nnot json\n')
    with pytest.raises(DataError, match="line 2: not JSON"):
        list(rows(file))
    file.write_text("[1]\n")
    with pytest.raises(DataError, match="line 1: list instead of an object"):
        list(rows(file))
    file.write_text('{"question": "q", "ground_truth": ["Paris"]}\n')
    with pytest.raises(DataError, match=r"line 1: ground_truth \['Paris'\]"):
        list(conflictqa(file))
    with pytest.raises(DataError, match="no file"):
        list(rows(tmp_path / "none.jsonl"))


def test_memory_does_not_grow_with_the_number_of_instances(tmp_path):
    """Read, reward and forget: four times the rows, no more is kept. That is at most 64 instances."""
    line = (FIXTURES / "conflictqa.jsonl").read_text().split("\n")[0]

    def write(count):
        file = tmp_path / f"{count}.jsonl"
        file.write_text("".join(line.replace("heron", f"heron{count}x{k}") + "\n" for k in range(count)))
        return file

    def run(file):
        gc.collect()
        tracemalloc.start()
        for instance in conflictqa(file):
            kcr_rewards(["p"], ["<think> [Context 1] It floats. </think><answer> True </answer>"], [instance.to_json()])
        gc.collect()
        kept, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return kept, peak

    files = [write(count) for count in (1, 70, 280)]
    run(files[0])  # what is imported on first use is no cost of a row
    (kept, peak), (more_kept, more_peak) = run(files[1]), run(files[2])
    assert more_kept < 1.2 * kept and more_peak < 1.5 * peak  # between two collections, garbage of a hundred rows waits


def test_memory_of_long_contexts_does_not_grow_with_their_number(tmp_path):
    """Read, choose, lengthen, extract and write: the peak of 16 instances is that of 4."""
    line = (FIXTURES / "ramdocs.jsonl").read_text(encoding="utf-8").split("\n")[0]

    def build(count):
        file = tmp_path / f"{count}.jsonl"
        file.write_text("".join(line.replace("Belor", f"Belor{k}") + "\n" for k in range(count)), encoding="utf-8")
        gc.collect()
        tracemalloc.start()
        pairs = (choose(instance, 2, seed=k) for k, instance in enumerate(ramdocs(file)))
        written = sum(len(with_paths(lengthen(pair, FILLERS, 1000, seed=0)).to_json()) for pair in pairs)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return written, peak

    build(1)  # what is imported on first use is no cost of an instance
    (written, peak), (more_written, more_peak) = build(4), build(16)
    assert more_written > 3.9 * written and more_peak < 1.3 * peak


# ---------------------------------------------------------------- substitution


def test_whole_and_partial_substitution():
    text = "Oslo is big. I like OSLO. Oslonians leave Oslo's port."
    assert substitute(text, ["Oslo"], "Rome") == ("Rome is big. I like Rome. Oslonians leave Rome's port.", 3, 3)
    for seed in range(6):
        made = substitute(text, ["Oslo"], "Rome", share=0.5, seed=seed)
        assert made.replaced == made.text.count("Rome") and 0 < made.replaced < 3
    assert substitute("Oslo.", ["Oslo"], "Rome", share=0.5).replaced == 0  # all or nothing is no part
    assert substitute("New York City", ["York", "New York City"], "Rome").text == "Rome"
    with pytest.raises(DataError, match="share 0"):
        substitute(text, ["Oslo"], "Rome", share=0)


def test_distractors_are_of_the_same_kind_and_not_in_the_passage():
    pool = ["Oslo", "Rome", "Lima", "12 May 1900", "44", "New York City"]
    assert {distractor("Oslo", pool, "Rome is here.", seed) for seed in range(9)} == {"Lima"}
    assert distractor("1 June 1800", pool, "", 0) == "12 May 1900"
    assert distractor("Ann Lee", ["Oslo"], "", 0) is None


def test_substituted_instances_record_what_was_done():
    passage = "Ann lives in Oslo. Oslo is cold."
    whole = substituted("Where does Ann live?", passage, "Oslo", ["Rome"])
    part = substituted("Where does Ann live?", passage, "Oslo", ["Rome"], share=0.5)
    assert whole and part
    assert whole.contexts[1].text == "Ann lives in Rome. Rome is cold." and whole.wrong == ("Rome",)
    assert part.contexts[1].text.count("Rome") == 1 and part.contexts[1].source == "partly substituted"
    assert substituted("q", "Ann lives in Oslo.", "Oslo", ["Rome"], share=0.5) is None
    assert substituted("q", "Ann is here.", "Oslo", ["Rome"]) is None


# ---------------------------------------------------------------- length and order

FILLERS = [f"Passage {i} is about hill {i} and its {i} sheep. " * (1 + i % 4) for i in range(400)]


@pytest.mark.parametrize("tokens", [1000, 4000, 16000])
def test_long_contexts_hold_their_evidence_where_recorded(tokens):
    case = make("long")
    fillers = [f"{part} {filler}" for part in range(1 + tokens // 8000) for filler in FILLERS]
    long = lengthen(case, fillers, tokens, seed=3)
    assert sorted(c.answer for c in long.contexts) == ["Oslo", "Rome"]
    for c in long.contexts:
        original = next(o for o in case.contexts if o.answer == c.answer)
        assert passages(c) == [original.text]
        assert 0.9 * tokens <= approximate_tokens(c.text) <= tokens
    assert lengthen(case, fillers, tokens, seed=3) == long != lengthen(case, fillers, tokens, seed=4)


def test_fillers_that_mention_a_candidate_are_left_out():
    tainted = [f"{f} Rome." for f in FILLERS[:200]]
    long = lengthen(make("taint"), [*tainted, *FILLERS[200:]], 1500, seed=0)
    for c in long.contexts:
        assert normalise(c.text).split().count("rome") == (c.answer == "Rome")
    with pytest.raises(DataError, match="fillers reach"):
        lengthen(make("taint"), tainted, 1500, seed=0)


def test_evidence_and_true_context_stand_anywhere():
    """Over 60 instances every quarter of the context and both positions get their share."""
    made = [lengthen(make(f"n{k}"), FILLERS, 1000, seed=0) for k in range(60)]
    quarters = Counter(4 * c.evidence[0].start // len(c.text) for i in made for c in i.contexts)
    assert min(quarters[q] for q in range(4)) >= 120 / 4 / 2
    assert 15 <= sum(i.contexts[0].true for i in made) <= 45


def test_lengthening_twice_keeps_the_evidence():
    once = lengthen(make("twice"), FILLERS, 800, seed=0)
    again = lengthen(once, FILLERS, 1600, seed=1)
    assert sorted(p for c in again.contexts for p in passages(c)) == sorted(
        p for c in once.contexts for p in passages(c)
    )


def test_choosing_contexts():
    contexts = [Context(f"t{k}", "Oslo", True) for k in range(3)] + [Context(f"f{k}", "Rome", False) for k in range(3)]
    case = build_instance("q", [*contexts, Context("noise", "", False)], ["Oslo"], id="c")
    for count in (2, 3, 4):
        got = choose(case, count, seed=1)
        assert got and len(got.contexts) == count and sum(c.true for c in got.contexts) == 1
        assert all(c.answer for c in got.contexts)
    assert choose(case, 5, seed=1) is None  # four false ones are not there
    with pytest.raises(DataError, match="6 contexts"):
        choose(case, 6, seed=0)
    assert shuffled(case, 5) == shuffled(case, 5) and set(shuffled(case, 5).contexts) == set(case.contexts)


# ---------------------------------------------------------------- shortcuts


def test_balance_leaves_every_combination_equally_often():
    """6 of 8 memories are right; kept are 2 of each of (gold, memory)."""
    cases = []
    for k in range(16):
        gold, right = str(k % 2 == 0), k % 8 < 6
        other = "False" if gold == "True" else "True"
        contexts = [Context("x " * 5, gold, True), Context("y " * 5, other, False)]
        cases.append(build_instance(f"q{k}", contexts, [gold], id=str(k), meta={"memory_right": right}))
    keys = {name: SHORTCUTS[name] for name in ("gold", "memory_right")}
    kept = balance(cases, keys)
    cells = Counter(tuple(key(i) for key in keys.values()) for i in kept)
    assert len(cells) == 4 and set(cells.values()) == {2}
    assert [i.id for i in kept] == [i.id for i in cases if i in kept]
    with pytest.raises(DataError, match="combinations"):
        balance(cases[:1] + cases[7:8], keys)


def test_place_puts_truth_everywhere_equally():
    placed = place([make(str(k)) for k in range(21)])
    assert sorted(orders(placed)) == [10, 11]
    assert all(sorted(c.answer for c in i.contexts) == ["Oslo", "Rome"] for i in placed)


def test_splits_go_by_question_whatever_its_spelling():
    splits = Counter(split_of(f"question {k}") for k in range(2000))
    assert splits[0] / 2000 == pytest.approx(0.8, abs=0.03) and splits[1] / 2000 == pytest.approx(0.1, abs=0.03)
    assert split_of("Where is  Ann?") == split_of("where is ann")


def test_probe_finds_a_planted_artefact_and_nothing_in_fair_data():
    """The true side of the first set is longer. In the second, sides differ by one name only."""
    tell = place([make(str(k), true="Oslo is the town of Ann, as is widely known by all.") for k in range(40)])
    found = probe(tell)
    assert found.accuracy.value == 1.0 and "log_words" in found.strongest(6)
    fair = place(
        [make(str(k), *(("Oslo here.", "Rome here.") if k % 2 else ("Rome here.", "Oslo here."))) for k in range(80)]
    )
    assert 0.35 <= probe(fair).accuracy.value <= 0.65
    with pytest.raises(DataError, match="for 5 folds"):
        probe(fair[:4])


# ---------------------------------------------------------------- odd instances


@pytest.mark.parametrize(
    ("contexts", "gold", "expected"),
    [
        ([Context("Ann: Oslo", "Oslo", True), Context("Rome", "Rome", False)], "Oslo", []),
        ([Context("Ann: Oslo", "Oslo", True)], "Oslo", ["one_context"]),
        ([Context("", "Oslo", True), Context("Ann: Oslo", "Rome", False)], "Oslo", ["empty_context"]),
        ([Context("Ann: Oslo", "Oslo", True), Context("Oslo", "oslo", True)], "Oslo", ["agree"]),
        ([Context("Ann: Oslo", "Rome", False), Context("x", "Lima", False)], "Oslo", ["all_false"]),
        ([Context("Anna: Oslo", "Oslo", True), Context("x", "Lima", False)], "Oslo", ["no_entity"]),
        ([Context("Ann: here", "Oslo", True), Context("there", "Rome", False)], "Oslo", ["answer_nowhere"]),
        ([Context("Ann: Oslo " * 60_000, "Oslo", True), Context("x", "Rome", False)], "Oslo", ["huge_context"]),
        ([Context("Ann: Oslo", "Oslo", True), Context("кот живёт", "Rome", False)], "Oslo", ["mixed_scripts"]),
    ],
)
def test_every_oddity_has_its_name(contexts, gold, expected):
    assert diagnose(build_instance("Where is Ann?", contexts, [gold])) == expected


def test_unusable_rows_are_refused():
    with pytest.raises(DataError, match="lacks a question or a gold answer"):
        build_instance("q", [Context("x", "a", True)], [" "])
    with pytest.raises(DataError, match="has no context"):
        build_instance("q", [], ["a"])
