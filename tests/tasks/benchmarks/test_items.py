"""Official files as items: their means are the official scores, and what the answer shown first earned, by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from launch.errors import DataError
from tasks.benchmarks import alpaca_eval, arena_hard, items, mt_bench, rewardbench
from tasks.benchmarks.files import write_rows
from tests.tasks.benchmarks.test_arena_hard import LABELS, judged
from tests.tasks.benchmarks.test_rewardbench import TIES, domain


def mean(results: items.Results) -> float:
    return sum(i.weight * i.value for i in results.items) / sum(i.weight for i in results.items)


def annotations(model: str, preferences: list[float | None]) -> list[dict[str, Any]]:
    return [
        {
            "instruction": f"q{i}",
            "output_1": "reference",
            "output_2": f"{model} {i}",
            "generator_1": "ref",
            "generator_2": model,
            "dataset": "d",
            "annotator": "j",
            "preference": p,
            "raw_completion": {"index": 0} if p != 1.5 else None,
        }
        for i, p in enumerate(preferences)
    ]


def test_alpaca_eval_items_are_the_win_rate_and_failed_verdicts_are_counted():
    rows = annotations("m", [1.0, 1.25, 2.0, None, 1.5])
    [results] = items.of_alpaca_eval(rows)
    assert (results.model, results.judge, results.against, results.failed) == ("m", "j", "ref", 1)
    assert 100 * mean(results) == pytest.approx(alpaca_eval.win_rate(rows)["win_rate"])
    for item, q in zip(results.items, [0, 0.25, 1, 0.5], strict=True):
        shown = q if alpaca_eval.is_swapped(item.key) else 1 - q  # swapped: the judge saw the model first
        assert item.first == (() if q == 0.5 else (shown,))  # equal answers were never shown


@pytest.mark.parametrize("old", [True, False])
def test_arena_hard_items_are_the_win_rate_of_both_versions(old):
    rng = np.random.default_rng(0)
    rows = [judged(*rng.choice([*LABELS, None], 2), uid=str(i), category="hard_prompt") for i in range(60)]
    if old:
        rows = [{"question_id": row.pop("uid"), **row} for row in rows]
    [results] = items.of_arena_hard(rows)
    if old:
        official = arena_hard.win_rates(arena_hard.battles_v01(rows, "b"), "b")["m"]
        kept = [row for row in rows if row["games"][0]["score"] or row["games"][1]["score"]]
    else:
        official = np.mean([outcome.value for outcome in arena_hard.outcomes_v2(rows)[0]])
        kept = [row for row in rows if row["games"][0]["score"] and row["games"][1]["score"]]
    assert mean(results) == pytest.approx(official)
    assert (len(results.items), results.failed) == (len(kept), 60 - len(kept))


def test_a_judge_that_always_likes_the_first_answer_is_seen():
    """[[A>>B]] in both games: the model earns 0 three times, then 1 three times; the answer shown first always 1."""
    [results] = items.of_arena_hard([judged("A>>B", "A>>B", category="math")])
    [item] = results.items
    assert (item.value, item.weight, item.first) == (0.5, 6.0, (1.0, 1.0))
    assert results.against == "o3-mini-2025-01-31"
    pair = {"question_id": 81, "model_1": "m", "model_2": "b", "g1_winner": "model_1", "g2_winner": "model_2"}
    [results] = items.of_mt_bench_pairs([{**pair, "judge": ["j", "pair-v2"], "turn": 1}])
    assert (results.items[0].value, results.items[0].first, results.judge) == (0.5, (1.0, 1.0), "j")


def test_mt_bench_items_are_the_average_of_all_grades_and_keep_a_questions_grades_together():
    rows = [
        {"model": "m", "judge": ["j", "x"], "question_id": 81 + i, "turn": turn, "score": grade}
        for i, grades in enumerate([(8, 4), (6, -1), (-1, -1)])
        for turn, grade in enumerate(grades, 1)
    ]
    [results] = items.of_mt_bench(rows)
    assert [(item.key, item.value, item.weight) for item in results.items] == [("81", 6.0, 2.0), ("82", 6.0, 1.0)]
    assert results.failed == 3
    assert mean(results) == pytest.approx(mt_bench.score(rows)[0]["average"])


def test_mt_bench_pairs_are_the_adjusted_win_rate():
    rng = np.random.default_rng(1)
    names = ("model_1", "model_2", "tie", "error")
    rows = [
        {"question_id": i, "model_1": "m", "model_2": "b", **{f"g{g}_winner": str(rng.choice(names)) for g in (1, 2)}}
        for i in range(50)
    ]
    [results] = items.of_mt_bench_pairs(rows)
    assert mean(results) == pytest.approx(mt_bench.pairwise(rows, "b")[0]["win_rate_adjusted"])


def test_rewardbench_items_are_the_plain_mean_of_domains():
    """Math 1/2, Focus 1, Ties 4 of 6 (the formula of Ties knows no rows): (1/2 + 1 + 2/3)/3."""
    rows = [domain([1, 1, 0, 0]), domain([1, 0, 0, 0], "Focus"), *TIES]
    results = items.of_rewardbench(rewardbench.scores_file(rows, "m", "", ""))
    assert mean(results) == pytest.approx((0.5 + 1 + 2 / 3) / 3)


def test_files_are_told_by_their_rows_and_texts_are_found_where_the_official_layout_has_them(tmp_path):
    write_rows(tmp_path / "question.jsonl", [{"uid": "q1", "category": "math", "prompt": "2+2?"}])
    for model, text in (("m", "four"), ("o3-mini-2025-01-31", "4")):
        answer = {"uid": "q1", "model": model, "messages": [{"content": "2+2?"}, {"content": {"answer": text}}]}
        write_rows(tmp_path / "model_answer" / f"{model}.jsonl", [answer])
    file = write_rows(tmp_path / "model_judgment/j/m.jsonl", [judged("A>B", "A>B", "q1", category="math")])
    [results] = items.read_results(file)
    [item] = results.items
    assert (results.bench, item.prompt, item.answer, item.reference) == ("arena_hard", "2+2?", "four", "4")
    [alone] = items.read_results(write_rows(tmp_path / "elsewhere.jsonl", [judged("A>B", "A>B", "q1")]))
    assert (alone.items[0].value, alone.items[0].answer) == (0.5, None)
    with pytest.raises(DataError, match="no official result"):
        items.read_results(write_rows(tmp_path / "other.jsonl", [{"x": 1}]))
    with pytest.raises(DataError, match="m has 2 verdicts on 'q0'"):
        items.of_alpaca_eval(annotations("m", [1.0]) * 2)
