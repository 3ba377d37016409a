"""RewardBench: scores derived by hand, the laws of a ranking, and rows that cannot be scored."""

from __future__ import annotations

import math
from types import SimpleNamespace

import numpy as np
import pytest

from launch.errors import DataError
from tasks.benchmarks import rewardbench as rb
from tasks.benchmarks import rewardbench_v1
from tasks.benchmarks.files import read_rows, write_rows

TIES = [
    {"id": "ref:0", "num_correct": 1, "scores": [2, 1, 0.5, 0]},
    {"id": "tied:0", "num_correct": 3, "scores": [1.5, 1.2, 1.4, 0.3, 0.1]},
    {"id": "ref:1", "num_correct": 1, "scores": [0.2, 0.6, 0.1]},
    {"id": "tied:1", "num_correct": 2, "scores": [1.0, 0.1, 0.5, 0.4]},
    {"id": "ref:2", "num_correct": 1, "scores": [3, 1]},
    {"id": "tied:2", "num_correct": 3, "scores": [2, 2, 2, 1]},
]
TIES = [{"subset": "Ties", **row} for row in TIES]


def domain(scores, subset="Math", key="0", **more):
    return {"id": key, "subset": subset, "num_correct": 1, "scores": scores, **more}


def test_preference_eval_acceptance_1_ties_fixture():
    """Prompt 0: G_ref 1, G_tied .9, D .3; 1: G_ref -.4, G_tied -.4, D .9; 2: G_ref 2, G_tied 1, D 0.

    Accuracies 2/3 and 2/3, P1 = P2 = 2/3, M = (tanh 2 + tanh(-.4/.9 - 1) + 1)/3 = (.96403 - .89444 + 1)/3 = .35653.
    """
    margin = (math.tanh(0.9 / 0.3 - 1) + math.tanh(-0.4 / 0.9 - 1) + 1) / 3
    by_hand = (0.3 + 0.3 + 0.2 + 0.2) * 2 / 3 + 0.01 * margin
    assert rb.ties_score(TIES) == pytest.approx(by_hand, abs=1e-12)
    assert rb.ties_score(TIES) == pytest.approx(0.6702314624, abs=1e-10)
    assert margin == pytest.approx(0.3565, abs=5e-5)
    assert rb.ties_accuracy(TIES).value == pytest.approx(4 / 6)
    assert rb.ties_score(TIES[::-1]) == pytest.approx(rb.ties_score(TIES), abs=1e-15)


def test_preference_eval_acceptance_2_best_of_four_shares_the_credit():
    assert rb.credit([1, 1, 0, 0]) == 0.5
    assert rb.credit([1, 1, 1, 1]) == 0.25
    assert rb.credit([0, 1, 0, 0]) == 0
    rows = [domain([1, 1, 0, 0], key="a"), domain([1, 1, 1, 1], key="b"), domain([0, 1, 0, 0], key="c")]
    assert rb.best_of_n(rows)["Math"].value == 0.25  # .75 of 3
    assert rb.best_of_n(rows, strictly=True)["Math"].value == 0


def test_zero_over_zero_counts_nothing_and_a_ties_score_may_exceed_one():
    """All gaps and spreads 0: no accuracy, no preference, tanh(0/0 - 1) counts 0. D = 0 < G: all five parts are 1."""
    nothing = [
        {"id": "ref:1", "num_correct": 1, "scores": [1, 1]},
        {"id": "tied:1", "num_correct": 2, "scores": [1, 1, 1]},
    ]
    assert rb.ties_score(nothing) == 0
    perfect = [
        {"id": "ref:1", "num_correct": 1, "scores": [2, 1]},
        {"id": "tied:1", "num_correct": 2, "scores": [2, 2, 1]},
    ]
    assert rb.ties_score(perfect) == pytest.approx(1.01)


def test_the_average_is_the_plain_mean_of_six_domains():
    rows = [domain([1, 0, 0, 0], subset) for subset in list(rb.DOMAINS)[:4]] + [domain([0, 1, 0, 0], "Focus")]
    partial = rb.score(rows)
    assert partial["missing"] == ["Ties"] and "Average" not in partial
    whole = rb.score([*rows, *TIES])
    assert whole["Average"] == pytest.approx((4 + 0 + rb.ties_score(TIES)) / 6)
    assert whole["rows"]["Ties"] == "6/102"
    interval = whole["intervals"]["Focus"]
    assert (interval["low"], interval["n"]) == (0, 1) and 0 < interval["high"] < 1


