"""The mixture's samples are its policies' samples: exactly, by seed, and in the right proportions."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from align.selfplay.mixture import FILE, PolicyMixture, open_hf, write_mixture
from launch.contracts import Completion, Prompt, Sampling
from launch.errors import CheckpointError, ConfigError
from tests.align.selfplay.charworld import prompts
from tests.tiny import make_llama

SAMPLING = Sampling(max_new_tokens=5, seed=11)


class Counting:
    """A real generator that notes what it was asked."""

    def __init__(self, folder: Path) -> None:
        self.inner, self.asked = open_hf(folder), []  # type: ignore[var-annotated]

    def generate(self, prompts: list[Prompt], n: int, sampling: Sampling) -> list[list[Completion]]:
        self.asked.append((len(prompts), n))
        return self.inner.generate(prompts, n, sampling)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    home = tmp_path_factory.mktemp("policies")
    return [make_llama(home / str(seed), layers=1, hidden=32, seed=seed) for seed in range(3)]


def test_per_prompt_equals_each_policys_generator(folders: list[Path]) -> None:
    mixture = PolicyMixture([Counting(f) for f in folders])
    asked = prompts()[:12]
    out = mixture.generate(asked, 2, SAMPLING)
    drawn = mixture.draw(asked, 2, SAMPLING.seed)
    assert set(drawn[:, 0]) == {0, 1, 2} and (drawn[:, 0] == drawn[:, 1]).all()
    for policy, folder in enumerate(folders):
        alone = open_hf(folder).generate(asked, 2, mixture.policy_sampling(SAMPLING, policy))
        for i in np.flatnonzero(drawn[:, 0] == policy):
            assert [c.token_ids for c in out[i]] == [c.token_ids for c in alone[i]]
    assert all(len(generator.asked) == 1 for generator in mixture.policies)  # type: ignore[union-attr]


def test_per_sample_draws_each_sample_and_keeps_slots(folders: list[Path]) -> None:
    mixture = PolicyMixture(folders, [0.5, 0.5, 0.0], per="sample")
    out = mixture.generate(["01:", "02:"], 6, SAMPLING)
    drawn = mixture.draw(["01:", "02:"], 6, SAMPLING.seed)
    assert set(drawn.ravel()) == {0, 1}
    for policy in (0, 1):
        alone = open_hf(folders[policy]).generate(["01:", "02:"], 6, mixture.policy_sampling(SAMPLING, policy))
        for i in range(2):
            slots = np.flatnonzero(drawn[i] == policy)
            for order, slot in enumerate(slots):  # sample number `order` of that policy
                assert out[i][slot].token_ids == alone[i][order].token_ids


def test_draws_follow_the_weights_and_not_the_company() -> None:
    """10,000 draws at weights 1:3, sd .0043: within four sd of .25; a prompt's draw is its own in any batch."""
    mixture = PolicyMixture(["a", "b"], [1.0, 3.0])
    many = [f"prompt {i}" for i in range(10_000)]
    drawn = mixture.draw(many, 1, 0)[:, 0]
    assert (drawn == 0).mean() == pytest.approx(0.25, abs=0.0175)
    assert (mixture.draw(many[::-1][:50], 1, 0)[:, 0] == drawn[::-1][:50]).all()
    assert (mixture.draw(many[:200], 1, 1)[:, 0] != drawn[:200]).any()
    twice = mixture.draw(["same"] * 64, 1, 0)[:, 0]
    assert 0 < twice.mean() < 1  # a repeated prompt is drawn anew


def test_policies_share_no_noise() -> None:
    mixture = PolicyMixture(["a", "b"])
    seeds = {mixture.policy_sampling(replace(SAMPLING, seed=s), p).seed for s in range(20) for p in range(2)}
    assert len(seeds) == 40


def test_save_and_load_lazily(folders: list[Path], tmp_path: Path) -> None:
    saved = PolicyMixture(folders[:2], [0.25, 0.75], per="sample").save(tmp_path / "mix")
    opened: list[Path] = []

    def open_one(folder: Path):
        opened.append(folder)
        return open_hf(folder)

    again = PolicyMixture.load(saved, open_one)
    assert again.weights == [0.25, 0.75] and again.per == "sample" and opened == []
    one = PolicyMixture(folders[:2], [0.25, 0.75], per="sample").generate(["03:"], 4, SAMPLING)
    two = again.generate(["03:"], 4, SAMPLING)
    assert [c.token_ids for c in one[0]] == [c.token_ids for c in two[0]]
    again.generate(["03:"], 4, SAMPLING)
    assert len(opened) == len(set(opened)) <= 2


def test_broken_mixtures_are_refused(folders: list[Path], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="non-negative"):
        PolicyMixture(folders, [1, -1, 1])
    with pytest.raises(ConfigError, match="one weight for each"):
        PolicyMixture(folders, [1, 1])
    with pytest.raises(CheckpointError, match="no mixture"):
        PolicyMixture.load(tmp_path)
    (tmp_path / FILE).write_text("{")
    with pytest.raises(CheckpointError, match="no mixture"):
        PolicyMixture.load(tmp_path)
    write_mixture(tmp_path, ["gone"])
    assert json.loads((tmp_path / FILE).read_text())["weights"] == [1.0]
    with pytest.raises(CheckpointError, match="holds no model"):
        PolicyMixture.load(tmp_path)
