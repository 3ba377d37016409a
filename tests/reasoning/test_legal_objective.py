"""The two losses by hand, what is masked, what is selected, and sentence clauses that always parse."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from transformers import LlamaConfig

from launch.contracts import Sampling
from launch.errors import CheckpointError, DataError
from launch.models import apply_lora, tiny_like
from launch.options import LoraOptions, TrainOptions
from launch.rendering import Renderer
from launch.runfolder import RunFolder
from launch.trainer import fit
from reasoning.legal.decoding import GREEDY, PUBLISHED, choose, clauses, write_opinions
from reasoning.legal.objective import OpinionObjective, encode_opinions
from reasoning.legal.opinion import COURT, WORLD, prompt_of, read_opinion, response_of
from reasoning.legal.selection import Selection
from tests.tiny import make_tokenizer


def decoder(seed: int = 0) -> Any:
    shape = LlamaConfig(bos_token_id=1, eos_token_id=2, pad_token_id=0, initializer_range=0.2)
    return tiny_like(shape, vocab=len(make_tokenizer()), seed=seed)


def row(fact: str = "某甲盗窃。", opinion: str = "数额较大。", months: int = 9) -> dict[str, Any]:
    response, clause = response_of(opinion, months)
    return {"prompt": prompt_of(fact, "none"), "response": response, "clause": clause, "months": months}


@pytest.fixture(scope="module")
def batch() -> Any:
    """Two cases of unequal length in one batch."""
    rows = [row(), row("某乙，两次。", "情节严重，从轻处罚。", 120)]
    return OpinionObjective().collate(encode_opinions(rows, Renderer(make_tokenizer())))


# ---------------------------------------------------------------- the losses


def test_legal_acceptance_4_fact_labels_do_not_count(batch: Any) -> None:
    """Whatever is written in the labels of facts, markers before the reasons, and padding, the loss is the same."""
    model, objective = decoder(), OpinionObjective()
    with torch.no_grad():
        expected = float(objective.loss(model, batch).total)
        other = torch.where(batch["written"], batch["labels"], torch.full_like(batch["labels"], 77))
        assert float(objective.loss(model, {**batch, "labels": other}).total) == expected
        at = batch["written"].nonzero()[0]
        changed = batch["labels"].clone()
        changed[tuple(at)] = 77
        assert float(objective.loss(model, {**batch, "labels": changed}).total) != expected


def test_legal_acceptance_4_the_clause_counts_in_both_losses(batch: Any) -> None:
    """L = mean over N completion tokens + w mean over M clause tokens, from full logits, case by case; and the slope of
    the loss in a clause token's log-probability is 1/N + w/M, in another's 1/N.
    """
    model = decoder()
    with torch.no_grad():
        positions = (batch["attention_mask"].long().cumsum(-1) - 1).clamp(min=0)
        logits = model(
            input_ids=batch["input_ids"], attention_mask=batch["attention_mask"].long(), position_ids=positions
        ).logits
        logp = logits[:, :-1].log_softmax(-1).gather(-1, batch["labels"][:, 1:, None]).squeeze(-1)
        for weight in (0.0, 1.0, 3.0):
            found = OpinionObjective(sentence=weight).loss(model, batch)
            expected = torch.zeros(())
            for k in range(2):
                written, clause = batch["written"][k, 1:], batch["clause"][k, 1:]
                assert bool((written & clause).equal(clause)) and int(written.sum()) > int(clause.sum())
                expected = expected - logp[k][written].mean() - weight * logp[k][clause].mean()
            assert float(found.total) == pytest.approx(float(expected), rel=1e-5)
            assert found.count == 2


def test_the_clause_is_found_by_offsets() -> None:
    """Bytes are tokens, three a character: 判处有期徒刑9个月。 is 10 characters, one of them one byte: 28 tokens."""
    tokenizer = make_tokenizer()
    [example] = encode_opinions([row()], Renderer(tokenizer))
    first, end = example["clause"]
    assert tokenizer.decode(example["ids"][first:end]) == "判处有期徒刑9个月。" and end - first == 28
    assert example["ids"][end:] == [tokenizer.eos_token_id]
    assert tokenizer.decode(example["ids"][: example["prompt_length"]]).endswith("某甲盗窃。判决理由：")


def test_a_token_across_the_border_is_part_of_the_clause() -> None:
    """A tokenizer that joins the marker's colon with 判: offsets find the token, a clause tokenised alone would not."""
    from tasks.worlds.typed import word_tokenizer

    pieces = [
        "<pad>",
        "<bos>",
        "<eos>",
        "<unk>",
        *sorted(set("某甲盗窃。判决理由：数额较大如下处有期徒刑9个月")),
        "：判",
    ]
    tokenizer = word_tokenizer(pieces, r"：判(?=处)|[\s\S]", 64)
    [example] = encode_opinions([row()], Renderer(tokenizer, 64))
    first, end = example["clause"]
    assert tokenizer.decode(example["ids"][first:end]) == "：判处有期徒刑9个月。"


