"""Evidence that is fit to learn from: filters by a real NLI model, and by what a model answers from one context."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
import torch

from launch.errors import ConfigError
from launch.generate import HFGenerator
from launch.models import load_causal_lm, load_tokenizer
from reasoning.conflict import Context, build_instance
from reasoning.conflict.feed import DataOptions, of_file
from reasoning.conflict.quality import PIECE, claim, entailment, keep_entailed, keep_reproduced
from reasoning.conflict.sources import conflictqa
from tests.reasoning.test_conflict_answering import Script
from tests.reasoning.test_conflict_extractors import words

CONFLICTQA = Path(__file__).parents[1] / "fixtures" / "conflict" / "conflictqa.jsonl"
LABELS = ("contradiction", "neutral", "entailment")
OSLO = "ann, who follows bob, ran. bob, at home in oslo, ran."
ROME = "ann, at home in rome, ran."
CASE = build_instance(
    "where is ann?", [Context(OSLO, "oslo", True), Context(ROME, "rome", False), Context("ran", "", False)], ["oslo"]
)


@pytest.fixture(scope="module")
def nli(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random BERT of one layer; its chances are no judgement, and differ from pair to pair."""
    return write_nli(tmp_path_factory.mktemp("nli"), LABELS)


def write_nli(folder: Path, labels: tuple[str, ...]) -> Path:
    from transformers import BertConfig, BertForSequenceClassification

    tokenizer = words(["<pad>", "<unk>", "</s>"], [])
    torch.manual_seed(0)
    shape = BertConfig(vocab_size=len(tokenizer), hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
                       intermediate_size=32, initializer_range=1.0, id2label=dict(enumerate(labels)),
                       label2id={name: i for i, name in enumerate(labels)})  # fmt: skip
    BertForSequenceClassification(shape).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def test_chances_are_those_of_each_pair_alone(nli: Path) -> None:
    """Softmax over the labels at "entailment", whatever else is in the batch; 20 pairs are two batches."""
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    pairs = [(OSLO, "ann at home in oslo"), (ROME, "bob ran"), ("ran", OSLO)] * 7
    tokenizer, model = AutoTokenizer.from_pretrained(nli), AutoModelForSequenceClassification.from_pretrained(nli)
    alone = [model(**tokenizer(*pair, return_tensors="pt")).logits.softmax(-1)[0, 2].item() for pair in pairs]
    assert entailment(str(nli))(pairs) == pytest.approx(alone, abs=1e-5)
    assert len({round(chance, 3) for chance in alone}) == 3
    assert entailment(str(nli))([]) == []


def test_one_context_that_does_not_entail_its_claim_costs_the_conflict() -> None:
    """Each context is asked about its own answer; what answers nothing is not asked; .5 is enough."""
    asked: list[tuple[str, str]] = []

    def entails(pairs: list[tuple[str, str]]) -> list[float]:
        asked.extend(pairs)
        return [0.5 if "oslo" in premise else 0.4 for premise, _ in pairs]

    skipped: Counter[str] = Counter()
    assert list(keep_entailed([CASE], entails, 0.5, skipped)) == []
    assert skipped == {"evidence does not entail its claim": 1}
    assert asked == [(OSLO, "where is ann? oslo."), (ROME, "where is ann? rome.")]
    assert list(keep_entailed([CASE], entails, 0.4)) == [CASE]


def test_long_evidence_counts_by_its_surest_piece() -> None:
    """The sentence that entails stands behind more words than are judged at once, for one context alone."""
    long = build_instance(
        "q?", [Context("ran " * PIECE + "oslo", "oslo", True), Context("ran", "rome", False)], ["oslo"]
    )
    assert list(keep_entailed([long], lambda pairs: [float("oslo" in p) for p, _ in pairs])) == []
    assert list(keep_entailed([long], lambda pairs: [float(p == "oslo" or "rome" in c) for p, c in pairs])) == [long]


def test_claims_are_conflictqas_own_or_made_of_question_and_answer() -> None:
    first = next(iter(conflictqa(CONFLICTQA)))
    told = [claim(first, c) for c in first.contexts]
    assert told == [first.meta["claims"][c.source] for c in first.contexts] and len(set(told)) == 2
    turned = first.reordered([1, 0])
    assert [claim(turned, c) for c in turned.contexts] == told[::-1]
    boolean = build_instance("did ann run?", [Context("ran", "True", True), Context("sat", "False", False)], ["True"])
    assert [claim(boolean, c) for c in boolean.contexts] == ["did ann run? Yes.", "did ann run? No."]


def test_the_filter_is_an_option_of_the_data_and_counts_what_it_leaves_out(nli: Path, tmp_path: Path) -> None:
    """At a chance of 0 all stay, at 1 none, and in between those that the model itself says."""
    cases = [build_instance(f"where is ann, {n}?", CASE.contexts, ["oslo"]) for n in range(40)]
    file = tmp_path / "cases.jsonl"
    file.write_text("".join(case.to_json() + "\n" for case in cases))
    everything = of_file(DataOptions(path=str(file), entailment=str(nli), least_entailment=0.0), seed=0)
    assert len(everything.train) + len(everything.test) == 40
    mixed = tmp_path / "mixed.jsonl"
    swapped = [build_instance(c.question + " or", c.contexts[1:2], ["rome"]) for c in cases]
    mixed.write_text("".join(case.to_json() + "\n" for case in (*cases, *swapped)))
    chances = entailment(str(nli))([(c.text, claim(i, c)) for i in (cases[0], swapped[0]) for c in i.contexts[:2]])
    assert min(chances[:2]) < chances[2]
    between = (min(chances[:2]) + chances[2]) / 2
    some = of_file(DataOptions(path=str(mixed), entailment=str(nli), least_entailment=between), seed=0)
    assert len(some.train) + len(some.test) == 40 and some.odd["evidence does not entail its claim"] == 40


def test_answers_must_be_reproduced_from_each_context_alone(tiny_llama: Path) -> None:
    right = ["<answer>Oslo</answer>", "<answer>rome</answer>"]
    assert list(keep_reproduced([CASE], Script(*right))) == [CASE]
    skipped: Counter[str] = Counter()
    assert list(keep_reproduced([CASE], Script(right[0], "<answer>oslo</answer>"), skipped)) == []
    assert skipped == {"answer not reproduced": 1}
    babbling = HFGenerator(load_causal_lm(tiny_llama), load_tokenizer(tiny_llama))
    short = build_instance("q", [Context("a", "oslo", True)], ["oslo"])
    assert list(keep_reproduced([short], babbling, skipped, chat=False, max_new_tokens=4)) == []


def test_models_that_judge_nothing_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be loaded"):
        entailment(str(tmp_path / "none"))
    with pytest.raises(ConfigError, match="labels a, b; one must be entailment"):
        entailment(str(write_nli(tmp_path / "other", ("a", "b"))))
    with pytest.raises(ConfigError, match="least_entailment 2: give a chance"):
        DataOptions(least_entailment=2)
