"""The measurements on real answers: what counts as right, the intervals, the states, and the frozen heads."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from align.preference.formats import Judged, Vote
from benchmarks import features, real_data
from benchmarks.features import Backbone, States
from benchmarks.frozen_heads import Pairs, fit
from benchmarks.real_preferences import Items, correct, interval, join, triples


def test_a_score_of_zero_counts_one_half() -> None:
    assert correct(np.array([2.0, -1.0, 0.0])).tolist() == [1.0, 0.0, 0.5]


def test_interval_draws_prompts_whole() -> None:
    """Ten prompts of three pairs, all right or all wrong: 80 % right, +- 1.96 sqrt(.8 x .2 / 10) = .25, not .14."""
    prompt = np.repeat(np.arange(10), 3)
    found = interval(Items(prompt, prompt, prompt), (prompt < 8).astype(float)[None])
    assert found["accuracy"] == pytest.approx(0.8)
    assert found["high"] - found["low"] > 0.35
    assert found["high"] == 1.0


def test_cyclic_triples_are_told_from_the_rest_per_judge() -> None:
    """Judge x goes round a > b > c > a, judge y ranks a > b > c; rows start at answer 10 and prompt 5."""
    cycle = [Vote(0, 1, annotator="x"), Vote(1, 2, annotator="x"), Vote(2, 0, annotator="x")]
    ranking = [Vote(0, 1, annotator="y"), Vote(1, 2, annotator="y"), Vote(0, 2, annotator="y")]
    cyclic, rest = triples([Judged("p", ["a", "b", "c"], cycle + ranking, "made")], ("x", "y"), 10, 5)
    assert sorted(zip(cyclic.winner.tolist(), cyclic.loser.tolist(), strict=True)) == [(10, 11), (11, 12), (12, 10)]
    assert sorted(zip(rest.winner.tolist(), rest.loser.tolist(), strict=True)) == [(10, 11), (10, 12), (11, 12)]
    assert set(cyclic.prompt) == set(rest.prompt) == {5}


def test_joined_states_keep_every_row() -> None:
    one = States(np.zeros((3, 2)), np.zeros((2, 2)), np.array([0, 1, 3]))
    two = States(np.ones((2, 2)), np.ones((1, 2)), np.array([0, 2]))
    both = join([one, two])
    assert both.start.tolist() == [0, 1, 3, 5]
    assert both.answers.sum() == 4


def test_states_do_not_depend_on_batch_mates(tiny_llama: Path) -> None:
    """Alone or among others, padded or not; the prompt's state is the same whichever answer follows."""
    rows = [
        Judged("2+2?", ["4", "five " * 8], [], "made"),
        Judged("A much longer question than the other one?", ["yes", "no, never"], [], "made"),
    ]
    backbone = Backbone("tiny", tiny_llama, 64)
    together = features.encode(backbone, rows)
    for n, row in enumerate(rows):
        alone = features.encode(backbone, [row])
        part = slice(together.start[n], together.start[n + 1])
        np.testing.assert_allclose(together.answers[part], alone.answers, atol=1e-5)
        np.testing.assert_allclose(together.prompts[n], alone.prompts[0], atol=1e-5)


@pytest.mark.parametrize("kind", ["BT", "HRC 4+1"])
def test_frozen_heads_learn_a_hidden_scalar_and_repeat(kind: str) -> None:
    draw = np.random.default_rng(0)
    answers = draw.normal(size=(600, 16)).astype(np.float32)
    value = answers @ draw.normal(size=16)
    pair = draw.integers(600, size=(1500, 2))
    pair = pair[pair[:, 0] != pair[:, 1]]
    winner, loser = np.where(value[pair[:, :1]] > value[pair[:, 1:]], pair, pair[:, ::-1]).T
    states = States(answers, np.ones((1, 16), np.float32), np.array([0, 600]))
    train, test = (
        Pairs(winner[s], loser[s], np.zeros(len(winner[s]), int), np.ones(len(winner[s])))
        for s in (slice(0, 1200), slice(1200, None))
    )
    first, again = (fit(kind, states, train, test, seed=0, epochs=8, batch=128) for _ in range(2))
    scores = first.scores(states, test.winner, test.loser, test.prompt)
    assert correct(scores).mean() > 0.9
    np.testing.assert_array_equal(scores, again.scores(states, test.winner, test.loser, test.prompt))


@pytest.mark.data
def test_adapters_read_the_real_sets() -> None:
    """Counts as in the data's description, less rows with empty or identical answers."""
    assert len(real_data.hh_rlhf()) == 2312 - 4
    assert len(real_data.auto_j()) == 1392 - 10
    assert sum(map(len, real_data.llmbar().values())) == 1200 - 2
    assert len(real_data.pandalm()) == 164
    assert len(real_data.stories()) == 1000
    arena = real_data.arena()
    assert sum(len(row.responses) for row in arena) == 4621
