"""Extractors made of real models, taught in a second to see what the rules cannot."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from launch.errors import ConfigError
from reasoning.conflict import Context, Instance, build_instance, extract_paths, kcr_reward, resolve, with_paths
from reasoning.conflict.completion import build_prompt
from reasoning.conflict.extract import make_extractor
from reasoning.conflict.extract_models import links
from reasoning.conflict.feed import DataOptions, of_file, training_rows
from reasoning.conflict.text import split_words

PEOPLE, TOWNS = ("ann", "bob", "cleo", "dan"), ("oslo", "rome", "lima")
QUESTION = "where is the teacher of ann at home?"
TEXT = "ann, who follows bob, ran. bob, at home in oslo, ran."
"""Without capitals the rules see no name but those they are told, and with commas no pattern."""


def words(special: list[str], marks: list[str]) -> Any:
    """A tokenizer of whole words over the little language of these tests."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    others = sorted(split_words("where is the teacher of at home ? . , who follows ran in"))
    known = [*special, *marks, *PEOPLE, *TOWNS, *others]
    inner = Tokenizer(models.WordLevel({word: i for i, word in enumerate(known)}, unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    made = PreTrainedTokenizerFast(tokenizer_object=inner, pad_token="<pad>", unk_token="<unk>", eos_token="</s>")
    made.add_special_tokens({"additional_special_tokens": marks})
    return made


def taught(model: Any, batch: dict[str, torch.Tensor], steps: int) -> Any:
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(steps):
        optimizer.zero_grad()
        model(**batch).loss.backward()
        optimizer.step()
    return model


@pytest.fixture(scope="module")
def ner(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BERT of one layer that calls people and towns names."""
    from transformers import BertConfig, BertForTokenClassification

    folder = tmp_path_factory.mktemp("ner")
    tokenizer = words(["<pad>", "<unk>", "</s>"], [])
    labels = {0: "O", 1: "B-PER", 2: "B-LOC"}
    torch.manual_seed(0)
    shape = BertConfig(vocab_size=len(tokenizer), hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
                       intermediate_size=32, id2label=labels, label2id={v: k for k, v in labels.items()})  # fmt: skip
    read = [TEXT, QUESTION, "dan, who follows cleo, ran. cleo, at home in rome, ran.", "is lima the home of dan?"]
    batch = tokenizer(read, padding=True, return_tensors="pt")
    known = tokenizer.convert_ids_to_tokens(range(len(tokenizer)))
    kinds = [1 if word in PEOPLE else 2 if word in TOWNS else 0 for word in known]
    wanted = torch.tensor(kinds)[batch["input_ids"]]
    taught(BertForTokenClassification(shape), {**batch, "labels": wanted}, 60).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def rebel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A T5 of one layer that writes who teaches whom, and, about rome alone, a name that is not there."""
    from transformers import T5Config, T5ForConditionalGeneration

    folder = tmp_path_factory.mktemp("rebel")
    tokenizer = words(["<pad>", "<unk>", "</s>"], ["<triplet>", "<subj>", "<obj>"])
    torch.manual_seed(0)
    shape = T5Config(vocab_size=len(tokenizer), d_model=32, d_kv=16, d_ff=64, num_layers=1, num_heads=2,
                     dropout_rate=0.0, pad_token_id=0, eos_token_id=2, decoder_start_token_id=0)  # fmt: skip
    said = {
        "ann, who follows bob, ran.": "<triplet> ann <subj> bob <obj> teacher </s>",
        "bob, at home in oslo, ran.": "<triplet> bob <subj> oslo <obj> home </s>",
        "cleo, at home in rome, ran.": "<triplet> cleo <subj> lima <obj> home </s>",
    }
    batch = tokenizer(list(said), padding=True, return_tensors="pt")
    target = tokenizer(list(said.values()), padding=True, return_tensors="pt")["input_ids"]
    target[target == 0] = -100
    inputs = {name: batch[name] for name in ("input_ids", "attention_mask")}
    taught(T5ForConditionalGeneration(shape), {**inputs, "labels": target}, 60).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def test_names_by_a_model_are_those_of_its_pipeline(ner: Path) -> None:
    """Sentence by sentence, where they stand; the rules see nothing, and find no chain."""
    from transformers import pipeline

    extractor = make_extractor(f"ner:{ner}")
    found = extractor.mentions(TEXT)
    alone = pipeline("token-classification", model=str(ner), aggregation_strategy="simple")
    first, second = TEXT[:26], TEXT[27:]
    expected = [(e["start"], e["end"], 0) for e in alone(first)] + [
        (e["start"] + 27, e["end"] + 27, 1) for e in alone(second)
    ]
    assert [(m.start, m.end, m.sentence) for m in found] == expected
    assert [m.name for m in found] == ["ann", "bob", "bob", "oslo"]
    assert all(TEXT[m.start : m.end] == m.name for m in found)
    assert extract_paths(QUESTION, TEXT, "oslo").kind == "text"
    got = extract_paths(QUESTION, TEXT, "oslo", extractor=extractor)
    assert [p.entities for p in got.paths] == [("ann", "bob", "oslo")]


def test_known_names_come_before_the_models(ner: Path) -> None:
    """An answer of two words keeps both, although the model sees a name in one of them."""
    extractor = make_extractor(f"ner:{ner}")
    text = "ann, who follows bob the teacher, ran. " * 2
    assert [m.name for m in extractor.mentions(text, ["bob the teacher"])] == ["ann", "bob the teacher"] * 2
    assert extractor.mentions("") == []


def test_links_by_a_model_are_asserted_and_grounded(ner: Path, rebel: Path) -> None:
    """Beside the rules' links; the one to lima, which its sentence does not name, is left out."""
    extractor = make_extractor(f"ner:{ner} re:{rebel}")
    text = f"{TEXT} cleo, at home in rome, ran."
    triples = extractor.triples(text, extractor.mentions(text))
    asserted = [t for t in triples if not t.cooccurrence]
    assert [t[:4] for t in asserted] == [("ann", "teacher", "bob", 0), ("bob", "home", "oslo", 1)]
    assert {("cleo", "rome"), ("ann", "bob")} <= {(t.head, t.tail) for t in triples if t.cooccurrence}
    got = extract_paths(QUESTION, text, "oslo", extractor=extractor)
    assert got.render("graph") == "(ann | teacher | bob) (bob | home | oslo)" and got.confidence == 1.0
    assert make_extractor(f"re:{rebel}").mentions("Ann left.")[0].name == "Ann"
    decided = resolve(
        QUESTION,
        [TEXT, "ann, who follows bob, ran. cleo, at home in rome, ran."],
        ["oslo", "rome"],
        extractor=extractor,
    )
    assert (decided["answer"], decided["followed"]) == ("oslo", 0)


def test_paths_stored_by_an_extractor_are_what_prompts_and_rewards_use(ner: Path) -> None:
    """The chain is stated and cited; without stored paths the rules find none and see no logic in it."""
    contexts = [Context(TEXT, "oslo", True), Context("ann ran. cleo, at home in rome, ran.", "rome", False)]
    bare = build_instance(QUESTION, contexts, ["oslo"])
    stored = with_paths(bare, make_extractor(f"ner:{ner}"))
    assert Instance.from_json(stored.to_json()) == stored and stored.contexts[1].paths.kind == "text"
    assert "(ann | who follows | bob) (bob | at home in | oslo)" in build_prompt(stored)
    trace = "[Context 1] ann, as is said, follows bob. [Context 1] bob is at home in oslo. So the answer is oslo."
    parts = kcr_reward(f"<think>{trace}</think><answer>oslo</answer>", stored)
    assert parts["support_true"] == 1.0 and parts["total"] == pytest.approx(2.1)


def test_the_extractor_is_an_option_of_the_data(ner: Path, tmp_path: Path) -> None:
    """Prompts and instances carry its chains, which the rules do not see; a wrong name costs no reading."""
    contexts = (Context(TEXT, "oslo", True), Context(TEXT.replace("oslo", "rome"), "rome", False))
    cases = [build_instance(f"{QUESTION} {n}", contexts, ["oslo"]) for n in range(30)]
    (tmp_path / "cases.jsonl").write_text("".join(case.to_json() + "\n" for case in cases))
    path = str(tmp_path / "cases.jsonl")
    by_model = of_file(DataOptions(path=path, extractor=f"ner:{ner}"), seed=0)
    extractor = make_extractor(f"ner:{ner}")
    for row in (*by_model.train, *by_model.test):
        read = Instance.from_json(row["instance"])
        assert read == with_paths(read, extractor) and read.contexts[0].paths.kind == "graph"
        assert "(ann |" in row["prompt"][0]["content"]
    by_rules = of_file(DataOptions(path=path), seed=0)
    assert training_rows(DataOptions(path=path), seed=0) == len(by_rules.train)
    assert all("(ann |" not in row["prompt"][0]["content"] for row in by_rules.train)
    with pytest.raises(ConfigError, match="unknown extractor 'spacey'"):
        of_file(DataOptions(path="nowhere.jsonl", extractor="spacey"), seed=0)


def test_rebels_form_is_read_by_hand() -> None:
    """Two tails share a head; what lacks a part is left out."""
    text = "<s><triplet> Punta Cana <subj> Dominican Republic <obj> country <subj> La Altagracia <obj> part of"
    assert links(f"{text} <triplet> Bob <subj> Oslo</s><pad>") == [
        ("Punta Cana", "country", "Dominican Republic"),
        ("Punta Cana", "part of", "La Altagracia"),
    ]
    assert links("") == links("no mark at all") == links("<obj> a <subj> b <triplet> c") == []


def test_a_model_of_another_kind_is_refused(tmp_path: Path) -> None:
    for kind in ("ner", "re"):
        with pytest.raises(ConfigError, match=f"extractor {kind}:.*cannot be loaded .*; give a local folder"):
            make_extractor(f"{kind}:{tmp_path / 'nothing'}")
