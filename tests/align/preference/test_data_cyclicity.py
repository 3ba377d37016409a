"""The data report: counts equal a naive loop, the energy share is the game's, real sets have their published counts."""

from __future__ import annotations

import json
from argparse import Namespace
from itertools import combinations, permutations
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from align.data_command import run
from align.preference import game
from align.preference.cyclicity import cyclicity_report, explain, flows
from align.preference.data import group_by_prompt, to_group
from align.preference.formats import Judged
from benchmarks import real_data
from launch import cli

Group = dict[str, Any]


def group(K: int, wins: list[tuple[int, int, float]], ties: list[tuple[int, int]] = ()) -> Group:  # type: ignore[assignment]
    return {
        "prompt": "p",
        "responses": [f"answer {k}" for k in range(K)],
        "winners": [w for w, _, _ in wins],
        "losers": [b for _, b, _ in wins],
        "weights": [weight for _, _, weight in wins],
        "ties": [list(pair) for pair in ties],
        "source": "made:1",
    }


def random_group(K: int, seed: int) -> Group:
    """Every pair judged for, against, equal, or not at all."""
    draw = np.random.default_rng(seed)
    wins, ties = [], []
    for i, j in combinations(range(K), 2):
        kind = draw.integers(5)
        if kind < 2:
            wins.append((i, j, 1.0))
        elif kind < 4:
            wins.append((j, i, 1.0))
        elif draw.integers(2):
            ties.append((i, j))
    return group(K, wins, ties)


@pytest.mark.parametrize("seed", range(5))
def test_counts_equal_a_loop_over_triples(seed: int) -> None:
    made = random_group(7, seed)
    beats = set(zip(made["winners"], made["losers"], strict=True))
    level = {frozenset(pair) for pair in made["ties"]}
    judged = {frozenset(pair) for pair in beats} | level
    triples = [t for t in combinations(range(7), 3) if all(frozenset(p) in judged for p in combinations(t, 2))]
    paths = [p for t in triples for p in permutations(t) if (p[0], p[1]) in beats and (p[1], p[2]) in beats]
    counts = cyclicity_report([made]).pooled
    assert counts.closed == len(triples)
    assert counts.strict == sum((c, a) in beats for a, _, c in paths) / 3
    assert counts.one_tie == sum(frozenset((a, c)) in level for a, _, c in paths)
    assert (counts.pairs, counts.ties) == (len(judged), len(level))


def test_a_perfect_ranking_has_no_cycle_and_shares_its_floor() -> None:
    """Votes say who, not how much: a > b > c fits best by f = (2/3, 0, -2/3), which leaves 3 x (1/3)^2 of 3: 1/9."""
    counts = cyclicity_report([group(3, [(0, 1, 1.0), (1, 2, 1.0), (0, 2, 1.0)])]).pooled
    assert (counts.closed, counts.strict) == (1, 0)
    assert counts.share == pytest.approx(1 / 9)
    assert counts.floor == pytest.approx(1 / 9)
    assert counts.chance == pytest.approx(1 / 3)


def test_a_pure_cycle_is_all_energy_and_is_named() -> None:
    report = cyclicity_report([group(3, [(0, 1, 1.0), (1, 2, 1.0), (2, 0, 1.0)])])
    assert report.pooled.share == pytest.approx(1.0)
    assert report.cycles == [{"source": "made:1", "answers": (0, 1, 2)}]


def test_share_of_a_complete_table_is_the_cyclicity_of_the_game() -> None:
    """Probabilities p_ij as soft votes: the flow is P - P^T, and the fit is the row mean of `decompose`."""
    draw = np.random.default_rng(0)
    S = draw.normal(size=(6, 6))
    P = game.probabilities(S - S.T)
    made = group(6, [(i, j, P[i, j]) for i, j in permutations(range(6), 2)])
    Y, judged = flows(made)
    parts = game.decompose(P - P.T)
    f, rest = explain(Y, judged)
    np.testing.assert_allclose(f, parts.f, atol=1e-12)
    np.testing.assert_allclose(rest, parts.S_C, atol=1e-12)
    assert cyclicity_report([made]).pooled.share == pytest.approx(game.cyclicity(P - P.T))


def test_rest_is_orthogonal_to_every_ranking_on_a_sparse_graph() -> None:
    Y, judged = flows(random_group(8, seed=3))
    _, rest = explain(Y, judged)
    np.testing.assert_allclose(rest.sum(1), 0, atol=1e-12)  # no net flow at any answer
    np.testing.assert_allclose(rest, -rest.T, atol=1e-15)
    assert (rest[~judged] == 0).all()


