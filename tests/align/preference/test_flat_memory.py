"""Groups on disk: the groups and the split of the twin on lists, in memory that does not grow with them."""

from __future__ import annotations

import gc
import json
import os
import random
import resource
import signal
import tracemalloc
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import TrainerCallback

from align.preference import PreferenceModel
from align.preference.data import DataOptions, Loading, load_groups, read_judged, to_group
from align.preference.formats import Judged, Vote
from align.preference.grouping import Spool, draw_groups, group_by_prompt, split_by_prompt
from align.preference.objective import PreferenceObjective
from align.preference.stored import Scratch, StoredRows
from launch.errors import DataError
from launch.options import LoraOptions, TrainOptions
from launch.order import Deal, EpochBatches
from launch.runfolder import RunFolder, content_hash, examples_hash
from launch.trainer import Interrupted, fit

# ---------------------------------------------------------------- rows on disk


def test_a_stored_row_is_the_row_that_was_written(tmp_path: Path) -> None:
    """Turns and text in one column, a lone surrogate, floats to the last bit, keys in their order, absent keys."""
    rows: list[dict[str, Any]] = [
        {"prompt": "é\u2028\ud800", "weights": [0.1 + 0.2, 1e-300, 3.0], "ties": []},
        {"prompt": [{"role": "user", "content": "", "name": None}], "z": 1, "a": True},
        {},
    ]
    stored = StoredRows.write(tmp_path / "rows.arrow", iter(rows))
    assert (len(stored), list(stored), stored[-1], stored[0:2]) == (3, rows, rows[2], rows[:2])
    assert [list(row) for row in stored] == [list(row) for row in rows]
    assert content_hash(list(stored)) == content_hash(rows) and examples_hash(stored) == examples_hash(rows)
    some = stored.where(lambda row: "prompt" in row)
    assert (list(some), some[-1], list(some.where(lambda row: "z" in row))) == (rows[:2], rows[1], [rows[1]])
    for beyond in (3, -4):
        with pytest.raises(IndexError):
            stored[beyond]
    nothing = StoredRows.write(tmp_path / "none.arrow", iter([]))
    assert (
        not nothing and list(nothing) == [] and content_hash([]) == RunFolder(tmp_path).fingerprint_data("n", nothing)
    )


def test_files_vanish_with_their_rows_and_what_a_killed_run_left_with_the_next(tmp_path: Path) -> None:
    (tmp_path / ".rows-0-killed").mkdir()
    (tmp_path / ".rows-0-killed" / "train.arrow").write_text("x")
    other_rank = tmp_path / ".rows-1-alive"
    other_rank.mkdir()
    scratch = Scratch(tmp_path)
    rows = StoredRows.write(scratch.path / "rows.arrow", [{"n": n} for n in range(1000)], scratch)
    some = rows.where(lambda row: row["n"] % 2)
    del scratch, rows
    assert some[499] == {"n": 999}
    assert len(list(tmp_path.iterdir())) == 2
    del some
    gc.collect()
    assert list(tmp_path.iterdir()) == [other_rank]


def test_a_disk_that_takes_nothing_is_told_in_one_line() -> None:
    with pytest.raises(DataError, match=r"cannot write /dev/full: No space left on device; make room there"):
        StoredRows.write(Path("/dev/full"), [{"text": "x" * 10**6}])


# ---------------------------------------------------------------- grouping: the twin on lists


def scattered(seed: int) -> list[dict[str, Any]]:
    """Rows about 40 prompts in no order: K of 2 to 4 of 30 answers each, so that many prompts outgrow a group; every
    fifth prompt is turns, some rows have ties only."""
    draw = random.Random(seed)
    rows: list[dict[str, Any]] = []
    for _ in range(300):
        n = draw.randrange(40)
        prompt = [{"role": "user", "content": f"p{n}"}] if n % 5 == 0 else f"p{n}"
        answers = draw.sample([f"a{k}" for k in range(30)], draw.randint(2, 4))
        rows.append({"prompt": prompt, "responses": answers, "scores": [draw.choice([1, 1, 2]) for _ in answers]})
    return rows


@pytest.mark.parametrize(
    "options", [{}, {"max_groups": 17}, {"max_groups": 10**6, "ties": "half"}, {"test_fraction": 0.0}]
)
@pytest.mark.parametrize("seed", [0, 1])
def test_groups_and_split_are_those_of_lists(tmp_path: Path, options: dict[str, Any], seed: int) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in scattered(seed)))
    asked = DataOptions(**{"path": str(file), "max_responses": 6, "test_fraction": 0.3, "split_seed": seed, **options})
    grouped = group_by_prompt(read_judged(asked.path, asked, Loading()), 6)
    assert len(grouped) > len({str(judged.prompt) for judged in grouped})  # some prompts have several
    drawn = draw_groups(grouped, asked.max_groups, seed)
    train, test = split_by_prompt(drawn, asked.test_fraction, seed)
    found = load_groups(asked)
    assert list(found[0]) == [g for g in (to_group(judged, "all", asked.ties) for judged in train) if g["winners"]]
    assert list(found[1]) == [to_group(judged, "majority", "keep") for judged in test]


