"""Intervals and paired tests: numbers by hand, coverage, and files that name what is wrong in them."""

from __future__ import annotations

import gzip

import numpy as np
import pytest

from launch.errors import DataError
from tasks.benchmarks.files import read_rows, rows_sha256, write_rows
from tasks.benchmarks.intervals import bootstrap, paired, wilson


def test_wilson_by_hand():
    """8 of 10, z^2 = 3.8415: middle (.8 + .19207)/1.38415 = .71674, half 1.96/1.38415 sqrt(.0256036) = .22657."""
    estimate = wilson(8, 10)
    assert (estimate.low, estimate.high) == pytest.approx((0.49016, 0.94331), abs=1e-4)
    assert wilson(0, 10).low == 0 and wilson(10, 10).high == 1
    with pytest.raises(DataError, match="is no share"):
        wilson(0, 0)


def test_a_bootstrap_of_many_items_is_the_normal_interval():
    x = np.random.default_rng(0).normal(size=2000)
    estimate = bootstrap(x, rounds=500)
    assert estimate.high - estimate.low == pytest.approx(2 * 1.96 * x.std() / np.sqrt(2000), rel=0.1)
    assert bootstrap(x, rounds=50, seed=3) == bootstrap(x, rounds=50, seed=3)
    with pytest.raises(DataError, match="1 not finite"):
        bootstrap([1.0, float("nan")])


def test_paired_models_differ_on_the_discordant_items_only():
    """First better on 6, second on 1 of 20: two-sided sign test 2 (1 + 7)/2^7 = .125."""
    first, second = [1] * 6 + [0] + [1] * 13, [0] * 6 + [1] + [1] * 13
    result = paired(first, second)
    assert (result.discordant, result.first_better) == (7, 6)
    assert result.p_value == pytest.approx(0.125)
    assert result.difference == pytest.approx(0.25)
    assert result.low < 0.25 < result.high
    assert paired(first, first).p_value == 1
    with pytest.raises(DataError, match="20 items against 19"):
        paired(first, second[1:])


def test_rows_keep_line_separators_inside_texts(tmp_path):
    rows = [{"text": "a\u2028b\nc"}, {"text": "d"}]
    for name in ("rows.jsonl", "rows.json"):
        path = write_rows(tmp_path / name, rows)
        assert read_rows(path) == rows
        packed = tmp_path / f"{name}.gz"
        packed.write_bytes(gzip.compress(path.read_bytes()))
        assert read_rows(packed) == rows
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "rows.json",
        "rows.json.gz",
        "rows.jsonl",
        "rows.jsonl.gz",
    ]
    assert rows_sha256([{"a": 1, "b": 2}]) == rows_sha256([{"b": 2, "a": 1}]) != rows_sha256([{"a": 2, "b": 1}])


@pytest.mark.parametrize(
    ("name", "text", "complaint"),
    [
        ("x.jsonl", '{"a": 1}\n{"a": \n', "row 2"),
        ("x.jsonl", "[1]\n", "row 1: .* is no JSON object"),
        ("x.json", '{"a": 1}', "holds a dict, not a list"),
        ("x.txt", "", "what format is this"),
    ],
)
def test_bad_files_are_named_with_the_row(tmp_path, name, text, complaint):
    (tmp_path / name).write_text(text)
    with pytest.raises(DataError, match=complaint) as caught:
        read_rows(tmp_path / name)
    assert name in str(caught.value) and "\n" not in str(caught.value)
