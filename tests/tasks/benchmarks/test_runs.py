"""`arbiter eval` in its rarer ways: pairs, judges in words, v0.1's second request; a folder of several models."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from launch.errors import ConfigError, DataError
from tasks.benchmarks import arena_hard, mt_bench, official, rewardbench
from tasks.benchmarks.files import read_rows, write_rows
from tests.launch.test_judge import judge
from tests.tasks.benchmarks.test_command import arbiter_eval
from tests.tasks.benchmarks.test_rewardbench import TIES


def mt_answers(folder: Path, model: str, questions: list[int], text: str) -> Path:
    rows = [
        {"question_id": q, "model_id": model, "choices": [{"index": 0, "turns": [f"{text} {q}", text]}]}
        for q in questions
    ]
    return write_rows(folder / f"{model}.jsonl", rows)


@pytest.fixture
def mt_words(data_dir: Path) -> list[object]:
    """FastChat's files."""
    folder = data_dir / "eval/mt_bench"
    words: list[object] = ["--questions", folder / "question.jsonl", "--prompts", folder / "judge_prompts.jsonl"]
    return [*words, "--references", folder / "reference_answer_gpt4.jsonl", "--judge-model", "j"]


def test_mt_bench_pairs_are_asked_in_both_orders_with_the_official_prompts(mt_words, tmp_path, capsys):
    """The judge likes "good" over "bad", but for question 82 it likes the first: one win, one tie a turn."""
    good, bad = (mt_answers(tmp_path, text, [81, 82], text) for text in ("good", "bad"))

    def content(text: str) -> str:
        if "good 82" in text:
            return "[[A]]"
        return "[[A]]" if text.index("good 81") < text.index("bad 81") else "[[B]]"

    words = ["mt_bench", "--model", good, "--baseline", bad, *mt_words, "--limit", 2, "--out", tmp_path / "out"]
    with judge(content=content) as server:
        assert arbiter_eval(*words, "--judge", server.url, "--dry-run") == 0
        assert "judge: 8 calls" in capsys.readouterr().out  # two questions, two turns, two orders
        assert arbiter_eval(*words, "--judge", server.url, "--json") == 0
    told = json.loads(capsys.readouterr().out)
    [row] = told["table"]
    assert (row["model"], row["win"], row["tie"], row["loss"]) == ("good", 2, 2, 0)
    assert row["win_rate_adjusted"] == 0.75 and 0.5 <= row["low"] <= 0.75 <= row["high"] <= 1
    rows = read_rows(tmp_path / "out/data/mt_bench/model_judgment/j_pair.jsonl")
    assert [(r["question_id"], r["turn"], r["g1_winner"], r["g2_winner"]) for r in rows] == [
        (81, 1, "model_1", "model_1"),
        (82, 1, "model_1", "model_2"),
        (81, 2, "model_1", "model_1"),
        (82, 2, "model_1", "model_2"),
    ]
    assert set(rows[0]) == {
        *("question_id", "model_1", "model_2", "g1_winner", "g2_winner", "judge", "turn", "tstamp"),
        *("g1_user_prompt", "g1_judgment", "g2_user_prompt", "g2_judgment"),
    }
    assert rows[0]["judge"] == ["j", "pair-v2"] and rows[2]["judge"] == ["j", "pair-v2-multi-turn"]
    assert mt_bench.pairwise(rows, "bad") == told["table"]
    with pytest.raises(DataError, match="answers of bad, the model itself"), judge() as server:
        arbiter_eval(*words, "--judge", server.url, "--name", "bad")


def test_a_judges_file_holds_all_models_and_a_rerun_replaces_its_own(mt_words, tmp_path):
    words = ["mt_bench", *mt_words, "--limit", 2, "--out", tmp_path / "out"]
    with judge(content=lambda text: f"[[{7 if 'good' in text else 4}]]") as server:
        for text in ("good", "bad", "good"):
            model = mt_answers(tmp_path, text, [81, 82], text)
            assert arbiter_eval(*words, "--model", model, "--judge", server.url) == 0
    rows = read_rows(tmp_path / "out/data/mt_bench/model_judgment/j_single.jsonl")
    assert len(rows) == 8 and {row["model"]: row["average"] for row in mt_bench.score(rows)} == {"good": 7, "bad": 4}
    scores = read_rows(tmp_path / "out/scores.json")
    assert [row["model"] for row in scores] == ["bad", "good"]
    files = scores[1]["provenance"]["files"]
    assert {"data/mt_bench/model_judgment/j_single.jsonl", "data/mt_bench/model_answer/good.jsonl"} <= set(files)
    made = scores[1]["provenance"]["environment"]
    assert made["versions"]["torch"] and "commit" in made and scores[1]["provenance"]["date"].endswith("+00:00")


# ---------------------------------------------------------------- Arena-Hard v0.1


