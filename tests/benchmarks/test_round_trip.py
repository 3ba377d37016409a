"""The round trip's own arithmetic; the trip itself is `python -m benchmarks.round_trip`, and in small in
tests/launch/test_judge_vllm.py."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from benchmarks import round_trip
from tasks.worlds.styles import StylesWorld


def row(question: str, unaligned: str, aligned: str, preference: float | None) -> dict[str, Any]:
    return {"instruction": question, "output_1": unaligned, "output_2": aligned, "preference": preference}


def test_verdicts_stand_beside_the_true_games_by_hand() -> None:
    """Right against wrong in one style is 2 logits, P = .8808; formal against concise 1.5, P = .8176; equal ones 1/2.
    The judge goes with the truth once and against it once; a draw is no clear case, an unread verdict is none at all.
    """
    rows = [
        row("34+5=", "38", "39", 1.9),
        row("34+5=", "39", "It equals 39.", 1.2),
        row("34+5=", "39", "39", 1.5),
        row("34+5=", "39", "38", None),
    ]
    told = round_trip.verdicts(StylesWorld(), rows)
    assert told["truth"][0] == pytest.approx(100 * (0.8808 + 0.8176 + 0.5) / 3, abs=0.01)
    assert told["win_rate"] == pytest.approx(100 * (0.9 + 0.2 + 0.5) / 3)
    assert (told["agreement"]["value"], told["agreement"]["n"]) == (0.5, 2)
    assert told["right"] == {"aligned": 3, "unaligned": 3}
    assert (told["n_total"], told["n_failed"], told["equal"]) == (3, 1, 1)


def test_a_folder_without_a_demo_is_named(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="holds no finished hrc-dsppo-anchor; run `make demo` first"):
        round_trip.demo_models(tmp_path)
