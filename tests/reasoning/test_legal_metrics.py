"""Sentences read from text, and every score of them by numbers derived by hand or published."""

from __future__ import annotations

import csv
import gzip
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from launch.errors import CheckpointError, DataError
from launch.jsonlines import rows
from reasoning.legal import text_scores
from reasoning.legal.amounts import amount_tier, amounts
from reasoning.legal.chains import DEATH, LIFE
from reasoning.legal.charges import CHARGES
from reasoning.legal.metrics import (
    cail_labels,
    cail_score,
    judge_score,
    lawbench_score,
    log_distance,
    predict_by_group,
    sentencing,
    set_f1,
)
from reasoning.legal.official import (
    judge_scores,
    lawbench_articles,
    lawbench_f1,
    lawbench_term,
    named_charges,
    read_judgment,
)
from reasoning.legal.sentence import read_clause, read_sentence, sentence_clause, split_completion


def test_the_fixed_clause_is_read_back() -> None:
    assert [read_clause(f"判决如下：{sentence_clause(m)}") for m in (0, 7, 36, 300)] == [0, 7, 36, 300]
    assert read_clause("判处有期徒刑301个月。判处有期徒刑12个月。") == 12
    assert read_clause("判处有期徒刑三年。") is None
    for bad in (-1, 301, 1.5, True):
        with pytest.raises(DataError, match="give a whole number from 0 to 300"):
            sentence_clause(bad)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "kind", "months"),
    [
        ("判处有期徒刑三年六个月，并处罚金", "imprisonment", 42),
        ("判处有期徒刑十个月，缓刑一年", "imprisonment", 10),
        ("判处拘役四个月", "detention", 4),
        ("判处管制一年", "control", 12),
        ("判处有期徒刑36个月。", "imprisonment", 36),
        ("犯甲罪，判处有期徒刑三年；犯乙罪，判处有期徒刑一年。决定执行有期徒刑三年六个月", "imprisonment", 42),
        ("判处无期徒刑，剥夺政治权利终身", "life", LIFE),
        ("判处死刑，缓期二年执行", "death", DEATH),
        ("免予刑事处罚", "exempt", 0),
    ],
)
def test_sentences_in_words(text: str, kind: str, months: int) -> None:
    found = read_sentence(text)
    assert found is not None and (found.kind, found.months) == (kind, months)


def test_no_sentence_is_none_and_a_completion_is_parted() -> None:
    assert read_sentence("本院认为，被告人有罪。") is None
    assert read_sentence("") is None
    reasons, decision = split_completion("判决理由：事实清楚。判决如下：判处有期徒刑12个月。")
    assert (reasons, decision) == ("事实清楚。", "判处有期徒刑12个月。")
    assert split_completion("事实清楚。判处拘役三个月。") == ("事实清楚。", "判处拘役三个月。")
    assert split_completion("事实清楚。") == ("事实清楚。", "")


def test_amounts() -> None:
    text = "骗取人民币3.5万元、1,234.5元、五万元、２万余元、三千五百元、5万余元，2010年3月5日"
    assert amounts(text) == [35_000, 1234.5, 50_000, 20_000, 3_500, 50_000]
    assert amounts("The sum was 3000 dollars.") == []
    assert amounts("金额1亿元，2千元") == [100_000_000, 2_000]
    assert amount_tier("骗取29,999元", (3_000, 30_000)) == 0
    assert amount_tier("骗取3万元后又称9万元", (3_000, 30_000)) == 1  # contradictory: the largest
    assert amount_tier("骗取若干", (3_000, 30_000)) is None and amount_tier("100元", (3_000,)) is None
    assert len(amounts("骗取3万元。" * 20_000)) == 20_000  # 100,000 characters and more


