"""Judge prompts: the official ones pass, one changed character does not, and the complaint names the wanted digest.

MT-Bench's file is in the data folder and AlpacaEval's in the installed package. Arena-Hard's and RewardBench's are
neither, and none of their text stands here: own prompts take their place, with their own digests as the wanted ones.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from launch.errors import ConfigError
from tasks.benchmarks import official


def sha(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def test_mt_benchs_file_passes_and_one_changed_byte_does_not(data_dir: Path, tmp_path: Path) -> None:
    file = data_dir / "eval/mt_bench/judge_prompts.jsonl"
    prompts, digest = official.mt_bench_prompts(file)
    assert digest == official.MT_BENCH == hashlib.sha256(file.read_bytes()).hexdigest() and len(prompts) == 8
    changed = tmp_path / "judge_prompts.jsonl"
    changed.write_bytes(file.read_bytes() + b"\n")
    with pytest.raises(ConfigError, match=f"{changed} is not the official prompt .*wanted {official.MT_BENCH}"):
        official.mt_bench_prompts(changed)
    assert official.mt_bench_prompts(changed, others=True)[1] != digest


def test_alpaca_evals_template_passes_and_one_changed_byte_does_not(tmp_path: Path) -> None:
    template, digest = official.alpaca_template(None)
    assert digest == official.ALPACA_EVAL == sha(template)
    changed = tmp_path / "alpaca_eval_clf.txt"
    changed.write_text(template + " ")
    with pytest.raises(ConfigError, match=f"wanted {official.ALPACA_EVAL}"):
        official.alpaca_template(changed)


def arena(folder: Path, system: str = "Judge.", template: str = "{QUESTION}{ANSWER_A}{ANSWER_B}", **_: str) -> Path:
    """v2.0's layout."""
    (folder / "utils").mkdir(parents=True, exist_ok=True)
    (folder / "config").mkdir(exist_ok=True)
    settings = {category: {"system_prompt": system} for category in ("hard_prompt", "creative_writing")}
    (folder / "utils/judge_utils.py").write_text(f"JUDGE_SETTINGS = {settings!r}\n")
    (folder / "config/arena-hard-v2.0.yaml").write_text(f"prompt_template: {template!r}\n")
    return folder


def arena_v01(
    folder: Path, system: str = "Judge.", template: str = "{question_1}{answer_1}{answer_2}", go_on: str = "Go on."
) -> Path:
    """v0.1's layout."""
    (folder / "config").mkdir(parents=True, exist_ok=True)
    (folder / "config/judge_config.yaml").write_text(f"system_prompt: {system!r}\nprompt_template: [{template!r}]\n")
    (folder / "gen_judgment.py").write_text(f"turn = {{'role': 'user', 'content': {go_on!r}}}\n")
    return folder


def reward_bench(folder: Path, system: str = "Judge.", template: str = "{question}", go_on: str = "Rate.") -> Path:
    """The layout of reward-bench; `go_on` stands for its two rating prompts."""
    (folder / "rewardbench").mkdir(parents=True, exist_ok=True)
    said = f"MTBENCH_V2 = {{'system_prompt': {system!r}, 'prompt_template': {template!r}}}\n"
    said += f"ratings_prompt = {go_on!r}\nratings_prompt_ties = {go_on + 'T'!r}\n"
    (folder / "rewardbench/generative_v2.py").write_text(said)
    return folder


Checkout = Callable[..., Path]
CASES: dict[str, tuple[Checkout, Callable[..., Any], tuple[str, ...]]] = {
    "v2.0": (arena, official.arena_prompts, ("system", "template")),
    "v0.1": (arena_v01, official.arena_prompts_v01, ("system", "template", "go_on")),
    "rewardbench": (reward_bench, official.rewardbench_prompts, ("system", "template", "go_on")),
}


def our_digests(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the prompts above."""
    monkeypatch.setattr(official, "ARENA_SYSTEM", dict.fromkeys(official.ARENA_SYSTEM, sha("Judge.")))
    monkeypatch.setattr(official, "ARENA_TEMPLATE", sha("{QUESTION}{ANSWER_A}{ANSWER_B}"))
    monkeypatch.setattr(official, "ARENA_TEMPLATE_V01", sha("{question_1}{answer_1}{answer_2}"))
    monkeypatch.setattr(official, "ARENA_GO_ON", sha("Go on."))
    wanted = {"ranking": sha("Judge.\n{question}"), "ratings": sha("Rate."), "ties": sha("Rate.T")}
    monkeypatch.setattr(official, "REWARDBENCH", wanted)


@pytest.mark.parametrize("name", CASES)
def test_other_prompts_are_refused_and_the_wanted_digest_is_named(name: str, tmp_path: Path) -> None:
    make, read, _ = CASES[name]
    wanted = {"rewardbench": official.REWARDBENCH["ranking"]}.get(name, official.ARENA_SYSTEM["hard_prompt"])
    with pytest.raises(
        ConfigError, match=rf"is not the official prompt \(its sha256 is \w+, wanted {wanted}\)"
    ) as told:
        read(make(tmp_path))
    assert "\n" not in str(told.value) and "--other-prompts" in str(told.value)
    assert re.fullmatch(r"[0-9a-f]{64}", wanted)


@pytest.mark.parametrize("name", CASES)
def test_each_text_is_checked(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The whole passes with the digests of its own texts; with any one of them changed it does not."""
    make, read, parts = CASES[name]
    our_digests(monkeypatch)
    digest = read(make(tmp_path)).sha256
    seen = {digest}
    for part in parts:
        with pytest.raises(ConfigError, match="is not the official prompt"):
            read(make(tmp_path, **{part: "{QUESTION}"}))
        seen.add(read(tmp_path, others=True).sha256)
    assert len(seen) == 1 + len(parts)  # what was really asked is in the provenance
