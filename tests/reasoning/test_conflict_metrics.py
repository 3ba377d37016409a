"""Metrics by hand."""

import numpy as np
import pytest

from launch.errors import DataError
from reasoning.conflict import Context, build_instance
from reasoning.conflict.metrics import Prediction, evaluate, judge, minilm

CASE = build_instance("Where?", [Context("x", "Oslo", True), Context("y", "Rome", False)], ["Oslo", "Christiania"])


@pytest.mark.parametrize(
    ("answer", "semantic", "exact", "error", "strict"),
    [
        ("Oslo", 1, 1, 0, 0),  # strict wants every gold answer
        ("oslo, norway", 1, 0, 0, 0),
        ("Rome", 0, 0, 1, 0),
        ("Oslo and Christiania", 0, 0, 0, 1),
        ("", 0, 0, 0, 0),
    ],
)
def test_answers_by_text(answer, semantic, exact, error, strict):
    row = judge(CASE, Prediction(answer))
    assert (row["semantic"], row["exact"], row["conflict_error"], row["strict"]) == (semantic, exact, error, strict)


def test_shares_and_their_groups():
    """Three of four right; Wilson's interval of 3/4 is (0.3006, 0.9544)."""
    cases = [CASE, CASE, CASE.reordered([1, 0]), CASE]
    told = [Prediction("Oslo", 0), Prediction("Oslo", 0), Prediction("Oslo", 0), Prediction("Rome", None)]
    report = evaluate(cases, told)
    assert report["semantic"].value == 0.75
    assert (report["semantic"].low, report["semantic"].high) == pytest.approx((0.3006, 0.9544), abs=1e-4)
    assert report["followed"].value == pytest.approx(2 / 3) and report["followed"].n == 3
    assert report["semantic_position_0"].value == pytest.approx(2 / 3) and report["semantic_position_1"].n == 1
    assert report["semantic_words_1024"].n == 4


def test_meaning_counts_only_where_text_does_not_decide():
    """An encoder that calls everything equal helps an open answer, and never a wrong candidate."""
    seen = []

    def same(texts):
        seen.extend(texts)
        return np.ones((len(texts), 1), dtype=np.float32)

    report = evaluate(
        [CASE, CASE, CASE], [Prediction("the Norwegian capital"), Prediction("Rome"), Prediction("")], same
    )
    assert report["semantic"].value == pytest.approx(1 / 3) and report["conflict_error"].value == pytest.approx(1 / 3)
    assert "Rome" not in seen and "the Norwegian capital" in seen


def test_minilm_knows_a_paraphrase_and_pads_without_effect():
    encode = minilm()
    texts = ["a film director", "a movie director", "a river in Peru", "one much longer sentence about rivers in Peru"]
    together = encode(texts)
    assert together.shape == (4, 384) and together.dtype == np.float32
    assert np.allclose(np.linalg.norm(together, axis=1), 1, atol=1e-5)
    assert together[0] @ together[1] > 0.85 > together[0] @ together[2]
    assert np.allclose(encode(texts[:1])[0], together[0], atol=1e-5)


def test_predictions_from_completions():
    text = "<think>[Context 2] Bob lives in Rome.</think><answer>Rome</answer>"
    assert Prediction.from_completion(text, CASE) == Prediction("Rome", 1)
    assert Prediction.from_completion("Rome", CASE) == Prediction("", None)


def test_one_prediction_each():
    with pytest.raises(DataError, match="1 instances but 0 predictions"):
        evaluate([CASE], [])