@pytest.fixture
def old_checkout(tmp_path: Path) -> Path:
    """The layout of arena-hard-auto at v0.1 with prompts of our own."""
    folder = tmp_path / "arena-hard-v0.1"
    (folder / "config").mkdir(parents=True)
    (folder / "config/judge_config.yaml").write_text(
        'system_prompt: "Judge."\nprompt_template: ["{question_1} A: {answer_1} B: {answer_2}"]\n'
    )
    (folder / "gen_judgment.py").write_text(
        "def judgment(conv, text):\n"
        '    conv.append({"role": "assistant", "content": text})\n'
        '    conv.append({"role": "user", "content": "go on"})\n'
    )
    return folder


def test_v01_asks_once_more_who_gave_no_label(old_checkout, tmp_path, capsys):
    """q0 answers at once; q1 only when told to go on; q2 contradicts itself and is not asked again; q3 never says."""
    replies = {"q0?": "[[A>B]]", "q1?": "hm", "q2?": "[[A>B]] [[B>A]]", "q3?": "hm"}

    def content(text: str) -> str:
        return "[[B>>A]]" if text == "go on" else replies[text.split()[0]]

    def answers(name: str) -> Path:
        rows = [
            {"uid": f"q{i}", "model": name, "messages": [{"content": "?"}, {"content": {"answer": f"{name}{i}"}}]}
            for i in range(4)
        ]
        return write_rows(tmp_path / f"{name}.jsonl", rows)

    mine, theirs = answers("mine"), answers("gpt-4-0314")
    questions = write_rows(
        tmp_path / "q.jsonl", [{"uid": f"q{i}", "category": "arena-hard-v0.1", "prompt": f"q{i}?"} for i in range(4)]
    )
    words = ["arena_hard", "--rules", "v0.1", "--model", mine, "--baseline", theirs, "--questions", questions]
    words += ["--prompts", old_checkout, "--out", tmp_path / "out", "--judge-model", "j", "--budget", 0.9, "--limit", 3]
    with judge(content=content) as server:
        with pytest.raises(ConfigError, match=r"judge_config\.yaml, system_prompt is not the official prompt"):
            arbiter_eval(*words, "--judge", server.url)
        assert arbiter_eval(*words, "--judge", server.url, "--other-prompts", "--json") == 0
        told = json.loads(capsys.readouterr().out)
        assert sum(server.asked.values()) == 6 + 2
    assert (told["judge/asked_on"], told["judge/questions"], told["judge/parse_failures"]) == (2, 6, 2)
    rows = read_rows(tmp_path / "out/data/arena-hard-v0.1/model_judgment/j/mine.jsonl")
    assert set(rows[0]) == {"question_id", "model", "judge", "games"}
    assert set(rows[0]["games"][0]) == {"user_prompt", "judgment", "score"}
    assert [[game["score"] for game in row["games"]] for row in rows] == [["A>B"] * 2, ["B>>A"] * 2, [None] * 2]
    assert rows[1]["games"][0]["judgment"] == "\nhm\n[[B>>A]]"
    assert rows[1]["games"][1]["user_prompt"] == "q1? A: mine1 B: gpt-4-03141"
    # Game 1: the baseline once, then the model three times; game 2 the other way round: half of all.
    [board] = [row for row in told["boards"]["arena-hard-v0.1"] if row["model"] == "mine"]
    assert board["score"] == pytest.approx(50) and (board["n"], board["dropped"]) == (8, 1)
    assert board["score"] == next(r for r in arena_hard.score(rows, "v0.1") if r["model"] == "mine")["score"]


def test_answers_of_two_models_in_one_file_are_refused(old_checkout, tmp_path):
    rows = [{"uid": f"q{i}", "model": f"m{i}", "messages": [{"content": {"answer": "x"}}]} for i in range(2)]
    mixed = write_rows(tmp_path / "mixed.jsonl", rows)
    questions = write_rows(tmp_path / "q.jsonl", [{"uid": "q0", "category": "arena-hard-v0.1", "prompt": "?"}])
    words = ["arena_hard", "--rules", "v0.1", "--questions", questions, "--prompts", old_checkout, "--other-prompts"]
    words += ["--out", tmp_path / "out", "--judge", "http://127.0.0.1:9"]
    with pytest.raises(DataError, match=r"baseline answers are of 2 models \(m0, m1\)"):
        arbiter_eval(*words, "--model", mixed, "--baseline", mixed)


# ---------------------------------------------------------------- RewardBench


@pytest.fixture
def reward_prompts(tmp_path: Path) -> Path:
    """generative_v2.py with prompts of our own; what it computes and imports must not stand in the way."""
    file = tmp_path / "generative_v2.py"
    file.write_text(
        "from somewhere import nothing\nLISTS = nothing() + ('a',)\n"
        'said = "Name " "the best."\n'
        'MTBENCH_V2 = {"system_prompt": said, '
        '"prompt_template": "{question} A {answer_a} B {answer_b} C {answer_c} D {answer_d}"}\n'
        'ratings_prompt = "Rate {completion} to {prompt}"\nratings_prompt_ties = "Ties: {completion} to {prompt}"\n'
    )
    return file


