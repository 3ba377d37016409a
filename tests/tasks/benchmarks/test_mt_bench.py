"""MT-Bench: published means from real grades, real replies read again, and what is refused."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import pytest

from launch.errors import ConfigError, DataError
from tasks.benchmarks import mt_bench as mt
from tasks.benchmarks.files import read_rows, write_rows


def grades(*scores: float, model: str = "m", turn: int = 1) -> list[dict[str, Any]]:
    """Judgments of questions 81, 82, … in one turn."""
    return [{"model": model, "question_id": 81 + i, "turn": turn, "score": score} for i, score in enumerate(scores)]


def test_preference_eval_acceptance_7_failed_grades_leave_the_mean_of_what_is_there():
    """Turn 1: 8, 6, 7 and a failure; turn 2: 3 and three failures. The average is 24/4, not the mean of 7 and 3."""
    [row] = mt.score(grades(8, 6, 7, -1) + grades(3, -1, -1, -1, turn=2))
    assert (row["n"], row["failed"]) == (4, 4)
    assert (row["turn_1"], row["turn_2"], row["average"]) == pytest.approx((7, 3, 6))


def test_preference_eval_acceptance_7_most_grades_failed():
    """160 rows of which 120 hold -1, as one public file has: 30 times 8 in turn 1, 10 times 4 in turn 2. The average is
    (240 + 40)/40, far from the mean of the turns' means."""
    first = [{"model": "m", "question_id": 81 + i, "turn": 1, "score": 8 if i < 30 else -1} for i in range(80)]
    second = [{"model": "m", "question_id": 81 + i, "turn": 2, "score": 4 if i < 10 else -1} for i in range(80)]
    [row] = mt.score(first + second)
    assert (row["turn_1"], row["turn_2"], row["average"]) == pytest.approx((8, 4, 7), abs=1e-6)
    assert (row["n"], row["failed"]) == (40, 120)


def test_preference_eval_acceptance_7_means_of_real_grades(data_dir: Path):
    """564 GPT-4 grades of 7 models, against plain means of what each reply says. (The two English files whose means the
    spec lists are not in the data folder.)"""
    rows = read_rows(data_dir / "eval/mt_bench/japanese_gpt4_single_judgments.jsonl.gz")
    table = mt.score(rows)
    assert len(table) == 7
    for told in table:
        grades_of: dict[int, list[float]] = {1: [], 2: []}
        mine = [row for row in rows if row["model"] == told["model"]]
        for row in mine:
            text = row["judgment"]
            found = re.search(r"\[\[(\d+\.?\d*)\]\]", text) or re.search(r"\[(\d+\.?\d*)\]", text)
            grades_of[row["turn"]] += [float(found[1])] if found else []
        every = grades_of[1] + grades_of[2]
        for name, values in (("turn_1", grades_of[1]), ("turn_2", grades_of[2]), ("average", every)):
            mean = sum(values) / len(values) if values else math.nan
            assert told[name] == pytest.approx(mean, abs=1e-6, nan_ok=True)
        assert (told["n"], told["failed"]) == (len(every), len(mine) - len(every))
        assert told["low"] < told["average"] < told["high"]


def test_appended_reruns_are_averaged_unless_the_latest_is_asked_for():
    rows = grades(8, 6) + grades(4, 2)
    [latest] = mt.score(rows, latest=True)
    assert (latest["n"], latest["average"]) == (2, 3)
    assert mt.score(rows)[0]["average"] == mt.score(rows[::-1])[0]["average"] == 5


def test_real_replies_read_again_give_the_stored_grades(data_dir: Path):
    rows = read_rows(data_dir / "eval/mt_bench/japanese_gpt4_single_judgments.jsonl.gz")
    assert len(rows) == 564
    assert [mt.parse_grade(row["judgment"]) for row in rows] == [row["score"] for row in rows]
    assert len(mt.score(rows)) == 7


@pytest.mark.parametrize(
    ("reply", "grade"),
    [
        ("Rating: [[8]]", 8),
        ("[[7.5]] and [[3]]", 7.5),
        ("Rating: [6]", 6),
        ("[3] but [[9]]", 9),
        ("Rating: 8", -1),
        ("[[rating]]", -1),
        ("[[8/10]]", -1),
        ("", -1),
    ],
)
def test_grades_stand_in_brackets(reply, grade):
    assert mt.parse_grade(reply) == grade


