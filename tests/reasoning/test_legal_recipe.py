"""The legal recipes from nothing to a card: right chains against shuffled ones, real cases in small, GRPO."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from transformers import Qwen2Config

from benchmarks import legal_grpo
from launch import checkpoint, config
from launch.contracts import Result, Sampling
from launch.errors import ConfigError, DataError
from launch.models import load_tokenizer, tiny_like
from launch.runfolder import RunFolder
from reasoning.legal.cases import read_cases
from reasoning.legal.decoding import write_opinions
from reasoning.legal.encoder import ChainModel
from reasoning.legal.feed import DataOptions, of_file, of_world, rests_on
from reasoning.legal.names import mask_names
from reasoning.legal.opinion import WORLD
from tasks.worlds.cases import CasesWorld
from tests.tiny import make_tokenizer

QUICK = ["base.layers=2", "base.train.max_steps=150", "train.max_steps=150", "held_out=200"]
"""Overrides of configs/reasoning/legal_cases.yaml: enough to see that chains are read, not to read them well."""


def run(name: str, folder: Path, *said: str) -> tuple[Any, Result]:
    loaded = config.load(f"reasoning/{name}", [f"run.folder={folder}", *said])
    return loaded, loaded.recipe.main(loaded.config)


@pytest.fixture(scope="module")
def world_runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Any, Result]]:
    """Both laws from one small decoder, on charges that training has not seen."""
    home = tmp_path_factory.mktemp("legal")
    return {
        law: run("legal_cases", home / law, f"law={law}", f"base.cache={home}", *QUICK) for law in ("soft", "shuffled")
    }


def test_legal_acceptance_7_right_chains_beat_shuffled_ones(world_runs: Any) -> None:
    """Loss of the sentence clause on new charges, where only the chains tell the law: a nat is a factor of 2.7 in the
    probability of the right term.
    """
    own, other = (world_runs[law][1].metrics for law in ("soft", "shuffled"))
    assert own["loss_clause"] < other["loss_clause"] - 0.15
    assert own["right"] > other["right"]
    assert own["parse_rate"] > 0.99


def test_a_run_given_again_computes_nothing(world_runs: Any) -> None:
    loaded, result = world_runs["soft"]
    before = len(RunFolder(result.folder).timings())
    assert loaded.recipe.main(loaded.config).metrics == result.metrics
    assert {row["stage"] for row in RunFolder(result.folder).timings()[before:]} <= {"small decoder"}


def test_what_is_saved_reads_chains_and_says_what_it_is_not_for(world_runs: Any) -> None:
    _, result = world_runs["soft"]
    model = ChainModel.from_pretrained(result.folder / "model").eval()
    assert len(model.spans) == 120 and model.encode("taking boats").shape == (3, 96)
    card = (result.folder / "model" / "README.md").read_text(encoding="utf-8")
    assert "Not for deciding cases" in card and f"| mae | {result.metrics['mae']:.3f} |" in card
    told = json.loads((result.folder / "artifacts" / "legal-evaluation.json").read_text())
    assert told["trivial"]["charge median"]["mae"] > 0 and told["law"] == "soft"
    sample = RunFolder(result.folder).path / "samples" / "0-opinions.jsonl"
    shown = json.loads(sample.read_text().split("\n")[0])
    assert {"charge", "response", "months", "read"} <= set(shown) and len(shown["chains"]) == 3
    assert all(line.startswith(f"{shown['charge']} -> ") for line in shown["chains"])


def test_the_constraint_changes_no_clause_that_a_trained_model_writes(world_runs: Any) -> None:
    loaded, result = world_runs["soft"]
    model = ChainModel.from_pretrained(result.folder / "model").eval()
    renderer = model.renderer(load_tokenizer(result.folder / "model"), 192)
    rows = of_world(loaded.config.world, "soft", loaded.config.data, 24).test
    greedy = Sampling(max_new_tokens=32, temperature=0.0)
    texts = [
        write_opinions(model, renderer, [r["prompt"] for r in rows], form=WORLD["en"], sampling=greedy, constrained=c)
        for c in (False, True)
    ]
    assert texts[0] == texts[1] and len(set(texts[0])) > 3


# ---------------------------------------------------------------- real cases in small


def case(charge: str, fact: str, opinion: str, months: int) -> dict[str, str]:
    return {"caseCause": charge, "justice": fact, "opinion": opinion, "judge": str(months), "filename": fact}


FRAUD = ((1, "较大", 12), (2, "较大", 18), (4, "巨大", 40), (6, "巨大", 60), (60, "特别巨大", 130))
CASES = [
    *(case("诈骗罪", f"被告人赵一二骗取人民币{k}万元。", f"赵一二数额{tier}，构成诈骗罪。", m) for k, tier, m in FRAUD),
    *(case("抢劫罪", f"被告人王五持刀抢劫{k}次。", "以暴力抢劫，构成抢劫罪。", 48) for k in range(7)),
]


@pytest.fixture
def cases(tmp_path: Path) -> Path:
    file = tmp_path / "cases.jsonl"
    rows = [*CASES, {**CASES[0], "opinion": "未知"}, {**CASES[0], "judge": "-1"}]
    file.write_text("\n".join(json.dumps(row, ensure_ascii=False) for row in rows), encoding="utf-8")
    return file


def test_cases_are_read_masked_and_counted(cases: Path) -> None:
    from collections import Counter

    skipped: Counter[str] = Counter()
    found = read_cases(cases, "opinions", skipped)
    assert len(found) == 12 and skipped == {"no opinion": 1, "no fixed term": 1}
    assert found[0].fact == "被告人赵某骗取人民币1万元。" and "赵一二" not in found[0].opinion
    feed = of_file("text", DataOptions(str(cases), "opinions", test=4), 0)
    assert (len(feed.train), len(feed.validation), len(feed.test)) == (7, 1, 4)
    huge = next(r for r in [*feed.train, *feed.validation, *feed.test] if r["months"] == 60)
    assert "依据法律链2）" in huge["response"] and "\n2. 诈骗公私财物 -> 数额巨大 OR 其他严重情节 -> " in huge["prompt"]
    assert feed.consistent(huge, huge["response"]) is True
    assert feed.consistent(huge, huge["response"].replace("60个月", "30个月")) is False
    assert feed.consistent(huge, "没有判决") is False


def test_shuffled_chains_are_of_another_charge_and_the_same_every_time(cases: Path) -> None:
    options = DataOptions(str(cases), "opinions", test=4)
    feeds = [of_file("shuffled", options) for _ in range(2)]
    assert feeds[0].train == feeds[1].train
    assert all(f"<|soft:{r['charge']}|>" not in r["prompt"] for r in feeds[0].train)
    assert [r["response"] for r in feeds[0].train] == [r["response"] for r in of_file("soft", options).train]
    world = CasesWorld(train=40, test=40)
    rows = of_world(world, "shuffled", DataOptions()).test
    assert all(r["prompt"].startswith("<|soft:") and f"<|soft:{r['charge']}|>" not in r["prompt"] for r in rows)


def test_charges_without_chains_bring_their_statute(tmp_path: Path) -> None:
    document = "本院认为，被告人构成放火罪。判决如下：被告人犯放火罪，判处有期徒刑四年。如不服本判决，可以上诉。"
    rows = [{"text_id": k, "fact": f"事实{k}。", "articles": [67, 114], "document": document} for k in range(6)]
    (tmp_path / "judge.jsonl").write_text("\n".join(json.dumps(r) for r in rows))
    (tmp_path / "law.jsonl").write_text(json.dumps({"number": 114, "sub": 0, "text": "放火的，处三年以上有期徒刑。"}))
    options = DataOptions(str(tmp_path / "judge.jsonl"), "judge", str(tmp_path / "law.jsonl"), test=2)
    feed = of_file("soft", options)
    assert feed.provisions == {"放火罪": "放火的，处三年以上有期徒刑。"} and feed.train[0]["months"] == 48
    assert feed.consistent(feed.train[0], feed.train[0]["response"]) is None
    assert feed.odd["charge without chains"] == 6
    assert "1. 放火的，处三年以上有期徒刑。" in of_file("text", options).train[0]["prompt"]


def test_what_is_shown_carries_chain_and_article() -> None:
    """A sentence stands with the chain of its tier; without one with all chains; an unknown charge with its statute."""
    whole = "骗取财物，数额巨大，构成诈骗罪。判决如下：判处有期徒刑40个月。"
    found = rests_on("诈骗罪", "骗取人民币五万元。", whole, {})
    assert found["articles"] == ["266"] and len(found["chains"]) == 1 and "数额巨大" in found["chains"][0]
    assert len(rests_on("诈骗罪", "", "没有判决", {})["chains"]) == 9
    assert rests_on("放火罪", "", whole, {"放火罪": "放火的，处三年以上有期徒刑。"})["chains"] == [
        "放火的，处三年以上有期徒刑。"
    ]


def test_bad_files_are_named(tmp_path: Path, cases: Path) -> None:
    with pytest.raises(DataError, match=r"cases.jsonl, line 1: not a case of kind judge .* set data.kind"):
        read_cases(cases, "judge")
    with pytest.raises(DataError, match=r"12 usable cases, of which 101 held out; lower data.test"):
        of_file("soft", DataOptions(str(cases), "opinions"))
    (tmp_path / "empty.jsonl").write_text(json.dumps({**CASES[0], "opinion": ""}, ensure_ascii=False))
    with pytest.raises(DataError, match="no usable case"):
        read_cases(tmp_path / "empty.jsonl", "opinions")
    with pytest.raises(ConfigError, match="weights are selected whole on one device; use none or zero2"):
        config.load("reasoning/legal_cases", ["train.sharding=fsdp2"])
    with pytest.raises(ConfigError, match=r"data.path needs a model that reads it"):
        config.load("reasoning/legal_grpo_cases", [f"data.path={cases}"])


def test_names_are_masked_wherever_they_stand() -> None:
    assert (
        mask_names("被告人赵一二盗窃。后赵一二到案，证人钱三称见过赵一二。")
        == "被告人赵某盗窃。后赵某到案，证人钱某称见过赵某。"
    )
    assert mask_names("被告人张某盗窃，被告人李某某在逃。") == "被告人张某盗窃，被告人李某某在逃。"
    assert mask_names("被告人的行为") == "被告人的行为"


@pytest.mark.data
def test_judge_is_parted_400_to_101(data_dir: Path) -> None:
    """499 of 501 have a fixed term; every charge has chains or a statute; no masked name is left behind its role."""
    legal = data_dir / "legal"
    statutes = legal / "statutes" / "criminal_law_articles.jsonl"
    feed = of_file("soft", DataOptions(str(legal / "judge" / "judge_test.jsonl.gz"), "judge", str(statutes)))
    assert len(feed.train) + len(feed.validation) == 398 and len(feed.test) == 101
    assert all(feed.provisions.values()) and {r["charge"] for r in feed.test} <= set(feed.provisions)
    ids = [{r["id"] for r in rows} for rows in feed[:3]]
    assert not ids[0] & ids[2] and not ids[1] & ids[2]


@pytest.fixture(scope="module")
def tiny_qwen(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("qwen") / "qwen"
    tokenizer = make_tokenizer()
    shape = Qwen2Config(
        pad_token_id=0, bos_token_id=1, eos_token_id=2, num_key_value_heads=4, max_position_embeddings=8192
    )
    tiny_like(shape, layers=2, hidden=64, vocab=len(tokenizer)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


STEERED = ["selection.metric=rmse", "selection.patience=0", "selection.stop_after=1", "train.max_steps=4"]
"""Two steps of 1e-5 move no term, so the second evaluation, without gain, ends the training."""


@pytest.mark.parametrize(
    "said",
    [[], ["chains.graph=true"], ["law=text", "constrained=true"], [*STEERED, "decoding=published"]],
    ids=["soft", "graph", "text", "steered"],
)
def test_the_qwen_config_trains_two_steps(tmp_path: Path, tiny_qwen: Path, cases: Path, said: list[str]) -> None:
    """LoRA in bf16 on a random model of the architecture; what is saved is merged and reads the chains."""
    _, result = run(
        "legal_qwen7b", tmp_path / "run", f"policy={tiny_qwen}", f"data.path={cases}", "data.kind=opinions",
        "data.statutes=\"\"", "data.test=4", "held_out=2", "train.max_steps=2", "train.accumulation=1",
        "train.eval_steps=1", "train.processes=0", "train.gradient_checkpointing=false", "max_new_tokens=8",
        "max_length=8192", *said,
    )  # fmt: skip
    facts = checkpoint.read_facts(result.folder / "checkpoints" / "legal" / checkpoint.FINAL)
    assert facts["steps"] == 2 and result.metrics["selected_step"] in (1, 2)
    assert set(facts["rates"].values()) == {1e-5, 4e-5, 2e-5 if "chains.graph=true" in said else 3e-5}
    told = [row for row in RunFolder(result.folder).metrics() if row["stage"] == "legal-terms"]
    assert [row["step"] for row in told] == ([1, 2] if "selection.metric=rmse" in said else [])
    model = ChainModel.from_pretrained(result.folder / "model")
    assert not any("lora" in name for name, _ in model.named_parameters())
    assert model.encode("诈骗罪").shape == (9, 64)
    if "constrained=true" in said:
        assert result.metrics["parse_rate"] == 1


# ---------------------------------------------------------------- GRPO


def test_grpo_in_the_embedded_world(tmp_path: Path) -> None:
    """Few steps from few demonstrations: parts are logged at every step, both evaluations are there."""
    _, result = run(
        "legal_grpo_cases", tmp_path / "run", f"base.cache={tmp_path}", "base.train.max_steps=3", "train.max_steps=2",
        "base.demonstrations=200", "train.batch_size=2", "grpo.generations=2", "world.train=20", "held_out=4",
    )  # fmt: skip
    logged = [row for row in RunFolder(result.folder).metrics() if "legal/total" in row]
    assert [row["step"] for row in logged] == [1, 2]
    assert {"before_reward", "reward", "mean_consistent", "cail"} <= set(result.metrics)


def test_the_study_of_grpo_keeps_seeds_and_knows_what_learns_nothing(tmp_path: Path) -> None:
    """A seed of two steps. A fixed tier and place is always true to its reasons, and so worth 0.6 and its CAIL score;
    the best one pays more than the mean of all nine.
    """
    said = [f"base.cache={tmp_path}", "base.train.max_steps=3", "train.max_steps=2", "base.demonstrations=200",
            "train.batch_size=2", "grpo.generations=2", "world.train=20", "held_out=40"]  # fmt: skip
    legal_grpo.one_seed(tmp_path / "study", 1, said)
    legal_grpo.one_seed(tmp_path / "study", 1, ["no such option"])  # finished seeds are kept
    data = json.loads((tmp_path / "study" / "seed-1.json").read_text())
    fixed, best = (data["baselines"][name] for name in ("any tier and place", "best fixed tier and place"))
    for plain in (fixed, best):
        assert plain["mean_consistent"] == plain["parse_rate"] == 1
        assert plain["reward"] == pytest.approx(0.6 + plain["cail"])
    assert best["reward"] > fixed["reward"]
    assert [step for step, _ in data["curve"]] == [1, 2]
    assert {f"{when}{kind}right" for when in ("", "before_") for kind in ("", "sampled_")} <= set(data["metrics"])
    row = {**data, "seconds": [1], "cpu_seconds": [60], "seeds": [1], "threads": 1, "commits": ["c"], "command": "x"}
    page = legal_grpo.page({**row, "rows": [data["metrics"]], "curves": [data["curve"]]})
    assert f"| months off, mean | {fixed['mae']:.1f} | {best['mae']:.1f} |" in page


def test_the_grpo_qwen_config_trains_two_steps(tmp_path: Path, tiny_qwen: Path, cases: Path) -> None:
    """Chains as numbered lines in a chat, LoRA in bf16, `check_opinion` behind the reward."""
    loaded, result = run(
        "legal_grpo_qwen7b", tmp_path / "run", f"policy={tiny_qwen}", f"data.path={cases}", "data.test=4", "held_out=2",
        "grpo.generations=2", "grpo.max_new_tokens=6", "grpo.rollouts=hf", "train.max_steps=2", "train.accumulation=1",
        "train.processes=0", "train.gradient_checkpointing=false",
    )  # fmt: skip
    final = result.folder / "checkpoints" / "grpo" / checkpoint.FINAL
    assert checkpoint.read_facts(final)["steps"] == 2 and (final / "adapter_config.json").is_file()
    from reasoning.legal.grpo import ASKED, rows_of

    [message] = rows_of(loaded.config)[0][0]["prompt"]
    assert message["content"].startswith("法律链：\n1. ") and message["content"].endswith(ASKED)
    assert result.metrics["mean_form"] == 0  # six random tokens are no opinion