def reward_rows() -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = [
        {"id": str(i), "subset": "Math", "prompt": f"m{i}", "chosen": ["good"], "rejected": ["b", "{answer_a}", "d"]}
        for i in range(8)
    ]
    for row in TIES:
        scores, correct = [str(score) for score in row["scores"]], row["num_correct"]
        texts = {"prompt": row["id"], "chosen": scores[:correct], "rejected": scores[correct:]}
        rows.append({"id": row["id"], "subset": "Ties", **texts})
    return rows


def test_judges_in_words_name_the_best_of_four_and_rate_ties(reward_prompts, tmp_path, capsys):
    """The judge finds "good" for six questions, names another for m6 and none for m7: (6 + 0 + 1/4)/8. In Ties it rates
    3 where an answer says 1 or more, else 2; the shown order hides the right answer in any slot."""
    shown = []

    def content(text: str) -> str:
        if text.startswith("Ties: "):
            return f"So\n\n{3 if float(text.split()[1]) >= 1 else 2}"
        question, *slots = (
            text.replace(" A ", "|").replace(" B ", "|").replace(" C ", "|").replace(" D ", "|").split("|")
        )
        shown.append("ABCD"[slots.index("good")])
        letter = "ABCD"[slots.index("b" if question == "m6" else "good")]
        return "none" if question == "m7" else f"[[{letter}]]"

    questions = write_rows(tmp_path / "rb2.jsonl", reward_rows())
    words = ["rewardbench", "--questions", questions, "--prompts", reward_prompts, "--other-prompts", "--budget", 0.5]
    words += ["--out", tmp_path / "out", "--model-name", "judge"]
    with judge(content=content) as server:
        assert arbiter_eval(*words, "--model", server.url, "--dry-run") == 0
        assert "judge: 28 calls" in capsys.readouterr().out  # 8 rankings, 22 ratings, of which two are asked already
        assert arbiter_eval(*words, "--model", server.url, "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert told["Math"] == pytest.approx(6.25 / 8) and told["mode"] == "ranking"
    ratings = [{**row, "scores": [3 if s >= 1 else 2 for s in row["scores"]]} for row in TIES]
    assert told["Ties"] == pytest.approx(rewardbench.ties_score(ratings))
    assert told["judge/parse_failures"] == 1
    assert len(set(shown)) > 1
    saved = read_rows(tmp_path / "out/eval-set-scores/judge.json")[0]
    assert saved["model_type"] == "Generative RM" and saved["results"][:8] == [1.0] * 6 + [0.0, 0.25]


def test_judges_in_words_rate_every_answer(reward_prompts, tmp_path, capsys):
    """ "good" gets 9, others 4; m0 has no readable rating at all and counts a quarter."""

    def content(text: str) -> str:
        return "?" if text.endswith(" m0") else "9" if "good" in text else "4"

    questions = write_rows(tmp_path / "rb2.jsonl", reward_rows()[:8])
    words = ["rewardbench", "--ratings", "--questions", questions, "--prompts", reward_prompts, "--other-prompts"]
    with judge(content=content) as server:
        words += ["--out", tmp_path / "out", "--model", server.url, "--model-name", "judge", "--budget", 0.5, "--json"]
        assert arbiter_eval(*words) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["Math"] == pytest.approx(7.25 / 8) and told["mode"] == "ratings"


@pytest.mark.parametrize("correct", range(4))
def test_a_ranking_as_scores_earns_what_the_official_script_gives(correct):
    for reply in ("[[A]]", "[[B]]", "[[C]]", "[[D]]", "none"):
        assert rewardbench.credit(rewardbench.ranked(reply, correct)) == rewardbench.ranking_credit(reply, correct)


def test_rewardbench_1_is_run_with_a_preference_model(tiny_llama, tmp_path, capsys):
    from align.preference import PreferenceModel

    model = PreferenceModel.from_backbone(tiny_llama, kind="hrc", dims=2, seed=1)
    model.save_pretrained(tmp_path / "pm")
    rows = [{"id": i, "subset": "donotanswer", "prompt": f"{i}?", "chosen": "a", "rejected": f"b{i}"} for i in range(4)]
    questions = write_rows(tmp_path / "rb1.jsonl", rows)
    arbiter_eval("rewardbench", "--model", tmp_path / "pm", "--questions", questions, "--out", tmp_path, "--json")
    won = [model.score(row["prompt"], ["a", row["rejected"]]).S[0, 1] > 0 for row in rows]
    assert json.loads(capsys.readouterr().out)["Safety"] == sum(won) / 4


def test_official_files_of_another_kind_are_refused(tmp_path, old_checkout):
    empty = tmp_path / "x.py"
    empty.write_text("x = 1\n")
    with pytest.raises(DataError, match=r"is this generative_v2\.py"):
        official.rewardbench_prompts(empty)
    (old_checkout / "gen_judgment.py").write_text("x = 1\n")
    with pytest.raises(DataError, match="0 requests to go on"):
        official.arena_prompts_v01(old_checkout, others=True)
    (old_checkout / "gen_judgment.py").write_text("x = (\n")
    with pytest.raises(DataError, match="is this the official file"):
        official.arena_prompts_v01(old_checkout, others=True)