def test_legal_acceptance_5_metrics_by_hand() -> None:
    """t = p = 36 gives 1. 36 against 24: ln(37/25) = 0.392, 0.8. 12 against 60: ln(61/13) = 1.546, 0."""
    assert round(log_distance(36, 24), 3) == 0.392 and round(log_distance(12, 60), 3) == 1.546
    assert [cail_score(t, p) for t, p in ((36, 36), (36, 24), (12, 60))] == [1, 0.8, 0]
    assert [cail_score(t, p) for t, p in ((DEATH, DEATH), (LIFE, 180), (180, LIFE), (36, None))] == [1, 0, 0, 0]
    # LawBench over {(36, 24), (12, abstained)}: (ln 216 - (0.392 + ln 216) / 2) / ln 216 = 1/2 - 0.196 / 5.3753
    assert lawbench_score([36, 12], [24, None]) == pytest.approx(0.5 - math.log(37 / 25) / 2 / math.log(216))
    assert judge_score(0, 0) == 1 and judge_score(36, 24) == pytest.approx(2 / 3)
    assert judge_score(LIFE, 180) == 0.75  # 240 against 180
    assert judge_score(DEATH, 240) == 0 == judge_score(None, 12) and judge_score(DEATH, DEATH) == 1
    assert judge_score(None, None) is None


def test_sentencing_reports_what_was_not_read() -> None:
    """Errors 12 and 0 over two read cases; the third counts in the rate and in the scores."""
    report = sentencing([36, 12, 24], [24, 12, None])
    assert report["parse_rate"].value == pytest.approx(2 / 3)
    assert report["mae"].value == 6 and report["rmse"].value == pytest.approx(math.sqrt(72))
    assert report["cail"].value == pytest.approx((0.8 + 1 + 0) / 3)
    assert report["judge"].value == pytest.approx((2 / 3 + 1 + 0) / 3)
    assert "mae" not in sentencing([36], [None])
    with pytest.raises(DataError, match="1 true values and 2 predictions"):
        sentencing([1], [1, 2])


def test_cail_labels_by_hand_and_by_a_second_way() -> None:
    """Micro: 1 hit, 1 wrong, 1 missed: 1/2. Classes a 1, b 0, c 0, d (nobody names it) 1: macro 1/2."""
    assert cail_labels([{"a"}, {"b"}], [{"a"}, {"c"}], "abcd") == 0.5
    rng = np.random.default_rng(0)
    classes = [str(k) for k in range(12)]
    true = [set(rng.choice(classes, 2, replace=False)) for _ in range(60)]
    guess = [set(rng.choice(classes, 2, replace=False)) for _ in range(60)]
    from sklearn.metrics import f1_score
    from sklearn.preprocessing import MultiLabelBinarizer

    table = MultiLabelBinarizer(classes=classes)
    t, g = table.fit_transform(true), table.transform(guess)
    expected = (f1_score(t, g, average="micro") + f1_score(t, g, average="macro", zero_division=1)) / 2
    assert cail_labels(true, guess, classes) == pytest.approx(expected)


def test_cail_terms_of_random_predictions_as_the_official_judge_scores_them() -> None:
    """1,000 random pairs, life and death among them, against the rule of CAIL2018's judge written as its steps."""

    def judge(true: int, said: int) -> float:
        if true == DEATH or said == DEATH:
            return 1.0 if said == true else 0.0
        if true == LIFE or said == LIFE:
            return 1.0 if said == true else 0.0
        v = abs(math.log(true + 1) - math.log(said + 1))
        if v <= 0.2:
            return 1.0
        if v <= 0.4:
            return 0.8
        if v <= 0.6:
            return 0.6
        if v <= 0.8:
            return 0.4
        return 0.2 if v <= 1 else 0.0

    rng = np.random.default_rng(1)
    true, said = (np.where(rng.random(1000) < 0.1, rng.integers(-2, 0, 1000), rng.integers(0, 301, 1000)) for _ in "ab")
    said[:300] = np.where(true[:300] >= 0, np.abs(true[:300] + rng.integers(-5, 6, 300)), true[:300])
    scores = [judge(t, s) for t, s in zip(true.tolist(), said.tolist(), strict=True)]
    assert [cail_score(t, s) for t, s in zip(true.tolist(), said.tolist(), strict=True)] == scores
    assert set(scores) == {0.0, 0.2, 0.4, 0.6, 0.8, 1.0}
    assert sentencing(true.tolist(), said.tolist())["cail"].value == pytest.approx(np.mean(scores))


def test_the_trivial_predictor_never_sees_its_own_fold() -> None:
    """Two cases a group: each is predicted by the other, if that is in another fold."""
    assert predict_by_group(["a", "b"], [10, 20], folds=2) == [20, 10]
    assert predict_by_group("aabb", [10, 20, 30, 40], folds=2, seed=None) == [20, 10, 40, 30]
    assert set_f1("ab", "bc") == (0.5, 0.5, 0.5)


