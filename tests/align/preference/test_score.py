"""`Scores`: everything is read off the game, and best-of-n follows it."""

from __future__ import annotations

import json

import numpy as np
import pytest
from transformers import LlamaConfig, LlamaModel

from align.preference import PreferenceModel, Scores, game
from align.preference.config import PreferenceConfig
from align.preference.score import best_of, scores_of

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


@pytest.mark.parametrize("kind", ["bt", "gpm", "hrc"])
def test_groups_in_one_product_score_as_each_by_itself(kind: str) -> None:
    """Sizes 1 to 5 in no order, answers that share a sequence: `compare`, group by group, is the slow twin."""
    g = np.random.default_rng(0)
    d = 0 if kind == "bt" else 2
    config = PreferenceConfig(kind=kind, dims=4, tau=0.3, c1=1.3, c2=0.7, backbone_config=LlamaConfig(hidden_size=32))
    model = PreferenceModel(config, LlamaModel(LlamaConfig(hidden_size=32, num_hidden_layers=0, vocab_size=8)))
    sizes = [3, 1, 5, 3, 2, 5, 3]
    N = 12
    r, v = g.normal(size=N).astype(np.float32), g.normal(size=(N, 2 * d)).astype(np.float32)
    lambda_sq = g.uniform(0, 9, size=(len(sizes), d)).astype(np.float32)
    answers = [g.integers(0, N, size=K).tolist() for K in sizes]
    assert any(len(set(rows)) < len(rows) for rows in answers)
    found = scores_of(r, v, lambda_sq, answers, config.c1, config.c2, config.tau)
    assert len(found) == len(sizes)
    for group, rows, weight in zip(found, answers, lambda_sq, strict=True):
        twin = model.compare([{"r": r[n], "v": v[n]} for n in rows], weight)
        for name in ("S_T", "S_C", "r", "vectors", "lambda_sq"):
            mine, theirs = getattr(group, name), getattr(twin, name)
            assert mine.shape == theirs.shape and np.abs(mine - theirs).max(initial=0) < 1e-5
        assert group.tau == twin.tau
        assert (group.S == -group.S.T).all()
        for i, a in enumerate(rows):  # one sequence, one row: a tie exactly
            assert all(group.S[i, j] == 0 for j, b in enumerate(rows) if a == b)


def test_best_of() -> None:
    """The winner when there is one (b: S = +1, +2 against a, c); thirds of an even cycle otherwise."""
    g = np.random.default_rng(0)
    zero, even = np.zeros((3, 3)), np.array([[0, 1, -1], [-1, 0, 1], [1, -1, 0.0]])
    rank = np.array([0.0, 2.0, 1.0])
    assert best_of(Scores(rank[:, None] - rank[None], even), ["a", "b", "c"], g) == "b"
    assert best_of(Scores(3 * (rank[:, None] - rank[None]), even), ["a", "b", "c"], g) == "b"
    drawn = [best_of(Scores(zero, even), ["a", "b", "c"], g) for _ in range(600)]
    assert all(150 < drawn.count(x) < 250 for x in "abc")