def test_pairs_that_disagree_are_ties():
    """x beats base once, disagrees once, ties once, errs once: 1 win of 3, adjusted (1 + 2/2)/3."""

    def pair(first: str, second: str, one: str, other: str = "base") -> dict[str, str]:
        return {"model_1": one, "model_2": other, "g1_winner": first, "g2_winner": second}

    rows = [
        pair("model_1", "model_1", "x"),
        pair("model_1", "model_2", "x"),
        pair("tie", "tie", "x"),
        pair("error", "model_1", "x"),
        pair("model_1", "model_1", "base", "y"),
        pair("model_1", "model_1", "x", "y"),
    ]
    table = {row["model"]: row for row in mt.pairwise(rows, "base")}
    assert set(table) == {"x", "y"}
    assert (table["x"]["win"], table["x"]["loss"], table["x"]["tie"]) == (1, 0, 2)
    assert table["x"]["win_rate_adjusted"] == pytest.approx(2 / 3)
    assert table["y"]["win_rate_adjusted"] == 0
    everyone = {row["model"]: row for row in mt.pairwise(rows, None)}
    assert everyone["x"]["win"] == 2 and everyone["base"]["win"] == 1
    assert mt.parse_pair("[[C]] or [[B]]") == "B" and mt.parse_pair("A") == "error"


def test_prompts_are_the_official_ones_and_answers_fill_no_place(data_dir: Path):
    folder = data_dir / "eval/mt_bench"
    prompts = {row["name"]: row for row in read_rows(folder / "judge_prompts.jsonl")}
    questions = read_rows(folder / "question.jsonl")
    assert {row["category"] for row in questions} == set(mt.CATEGORIES) == set(mt.TEMPERATURES)
    for row in questions:
        assert row["category"] == mt.CATEGORIES[(row["question_id"] - 81) // 10]
    references = {r["question_id"]: r["choices"][0]["turns"] for r in read_rows(folder / "reference_answer_gpt4.jsonl")}
    turns = ["first {question} [[10]]", "second {answer_1}"]
    for question in questions:
        reference = references.get(question["question_id"])
        for turn in (1, 2):
            name, messages = mt.judge_messages(prompts, question, turns, turn, reference)
            text = messages[1]["content"]
            assert ("math" in name) == (question["category"] in mt.REFERENCED)
            assert turns[0] in text and (turns[1] in text) == (turn == 2)
            assert question["turns"][turn - 1] in text
            official = prompts[name]["prompt_template"]
            assert text.startswith(official[: official.index("{")])
    with pytest.raises(DataError, match="needs a reference answer"):
        mt.judge_messages(prompts, next(q for q in questions if q["category"] == "math"), turns, 1)
    with pytest.raises(ConfigError, match="has no 'single-v1'"):
        mt.judge_messages({}, questions[0], turns, 1)


def test_preference_eval_acceptance_8_mt_bench_judgments_come_back_as_they_went(tmp_path):
    rows = grades(8, 6.5, -1) + grades(7, 3, 9, model="other", turn=2)
    back = read_rows(write_rows(tmp_path / "gpt-4_single.jsonl", rows))
    assert mt.score(back) == mt.score(rows)


def test_a_turn_without_grades_has_no_mean():
    [row] = mt.score([{"model": "m", "question_id": 81, "turn": 1, "score": 7}])
    assert row["average"] == 7 and math.isnan(row["turn_2"])


@pytest.mark.parametrize(
    ("rows", "complaint"),
    [
        ([], "no judgments"),
        ([{"model": "m", "question_id": 81, "turn": 1, "score": math.nan}], "row 1: score nan is no grade"),
        ([{"model": "m", "question_id": 81, "turn": 1, "score": "8"}], "row 1: score '8' is no grade"),
        ([{"model": "m", "question_id": 81, "turn": 3, "score": 8}], "row 1: turn 3"),
        ([{"model": "m", "question_id": 81, "score": 8}], "row 1 has no 'turn'"),
    ],
)
def test_bad_judgments_are_refused_in_one_line(rows, complaint):
    with pytest.raises(DataError, match=complaint):
        mt.score(rows)