def _cases(data_dir: Path, name: str) -> list[dict[str, Any]]:
    return [row for _, row in rows(data_dir / f"legal/court_opinions/{name}_test.jsonl.gz")]


def _four(true: list[float], predicted: list[float]) -> list[float]:
    """MAE, RMSE, log distance and CAIL score without intervals, so that twenty shuffles are quick."""
    errors = np.subtract(true, predicted)
    pairs = list(zip(true, predicted, strict=True))
    logs, scores = [log_distance(t, p) for t, p in pairs], [cail_score(t, p) for t, p in pairs]
    return [float(np.abs(errors).mean()), math.sqrt((errors**2).mean()), float(np.mean(logs)), float(np.mean(scores))]


@pytest.mark.data
def test_legal_acceptance_6_baselines(data_dir: Path) -> None:
    """The spec's table to .1 month: LAIC's 1,196 cases with an opinion, every fifth held out together, no shuffle."""
    cases = {name: _cases(data_dir, name) for name in ("laic", "pccd", "cail")}
    whole = [row for row in cases["laic"] if row["opinion"].strip()]
    assert len(whole) == 1196
    known = [(row["caseCause"], float(row["judge"])) for row in cases["laic"]]
    charges, terms = [c for c, _ in known], [t for _, t in known]
    table = {
        "mean": ([18.95, 28.10, 0.626, 0.535], [34.65, 47.23, 0.636, 0.500], [18.99, 24.66, 0.769, 0.495]),
        "median": ([17.60, 29.37, 0.587, 0.554], [39.28, 54.34, 0.759, 0.412], [17.07, 24.91, 0.729, 0.500]),
    }
    for name, (inside, *outside) in table.items():
        centre = getattr(np, name)
        held = [float(row["judge"]) for row in whole]
        found = _four(held, predict_by_group([row["caseCause"] for row in whole], held, seed=None, centre=centre))
        assert (np.abs(np.subtract(found, inside)) < (0.1, 0.1, 0.006, 0.006)).all()
        # And the table is an ordinary shuffle of all 1,200 cases.
        folds = [_four(terms, predict_by_group(charges, terms, seed=s, centre=centre)) for s in range(20)]
        assert (np.abs(np.mean(folds, 0) - inside) < np.maximum(2 * np.std(folds, 0), (0.1, 0.1, 0.005, 0.005))).all()
        of_charge = {c: float(centre([t for d, t in known if d == c])) for c in set(charges)}
        for other, expected in zip(("pccd", "cail"), outside, strict=True):
            true = [float(row["judge"]) for row in cases[other]]
            measured = _four(true, [of_charge[row["caseCause"]] for row in cases[other]])
            assert np.abs(np.array(measured) - expected).max() < 0.006


@pytest.mark.data
def test_legal_acceptance_6_fraud_amounts(data_dir: Path) -> None:
    """The tier of the largest sum in the facts predicts better than the charge: RMSE at most 25 against about 40."""
    fraud = [row for row in _cases(data_dir, "laic") if row["caseCause"] == "诈骗罪"]
    terms = [float(row["judge"]) for row in fraud]
    by_amount = [amount_tier(row["justice"], CHARGES["诈骗罪"].amounts) for row in fraud]
    rule = np.mean([_four(terms, predict_by_group(by_amount, terms, seed=s))[1] for s in range(20)])
    alone = np.mean([_four(terms, predict_by_group(["诈骗罪"] * len(fraud), terms, seed=s))[1] for s in range(20)])
    assert rule <= 25 and alone > 38


def test_lawbench_reads_as_its_script_does() -> None:
    assert lawbench_term("[刑期]十二个月<eoa>") == 12 and lawbench_term("[刑期]3年6个月") == 6
    assert lawbench_term("有期徒刑三年") == 36 and lawbench_term("不知道") is None
    assert lawbench_articles("刑法第264条、刑法第六十七条") == [264, 67]
    assert lawbench_articles("刑法第六十七条第一款") == []  # its script deletes from the first 第 to 款
    assert named_charges("构成盗窃、侮辱尸体罪", ["盗窃", "盗窃、侮辱尸体", "诈骗"]) == ["盗窃", "盗窃、侮辱尸体"]


