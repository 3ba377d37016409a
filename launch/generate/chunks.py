"""Sampling in chunks that survive a kill: a finished chunk is on disk and is never sampled again.

Works with any Generator. The seed of a chunk comes from its number alone, so that a chunk sampled after a restart is
the one that would have been sampled without it (bit for bit with HFGenerator, see docs/generators.md).

    generate_chunks(generator, prompts, n=5, sampling=Sampling(), chunk_size=64,
                    seed_of=lambda chunk: stable_hash(run_seed, round_, chunk), store="runs/run/chunks")
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from launch.contracts import Completion, Generator, Prompt, Sampling
from launch.errors import CheckpointError, ConfigError

log = logging.getLogger(__name__)


def completion_to_json(completion: Completion) -> dict[str, Any]:
    """A dict that `json` can write; floats come back exactly."""
    return asdict(completion)


def completion_from_json(row: dict[str, Any]) -> Completion:
    """The inverse of `completion_to_json`, before or after a trip through JSON."""
    return Completion(
        text=row["text"],
        token_ids=tuple(row["token_ids"]),
        logprobs=tuple(row["logprobs"]),
        finish=row["finish"],
        prompt_ids=tuple(row["prompt_ids"]),
    )


def generate_chunks(
    generator: Generator,
    prompts: Sequence[Prompt],
    n: int,
    sampling: Sampling,
    chunk_size: int,
    seed_of: Callable[[int], int],
    store: str | Path,
    progress: Callable[[int, int], None] | None = None,
) -> list[list[Completion]]:
    """Return `n` completions per prompt like `generator.generate`, keeping each finished chunk in `store`.

    All of them are in memory then; `sample_chunks`, whose arguments and errors these are, leaves them on disk.
    """
    files = sample_chunks(generator, prompts, n, sampling, chunk_size, seed_of, store, progress)
    return [row for file in files for row in read_chunk(file)]


def sample_chunks(
    generator: Generator,
    prompts: Sequence[Prompt],
    n: int,
    sampling: Sampling,
    chunk_size: int,
    seed_of: Callable[[int], int],
    store: str | Path,
    progress: Callable[[int, int], None] | None = None,
) -> list[Path]:
    """Sample `n` completions per prompt into `store`; returns the chunks' files in order, for `read_chunk`.

    Args:
        chunk_size: prompts per chunk, the most that a kill can cost.
        seed_of: the sampling seed of a chunk, from its number (`sampling.seed` is not used).
        store: a folder for these prompts and weights alone: a chunk knows its prompts, n and sampling, not the
            weights. One process writes to it.
        progress: called after every chunk with (prompts done, prompts asked).

    Raises:
        CheckpointError: `store` holds chunks of another call, or cannot be written.
    """
    if chunk_size < 1:
        raise ConfigError(f"chunk_size {chunk_size}: use 1 or more prompts", field="chunk_size")
    folder = Path(store)
    folder.mkdir(parents=True, exist_ok=True)
    files: list[Path] = []
    for chunk, start in enumerate(range(0, len(prompts), chunk_size)):
        part = prompts[start : start + chunk_size]
        seeded = replace(sampling, seed=seed_of(chunk))
        file = folder / f"chunk-{chunk:06d}.jsonl"
        key = _key(part, n, seeded)
        if not (file.exists() and _whole(file, key, len(part))):
            _write(file, key, generator.generate(part, n, seeded))
        files.append(file)
        if progress is not None:
            progress(start + len(part), len(prompts))
    return files


def read_chunk(file: Path) -> list[list[Completion]]:
    """The completions of a chunk that `sample_chunks` returned."""
    rows = file.read_bytes().decode().split("\n")[1:-1]
    return [[completion_from_json(answer) for answer in json.loads(row)] for row in rows]


def _key(prompts: Sequence[Prompt], n: int, sampling: Sampling) -> str:
    asked = json.dumps([list(prompts), n, asdict(sampling)], sort_keys=True)
    return hashlib.sha256(asked.encode()).hexdigest()


def _whole(file: Path, key: str, count: int) -> bool:
    """Whether a chunk is there as it was written; warns if it is damaged."""
    head, _, body = file.read_bytes().partition(b"\n")
    try:
        header = json.loads(head)
        found, digest = header["key"], header["sha256"]
    except (ValueError, KeyError, TypeError):
        found = digest = None
    if found is not None and found != key:
        raise CheckpointError(f"{file} holds answers to other prompts or settings; give this call a folder of its own")
    if digest != hashlib.sha256(body).hexdigest():
        log.warning("%s is damaged: sampling this chunk again", file)
        return False
    rows = body.count(b"\n")
    if rows != count:
        raise CheckpointError(f"{file} holds {rows} prompts instead of {count}; delete it")
    return True


def _write(file: Path, key: str, answers: list[list[Completion]]) -> None:
    """Write beside, flush to the disk, rename: the file is whole or not there."""
    body = "".join(json.dumps([completion_to_json(a) for a in row]) + "\n" for row in answers).encode()
    header = json.dumps({"key": key, "sha256": hashlib.sha256(body).hexdigest()}).encode()
    part = file.with_suffix(".part")
    try:
        with part.open("wb") as sink:
            sink.write(header + b"\n" + body)
            sink.flush()
            os.fsync(sink.fileno())
        part.replace(file)
    except OSError as error:
        if part.is_file():
            part.unlink()
        raise CheckpointError(
            f"cannot write {file}: {error.strerror}; make room and run again, earlier chunks are kept"
        ) from error
