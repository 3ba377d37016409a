"""`arbiter eval arena_hard --style`: answers are measured before a judge is paid; scores at equal style."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from launch.errors import ConfigError
from launch.models import load_tokenizer
from tasks.benchmarks import arena_hard
from tasks.benchmarks.files import read_rows, write_rows
from tasks.benchmarks.report import official_scores
from tests.launch.test_judge import judge
from tests.tasks.benchmarks.test_bad_input import BASELINE, checkout
from tests.tasks.benchmarks.test_command import arbiter_eval
from tests.tasks.benchmarks.test_official_prompts import arena_v01

N = 24
OLD = "{question_1} A: {answer_1} B: {answer_2}"


def answers(folder: Path, model: str, texts: list[str]) -> Path:
    rows = [
        {"uid": f"q{i}", "model": model, "messages": [{"content": f"{i}?"}, {"content": {"answer": text}}]}
        for i, text in enumerate(texts)
    ]
    return write_rows(folder / f"{model}.jsonl", rows)


@pytest.fixture
def words(tmp_path: Path) -> list[object]:
    """The model writes 1 to 24 words, the baseline 12, with headers, lists and bold text here and there."""
    marks = ["# a\n", "- a\n", "**a** ", "", "1. a\n"]
    mine = [marks[i % 5] + "word " * (i + 1) for i in range(N)]
    theirs = [marks[i * 7 % 4] + "word " * 12 for i in range(N)]
    questions = [{"uid": f"q{i}", "category": "hard_prompt", "prompt": f"{i}?"} for i in range(N)]
    told: list[object] = ["arena_hard", "--questions", write_rows(tmp_path / "q.jsonl", questions)]
    told += ["--model", answers(tmp_path, "mine", mine), "--baseline", answers(tmp_path, BASELINE, theirs)]
    return [*told, "--prompts", checkout(tmp_path), "--other-prompts", "--judge-model", "j", "--out", tmp_path / "out"]


def likes_length(text: str) -> str:
    a, b = text.split(" A: ")[1].split(" B: ")
    return "[[A>B]]" if len(a) > len(b) else "[[B>A]]"


def test_scores_at_equal_style_are_those_of_the_answers_metadata(words, tiny_llama, tmp_path, capsys):
    """A judge that only likes length: the model, shorter or longer in as many cases, wins half of its games; at equal
    style the same judgments are scored with the lengths that the tokenizer counted. By v0.1, whose fits are fast."""
    questions = tmp_path / "q.jsonl"
    write_rows(questions, [{**row, "category": "arena-hard-v0.1"} for row in read_rows(questions)])
    told = [*words, "--rules", "v0.1", "--prompts", arena_v01(tmp_path / "old", template=OLD)]
    told += ["--style", "length", "markdown", "--tokenizer", tiny_llama, "--json"]
    with judge(content=likes_length) as server:
        assert arbiter_eval(*told, "--judge", server.url) == 0
    result = json.loads(capsys.readouterr().out)
    out = tmp_path / "out"
    written = {name: read_rows(out / f"data/arena-hard-v0.1/model_answer/{name}.jsonl") for name in ("mine", BASELINE)}
    tokenizer = load_tokenizer(tiny_llama)
    for row in written["mine"]:
        text = row["messages"][-1]["content"]["answer"]
        count = len(tokenizer(text, add_special_tokens=False)["input_ids"])
        assert row["metadata"] == {"token_len": count, **arena_hard.markdown_counts(text)}
    rows = read_rows(out / "data/arena-hard-v0.1/model_judgment/j/mine.jsonl")
    by_hand = arena_hard.score(rows, "v0.1", None, BASELINE, ("length", "markdown"), written)
    assert result["at_equal_style"] == {"arena-hard-v0.1": by_hand}
    [line] = [row for row in by_hand if row["model"] == "mine"]
    assert line["style"]["token_len"] > 1  # the longer one wins
    shown = official_scores(result)
    assert list(shown) == ["arena-hard-v0.1", "arena-hard-v0.1, at equal style"]
    assert shown["arena-hard-v0.1, at equal style"] == (line["score"], line["low"], line["high"])
    assert abs(shown["arena-hard-v0.1"][0] - 50) < 10


def test_metadata_of_the_answer_files_are_kept_if_all_have_them(words, tmp_path, capsys):
    """The counts of gpt-4o's tokenizer, say, which is not at hand here."""
    for name in ("mine", BASELINE):
        rows: list[dict[str, Any]] = read_rows(tmp_path / f"{name}.jsonl")
        for i, row in enumerate(rows):
            text = row["messages"][-1]["content"]["answer"]
            row["metadata"] = arena_hard.metadata(text, lambda text, i=i: 1000 + i + len(text))
        write_rows(tmp_path / f"{name}.jsonl", rows)
    with judge(content=likes_length) as server:
        assert arbiter_eval(*words, "--judge", server.url, "--style", "length") == 0
    written = read_rows(tmp_path / "out/data/arena-hard-v2.0/model_answer/mine.jsonl")
    assert [row["metadata"]["token_len"] > 1000 for row in written] == [True] * N
    assert "at_equal_style" in capsys.readouterr().out


def test_without_a_tokenizer_it_stops_before_the_judge_is_asked(words, tmp_path, monkeypatch):
    """tiktoken's own file is neither in its cache nor to be fetched."""
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(tmp_path / "none"))
    monkeypatch.setattr("tiktoken.registry.ENCODINGS", {})  # what another test may have loaded
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    with judge(content=likes_length) as server:
        with pytest.raises(ConfigError, match=r"gpt-4o, .* is not at hand .*; set TIKTOKEN_CACHE_DIR .* --tokenizer F"):
            arbiter_eval(*words, "--judge", server.url, "--style", "length")
        assert not server.asked