def test_batches_of_one_weigh_as_one_of_two(batch: Any) -> None:
    model, objective = decoder(), OpinionObjective()
    rows = encode_opinions([row(), row("某乙，两次。", "情节严重，从轻处罚。", 120)], Renderer(make_tokenizer()))
    with torch.no_grad():
        apart = sum(float(objective.loss(model, objective.collate([r])).total) for r in rows)
        assert float(objective.loss(model, batch).total) == pytest.approx(apart, rel=1e-5)


def test_a_case_that_is_too_long_is_named() -> None:
    with pytest.raises(DataError, match=r"case 2: \d+ tokens, more than 256; cut facts or opinion"):
        encode_opinions([row(), row("某" * 100)], Renderer(make_tokenizer(), 256))
    with pytest.raises(DataError, match="no token of its response lies in the sentence clause 900 to 910"):
        encode_opinions([{**row(), "clause": [900, 910]}], Renderer(make_tokenizer()))


# ---------------------------------------------------------------- selection


OPTIONS: dict[str, Any] = {"learning_rate": 0.3, "batch_size": 2, "max_steps": 6, "eval_steps": 1, "save_steps": 1,
                           "schedule": "constant", "warmup_ratio": 0.0, "log_steps": 1}  # fmt: skip


class Kill(transformers.TrainerCallback):
    """Ends the fit when its fourth step begins."""

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.global_step == 3:
            raise KeyboardInterrupt


def selected(folder: Path, lora: LoraOptions | None, callbacks: Any = ()) -> tuple[Any, dict[str, Any], RunFolder]:
    """A fit at a rate that makes the loss jump, and the weights chosen in it."""
    options = TrainOptions(**OPTIONS, lora=lora)
    model: Any = decoder() if lora is None else apply_lora(decoder(), lora, (), 0)
    run = RunFolder(folder).open({}, 0)
    selection = Selection(model, run.path / "selected", "eval_sentence")
    rows = encode_opinions([row(), row(months=30)], Renderer(make_tokenizer()))
    fit(model, OpinionObjective(), rows, options=options, run=run, name="legal", seed=0, evaluate=rows,
        callbacks=[selection, *callbacks])  # fmt: skip
    return model, selection.restore(), run


@pytest.mark.parametrize("lora", [None, LoraOptions(rank=2)], ids=["full", "lora"])
def test_the_best_weights_are_chosen_and_survive_a_kill(tmp_path: Path, lora: LoraOptions | None) -> None:
    model, facts, run = selected(tmp_path / "whole", lora)
    seen = {r["step"]: r["eval_sentence"] for r in run.metrics() if "eval_sentence" in r}
    assert len(seen) == 6 and facts["eval_sentence"] == min(seen.values()) == seen[facts["step"]]
    rows = encode_opinions([row(), row(months=30)], Renderer(make_tokenizer()))
    objective = OpinionObjective()
    with torch.no_grad():
        again = objective.loss(model.eval(), objective.collate(rows)).metrics["sentence"] / 2
    assert float(again) == pytest.approx(facts["eval_sentence"], rel=1e-4)
    with pytest.raises(KeyboardInterrupt):
        selected(tmp_path / "killed", lora, [Kill()])
    other, told, _ = selected(tmp_path / "killed", lora)
    assert told == facts
    mine = {n: p for n, p in model.named_parameters() if p.requires_grad}
    assert all(torch.equal(p, mine[n]) for n, p in other.named_parameters() if p.requires_grad)


def test_nothing_selected_is_said(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="holds no selected weights; evaluate at least once"):
        Selection(decoder(), tmp_path, "eval_sentence").restore()


# ---------------------------------------------------------------- writing


def test_constrained_clauses_always_parse() -> None:
    """A random model's greedy text has no clause; constrained, every text ends in one of 0 to 300 months."""
    model, renderer = decoder(), Renderer(make_tokenizer())
    prompts = [prompt_of(f"案情{k}。", "none") for k in range(4)]
    sampling = Sampling(max_new_tokens=5, temperature=0.0)
    free = write_opinions(model, renderer, prompts, sampling=sampling)
    tied = write_opinions(model, renderer, prompts, sampling=sampling, constrained=True)
    assert all(read_opinion(text).months is None for text in free)
    assert all(read_opinion(text).months is not None for text in tied)
    assert tied == write_opinions(model, renderer, prompts, sampling=sampling, constrained=True, batch=1)


