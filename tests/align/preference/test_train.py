"""The recipe end to end on a tiny backbone, and its measures."""

from __future__ import annotations

import json
import logging
import re
from pathlib import Path

import numpy as np
import pytest

from align.preference import PreferenceModel, Scores
from align.preference.accuracy import Fraction, average, best_of_n, pair_accuracy, ties_right
from align.preference.data import DataOptions
from align.preference.evaluation import evaluate, score_over_ranks
from align.preference.train import Config, ModelOptions, main
from launch import report
from launch.errors import ConfigError, DataError
from launch.options import LoraOptions, RunOptions, TrainOptions
from launch.runfolder import RunFolder

TABLE = {  # HRC, RewardBench 2: percent per domain and the average
    "Gemma BT": ([45.68, 32.50, 62.30, 80.67, 77.17, 37.25], 55.93),
    "Gemma GPM 2": ([47.16, 33.75, 62.84, 78.00, 71.92, 38.24], 55.32),
    "Gemma GPM 4": ([43.16, 36.25, 64.48, 81.11, 76.16, 37.25], 56.40),
    "Gemma HRC 2+1": ([47.58, 35.63, 61.75, 82.00, 79.60, 39.22], 57.63),
    "Gemma HRC 4+1": ([45.89, 33.75, 62.30, 83.78, 77.78, 39.22], 57.12),
    "Llama BT": ([64.63, 34.38, 64.48, 92.67, 90.91, 73.53], 70.10),
    "Llama GPM 2": ([66.53, 33.75, 62.30, 92.22, 94.14, 71.57], 70.08),
    "Llama GPM 4": ([67.58, 33.12, 57.92, 92.22, 93.74, 73.53], 69.69),
    "Llama HRC 2+1": ([68.42, 35.00, 60.11, 92.89, 94.75, 74.51], 70.95),
    "Llama HRC 4+1": ([68.00, 32.50, 61.20, 92.67, 95.15, 74.51], 70.67),
}
ITEMS = [475, 160, 183, 450, 495, 102]


@pytest.mark.parametrize("row", TABLE)
def test_hrc_acceptance_8_count_fractions(row: str) -> None:
    """Each published number is a count fraction; from the counts the average comes out to 0.01."""
    domains, expected = TABLE[row]
    fractions = {str(n): Fraction(round(p * n / 100), n) for p, n in zip(domains, ITEMS, strict=True)}
    for p, fraction in zip(domains, fractions.values(), strict=True):
        assert 100 * fraction.value == pytest.approx(p, abs=0.0051)
    assert average(fractions) == pytest.approx(expected, abs=0.01)


def test_wilson_by_hand() -> None:
    """8 of 10, z = 1.96, z^2 = 3.8416: (0.8 + 0.19208 +- 1.96 sqrt(0.016 + 0.009604)) / 1.38416 = 0.490, 0.943."""
    assert Fraction(8, 10).interval() == pytest.approx((0.4902, 0.9433), abs=1e-3)
    assert Fraction(0, 0).interval() == (0, 1)


def test_pair_accuracy_counts_cycles_apart() -> None:
    """A cycle 0 > 1 > 2 > 0 and 3 above all, judged by the ranking 3 > 0 > 1 > 2: it misses 2 > 0 only. Its tie with
    itself does not count, and a score of exactly 0 is wrong."""
    group = {"responses": list("abcd"), "winners": [0, 1, 2, 3, 3, 3], "losers": [1, 2, 0, 0, 1, 2],
             "weights": [1.0] * 6}  # fmt: skip
    f = np.array([2.0, 1.0, 0.0, 3.0])
    found = pair_accuracy([group], [Scores(f[:, None] - f[None], np.zeros((4, 4)))])
    assert (found.all, found.cyclic, found.acyclic) == (Fraction(5, 6), Fraction(2, 3), Fraction(3, 3))
    assert pair_accuracy([group], [Scores(np.zeros((4, 4)), np.zeros((4, 4)))]).all == Fraction(0, 6)
    S = f[:, None] - f[None]
    assert best_of_n(S, 3)
    assert not best_of_n(S, 0)
    assert not best_of_n(np.zeros((2, 2)), 0)
    assert ties_right(S, [3, 0])
    assert not ties_right(S, [3, 2])


