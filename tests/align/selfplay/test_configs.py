"""The shipped self-play configs build the recipe's Config, and a dry run says what they cost."""

from __future__ import annotations

from pathlib import Path

import pytest

from align.selfplay import rounds
from launch import config
from tests.align.selfplay.test_rounds import config as tiny


@pytest.mark.parametrize("name", [name for name in config.shipped() if name.startswith("align/selfplay_")])
def test_shipped_config_builds(name: str) -> None:
    loaded = config.load(name)
    assert isinstance(loaded.config, rounds.Config) and loaded.config.label == "DSPPO all-K"
    assert config.load(name, ["lam=0", "anchor=0.2"]).config.label == "SPPO+anchor0.2 all-K"


def test_estimate_counts_all_rounds(char_policy: Path, tmp_path: Path) -> None:
    """100 prompts in each of 3 rounds; the reference pass reads K = 5 sequences of at most 32 tokens for each."""
    predicted = rounds.estimate(tiny(char_policy, tmp_path, max_length=32))
    amounts = {what: amount for what, amount, _ in predicted.lines}
    assert amounts["prompts"] == "300"
    assert amounts["reference: tokens"] == "48 k"  # 300 x 5 x 32
    assert {"round 1: memory", "round 3: memory"} <= amounts.keys() and predicted.flops > 0