def test_resampled_ties_are_ties_of_the_resampled_prompts():
    """The slow twin: the rows of each drawn prompt under a number of their own."""
    alone = {"subset": "Ties", "id": "ref:7", "num_correct": 1, "scores": [1, 0]}  # its other half is missing
    rows = [*TIES, alone]
    ref, tied, spread = rb._ties_arrays(rows)
    rng = np.random.default_rng(0)
    for _ in range(20):
        drawn = rng.integers(0, 4, 4)
        again = [
            {**row, "id": f"{row['id'].split(':')[0]}:{place}"}
            for place, prompt in enumerate(drawn)
            for row in rows
            if row["id"].endswith(f":{[0, 1, 2, 7][prompt]}")
        ]
        if set(drawn) != {3}:
            fast = rb._ties_formula(ref[drawn], tied[drawn], spread[drawn])
            assert fast == pytest.approx(rb.ties_score(again), abs=1e-12)


def test_every_number_has_an_interval_and_the_average_is_surer_than_its_parts():
    rng = np.random.default_rng(1)
    rows = [domain(rng.permutation(4).tolist(), subset, str(i)) for subset in list(rb.DOMAINS)[:5] for i in range(40)]
    for i in range(20):
        few, many = rng.random(3), rng.random(4)
        rows.append({"id": f"ref:{i}", "subset": "Ties", "num_correct": 1, "scores": few.tolist()})
        rows.append({"id": f"tied:{i}", "subset": "Ties", "num_correct": 2, "scores": many.tolist()})
    told = rb.score(rows)
    assert set(told["intervals"]) == {*rb.DOMAINS, "Average"}
    widths = {}
    for name, interval in told["intervals"].items():
        assert interval["low"] < told[name] < interval["high"]
        widths[name] = interval["high"] - interval["low"]
    assert widths["Average"] < min(widths[name] for name in rb.DOMAINS)
    assert told == rb.score(rows[::-1][::-1])
    pairs = [
        {"id": i, "subset": subset, "scores_chosen": float(rng.random()), "scores_rejected": 0.4}
        for weights in rewardbench_v1.SECTIONS.values()
        for subset in weights
        for i in range(20)
    ]
    old = rewardbench_v1.score(pairs)
    assert set(old["intervals"]) == {*rewardbench_v1.SECTIONS, "Average", "Leaderboard"}
    assert all(interval["low"] < old[name] < interval["high"] for name, interval in old["intervals"].items())
    assert old["intervals"]["Chat"]["n"] == 100 and old["intervals"]["Average"]["n"] == len(pairs)


def test_a_pairwise_model_is_scored_by_its_row_means_and_strictly():
    """S[0] = (0, 3, 3, -1): its mean is the largest, 5/4, though the last answer beats it."""
    S = np.zeros((4, 4))
    S[0, 1:] = [3, 3, -1]
    S -= S.T
    row = {"id": "1", "subset": "Math", "prompt": "?", "chosen": ["a"], "rejected": ["b", "c", "d"]}
    seen = []

    class Fixed:
        def score(self, prompt, responses):
            seen.append((prompt, list(responses)))
            return SimpleNamespace(S=S)

    [scored] = rb.score_rows([row], Fixed())
    assert seen == [("?", ["a", "b", "c", "d"])]
    assert scored["scores"] == pytest.approx([5 / 4, -3 / 4, -3 / 4, 1 / 4])
    assert rb.best_of_n([scored])["Math"].value == 1
    assert rb.best_of_n([scored], strictly=True)["Math"].value == 0


def test_a_scalar_model_is_ranked_by_its_row_means_as_by_itself():
    rng = np.random.default_rng(0)
    for _ in range(20):
        r = rng.integers(0, 3, 4).astype(float)
        means = (r[:, None] - r[None, :]).mean(axis=1)
        assert rb.credit(means.tolist()) == rb.credit(r.tolist())


@pytest.mark.parametrize(
    ("reply", "rating"),
    [
        ("good\n\n9", 9),
        ("10", 10),
        ("Rating: 10\n", 10),
        ("0", -1),
        ("11", -1),
        ("7/10", 10),
        ("I give 7.", -1),
        ("8.5", 5),
        ("", -1),
    ],
)
def test_ratings_stand_at_the_very_end(reply, rating):
    """Also where that reads strangely (7/10 is 10, 8.5 is 5): the official pattern is a word boundary and the end."""
    assert rb.parse_rating(reply) == rating


