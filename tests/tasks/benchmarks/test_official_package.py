"""The official `alpaca_eval` package (0.6.6) reads our files, asks our judge, and gives our numbers."""

from __future__ import annotations

import csv
import json
import logging
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from tasks.benchmarks import alpaca_eval as ours
from tasks.benchmarks import official
from tasks.benchmarks.files import read_rows, write_rows
from tests.launch.test_judge import judge
from tests.tasks.benchmarks.test_command import arbiter_eval, prefers_m

logging.getLogger().setLevel(logging.WARNING)  # the package makes the root logger talk


@pytest.fixture(scope="module")
def pairs(data_dir: Path) -> list[dict[str, Any]]:
    """The reference's and vicuna-13b's answers to the 805 instructions."""
    folder = data_dir / "eval/alpaca_eval"
    instructions = read_rows(folder / "instructions.jsonl.gz")

    def outputs(model: str) -> list[dict[str, Any]]:
        rows = read_rows(folder / f"outputs/{model}.jsonl.gz")
        return [
            {"instruction": asked["instruction"], "output": row["output"], "generator": model}
            for asked, row in zip(instructions, rows, strict=True)
        ]

    return ours.pair_up(outputs("gpt4_1106_preview"), outputs("vicuna-13b"))


@pytest.fixture(scope="module")
def annotations(data_dir: Path) -> dict[str, list[dict[str, Any]]]:
    found: dict[str, list[dict[str, Any]]] = {}
    for row in read_rows(data_dir / "eval/alpaca_eval/annotations_weighted_gpt4_turbo.csv.gz"):
        found.setdefault(row["model"], []).append(row)
    return found


def test_preference_eval_acceptance_8_the_package_gives_our_win_rate_of_every_annotated_model(annotations):
    from alpaca_eval.metrics import get_winrate

    assert len(annotations) == 58
    for model, rows in annotations.items():
        theirs = get_winrate([{"preference": float(row["preference"] or "nan")} for row in rows])
        mine = ours.win_rate(rows)
        for key in ("win_rate", "standard_error", "n_wins", "n_wins_base", "n_draws", "n_total", "discrete_win_rate"):
            assert mine[key] == pytest.approx(theirs[key], abs=1e-9), (model, key)


def test_preference_eval_acceptance_3_the_swap_rule_is_the_packages(pairs):
    """Seed 123 draws another order for about half of the 805."""
    from alpaca_eval.processors import RandomSwitchTwoColumnsProcessor

    def swapped(seed: int) -> list[bool]:
        processor = RandomSwitchTwoColumnsProcessor(
            two_columns_to_switch=["output_1", "output_2"],
            random_seed_columns=["instruction"],
            _switch_column="is_switched_outputs",
            seed=seed,
            annotation_column="preference",
            completion_column="raw",
        )
        frame = pd.DataFrame(pairs).assign(preference=0.0)
        return processor.preprocess(frame)["is_switched_outputs"].tolist()

    mine = [ours.is_swapped(pair["instruction"]) for pair in pairs]
    assert mine == swapped(0)
    other = swapped(123)
    assert other == [ours.is_swapped(pair["instruction"], 123) for pair in pairs]
    assert 0.4 < np.mean(np.array(other) != np.array(mine)) < 0.6


def test_preference_eval_acceptance_3_the_log_probability_parser_is_the_packages():
    from alpaca_eval.completion_parsers import logprob_parser

    rng = np.random.default_rng(0)
    tokens = ["m", "M", "The", " m", "Both", "Model"]
    for _ in range(200):
        top = [
            {"token": str(token), "logprob": float(p)}
            for token, p in zip(rng.permutation(tokens)[:5], np.sort(-rng.exponential(3, 5))[::-1], strict=True)
        ]
        completion = {"logprobs": {"content": [{"top_logprobs": top}]}}
        [theirs] = logprob_parser(completion, "m", ["m", "M"], is_binarize=False)
        mine = ours.preference(top, False)
        assert math.isnan(mine) == math.isnan(theirs) and (math.isnan(mine) or mine == pytest.approx(theirs, abs=1e-12))
        assert math.isnan(mine) or ours.preference(top, True) == pytest.approx(3 - theirs, abs=1e-12)


def test_the_judge_is_asked_what_the_package_asks(pairs):
    """The official template of the installed package over 805 real pairs, in the order that a judge sees."""
    from alpaca_eval.utils import make_prompts, prompt_to_chatml

    template, digest = official.alpaca_template(None)
    assert digest == official.ALPACA_EVAL
    shown = []
    for pair in pairs:
        first, second = pair["output_1"], pair["output_2"]
        if ours.is_swapped(pair["instruction"]):
            first, second = second, first
        shown.append({"instruction": pair["instruction"], "output_1": first, "output_2": second})
    prompts, _ = make_prompts(pd.DataFrame(shown), template)
    same = [prompt_to_chatml(prompt.strip()) for prompt in prompts]
    assert [ours.judge_messages(template, pair) for pair in pairs] == same


INSTRUCTIONS = [f"Say {i}." for i in range(12)]


def outputs(folder: Path, model: str, text: str) -> Path:
    rows = [
        {"dataset": "d", "instruction": asked, "output": f"{text} {i if i else ''}", "generator": model}
        for i, asked in enumerate(INSTRUCTIONS)
    ]
    return write_rows(folder / f"{model}.json", rows)


