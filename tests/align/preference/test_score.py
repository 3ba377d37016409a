"""`Scores`: everything is read off the game, and best-of-n follows it."""

from __future__ import annotations

import json

import numpy as np
import pytest

from align.preference import PreferenceModel, Scores, game
from align.preference.score import best_of

PROMPT = "Which fruit is best?"
ANSWERS = ["Apples.", "Pears, because they are sweet and soft.", "Plums", "", " ", "A quince: nobody dislikes it!"]


def test_scores_are_read_off_the_game(hrc: PreferenceModel) -> None:
    s = hrc.score(PROMPT, ANSWERS)
    assert np.allclose(s.rank_value, game.decompose(s.S).f)
    assert np.allclose(s.win_rate, s.P.mean(1))
    assert s.winner == game.condorcet_winner(s.S)
    assert game.duality_gap(s.P, s.nash) < 1e-6
    assert s.gap(s.nash) < 1e-6
    assert s.gap() >= 0
    assert abs(s.value) < 1e-9
    assert s.cyclicity == game.cyclicity(s.S)
    assert s.leak == pytest.approx(1 - game.cyclicity(s.S_C))
    plain = json.loads(json.dumps(s.to_dict()))
    assert plain["S"] == s.S.tolist()
    assert len(plain["vectors"]) == 6


def test_best_of() -> None:
    """The winner when there is one (b: S = +1, +2 against a, c); thirds of an even cycle otherwise."""
    g = np.random.default_rng(0)
    zero, even = np.zeros((3, 3)), np.array([[0, 1, -1], [-1, 0, 1], [1, -1, 0.0]])
    rank = np.array([0.0, 2.0, 1.0])
    assert best_of(Scores(rank[:, None] - rank[None], even), ["a", "b", "c"], g) == "b"
    assert best_of(Scores(3 * (rank[:, None] - rank[None]), even), ["a", "b", "c"], g) == "b"
    drawn = [best_of(Scores(zero, even), ["a", "b", "c"], g) for _ in range(600)]
    assert all(150 < drawn.count(x) < 250 for x in "abc")