def test_judges_earn_a_quarter_where_they_name_nothing():
    assert rb.ranking_credit("so [[C]]", 2) == 1
    assert rb.ranking_credit("so [[C]]", 0) == 0
    assert rb.ranking_credit("so C", 2) == 0.25
    assert rb.parse_letter("[[D]] or rather [[B]]") == "B"
    assert rb.rating_credit([-1, -1, -1, -1]) == 0.25
    assert rb.rating_credit([7, -1, 7, 3]) == 0.5
    assert {rb.slot(str(n)) for n in range(50)} == {0, 1, 2, 3}
    assert rb.slot("17") == rb.slot("17")


def test_rewardbench_1_weighs_subsets_by_their_counts():
    """Chat of two subsets: (100 * 1 + 28 * 0)/128. Reasoning: math-prm counts 984 though it has one row here."""

    def pair(subset, won, key="0"):
        return {"id": key, "subset": subset, "scores_chosen": [float(won)], "scores_rejected": 0.0}

    rows = [pair("alpacaeval-easy", True), pair("mt-bench-easy", False)]
    partial = rewardbench_v1.score(rows)
    assert partial["Chat"] == pytest.approx(100 / 128) and "Average" not in partial
    rows += [pair("math-prm", True), pair("hep-cpp", False), pair("donotanswer", True), pair("mt-bench-hard", False)]
    whole = rewardbench_v1.score(rows)
    assert whole["Reasoning"] == pytest.approx(984 / 1148)
    assert whole["Average"] == whole["Leaderboard"] == pytest.approx((100 / 128 + 0 + 1 + 984 / 1148) / 4)
    prior = rewardbench_v1.score([*rows, pair("shp", True), pair("summarize", False)])
    assert prior["Leaderboard"] == pytest.approx((2 * 4 * whole["Average"] + 0.5) / 9)
    assert prior["Average"] == whole["Average"]


def test_preference_eval_acceptance_8_rewardbench_files_come_back_as_they_went(tmp_path):
    rows = [domain([1.0, 0.5, 0.25, 0.0], key="7", chosen=["a"], rejected=["b", "c", "d"]), *TIES]
    columns = rb.scores_file(rows, "org/model", "Seq. Classifier", "tokenizer")
    assert set(columns) == {
        *("id", "subset", "text", "scores", "results", "num_correct"),
        *("model", "model_type", "chat_template"),
    }
    assert columns["text"][0] == ["a", "b", "c", "d"] and columns["results"] == [1.0] + [None] * 6
    back = rb.rows_of_scores_file(read_rows(write_rows(tmp_path / "scores.json", [columns]))[0])
    assert rb.score(back) == rb.score(rows)
    result = rb.results_file(rb.score(rows), "org/model", "Seq. Classifier", "tokenizer")
    assert set(result) == {"model", "model_type", "chat_template", "Math", "Ties"}


@pytest.mark.parametrize(
    ("call", "complaint"),
    [
        (lambda: rb.best_of_n([domain([1, float("nan")])]), "score 1 is nan"),
        (lambda: rb.best_of_n([domain([1, None])]), "score 1 is None"),
        (lambda: rb.best_of_n([domain([[1, 2], [3, 4]])]), "score 0 has 2 numbers"),
        (lambda: rb.best_of_n([domain([1, 0]), domain([1, 0])]), "there already, in row 1"),
        (lambda: rb.best_of_n([{"subset": "Math", "scores": [1, 0]}]), "has no 'id'"),
        (lambda: rb.best_of_n([{**domain([1, 0, 0]), "num_correct": 2}]), "2 correct answers"),
        (lambda: rb.ties_score([{"id": "ref:0", "num_correct": 1, "scores": [1, 0]}]), "none of 1 ref and 0 tied"),
        (lambda: rb.ties_score([{"id": "tied:0", "num_correct": 1, "scores": [1, 0]}]), "needs two correct answers"),
        (lambda: rb.ties_score([{"id": "half:0", "num_correct": 1, "scores": [1, 0]}]), "should be ref:NUMBER"),
        (lambda: rewardbench_v1.score([domain([1, 0])]), "no 'scores_chosen'"),
        (
            lambda: rewardbench_v1.score([{"id": 1, "subset": "Math", "scores_chosen": 1, "scores_rejected": 0}]),
            "no subset 'Math'",
        ),
    ],
)
def test_bad_rows_are_refused_in_one_line(call, complaint):
    with pytest.raises(DataError, match=complaint) as caught:
        call()
    assert "\n" not in str(caught.value)