def test_a_tree_of_comparisons_is_always_a_ranking() -> None:
    counts = cyclicity_report([group(5, [(0, 1, 1.0), (2, 1, 1.0), (3, 2, 1.0), (3, 4, 1.0)])]).pooled
    assert counts.share == pytest.approx(0.0, abs=1e-20)
    assert counts.chance == 0.0


def test_judges_are_counted_apart_and_together(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Each of three judges has its own ranking; their majority is the Condorcet cycle a > b > c > a."""
    rows = []
    for judge, order in enumerate(("abc", "bca", "cab")):
        for x, y in combinations("abc", 2):
            label = 1 if order.index(x) < order.index(y) else 2
            rows.append({"prompt": "p", "response_1": x, "response_2": y, "label": label, "judge": judge})
    file = tmp_path / "votes.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert strict_cycles(file, ["annotator=judge"], capsys) == {"0": 0, "1": 0, "2": 0, "majority": 1}


def strict_cycles(file: Path, overrides: list[str], capsys: pytest.CaptureFixture[str]) -> dict[str, int]:
    assert run(Namespace(path=str(file), overrides=overrides, json=True)) == 0
    report = json.loads(capsys.readouterr().out)["cyclicity"]
    return {who: counts["strict"] for who, counts in {**report["judges"], "majority": report["pooled"]}.items()}


def test_data_command_prints_tables_and_complaints(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "160")
    file = tmp_path / "rows.jsonl"
    rows = [{"prompt": "p", "responses": ["a", "b", "c"], "votes": [[0, 1, 0], [1, 2, 1], [0, 2, 2]]}]
    rows.append({"prompt": "q", "responses": ["a", "b"], "votes": [[0, 1, None]]})
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert cli.main(["data", str(file)]) == 0
    printed = capsys.readouterr().out
    assert "closed triples" in printed
    assert "answers 1 > 2 > 3 > 1" in printed
    assert "1 prompts with ties only" in printed
    assert cli.main(["data", str(file), "bad_row=skip"]) == 2
    assert "did you mean 'data.bad_rows'" in capsys.readouterr().err
    assert cli.main(["data", str(file), "min_margin=big"]) == 2
    assert "override 'min_margin=big': data.min_margin = 'big' is not float" in capsys.readouterr().err
    assert cli.main(["data", str(file), "min_margin=-1"]) == 2
    assert "data.min_margin: -1.0 is below 0" in capsys.readouterr().err
    assert cli.main(["data", str(file), "columns.prompt=[p]"]) == 2
    assert "data.columns.prompt = ['p'] is not str" in capsys.readouterr().err
    assert cli.main(["data", str(tmp_path / "none.jsonl")]) == 1
    assert "no such file" in capsys.readouterr().err


# ---------------------------------------------------------------- real data


@pytest.mark.data
def test_pandalm_has_the_published_cycles() -> None:
    """413 closed triples of models; strict cycles and one-tie triples per judge as in the data's description."""
    rows = real_data.pandalm()
    report = cyclicity_report([to_group(row) for row in rows])
    found = [(report.judges[judge].strict, report.judges[judge].one_tie) for judge in real_data.PANDALM_JUDGES]
    assert found == [(4, 3), (4, 1), (1, 2), (17, 3), (3, 7)]
    assert report.judges["annotator_1"].closed == 413
    humans = [
        Judged(r.prompt, r.responses, [v for v in r.votes if v.annotator in real_data.HUMANS], r.source) for r in rows
    ]
    majority = cyclicity_report([to_group(row) for row in humans]).pooled
    assert (majority.closed, majority.strict, majority.one_tie) == (413, 1, 0)


@pytest.mark.data
def test_vicuna_bench_is_a_transitive_control() -> None:
    counts = cyclicity_report([to_group(row) for row in real_data.vicuna_bench()]).pooled
    assert (counts.closed, counts.strict) == (240, 0)


@pytest.mark.data
def test_llmbar_has_one_human_cycle() -> None:
    groups = group_by_prompt(real_data.llmbar()["mtbench_human"])
    counts = cyclicity_report([to_group(row) for row in groups]).pooled
    assert (counts.closed, counts.strict) == (9, 1)


@pytest.mark.data
def test_scores_are_always_a_ranking() -> None:
    rows = real_data.arena()
    counts = cyclicity_report([to_group(row) for row in rows]).pooled
    assert counts.strict == 0
    assert counts.share == pytest.approx(counts.floor)
    assert len(rows) == 300  # 302 prompts, two with one answer