def test_published_sampling_is_greedy_but_for_its_penalty() -> None:
    """Of top-p 0.1 one token is left here at every step, so what is drawn is what the penalty alone would choose; and a
    constrained clause always parses.
    """
    model, renderer = decoder(), Renderer(make_tokenizer())
    prompts = [prompt_of(f"案情{k}。", "none") for k in range(3)]
    said = replace(PUBLISHED, max_new_tokens=24)
    assert (said.temperature, said.top_k, said.top_p, said.repetition_penalty) == (0.6, 5, 0.1, 1.176)
    drawn = write_opinions(model, renderer, prompts, sampling=said)
    assert drawn == write_opinions(model, renderer, prompts, sampling=replace(said, temperature=0.0))
    assert drawn != write_opinions(model, renderer, prompts, sampling=replace(GREEDY, max_new_tokens=24))
    tied = write_opinions(model, renderer, prompts, sampling=said, constrained=True)
    assert all(read_opinion(text).months is not None for text in tied)


@pytest.mark.parametrize("form", [COURT, WORLD["en"]], ids=["court", "world"])
def test_the_constraint_changes_nothing_that_parses(form: Any) -> None:
    """A model whose greedy clause is in the set writes the same one under the constraint: a table stands for it, that
    likes one term's own tokens best at every step.
    """
    tokenizer = make_tokenizer()
    tails = clauses(tokenizer, form)
    assert len(tails) == 301 and len({tuple(t) for t in tails}) == 301

    class Likes(torch.nn.Module):
        """Puts all weight on the token that follows in `wanted`, whatever the prompt."""

        def __init__(self, wanted: list[int], start: int) -> None:
            super().__init__()
            self.wanted, self.start, self.own = wanted, start, torch.nn.Parameter(torch.zeros(1))

        def forward(self, input_ids: Any, attention_mask: Any, **_: Any) -> Any:
            logits = torch.zeros(len(input_ids), 1, len(tokenizer))
            for k, length in enumerate(attention_mask.sum(-1).tolist()):
                logits[k, 0, self.wanted[length - self.start]] = 1.0
            return type("Output", (), {"logits": logits})()

    for months in (0, 3, 30, 300, 27):
        assert choose(Likes(tails[months], 2), [[1, 9], [1, 9]], tails) == [months, months]
    none = Likes([tokenizer.eos_token_id] * 99, 2)  # likes what is not allowed: the first allowed token, at every step
    assert choose(none, [[1, 9]], tails) == [0]


def test_a_written_opinion_carries_what_it_rests_on() -> None:
    """From a random model: a clause that parses, the article of the charge, masked names, and the notice."""
    from reasoning.legal.decoding import NOTICE, generate_opinion

    found = generate_opinion(
        decoder(), Renderer(make_tokenizer()), "被告人赵一二骗取人民币五万元。", "诈骗", law="none"
    )
    assert found["months"] is not None and found["check"] is not None and found["notice"] == NOTICE
    assert found["check"]["citations"][0] == "266" and found["check"]["range"] == "36-120 months"
    with pytest.raises(DataError, match="no legal chains for the charge '放火罪'"):
        generate_opinion(decoder(), Renderer(make_tokenizer()), "事实。", "放火罪", law="none")
    with pytest.raises(DataError, match="a case without facts"):
        generate_opinion(decoder(), Renderer(make_tokenizer()), "", "诈骗", law="none")


def test_opinions_are_read_back() -> None:
    text, clause = response_of("构成盗窃罪。", 36, chain=2)
    assert text == "构成盗窃罪。（依据法律链2）判决如下：判处有期徒刑36个月。"
    assert text[slice(*clause)] == "判处有期徒刑36个月。"
    said = read_opinion(text)
    assert (said.rationale, said.months, said.chain) == ("构成盗窃罪。（依据法律链2）", 36, 2)
    assert read_opinion("判决如下：判处有期徒刑301个月。").months is None
    assert read_opinion("") == ("", None, None)
    assert read_opinion("<think> x </think> <answer> 12 months </answer>", WORLD["en"]).months == 12
    with pytest.raises(DataError, match="a term of 301 months"):
        response_of("", 301)
    with pytest.raises(DataError, match="a case without facts"):
        prompt_of(" ", "none")
    with pytest.raises(DataError, match="no chains to list"):
        prompt_of("事实", "text")
    listed = prompt_of("事实", "text", lines=["甲 -> 乙 -> 处拘役"])
    assert listed.startswith("法律链：\n1. 甲 -> 乙 -> 处拘役\n案情：事实") and listed.endswith("判决理由：")
    assert prompt_of("a<|soft:theft|>b", "none") == "a:theft|>b判决理由："
