"""The page of an evaluation: every number and picture is on it, nothing is fetched, text is escaped."""

from __future__ import annotations

import pytest

from launch.runfolder import RunFolder
from tasks.benchmarks.files import read_rows, write_rows
from tasks.benchmarks.items import Item
from tasks.benchmarks.report import _short, benchmark_section, length_curve
from tests.launch.test_judge import judge
from tests.launch.test_report import EVIL, page_of
from tests.tasks.benchmarks.test_bad_input import Case
from tests.tasks.benchmarks.test_command import TEMPLATE, arbiter_eval, prefers_m


def test_two_models_make_a_leaderboard_and_its_page_can_be_built_again(tmp_path):
    def outputs(model: str, length: int) -> object:
        rows = [
            {"instruction": f"Say {i}.", "output": f"{EVIL}{model}{'x' * length * i}", "generator": model}
            for i in range(6)
        ]
        return write_rows(tmp_path / f"{model}.json", rows)

    (tmp_path / "prompt.txt").write_text(TEMPLATE)
    out = tmp_path / "out"
    with judge(content=prefers_m) as server:
        for model in ("one", "two"):
            words = [
                "alpaca_eval",
                "--model",
                outputs(model, 3),
                "--baseline",
                outputs("ref", 2),
                "--judge",
                server.url,
            ]
            words += ["--prompts", tmp_path / "prompt.txt", "--other-prompts", "--judge-model", "j", "--out", out]
            assert arbiter_eval(*words, "--against", "one") == 0
    page = page_of(RunFolder(out))
    for expected in ("AlpacaEval 2, judged by j, against ref", "− one", "Length against winning", "list items"):
        assert expected in page.text
    for expected in ("what the answer shown first earned", "Answers side by side", "other judge prompts were allowed"):
        assert expected in page.text
    assert "script" not in page.tags and all(address.startswith("#") for address in page.addresses)
    assert page.tags.count("svg") == 3  # scores, length against winning, the place of the answer


def test_two_benchmarks_of_one_model_share_a_folder_and_a_page(tmp_path):
    """Both official layouts have a question.jsonl and a model_answer/mine.jsonl; neither run overwrites the other's."""
    cases = [Case(bench, tmp_path / bench) for bench in ("arena_hard", "mt_bench", "alpaca_eval")]
    for case in cases:
        case.out = tmp_path / "out"
        with judge(content=case.reply) as server:
            case.run(server)
    answers = {file.parts[-3]: read_rows(file) for file in (tmp_path / "out/data").glob("*/model_answer/mine.jsonl")}
    assert set(answers["arena-hard-v2.0"][0]) >= {"uid", "messages"} and answers["mt_bench"][0]["choices"]
    page = page_of(RunFolder(tmp_path / "out"))
    for title in ("Arena-Hard, judged by j", "MT-Bench, pairs, judged by j", "AlpacaEval 2, judged by j"):
        assert title in page.text


def test_the_end_of_a_long_name_is_shown():
    assert _short("gpt-3.5-turbo-1106_verbose") == "gpt-3.5-tu…06_verbose" != _short("gpt-3.5-turbo-1106_concise")
    assert _short("gpt-4") == "gpt-4"


def test_a_folder_without_an_evaluation_has_no_section(tmp_path):
    assert benchmark_section(RunFolder(tmp_path)) == []


def test_length_goes_with_winning_where_it_does():
    """Ten answers of 1 to 10 characters over references of 1, the longer half wins: five parts of two."""
    items = [Item(str(n), float(n > 5), answer="x" * n, reference="y") for n in range(1, 11)]
    curve = length_curve(items)
    assert [x for x, _ in curve] == [0.5, 2.5, 4.5, 6.5, 8.5]
    assert [y for _, y in curve] == pytest.approx([0, 0, 0.5, 1, 1])
