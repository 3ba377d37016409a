"""Two models question by question: differences by hand, the laws of a comparison, and what is not compared."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from launch.cli import main
from launch.errors import DataError
from tasks.benchmarks import alpaca_eval
from tasks.benchmarks.compare import compare, item_rows
from tasks.benchmarks.files import read_rows, write_rows
from tasks.benchmarks.intervals import bootstrap, paired
from tasks.benchmarks.items import Item, Results, of_alpaca_eval
from tests.tasks.benchmarks.test_items import annotations


def results(model: str, values: list[float], weights: list[float] | None = None, category: str = "") -> Results:
    weights = weights or [1.0] * len(values)
    items = [Item(f"q{i}", v, w, category) for i, (v, w) in enumerate(zip(values, weights, strict=True))]
    return Results("arena_hard", model, "j", "base", items)


def test_a_comparison_by_hand():
    """1 1 1 0 against 0 0 1 1: difference (3 - 2)/4, three discordant, two for the first: p = 2 (1 + 3)/2^3 = 1."""
    told = compare(results("a", [1, 1, 1, 0]), results("b", [0, 0, 1, 1]))
    assert (told["scores"], told["difference"]) == ([0.75, 0.5], 0.25)
    assert (told["n"], told["discordant"], told["first_better"], told["p_value"]) == (4, 3, 2, 1.0)
    back = compare(results("b", [0, 0, 1, 1]), results("a", [1, 1, 1, 0]))
    assert back["difference"] == -0.25 and (back["low"], back["high"]) == (-told["high"], -told["low"])


def test_strong_verdicts_weigh_three_times_in_both_scores():
    """(3 * 1 + 1 * 0)/4 against (1 * 0 + 1 * 1)/2."""
    told = compare(results("a", [1, 0], [3, 1]), results("b", [0, 1]))
    assert told["scores"] == [0.75, 0.5] and told["difference"] == 0.25


def test_equal_weights_are_the_bootstrap_of_the_differences():
    """The same resamples: with all weights 1 the difference of means is the mean difference."""
    rng = np.random.default_rng(0)
    a, b = rng.random(40), rng.random(40)
    told, plain = paired(a, b, seed=3), bootstrap(a - b, seed=3)
    assert (told.difference, told.low, told.high) == pytest.approx((plain.value, plain.low, plain.high))
    same = paired(a, b, seed=3, weights=([2.0] * 40, [5.0] * 40))
    assert (same.low, same.high) == pytest.approx((told.low, told.high))


def test_pairing_tells_apart_what_two_intervals_do_not():
    """Two models that differ by little on questions that differ by much."""
    rng = np.random.default_rng(1)
    hard = rng.random(200)
    a, b = results("a", (0.9 * hard + 0.05).tolist()), results("b", (0.9 * hard).tolist())
    told = compare(a, b)
    alone = [bootstrap([item.value for item in some.items]) for some in (a, b)]
    assert alone[0].low < alone[1].high and told["low"] > 0
    assert told["first_better"] == told["discordant"] == 200 and told["p_value"] < 1e-9


@pytest.mark.parametrize(
    ("other", "complaint"),
    [
        (replace(results("b", [0.0, 1.0]), judge="k"), "judge 'j', b 'k'"),
        (replace(results("b", [0.0, 1.0]), against="c"), "against 'base', b 'c'"),
        (replace(results("b", [0.0, 1.0]), bench="mt_bench"), "bench 'arena_hard', b 'mt_bench'"),
        (results("b", [0.0]), "1 questions have a verdict for only one of a and b, such as 'q1'"),
        (replace(results("b", [0.0]), items=[Item("x", 1.0)]), "no question in common"),
    ],
)
def test_what_is_not_comparable_is_refused(other, complaint):
    first = replace(results("a", [1.0, 1.0]))
    with pytest.raises(DataError, match=complaint.replace("'", ".")) as caught:
        compare(first, other)
    assert "\n" not in str(caught.value)


def test_common_questions_alone_are_compared_on_request_and_the_rest_is_counted():
    told = compare(results("a", [1.0, 0.0, 1.0]), results("b", [0.0]), common=True)
    assert (told["n"], told["left_out"], told["difference"]) == (1, 2, 1.0)


def test_the_command_reads_official_files_and_writes_every_question(tmp_path, capsys):
    files = [
        write_rows(tmp_path / f"{model}.json", annotations(model, values))
        for model, values in (("a", [2.0, 1.8, 1.0, 1.2]), ("b", [1.0, 1.8, 1.5, 1.2]))
    ]
    out = tmp_path / "items.jsonl"
    assert main(["compare", *map(str, files), "--json", "--items", str(out)]) == 0
    told = json.loads(capsys.readouterr().out)
    rates = [alpaca_eval.win_rate(read_rows(file))["win_rate"] / 100 for file in files]
    assert told["scores"] == pytest.approx(rates)
    rows = read_rows(out)
    assert [row["key"] for row in rows][:2] == ["q0", "q2"]  # the largest difference first
    assert rows == item_rows(*(of_alpaca_eval(read_rows(file))[0] for file in files))
    assert main(["compare", *map(str, files)]) == 0
    assert "a - b: 0.5 - 0.375 = +0.125 [" in capsys.readouterr().out


def test_a_file_of_several_models_needs_their_names(tmp_path, capsys):
    rows = [
        {"model": model, "judge": ["j", "x"], "question_id": 81 + i, "turn": 1, "score": grade}
        for model, grades in (("a", (9, 3)), ("b", (5, 5)), ("c", (1, 1)))
        for i, grade in enumerate(grades)
    ]
    file = str(write_rows(tmp_path / "j_single.jsonl", rows))
    assert main(["compare", file, "--models", "a,b"]) == 0
    assert "a - b: 6 - 5 = +1 [-2, +4], 2 questions" in capsys.readouterr().out
    for words, complaint in (
        ([file], "name the second file, or two models"),
        ([file, file], "it has a by j, b by j, c by j; name one"),
        ([file, "--models", "a,x"], "0 of 3 results fit"),
        ([file, "--models", "a"], "name two models"),
    ):
        assert main(["compare", *words]) != 0
        assert complaint in capsys.readouterr().err