@pytest.mark.data
def test_lawbench_published_scores(data_dir: Path) -> None:
    """GPT-4's answers are stored whole: all four tasks give the published score, to the last printed digit."""
    folder = data_dir / "legal/lawbench"
    tasks = {
        "3-1": "3-1_article_prediction",
        "3-3": "3-3_charge_prediction",
        "3-4": "3-4_prison_term_no_article_text",
        "3-5": "3-5_prison_term_with_article_text",
    }
    with (folder / "results_zero_shot.csv").open(encoding="utf-8") as lines:
        published = {r["task"]: float(r["score"]) for r in csv.DictReader(lines) if r["model_name"] == "GPT4"}
    labels = (data_dir / "legal/cail2018_labels/accu.txt").read_text(encoding="utf-8")
    names = labels.replace("[", "").replace("]", "").split()
    answers: dict[str, dict[int, str]] = {task: {} for task in tasks}
    for _, row in rows(folder / "predictions_10models.jsonl.gz"):
        if row["model"] == "GPT4":
            answers[row["task"]][int(row["idx"])] = row["prediction"]
    for task, name in tasks.items():
        with gzip.open(folder / f"{name}.json.gz", "rt", encoding="utf-8") as text:
            gold = [row["answer"] for row in json.load(text)]
        said = [answers[task][k] for k in range(len(gold))]
        if task == "3-1":
            true = [[int(a) for a in g.removeprefix("法条:刑法第").removesuffix("条").split("、")] for g in gold]
            score = float(np.mean([lawbench_f1(t, lawbench_articles(s)) for t, s in zip(true, said, strict=True)]))
        elif task == "3-3":
            charges = [g.removeprefix("罪名:").split(";") for g in gold]
            found = [named_charges(s, names) for s in said]
            score = float(np.mean([lawbench_f1(t, f) for t, f in zip(charges, found, strict=True)]))
        else:
            terms = [LIFE if "刑期:无期" in g or "死刑" in g else int(g[3:-2]) for g in gold]
            score = lawbench_score(terms, [lawbench_term(s) for s in said])
        assert score == pytest.approx(published[task], abs=1e-6), task


DOCUMENT = (
    "经审理查明，被告人某甲盗窃。本院认为，被告人某甲构成盗窃罪。依照《中华人民共和国刑法》第二百六十四条、第六十七条第三款、"
    "第一百三十三条之一的规定，判决如下：被告人某甲犯盗窃罪，判处有期徒刑一年二个月，并处罚金人民币三千元。"
    "如不服本判决，可在接到判决书的第二日起十日内提出上诉。"
)


def test_a_judgment_is_read() -> None:
    read = read_judgment(DOCUMENT)
    assert read.charges == {"盗窃罪"} and read.articles == {"264", "67", "133"}
    assert (read.term, read.fine) == (14, 3_000)
    assert read.reasoning.startswith("本院认为") and read.decision.endswith("三千元。")
    assert set(judge_scores([DOCUMENT], [DOCUMENT]).values()) == {1.0}
    half = judge_scores([DOCUMENT], [DOCUMENT.replace("一年二个月", "七个月").replace("第六十七条第三款、", "")])
    assert half["term"] == 0.5 and half["articles_recall"] == pytest.approx(2 / 3) and half["articles_precision"] == 1
    with pytest.raises(DataError, match="1 true and 0 written"):
        judge_scores([DOCUMENT], [])


@pytest.mark.data
def test_judge_documents_are_read(data_dir: Path) -> None:
    """All 501 have their reasons and a decision; nearly all a term; the articles are those of the data set."""
    documents = [row for _, row in rows(data_dir / "legal/judge/judge_test.jsonl.gz")]
    read = [read_judgment(row["document"]) for row in documents]
    assert len(read) == 501 and all(r.reasoning.startswith("本院认为") and r.decision for r in read)
    assert sum(r.term is not None for r in read) >= 495
    same = [
        set_f1([str(a) for a in row["articles"]], sorted(r.articles))[2] for row, r in zip(documents, read, strict=True)
    ]
    assert np.mean(same) > 0.97