def test_a_prompt_of_many_rows_is_never_in_memory_as_a_whole(tmp_path: Path) -> None:
    """4,000 rows of 1 kB about one prompt make groups of 16 answers; a list of the rows would take 4 MB."""

    def rows() -> Iterator[Judged]:
        return (Judged("p", [f"{n} " * 250, "no"], [Vote(0, 1, 1.0, False, "")], str(n)) for n in range(4_000))

    Spool(tmp_path / "few.sqlite", islice(rows(), 10), seed=0).close()
    tracemalloc.start()
    spool = Spool(tmp_path / "rows.sqlite", rows(), seed=0)
    sizes = [len(group.responses) for group in spool.groups()]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    spool.close()
    assert set(sizes) == {16, 4_000 % 15 + 1} and sum(sizes) == 4_000 + len(sizes)
    assert peak < 5 * 10**5


def test_a_full_disk_stops_grouping_in_one_line(tmp_path: Path) -> None:
    """RLIMIT_FSIZE stands for the disk: past 100 kB a write fails."""
    rows = (Judged(f"p{n}", ["a" * 1000, "b"], [Vote(0, 1, 1.0, False, "")], str(n)) for n in range(1_000))
    before, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10**5, before[1]))
    try:
        with pytest.raises(DataError, match=r"cannot write .*rows.sqlite: .*; make room there"):
            Spool(tmp_path / "rows.sqlite", rows, seed=0)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


# ---------------------------------------------------------------- training from disk


class StopAt(TrainerCallback):
    """SIGTERM at the end of a step, as a scheduler would send it."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step == self.step:
            os.kill(os.getpid(), signal.SIGTERM)


def test_rows_from_disk_train_as_a_list_does_and_resume_bit_for_bit(tiny_llama: Path, tmp_path: Path) -> None:
    """Two epochs of 20 rows in steps of 6, with dropout in the adapters; stopped in the second one and read anew."""
    file = tmp_path / "rows.jsonl"
    file.write_text(
        "".join(json.dumps({"prompt": f"{n}?", "chosen": f"yes {n}", "rejected": "no"}) + "\n" for n in range(20))
    )

    def trained(folder: Path, as_list: bool, callbacks: list[Any]) -> dict[str, torch.Tensor]:
        train, _ = load_groups(DataOptions(path=str(file), test_fraction=0), folder=folder)
        model = PreferenceModel.from_backbone(tiny_llama, tau=1.0, max_length=32)
        options = TrainOptions(learning_rate=1e-2, batch_size=6, epochs=2, lora=LoraOptions(rank=2, dropout=0.3))
        run = RunFolder(folder).open({}, seed=3)
        run.fingerprint_data("train", train)
        objective, rows = PreferenceObjective(model.renderer, model.config), list(train) if as_list else train
        fit(model, objective, rows, options=options, run=run, name="fit", seed=3, callbacks=callbacks)
        return model.state_dict()

    expected = trained(tmp_path / "list", True, [])
    with pytest.raises(Interrupted, match="stopped at step 6 of 8"):
        trained(tmp_path / "disk", False, [StopAt(5)])
    found = trained(tmp_path / "disk", False, [])
    assert expected.keys() == found.keys()
    assert all(torch.equal(found[name], weight) for name, weight in expected.items())
    assert not torch.equal(found["rank_head.weight"], PreferenceModel.from_backbone(tiny_llama).rank_head.weight)


# ---------------------------------------------------------------- memory


def held(folder: Path, pairs: int) -> tuple[int, int]:
    """(bytes at the peak, bytes kept) of reading so many pairs, hashing them and going over an epoch in its order."""
    file = folder / f"{pairs}.jsonl"
    with file.open("w") as out:
        for n in range(pairs):
            out.write(
                json.dumps({"prompt": f"{n} " * 20, "chosen": f"{n} good " * 20, "rejected": f"{n} bad " * 20}) + "\n"
            )
    gc.collect()
    tracemalloc.start()
    train, test = load_groups(DataOptions(path=str(file), test_fraction=0.1), folder=folder)
    examples_hash(train)
    for batch in EpochBatches(len(train), Deal(8), seed=0):
        assert all(train[n]["winners"] for n in batch)
    gc.collect()
    kept, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(train) + len(test) == pairs
    return peak, kept


def test_memory_does_not_grow_with_the_pairs(tmp_path: Path) -> None:
    """From 1,000 pairs to 5,000: below 20 bytes a pair at the peak (8 are an epoch's order), below 10 kept. As lists of
    Python objects they took 1,750 and 1,390."""
    import pyarrow as pa

    held(tmp_path, 300)  # what is imported and cached at the first call
    few, many = held(tmp_path, 1_000), held(tmp_path, 5_000)
    assert (many[0] - few[0]) / 4_000 < 20
    assert (many[1] - few[1]) / 4_000 < 10
    assert pa.total_allocated_bytes() < 10**6  # Arrow's own memory: the file is mapped, not read
