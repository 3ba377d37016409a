"""The demo: its yardstick is exact, and a small run goes end to end, again to the same numbers, and on after a stop.

Small runs train for a few steps: they test that the parts fit, not that anything is learned (docs/results/styles.md).
"""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from align import demo, demo_measure
from align.preference import game
from launch import cli
from launch.errors import ConfigError, LaunchError
from launch.options import RunOptions
from tasks.worlds.styles import STYLES, TYPES, StylesWorld

WORLD = StylesWorld()
SMALL = [
    "base.hidden_size=32", "base.layers=1", "base.demonstrations=300", "base.train.max_steps=20",
    "votes.lists=12", "votes.answers=4", "preference.train.max_steps=3", "methods=[bt+sppo, hrc+dsppo]",
    "selfplay.rounds=1", "selfplay.samples=4", "selfplay.prompts=12", "selfplay.train.epochs=1", "held_out=5",
    "held_out_answers=4", "threads=1",
]  # fmt: skip


def small_run(folder: Path, cache: Path, *more: str) -> dict:
    code = cli.main(["run", "align/demo", f"run.folder={folder}", f"base.cache={cache}", *SMALL, *more])
    assert code == 0
    return json.loads((folder / "artifacts" / "rounds.json").read_text())


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def first(tmp_path_factory, cache):
    folder = tmp_path_factory.mktemp("demo") / "run"
    return folder, small_run(folder, cache)


def test_demo_runs_end_to_end_and_writes_what_the_report_shows(first):
    folder, found = first
    assert [(row["method"], row["round"]) for row in found["rows"]] == [
        (method, t) for method in ("bt+sppo", "hrc+dsppo") for t in (0, 1)
    ]
    for row in found["rows"]:
        assert set(row["styles"]) == set(STYLES)
        assert sum(row["styles"].values()) + row["malformed"] == pytest.approx(1.0)
        assert row["tabular"].keys() >= {"right", "win_vs_start", "gap_last", "gap_average"}
    assert {f.stem for f in (folder / "artifacts").glob("scores-*.json")} == {"scores-bt", "scores-hrc"}
    assert "hrc+dsppo" in (folder / "report.html").read_text()


def test_demo_continues_from_what_is_there(first, cache):
    """A policy's answers that were removed are made anew, and the same; no other file of a model or stage is."""
    folder, found = first
    policies = sorted(folder.glob("**/final/model.safetensors"))
    assert len(policies) == 4  # two preference models, and one policy for each method
    removed, *kept = sorted(folder.glob("stages/held-out-*"))
    assert len(kept) == 2  # the start's, and each method's one policy: three in all
    answers = (removed / "answers.json").read_bytes()
    files = [*policies, *(file for stage in folder.glob("**/stages/*") if stage != removed for file in stage.iterdir())]
    before = {file: file.stat().st_mtime_ns for file in files}
    shutil.rmtree(removed)
    assert small_run(folder, cache) == found
    assert (removed / "answers.json").read_bytes() == answers
    assert {file: file.stat().st_mtime_ns for file in files} == before


def test_demo_refuses_several_processes(monkeypatch, tmp_path):
    """Both would write the same stages. Nothing is made."""
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(LaunchError, match="one process, here are 2"):
        demo.main(demo.Config(run=RunOptions(folder=str(tmp_path / "run"))))
    assert not (tmp_path / "run").exists()


def test_demo_is_a_function_of_its_seed(first, cache, tmp_path):
    _, found = first
    assert small_run(tmp_path / "again", cache) == found


@pytest.mark.parametrize("methods", [["bt"], ["dpo+sppo"], ["bt+anchor"], ["bt+sppo", "bt+sppo"], []])
def test_demo_refuses_methods_it_does_not_know(methods):
    with pytest.raises(ConfigError):
        demo.Config(methods=methods)


def test_only_methods_that_say_so_are_anchored():
    updates = {
        "hrc+sppo": (0.0, 0.0),
        "hrc+dsppo": (1.0, 0.0),
        "hrc+sppo+anchor": (0.0, 0.8),
        "bt+dsppo+anchor": (1.0, 0.8),
    }
    assert {method: demo.update_of(demo.Config(), method) for method in updates} == updates


def test_worth_is_the_duality_gap_of_the_true_game():
    """Half right formal, half wrong formal. Best reply right warm: (s(1.5) + s(3.5)) / 2 = (0.81757 + 0.97069) / 2."""
    shares = np.zeros(len(TYPES))
    shares[[0, 3]] = 0.5
    row = demo_measure.worth(WORLD, [shares], shares)
    assert row["gap_last"] == pytest.approx(2 * (0.894131 - 0.5), abs=1e-5)
    assert row["gap_last"] == game.duality_gap(WORLD.game().P, shares)
    assert row["right"] == 0.5 and row["styles"]["formal"] == 1.0 and row["malformed"] == 0.0
    assert row["win_vs_start"] == pytest.approx(0.5)


def test_type_shares_count_every_answer():
    prompts = WORLD.prompts("test")[:3]
    answers = [WORLD.examples(prompt) for prompt in prompts]
    assert np.allclose(demo_measure.type_shares(WORLD, prompts, answers), 1 / len(TYPES))


def test_the_true_game_as_judge_is_flawless_and_leaks_nothing():
    class Truth:
        def score_many(self, groups, batch_size):
            return [WORLD.score(prompt, answers) for prompt, answers in groups]

    S_T, S_C = demo_measure.mean_parts(WORLD, Truth(), WORLD.prompts("test")[:4])
    quality = demo_measure.judge_quality(WORLD, S_T, S_C)
    assert quality["correctness"] == quality["style"] == quality["mixed"] == 1.0
    assert quality["right_T"] == 2.0 and quality["cycle_C"] == 1.5
    assert quality["right_C"] == quality["cycle_T"] == 0.0
    assert quality["leak"] == pytest.approx(0.0, abs=1e-12) and quality["error"] == pytest.approx(0.0, abs=1e-12)


def test_prediction_starts_where_the_policy_does():
    start = np.array([0.27, 0.27, 0.05, 0.18, 0.17, 0.05, 0.01])
    truth = WORLD.game()
    rows = demo_measure.prediction(WORLD, truth.S_T[None], truth.S_C[None], start, rounds=2, eta=3.0, k=8)
    assert rows[0]["gap_last"] == pytest.approx(game.duality_gap(truth.P, start))
    assert rows[0]["right"] < rows[1]["right"] < rows[2]["right"]