def official_script(file: Path, key: str | None = None) -> tuple[dict[str, float], list[dict[str, Any]]]:
    """Run a script that `arbiter eval` wrote, from another folder: the leaderboard's row and the annotations."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("OPENAI_")}
    environment["PATH"] = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment |= {} if key is None else {"MY_KEY": key}
    done = subprocess.run(["sh", file], cwd=file.parent, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    [board] = file.with_suffix("").glob("**/leaderboard.csv")
    [rows] = file.with_suffix("").glob("**/annotations.json")
    [row] = read_rows(board)
    return {name: float(row[name]) for name in ("win_rate", "standard_error", "n_total")}, read_rows(rows)


def test_the_official_command_we_write_asks_our_judge_and_gives_our_numbers(tmp_path, capsys, monkeypatch):
    """Answers from a file, a judge behind a key. The very same questions are asked, once more each."""
    monkeypatch.setenv("MY_KEY", "sk-mine")
    out = tmp_path / "the out"  # a path that a shell would split
    with judge(content=prefers_m) as server:
        words = ["alpaca_eval", "--model", outputs(tmp_path, "mine", "no"), "--out", out, "--judge", server.url]
        words += ["--baseline", outputs(tmp_path, "ref", "yes"), "--judge-model", "j", "--api-key-env", "MY_KEY"]
        assert arbiter_eval(*words, "--json") == 0
        told = json.loads(capsys.readouterr().out)
        assert sum(server.asked.values()) == 12
        board, rows = official_script(out / "official/evaluate.sh", "sk-mine")
        assert set(server.asked.values()) == {2}
        assert server.keys == {"Bearer sk-mine"}
    assert not any("sk-mine" in file.read_text() for file in out.rglob("*") if file.is_file())
    assert not (out / "official/evaluate_from_model.sh").exists()
    assert board == pytest.approx({name: told[name] for name in board})
    theirs = {row["instruction"]: row["preference"] for row in rows}
    saved = read_rows(out / "results/mine/j/annotations.json")
    assert {row["instruction"]: row["preference"] for row in saved} == pytest.approx(theirs)
    fields = {"instruction", "output_1", "generator_1", "dataset", "output_2", "generator_2", "annotator", "preference"}
    assert fields | {"price_per_example", "time_per_example", "raw_completion"} <= set(saved[0])


def test_the_official_command_lets_our_server_answer_what_it_answered_us(tmp_path, capsys):
    """One server is model and judge; of twelve questions five are asked."""

    def content(text: str) -> object:
        return prefers_m(text) if "leaderboard" in text else f" sure, {text} "

    with judge(content=content) as server:
        words = ["alpaca_eval", "--model", server.url, "--model-name", "m", "--name", "mine", "--limit", 5]
        words += ["--baseline", outputs(tmp_path, "ref", "yes"), "--out", tmp_path / "out", "--judge", server.url]
        assert arbiter_eval(*words, "--judge-model", "j", "--json") == 0
        told = json.loads(capsys.readouterr().out)
        board, rows = official_script(tmp_path / "out/official/evaluate_from_model.sh")
        assert len(server.asked) == 10 and set(server.asked.values()) == {2}
    assert board == pytest.approx({name: told[name] for name in board})
    ours = read_rows(tmp_path / "out/results/mine/model_outputs.json")
    assert {row["instruction"]: row["output_2"] for row in rows} == {row["instruction"]: row["output"] for row in ours}
    assert ours[0]["output"] == " sure, Say 0. "


@pytest.fixture
def gamed(tmp_path: Path, data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A stand-in for the hub's df_gamed.csv: real difficulties, made-up verdicts; the package reads it from here."""
    table = read_rows(data_dir / "eval/alpaca_eval/instruction_difficulty.csv")
    rng = np.random.default_rng(0)
    file = tmp_path / "df_gamed.csv"
    with file.open("w", newline="") as sink:
        names = ["model", "index", "preference", "std_delta_len", "instruction_difficulty", "not_gamed_baseline"]
        writer = csv.DictWriter(sink, names)
        writer.writeheader()
        for model, sign in (("verbose", -1), ("concise", 1)):
            for row in table:
                length = sign + rng.normal()
                q = 1 / (1 + math.exp(length + rng.normal()))
                d = row["instruction_difficulty"]
                writer.writerow(dict(zip(names, (model, row["index"], q, length, d, False), strict=True)))
    monkeypatch.setattr("alpaca_eval.metrics.glm_winrate.hf_hub_download", lambda **_: str(file))
    return file


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning", "ignore:Liblinear failed")
def test_preference_eval_acceptance_4_length_control_is_the_packages(gamed, annotations, monkeypatch):
    """All three variants, the choice of C included, with regularisation from a df_gamed.csv."""
    import sklearn
    from alpaca_eval.metrics.glm_winrate import get_length_controlled_winrate

    model = "gpt-3.5-turbo-1106_verbose"
    rows = [
        {"index": int(r["index"]), "preference": float(r["preference"])}
        | {"output_1": "x" * int(float(r["len_baseline"])), "output_2": "x" * int(float(r["len_model"]))}
        | {"generator_1": "gpt4_1106_preview", "generator_2": model, "annotator": "j"}
        for r in annotations[model]
    ]
    try:
        for variant, name in (("full", "v1"), ("noreg", "noreg"), ("minimal", "minimal")):
            theirs = get_length_controlled_winrate(
                pd.DataFrame(rows).set_index("index"), f"length_controlled_{name}", save_weights_dir=None
            )
            mine = ours.length_controlled(rows, variant=variant, gamed=ours.read_gamed(gamed))
            assert mine["length_controlled_winrate"] == pytest.approx(theirs["length_controlled_winrate"], abs=5e-3)
            assert mine["lc_standard_error"] == pytest.approx(theirs["lc_standard_error"], abs=5e-3)
    finally:
        sklearn.set_config(enable_metadata_routing=False)  # the package leaves it on
