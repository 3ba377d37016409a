"""Chunks survive a kill, are never sampled twice, and never mixed up."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from pathlib import Path

import pytest
from transformers import AutoModelForCausalLM

from launch.contracts import Completion, Prompt, Sampling
from launch.errors import CheckpointError, ConfigError
from launch.generate import HFGenerator, generate_chunks
from launch.generate.chunks import completion_from_json, completion_to_json
from launch.generate.sampling import stable_hash
from launch.models import load_tokenizer

PROMPTS: list[Prompt] = ["one", "two", [{"role": "user", "content": "three"}], "four", "five"]
SAMPLING = Sampling(max_new_tokens=6)


class Counting:
    """A real generator that counts its calls and is stopped before call `stop_at`."""

    def __init__(self, inner: HFGenerator, stop_at: int = 99) -> None:
        self.inner, self.stop_at, self.seeds = inner, stop_at, list[int]()

    def generate(self, prompts: Sequence[Prompt], n: int, sampling: Sampling) -> list[list[Completion]]:
        if len(self.seeds) == self.stop_at:
            raise KeyboardInterrupt
        self.seeds.append(sampling.seed)
        return self.inner.generate(prompts, n, sampling)


@pytest.fixture(scope="module")
def inner(served_model: Path) -> HFGenerator:
    return HFGenerator(AutoModelForCausalLM.from_pretrained(served_model), load_tokenizer(served_model))


def seed_of(chunk: int) -> int:
    return stable_hash(0, 1, chunk)


def run(generator: Counting, store: Path, n: int = 2) -> list[list[Completion]]:
    return generate_chunks(generator, PROMPTS, n, SAMPLING, 2, seed_of, store)


def test_a_stopped_call_continues_to_the_same_answers_and_samples_no_chunk_twice(
    inner: HFGenerator, tmp_path: Path
) -> None:
    whole = run(Counting(inner), tmp_path / "whole")
    first, second, third = Counting(inner, stop_at=2), Counting(inner), Counting(inner)
    with pytest.raises(KeyboardInterrupt):
        run(first, tmp_path / "stopped")
    assert run(second, tmp_path / "stopped") == whole
    assert (first.seeds, second.seeds) == ([seed_of(0), seed_of(1)], [seed_of(2)])
    assert run(third, tmp_path / "stopped") == whole
    assert third.seeds == []
    assert [len(row) for row in whole] == [2] * 5


@pytest.mark.parametrize("damage", [lambda b: b[:-20], lambda b: b[:30], lambda b: b"", lambda b: b + b"\n{"])
def test_a_damaged_chunk_is_sampled_again_with_a_warning(
    inner: HFGenerator, tmp_path: Path, damage: object, caplog: pytest.LogCaptureFixture
) -> None:
    whole = run(Counting(inner), tmp_path)
    file = tmp_path / "chunk-000001.jsonl"
    file.write_bytes(damage(file.read_bytes()))  # type: ignore[operator]
    again = Counting(inner)
    with caplog.at_level(logging.WARNING, logger="launch"):
        assert run(again, tmp_path) == whole
    assert again.seeds == [seed_of(1)]
    assert "chunk-000001.jsonl is damaged" in caplog.text


def test_a_store_of_another_call_is_refused(inner: HFGenerator, tmp_path: Path) -> None:
    run(Counting(inner), tmp_path)
    with pytest.raises(CheckpointError, match=r"chunk-000000.jsonl holds answers to other prompts or settings"):
        run(Counting(inner), tmp_path, n=3)


def test_a_half_written_file_beside_is_no_chunk(inner: HFGenerator, tmp_path: Path) -> None:
    (tmp_path / "chunk-000000.part").write_text("half")
    assert len(run(Counting(inner), tmp_path)) == 5
    assert sorted(file.name for file in tmp_path.iterdir()) == [f"chunk-00000{i}.jsonl" for i in range(3)]


def test_a_store_that_cannot_be_written_is_one_line(inner: HFGenerator, tmp_path: Path) -> None:
    (tmp_path / "chunk-000001.part").mkdir()  # open() fails on it as it does on a full disk, with an OSError
    with pytest.raises(CheckpointError, match=r"cannot write .*chunk-000001.jsonl: .*; make room and run again"):
        run(Counting(inner), tmp_path)
    assert (tmp_path / "chunk-000000.jsonl").exists()


def test_json_brings_a_completion_back_exactly() -> None:
    made = Completion("é\u2028\n", (1, 2), (-0.1, -1e-30), "length", (7,))
    assert completion_from_json(json.loads(json.dumps(completion_to_json(made)))) == made


def test_progress_and_bad_chunk_size(inner: HFGenerator, tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    generate_chunks(
        inner, PROMPTS, 1, SAMPLING, 2, seed_of, tmp_path, progress=lambda done, of: seen.append((done, of))
    )
    assert seen == [(2, 5), (4, 5), (5, 5)]
    with pytest.raises(ConfigError, match="chunk_size 0"):
        generate_chunks(inner, PROMPTS, 1, SAMPLING, 0, seed_of, tmp_path)
