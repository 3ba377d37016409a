"""The alignment sections: every score, mixture and round is on the page; cycles are those of the game."""

from __future__ import annotations

import numpy as np
import pytest

from align.report import preference_section, selfplay_section, strongest_cycles
from launch import plots
from launch.errors import DataError
from launch.runfolder import RunFolder
from tests.launch.test_report import EVIL, Page

RPS = np.array([[0.0, 1.5, -1.25], [-1.5, 0.0, 1.0], [1.25, -1.0, 0.0]])


def game(S_T: np.ndarray, S_C: np.ndarray, **extra) -> dict:
    S = S_T + S_C
    K = len(S)
    return {
        "prompt": f"Say {EVIL}",
        "responses": [f"answer {i} {EVIL}" for i in range(K)],
        "model": "HRC",
        "S": S.tolist(),
        "S_T": S_T.tolist(),
        "S_C": S_C.tolist(),
        "P": (1 / (1 + np.exp(-S))).tolist(),
        "rank_value": S.mean(1).tolist(),
        "nash": [1 / K] * K,
        "cyclicity": 0.8125,
        "winner": None,
        "vectors": None,
        **extra,
    }


def page_of(sections) -> Page:
    page = Page("".join(f"<h2>{s.title}</h2>{s.html}" for s in sections))
    assert page.open == [] and "script" not in page.tags
    return page


def test_no_artifacts_no_sections(tmp_path):
    run = RunFolder(tmp_path)
    assert preference_section(run) == [] and selfplay_section(run) == []


def test_every_entry_of_the_three_matrices_is_drawn_and_written(tmp_path):
    run = RunFolder(tmp_path)
    f = np.array([0.2, 0.1, -0.3])
    angles = 2 * np.pi * np.arange(3) / 3
    vectors = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    made = game(f[:, None] - f[None, :], RPS, vectors=vectors.tolist())
    run.artifact("scores-hrc", made)
    page = page_of(preference_section(run))
    for part in ("S", "S_T", "S_C"):
        for i, row in enumerate(made[part]):
            for j, value in enumerate(row):
                assert f"{i + 1} against {j + 1}: {plots.number(value)}" in page.text
                assert i == j or f"{value:z.2f}" in page.text
    for value in (*made["rank_value"], *made["nash"], made["cyclicity"]):
        assert plots.number(value) in page.text
    assert page.text.count(EVIL) >= 4
    assert "cycle 1 › 2 › 3 › 1" in page.text and "no answer beats all others" in page.text
    assert all(f"{i} beats {j}" in page.text for i, j in ((1, 2), (2, 3), (3, 1)))
    assert "Cyclic embedding" in page.text and page.tags.count("polygon") == 3


def test_a_transitive_game_has_a_winner_and_no_arrows(tmp_path):
    run = RunFolder(tmp_path)
    f = np.array([1.0, 0.0, -1.0])
    made = game(f[:, None] - f[None, :], np.zeros((3, 3)), winner=0, vectors=[[1, 0], [0, 1], [-1, 0]], cyclicity=0.0)
    run.artifact("scores-bt", made)
    page = page_of(preference_section(run))
    assert "answer 1 beats all others" in page.text and "polygon" not in page.tags


def test_strongest_cycles_come_first_by_their_weakest_link():
    """Two triads share nothing: 0>1>2>0 with links 3, 3, .5 and 3>4>5>3 with links 1: the second is stronger."""
    S = np.zeros((6, 6))
    for i, j, s in ((0, 1, 3), (1, 2, 3), (2, 0, 0.5), (3, 4, 1), (4, 5, 1), (5, 3, 1)):
        S[i, j], S[j, i] = s, -s
    assert strongest_cycles(S) == [(3, 4, 5), (0, 1, 2)]
    assert strongest_cycles(S, most=1) == [(3, 4, 5)]


@pytest.mark.parametrize("missing", ["S", "nash", "responses", "cyclicity"])
def test_an_artifact_without_a_part_is_named(tmp_path, missing):
    run = RunFolder(tmp_path)
    made = game(np.zeros((3, 3)), RPS)
    del made[missing]
    run.artifact("scores-x", made)
    with pytest.raises(DataError, match=rf"artifacts/scores-x.json has no {missing}"):
        preference_section(run)


def test_a_matrix_of_another_size_is_named(tmp_path):
    run = RunFolder(tmp_path)
    run.artifact("scores-x", {**game(np.zeros((3, 3)), RPS), "responses": ["a", "b"]})
    with pytest.raises(DataError, match="2 responses"):
        preference_section(run)


ROWS = [
    {
        "method": method,
        "seed": seed,
        "round": t,
        "right": 0.5 + 0.0123 * t + shift,
        "styles": {"formal": 0.4 - shift, "warm": 0.6 + shift},
        "win_vs_start": 0.5 + 0.0371 * t,
        "gap_last": 0.51 - 0.0457 * t,
        "gap_average": 0.51 - 0.0613 * t,
        "malformed": 0.0041 * t,
        "tabular": {"right": 0.5 + 0.0777 * t, "gap_last": 0.51 - 0.0887 * t},
    }
    for method, shift in (("BT + SPPO", 0.0), (EVIL, 0.01))
    for seed in (0, 1)
    for t in (0, 1, 2)
]


def test_every_number_of_every_round_is_in_the_table(tmp_path):
    run = RunFolder(tmp_path)
    histogram = {"method": "BT + SPPO", "round": 1, "edges": [-0.5, 0.0, 0.5], "counts": [17, 23]}
    run.artifact("rounds", {"rows": ROWS, "histograms": [histogram]})
    page = page_of(selfplay_section(run))
    for row in ROWS:
        for value in (*(row[k] for k in ("right", "win_vs_start", "gap_last", "gap_average", "malformed")),):
            assert plots.number(value) in page.text
        for value in (*row["styles"].values(), *row["tabular"].values()):
            assert plots.number(value) in page.text
    assert "means over 2 seeds" in page.text and page.text.count("predicted") == 2
    assert "-0.5 to 0: 17" in page.text and "0 to 0.5: 23" in page.text
    assert page.tags.count("tr") == len(ROWS) + 1


def test_curves_are_means_over_seeds(tmp_path):
    """Seeds with right .2 and .4 in round 1 are drawn at .3."""
    run = RunFolder(tmp_path)
    rows = [
        {"method": "m", "seed": s, "round": t, "right": 0.1 + t * x} for s, x in ((0, 0.1), (1, 0.3)) for t in (0, 1)
    ]
    run.artifact("rounds", {"rows": rows})
    text = page_of(selfplay_section(run)).text
    assert "m, round 1: 0.3" in text and "m, round 0: 0.1" in text


def test_missing_numbers_are_dashes(tmp_path):
    run = RunFolder(tmp_path)
    run.artifact(
        "rounds", {"rows": [{"method": "m", "round": 0, "right": None}, {"method": "m", "round": 1, "right": 0.75}]}
    )
    text = page_of(selfplay_section(run)).text
    assert "0.75" in text and "–" in text
    run.artifact("rounds", {"rows": [{"round": 0}]})
    with pytest.raises(DataError, match="has no method"):
        selfplay_section(run)