def test_text_scores_by_hand() -> None:
    """Characters as words. 甲乙丙丁 against 甲乙丙戊: 3 of 4 single, 2 of 3 pairs, longest common 3 of 4."""
    true, written = ["甲乙丙丁"], ["甲乙丙戊"]
    found = text_scores.rouge(true, written, text_scores.characters)
    assert found["rouge_1"].value == pytest.approx(0.75, abs=1e-6)
    assert found["rouge_2"].value == pytest.approx(2 / 3, abs=1e-6)
    assert found["rouge_l"].value == pytest.approx(0.75, abs=1e-6)
    scores = text_scores.bleu(true, written, text_scores.characters)
    assert scores["bleu_1"] == pytest.approx(0.75) and scores["bleu_2"] == pytest.approx(math.sqrt(0.75 * 2 / 3))
    # METEOR: P = R = 3/4, F = 3/4; one chunk of three matches: penalty 0.5 (1/3)^3
    assert text_scores.meteor(true, written, text_scores.characters).value == pytest.approx(0.75 * (1 - 0.5 / 27))


def test_short_texts_count_nothing_and_jieba_cuts_words() -> None:
    found = text_scores.rouge(["甲乙丙", "甲乙"], ["", "甲乙"], text_scores.characters)
    assert found["rouge_1"].value == pytest.approx(0.5, abs=1e-6)
    assert text_scores.jieba_words("被告人盗窃 公私财物")[:2] == ["被告人", "盗窃"]


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random BERT of two layers with a tokenizer of characters, saved as anyone's encoder would be."""
    import torch
    from transformers import BertConfig, BertModel, BertTokenizerFast

    folder = tmp_path_factory.mktemp("bert")
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *sorted(set("被告人骗取钱财数额巨大构成诈盗窃罪。"))]
    tokenizer = BertTokenizerFast(vocab={piece: k for k, piece in enumerate(pieces)})
    shape = BertConfig(vocab_size=len(pieces), hidden_size=32, num_hidden_layers=2, num_attention_heads=2,
                       intermediate_size=64, initializer_range=0.3)  # fmt: skip
    torch.manual_seed(0)
    BertModel(shape).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def greedy_matching(true: str, written: str, folder: Path, layer: int) -> float:
    """BERTScore F1 token by token, in plain Python: each character's best cosine in the other text, [CLS] and [SEP]
    among the candidates.
    """
    import torch
    from transformers import BertModel, BertTokenizerFast

    model, tokenizer = BertModel.from_pretrained(folder).eval(), BertTokenizerFast.from_pretrained(folder)

    def states(text: str) -> list[list[float]]:
        with torch.no_grad():
            found = model(**tokenizer(text, return_tensors="pt"), output_hidden_states=True)
        return found.hidden_states[layer][0].tolist()

    def cosine(a: list[float], b: list[float]) -> float:
        dot = sum(x * y for x, y in zip(a, b, strict=True))
        return dot / math.sqrt(sum(x * x for x in a)) / math.sqrt(sum(y * y for y in b))

    def mean_best(these: list[list[float]], those: list[list[float]]) -> float:
        best = [max(cosine(a, b) for b in those) for a in these[1:-1]]
        return sum(best) / len(best)

    t, w = states(true), states(written)
    recall, precision = mean_best(t, w), mean_best(w, t)
    return 2 * precision * recall / (precision + recall)


@pytest.mark.parametrize("layer", [-1, 1], ids=["last", "first"])
def test_bert_score_with_a_real_encoder(bert: Path, layer: int) -> None:
    """Loaded from its folder without a hub; an empty text scores 0, a text itself 1."""
    true, written = ["被告人骗取钱财，数额巨大。", "构成盗窃罪。"], ["被告人盗窃。", "数额巨大，构成诈骗罪。"]
    by_hand = [greedy_matching(t, w, bert, layer) for t, w in zip(true, written, strict=True)]
    assert min(by_hand) > 0.2 and max(by_hand) < 0.99
    found = text_scores.bert_score(true, written, bert, layer=layer)
    assert found.value == pytest.approx(sum(by_hand) / 2, abs=1e-5)
    assert text_scores.bert_score([true[0]] * 2, [true[0], ""], str(bert)).value == pytest.approx(0.5, abs=1e-6)


def test_bert_score_refuses_what_it_cannot_read(bert: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="layer 8: the encoder has states 0 to 2"):
        text_scores.bert_score(["盗窃"], ["诈骗"], bert, layer=8)
    with pytest.raises(CheckpointError, match="cannot load the model at"):
        text_scores.bert_score(["盗窃"], ["诈骗"], tmp_path / "none")