def config(tiny: Path, folder: Path, kind: str, lora: LoraOptions | None = None) -> Config:
    """Longer answers win: something a tiny model learns in no time."""
    file = folder / "pairs.jsonl"
    rows = [
        {"prompt": f"Question {n}?", "chosen": "yes " * (4 + n % 5), "rejected": "no"} for n in range(24)
    ]  # fmt: skip
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return Config(
        model=ModelOptions(str(tiny), kind=kind, lambda_sq_max=9.0, tau=1.0, max_length=64),  # type: ignore[arg-type]
        data=DataOptions(path=str(file), test_fraction=0.25),
        train=TrainOptions(learning_rate=3e-3, batch_size=6, epochs=4, save_steps=50, lora=lora),
        run=RunOptions(folder=str(folder / "run")),
    )


@pytest.mark.parametrize(("kind", "lora"), [("hrc", None), ("bt", None), ("hrc", LoraOptions(rank=4))])
def test_recipe(tiny_llama: Path, tmp_path: Path, kind: str, lora: LoraOptions | None) -> None:
    settings = config(tiny_llama, tmp_path, kind, lora)
    result = main(settings)
    assert result.metrics["accuracy_count"] == 6
    assert result.metrics["accuracy"] > 0.8
    assert result.metrics["accuracy_low"] < result.metrics["accuracy"]
    rows = [json.loads(line) for line in (result.folder / "metrics.jsonl").read_text().splitlines()]
    assert any(row["stage"] == "evaluation" for row in rows)
    game = json.loads((result.folder / "artifacts" / "scores-0.json").read_text())
    assert np.array(game["S"]).shape == (2, 2)
    samples = [json.loads(line) for line in (result.folder / "samples" / "held-out.jsonl").read_text().splitlines()]
    assert len(samples) == 6
    for row in samples:
        assert row["rank_values"] == sorted(row["rank_values"], reverse=True)
        assert sorted(row["responses"])[0] == "no" and "yes" in sorted(row["responses"])[1]
    final = result.folder / "checkpoints" / "preference" / "final"
    before = {file: file.stat().st_mtime_ns for file in final.iterdir()}
    again = main(settings)  # nothing is trained or written twice
    assert {file: file.stat().st_mtime_ns for file in final.iterdir()} == before
    assert again.metrics["accuracy"] == result.metrics["accuracy"]
    if lora is None:
        model = PreferenceModel.from_pretrained(final)
        assert pytest.approx(np.array(game["S"]), abs=1e-4) == model.score(game["prompt"], game["responses"]).S


def test_a_run_tells_its_distance_to_the_limit(tiny_llama: Path, tmp_path: Path) -> None:
    """24 rows of one epoch in one logging period, a token a byte. Prompts "Question n?" of 11 or 12 bytes and <s>: ten
    of 12 tokens, fourteen of 13, 302. Chosen "yes " 4 to 8 times in turn and </s>, 17 21 25 29 33: five rounds without
    the last 33, 592. Rejected 18 and </s>: 456. So 302 + 592 + 456 = 1350 tokens shared, 1652 apart, and no padding by
    segments; per pair a 24th."""
    settings = config(tiny_llama, tmp_path, "bt")
    file = tmp_path / "pairs.jsonl"
    file.write_text(file.read_text().replace('"no"', '"' + "no " * 6 + '"'))
    settings.data.test_fraction, settings.train.epochs, settings.train.log_steps = 0.0, 1, 4
    result = main(settings)
    [row] = [row for row in RunFolder(result.folder).metrics() if "work_tokens" in row]
    assert row["work_tokens"] == pytest.approx(1350 / 24) == row["work_columns"]
    assert row["work_repeated"] == pytest.approx(1652 / 24)
    assert row["tokens_per_second"] > 0
    page = report.build(result.folder).read_text(encoding="utf-8")
    table = page[page.index("Distance to the limit") :]
    told = [re.sub("<[^>]*>", "", cell) for cell in re.findall("<td.*?</td>", table)[:3]]
    assert told[0] == "preference"
    assert [float(x) for x in told[1:]] == pytest.approx([0.0, 1652 / 1350], abs=0.01)


