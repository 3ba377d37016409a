"""align's tools say what the library says."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from align.tools import nash_mixture, score_answers
from launch.errors import DataError
from launch.tools import ToolError, ToolSpec
from launch.tools_pool import Pool


def test_a_cycle_of_three_by_hand() -> None:
    """Payoffs P - 1/2: a beats b by .4, b beats c by .2, c beats a by .3. Around a cycle each is played in proportion
    to the payoff of the pair it is not in: a : b : c = .2 : .3 : .4. The best reply to the uniform mixture wins
    (.5 + .9 + .2) / 3 = .5333 (a and c do), so the gap is 2 (.5333 - .5).
    """
    found = nash_mixture([[0.5, 0.9, 0.2], [0.1, 0.5, 0.7], [0.8, 0.3, 0.5]])
    assert found["mixture"].tolist() == pytest.approx([2 / 9, 3 / 9, 4 / 9])
    assert found["winner"] is None
    assert found["gap_of_uniform"] == pytest.approx(2 * (1.6 / 3 - 0.5))
    assert 0.9 < found["cyclicity"] < 1


def test_a_winner_is_always_given() -> None:
    found = nash_mixture([[0.5, 0.8], [0.2, 0.5]])
    assert found["mixture"].tolist() == [1, 0] and found["winner"] == 0 and found["cyclicity"] == 0


@pytest.mark.parametrize(
    ("table", "told"),
    [
        ([], "0 rows of"),
        ([[0.5, 0.5]], "must be square"),
        ([[0.5, 1.2], [-0.2, 0.5]], "goes from -0.2 to 1.2"),
        ([[0.5, 0.9], [0.9, 0.5]], "not skew-symmetric"),
    ],
)
def test_what_is_no_table_of_chances(table: list[list[float]], told: str) -> None:
    with pytest.raises(DataError, match=told):
        nash_mixture(table)


def test_score_answers_is_the_models_own_score(tiny_llama: Path, tmp_path: Path) -> None:
    """Through a fenced process that reads the model's folder by its name below the data folder."""
    from align.preference import PreferenceModel

    model = PreferenceModel.from_backbone(tiny_llama, kind="hrc", dims=4, max_length=64).eval()
    model.save_pretrained(tmp_path / "judge")
    answers = ["7", "8", "nine"]
    scores = model.score("Name a prime.", answers)
    with Pool({"score_answers": ToolSpec.of(score_answers)}, tmp_path, workers=1) as pool:
        call = {"prompt": "Name a prime.", "answers": answers, "model": "judge"}
        found = json.loads(pool.call("score_answers", call))["result"]
        assert found["win_probability"] == pytest.approx(scores.P, abs=1e-6)
        assert found["mixture"] == pytest.approx(scores.nash, abs=1e-5) and found["winner"] == scores.winner
        for wrong, told in (({"model": "none"}, "none is not in the data folder; there is judge"),
                            ({"model": "../x"}, "lies outside"), ({"answers": []}, "answers")):  # fmt: skip
            with pytest.raises(ToolError, match=told):
                pool.call("score_answers", {**call, **wrong})


def test_a_model_that_was_replaced_on_disk_is_read_again(tiny_llama: Path, tmp_path: Path) -> None:
    from align.preference import PreferenceModel

    call = {"prompt": "Name a prime.", "answers": ["7", "8"], "model": "judge"}
    with Pool({"score_answers": ToolSpec.of(score_answers)}, tmp_path, workers=1) as pool:
        seen = []
        for kind in ("bt", "hrc"):
            model = PreferenceModel.from_backbone(tiny_llama, kind=kind, max_length=64).eval()
            model.save_pretrained(tmp_path / "judge")
            seen.append(json.loads(pool.call("score_answers", call))["result"]["win_probability"])
            assert seen[-1] == pytest.approx(model.score(call["prompt"], call["answers"]).P, abs=1e-6)
        assert seen[0] != seen[1]
