"""Reference values are found by content: by another method on the same samples, never after a changed token."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from align.selfplay import rounds, stages
from align.selfplay.inputs import policy_identity
from align.selfplay.reference import ReferenceCache, row_key, rows_key
from launch.runfolder import RunFolder
from tests.align.selfplay.test_rounds import config

ROWS: list[dict[str, Any]] = [
    {"prompt_ids": [1, 3], "response_ids": [[4, 2], [5, 2]]},
    {"prompt_ids": [1, 3, 4], "response_ids": [[2], [5, 2]]},
]


def test_a_value_is_found_by_policy_limits_and_tokens_alone(tmp_path: Path) -> None:
    made_by = {"policy": "a", "max_length": 8}
    cache = ReferenceCache(tmp_path, made_by)
    assert cache.find(ROWS) == [None, None]
    cache.keep(ROWS, [[-1.0, -2.0], [-3.0, -4.0]])
    cache.keep([], [])
    again = ReferenceCache(tmp_path, dict(reversed(made_by.items())))
    assert again.find(ROWS[::-1]) == [[-3.0, -4.0], [-1.0, -2.0]]
    # What a method adds to a row (win rates, who was chosen) is no part of it.
    assert again.find([{**ROWS[0], "win_rates": [1.0, 0.0], "index": [0, 1]}]) == [[-1.0, -2.0]]
    for policy, length in (("b", 8), ("a", 9)):
        assert ReferenceCache(tmp_path, {"policy": policy, "max_length": length}).find(ROWS) == [None, None]


@pytest.mark.parametrize("where", ["prompt", "answer", "order", "seam"])
def test_one_changed_token_is_another_row(where: str) -> None:
    changed = {
        "prompt": {"prompt_ids": [1, 9], "response_ids": [[4, 2], [5, 2]]},
        "answer": {"prompt_ids": [1, 3], "response_ids": [[4, 2], [5, 9]]},
        "order": {"prompt_ids": [1, 3], "response_ids": [[5, 2], [4, 2]]},
        "seam": {"prompt_ids": [1, 3, 4], "response_ids": [[2], [5, 2]]},
    }[where]
    assert row_key(changed) != row_key(ROWS[0])
    assert rows_key([changed, ROWS[1]]) != rows_key(ROWS)


class Passes:
    """Counts the rows that go through a real reference pass, and the loads of a policy."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        import launch.models

        self.rows, self.loads = 0, 0
        reference, load = stages.reference_logprobs, launch.models.load_causal_lm

        def counted_reference(model: Any, rows: Any, *rest: Any, **more: Any) -> Any:
            self.rows += len(rows)
            return reference(model, rows, *rest, **more)

        def counted_load(*args: Any) -> Any:
            self.loads += 1
            return load(*args)

        monkeypatch.setattr(stages, "reference_logprobs", counted_reference)
        monkeypatch.setattr(launch.models, "load_causal_lm", counted_load)


SMALL = {"rounds": 1, "eval_prompts": "", "prompts_per_round": 16, "samples": 3}


def test_another_method_on_the_same_samples_makes_no_reference_pass(
    char_policy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SPPO, then DSPPO and GPO in run folders of their own: the same 16 prompts' answers, other scores and rows. What
    DSPPO keeps of them, SPPO has paid for. A policy with one weight changed pays again, for all."""
    passes = Passes(monkeypatch)
    shared = {**SMALL, "reference_cache": str(tmp_path / "cache")}
    rounds.main(config(char_policy, tmp_path / "sppo", lam=0.0, **shared))
    paid = passes.rows
    assert 0 < paid <= 16
    rounds.main(config(char_policy, tmp_path / "dsppo", lam=1.0, **shared))
    rounds.main(config(char_policy, tmp_path / "gpo", lam=0.0, loss="gpo", **shared))
    assert passes.rows <= 16  # a prompt dropped by the first method alone may be new
    again = RunFolder(tmp_path / "gpo").timings()
    assert [row["known"] for row in again if row["stage"] == "round-1 reference"] == [paid]

    other = shutil.copytree(char_policy, tmp_path / "other")
    weights = load_file(other / "model.safetensors")
    weights["model.norm.weight"][0] += 1e-3
    save_file(weights, other / "model.safetensors", metadata={"format": "pt"})
    assert policy_identity(other) != policy_identity(char_policy)
    before = passes.rows
    rounds.main(config(other, tmp_path / "changed", lam=0.0, **shared))
    assert passes.rows > before


def test_a_run_loads_its_policy_once_and_plays_what_it_saved(
    char_policy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two rounds and three evaluations: generation, reference and training share one policy in memory, which each fit
    turns into the next. A run interrupted between rounds reads the second policy from disk and ends the same."""
    settings = {**SMALL, "rounds": 2, "eval_prompts": "tests.align.selfplay.charworld:held_out", "eval_samples": 2}
    passes = Passes(monkeypatch)
    whole, halved = (config(char_policy, tmp_path / name, **settings) for name in ("whole", "halved"))
    rounds.main(whole)
    assert passes.loads == 1
    train = stages.Stages.train

    def stop(self: Any, t: int, *rest: Any) -> str:
        if t == 2:
            raise KeyboardInterrupt
        return train(self, t, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(stages.Stages, "train", stop)
        with pytest.raises(KeyboardInterrupt):
            rounds.main(halved)
    rounds.main(halved)
    one, two = (
        load_file(next((tmp_path / name).glob("checkpoints/round-2-*/final/model.safetensors")))
        for name in ("whole", "halved")
    )
    assert all(torch.equal(one[key], two[key]) for key in one)
    assert [row["stage"] for row in RunFolder(tmp_path / "whole").timings() if "flops" in row] == [
        "eval-0 generate", "round-1 generate", "round-1 reference", "round-1 train",
        "eval-1 generate", "round-2 generate", "round-2 reference", "round-2 train", "eval-2 generate",
    ]  # fmt: skip


def test_the_padded_layout_plays_the_same_round(char_policy: Path, tmp_path: Path) -> None:
    """One round in both layouts: the same rows, and weights that differ by rounding."""
    policies = []
    for layout in ("shared", "padded"):
        rounds.main(replace(config(char_policy, tmp_path / layout, **SMALL), packing=layout))
        [file] = (tmp_path / layout).glob("checkpoints/round-1-*/final/model.safetensors")
        policies.append(load_file(file))
    one, two = policies
    for key in one:
        torch.testing.assert_close(one[key], two[key], rtol=1e-3, atol=2e-3)