def test_rows_that_cannot_be_read_whole_are_counted_and_named(
    tiny_llama: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """At 32 tokens (a byte each) "Question n?" and "yes " five times or more are cut: rows with n % 5 > 0. The answers
    of the fifth row part only behind the cut: to the model they are alike."""
    settings = config(tiny_llama, tmp_path, "hrc")
    settings.model.max_length, settings.train.max_steps = 32, 1
    rows = [{"prompt": f"Question {n}?", "chosen": "yes " * (4 + n % 5), "rejected": "no"} for n in range(10)]
    rows[4] |= {"rejected": "yes " * 8 + "and no"}
    file = Path(settings.data.path) if isinstance(settings.data.path, str) else Path()
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    settings.data.test_path, settings.data.test_fraction = str(tmp_path / "test.jsonl"), 0.0
    Path(settings.data.test_path).write_text(json.dumps({**rows[3], "prompt": "Question?"}) + "\n")
    with caplog.at_level(logging.WARNING, logger="align"):
        metrics = main(settings).metrics
    assert (metrics["cut_rows"], metrics["alike_rows"]) == (8, 1)
    assert (metrics["test_cut_rows"], metrics["test_alike_rows"]) == (1, 0)
    assert f"training: 8 of 10 rows exceed 32 tokens and are cut on the right, the first: {file}:2;" in caplog.text
    assert f"as the model reads it, the first: {file}:5;" in caplog.text
    assert (
        f"test: 1 of 1 rows exceed 32 tokens and are cut on the right, the first: {tmp_path}/test.jsonl:1"
        in caplog.text
    )
    logged = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert next(row for row in logged if row["stage"] == "data")["cut_rows"] == 8


def test_scores_over_ranks_of_one_process_are_the_models(tiny_llama: Path) -> None:
    """One process scores all; a failure is raised as it is."""
    model = PreferenceModel.from_backbone(tiny_llama, tau=1.0, max_length=64)
    groups = [{"prompt": f"{n}?", "responses": ["a", "b" * n, "c"]} for n in range(1, 4)]
    for group, s in zip(groups, score_over_ranks(model, groups, 2), strict=True):
        assert np.abs(s.S - model.score(group["prompt"], group["responses"]).S).max() < 1e-5
    with pytest.raises(DataError, match="no list of answers"):
        score_over_ranks(model, [{"prompt": "?", "responses": []}], 2)


def test_held_out_games_in_parts_are_those_all_at_once(tiny_llama: Path) -> None:
    """Whatever `at_once`: the sums of all games, the six most telling of them, the first six."""
    model = PreferenceModel.from_backbone(tiny_llama, tau=1.0, max_length=64, seed=1)
    groups = [
        {"prompt": f"{n}?", "responses": list("abcde"[: 2 + n % 4]), "winners": [0], "losers": [1], "weights": [1.0]}
        for n in range(15)
    ]
    scores = score_over_ranks(model, groups, 16)
    whole, parts = (evaluate(model, groups, 16, at_once) for at_once in (512, 4))
    assert whole.accuracy == parts.accuracy == pair_accuracy(groups, scores)
    assert parts.metrics() == pytest.approx(whole.metrics(), abs=1e-5)
    assert parts.cyclicity == pytest.approx(np.mean([s.cyclicity for s in scores]), abs=1e-5)
    best = sorted(range(15), key=lambda n: (-min(len(scores[n].S), 4), -scores[n].cyclicity))[:6]
    for found in (whole, parts):
        assert [group["prompt"] for group, _ in found.telling] == [groups[n]["prompt"] for n in best]
        assert [group for group, _ in found.first] == groups[:6]


def test_theorem_4_7_is_checked(tiny_llama: Path, caplog: pytest.LogCaptureFixture) -> None:
    """2 delta C1 = 10 must exceed C2 lambda_sq_max: 10 does not leave room, 9 does; without a clip r is free."""
    with caplog.at_level(logging.WARNING, logger="align"):
        ModelOptions("x", lambda_sq_max=9.0)
        ModelOptions("x", lambda_sq_max=10.0, clip=False)
        ModelOptions("x", lambda_sq_max=10.0, kind="gpm")
        assert not caplog.records
        ModelOptions("x", lambda_sq_max=10.0)
        assert "Theorem 4.7" in caplog.text
    with pytest.raises(ConfigError) as raised:
        ModelOptions("x", dims=3)
    assert raised.value.field == "dims"
