"""Preference data: whatever layout it comes in, to groups of K answers to one prompt.

A group is what preference models train on and are measured by:

    {"prompt": str | list[Message], "responses": [K texts],
     "winners": [int], "losers": [int], "weights": [float],      one entry per judged direction of a pair
     "ties": [[i, j]],                                            judged equal; for evaluation only
     "source": "file:row"}                                        first row it came from

with "annotators" beside "winners" and "tie_annotators" beside "ties" where the data says who judged. Rows about the
same prompt become one group, so a prompt with many pairs is encoded once, and the split into training and test is
by prompt: no prompt is ever on both sides. Over-long texts are not touched here; the renderer counts and cuts them.

Memory does not grow with the data: rows are read one by one, grouped on disk (`grouping.Spool`), and groups lie there
(`stored`).

    >>> train, test = load_groups(DataOptions(path="pairs.jsonl", test_fraction=0.1))
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from align.preference.files import read_rows
from align.preference.formats import ASSISTANT_MARK, Judged, Reading, detect, parse
from align.preference.grouping import Spool, group_by_prompt, prompt_key, split_by_prompt
from align.preference.stored import Scratch, StoredRows
from launch.contracts import Message
from launch.errors import ConfigError, DataError, check_choice

__all__ = [
    "DataOptions", "Loading", "group_by_prompt", "load_groups", "prompt_key", "read_judged", "split_by_prompt",
    "to_group", "to_messages",
]  # fmt: skip

logger = logging.getLogger(__name__)

Group = dict[str, Any]
Format = Literal["auto", "preference", "gpm", "labelled", "scores", "votes", "table"]
Votes = Literal["all", "majority"]
Ties = Literal["keep", "drop", "half"]
BadRows = Literal["stop", "skip"]


@dataclass
class DataOptions:
    """Where preference data are and how they are read."""

    path: str | list[str] = ""
    """Files (.jsonl, .jsonl.gz, .json, .parquet, .arrow), saved data set folders, or hub names."""
    format: Format = "auto"
    """Layout of the rows; auto goes by the columns of each file's first row. docs/data.md has an example of each."""
    columns: dict[str, str] = field(default_factory=dict)
    """Our column name: the file's, where they differ."""
    split: str = "train"
    """Which split of a hub data set or of a saved DatasetDict."""
    test_path: str | list[str] = ""
    """Separate test data. Prompts found here too are taken out of the training side, and counted."""
    test_fraction: float = 0.05
    """Share of the prompts kept for the test, when there is no test_path. 0: none."""
    split_seed: int = 0
    """Decides which prompts are kept for the test; the order of the file does not."""
    max_groups: int = 0
    """Use this many prompts at most, drawn by split_seed. 0: all."""
    max_responses: int = 16
    """Answers per group at most when rows of one prompt are put together. A single row is never cut."""
    votes: Votes = "all"
    """all: every vote counts with its weight, both ways where judges differ. majority: one direction per pair.
    The test side is always read by majority."""
    ties: Ties = "keep"
    """keep: apart, for evaluation. drop: forget them. half: train on half a vote each way."""
    min_margin: float = 0.0
    """Scores (or a margin column) closer than this are a tie; the unit is that of the scores."""
    labels: list[str] = field(default_factory=lambda: ["label"])
    """Label columns of the format `labelled`; with several, each is one annotator."""
    label_values: dict[str, int] = field(default_factory=dict)
    """Translates the file's labels, written as text, to ours, e.g. {"A>B": 1, "B>A": 2, "tie": 0}."""
    annotator: str = "annotator"
    """Column that names the judge of a row, used where a row has it."""
    annotators: list[str] = field(default_factory=list)
    """Keep only the votes of these judges. Empty: all."""
    chat: bool = False
    """Turn plain prompts into one user turn (and "\\n\\nHuman: … \\n\\nAssistant:" texts into turns), for models with a
    chat template."""
    bad_rows: BadRows = "stop"
    """stop: the first bad row ends the run. skip: leave bad rows out, count them, and say so."""

    def __post_init__(self) -> None:
        for name, kind in (("format", Format), ("votes", Votes), ("ties", Ties), ("bad_rows", BadRows)):
            check_choice(name, getattr(self, name), kind)
        if not 0 <= self.test_fraction < 1:
            raise ConfigError(f"{self.test_fraction} is no share of the prompts; give one in [0, 1)", "test_fraction")
        for name, least in (("max_groups", 0), ("max_responses", 2), ("min_margin", 0)):
            if getattr(self, name) < least:
                raise ConfigError(f"{getattr(self, name)} is below {least}", name)


@dataclass
class Loading:
    """What happened on the way in; every number that is not 0 is logged."""

    rows: int = 0
    skipped: list[str] = field(default_factory=list)
    """One line per bad row (bad_rows=skip)."""
    unjudged: int = 0
    """Rows without a single vote."""
    leaked: int = 0
    """Training prompts taken out because the test has them too."""
    train: int = 0
    """Groups."""
    test: int = 0
    tied: int = 0
    """Training groups left out because their votes make ties only."""
    tied_test: int = 0
    """Test groups with ties only. They are kept, but no accuracy is measured on them."""

    def lines(self) -> list[str]:
        told = [f"{self.rows} rows: {self.train} groups to train on, {self.test} to test on"]
        if self.skipped:
            told.append(f"{len(self.skipped)} bad rows left out, the first: {self.skipped[0]}")
        if self.unjudged:
            told.append(f"{self.unjudged} rows without a vote left out")
        if self.leaked:
            told.append(f"{self.leaked} training prompts left out, the test has them too")
        if self.tied:
            told.append(f"{self.tied} training groups left out, their votes make ties only")
        if self.tied_test:
            told.append(f"{self.tied_test} test groups have ties only, and count in no accuracy")
        return told


def load_groups(
    options: DataOptions, loading: Loading | None = None, folder: Path | None = None
) -> tuple[StoredRows, StoredRows]:
    """Read, check, group by prompt and split. Returns (train, test), both in the order of the files.

    Every row is checked before this returns. The groups then lie on disk and are read one by one, so that memory does
    not grow with their number; their files vanish with them.

    Args:
        options: what is read, and how.
        loading: filled in with counts if given.
        folder: the groups' files are in a hidden folder of it; None: in the system's folder of temporary files, which
            on some machines is held in memory.

    Raises DataError (one line with file, row and remedy) for bad rows, unless options.bad_rows is "skip"; for files
    that cannot be read, either way.
    """
    loading = Loading() if loading is None else loading
    if not options.path:
        raise DataError("data.path is empty; name a file, a saved data set or a hub data set")
    scratch = Scratch(folder)
    how = (options.split_seed, options.max_responses)
    rows = held = Spool(scratch.path / "rows.sqlite", read_judged(options.path, options, loading), *how)
    if options.test_path:
        held = Spool(scratch.path / "test-rows.sqlite", read_judged(options.test_path, options, loading), *how)
        loading.leaked = rows.leave_out(held)
    rows.draw(options.max_groups)
    if held is rows:
        rows.split(options.test_fraction)

    def to_train_on() -> Iterator[Group]:
        for judged in rows.groups():
            group = to_group(judged, options.votes, options.ties)
            loading.tied += not group["winners"]
            if group["winners"]:
                yield group

    def to_test_on() -> Iterator[Group]:
        for judged in held.groups(test=held is rows):
            group = to_group(judged, "majority", "keep")
            loading.tied_test += not group["winners"]
            yield group

    train = StoredRows.write(scratch.path / "train.arrow", to_train_on(), scratch)
    test = StoredRows.write(scratch.path / "test.arrow", to_test_on(), scratch)
    for spool in {rows, held}:
        spool.close()
        spool.file.unlink()  # the groups are on disk now; the rows need not be there twice
    if not train:
        raise DataError(f"{options.path}: no strict preference to train on among {loading.rows} rows")
    loading.train, loading.test = len(train), len(test)
    for line in loading.lines():
        logger.info(line)
    return train, test


def read_judged(paths: str | Sequence[str], options: DataOptions, loading: Loading) -> Iterator[Judged]:
    """Yield every sound row of `paths`, one `Judged` each, with only the wanted judges' votes."""

    def bad(error: DataError) -> None:
        if options.bad_rows == "stop":
            raise error
        loading.skipped.append(str(error))

    reading = Reading(
        options.columns, tuple(options.labels), options.label_values, options.annotator, options.min_margin
    )
    for path in [paths] if isinstance(paths, str) else paths:
        format: str | None = None if options.format == "auto" else options.format
        for source, row in read_rows(path, options.split, bad):
            loading.rows += 1
            try:
                format = format or detect(row, reading, source)
                judged = parse(row, format, reading, source)
            except DataError as error:
                bad(error)
                continue
            if options.annotators:
                judged.votes = [vote for vote in judged.votes if vote.annotator in options.annotators]
            if options.chat and isinstance(judged.prompt, str):
                judged.prompt = to_messages(judged.prompt)
            if judged.votes:
                yield judged
            else:
                loading.unjudged += 1


def to_group(judged: Judged, votes: str = "all", ties: str = "keep") -> Group:
    """Add up the votes of `judged` into the normal form (module header).

    votes "majority": one direction per pair, the one with more votes, weight 1; equally many make a tie.
    """
    wins: dict[tuple[int, int, str], float] = {}
    level: dict[tuple[int, int, str], float] = {}
    for vote in judged.votes:
        if vote.tie:
            key = (min(vote.winner, vote.loser), max(vote.winner, vote.loser), vote.annotator)
            level[key] = level.get(key, 0.0) + vote.weight
        else:
            key = (vote.winner, vote.loser, vote.annotator)
            wins[key] = wins.get(key, 0.0) + vote.weight
    if votes == "majority":
        wins, level = _majority(wins, level)
    if ties == "half":
        for (i, j, who), weight in level.items():
            for pair in ((i, j, who), (j, i, who)):
                wins[pair] = wins.get(pair, 0.0) + weight / 2
    group: Group = {
        "prompt": judged.prompt,
        "responses": list(judged.responses),
        "winners": [i for i, _, _ in wins],
        "losers": [j for _, j, _ in wins],
        "weights": list(wins.values()),
        "ties": [] if ties != "keep" else [[i, j] for i, j, _ in level],
        "source": judged.source,
    }
    if votes == "all" and any(vote.annotator for vote in judged.votes):
        group["annotators"] = [who for _, _, who in wins]
        group["tie_annotators"] = [] if ties != "keep" else [who for _, _, who in level]
    return group


def _majority(wins: dict, level: dict) -> tuple[dict, dict]:
    """Collapse the votes on each pair: the side with more votes wins; a pair without such a side is a tie."""
    balance: dict[tuple[int, int], float] = {(i, j): 0.0 for i, j, _ in level}
    for (i, j, _), weight in wins.items():
        pair, sign = ((i, j), 1) if i < j else ((j, i), -1)
        balance[pair] = balance.get(pair, 0.0) + sign * weight
    decided = {((i, j, "") if net > 0 else (j, i, "")): 1.0 for (i, j), net in balance.items() if net}
    return decided, {(i, j, ""): 1.0 for (i, j), net in balance.items() if not net}


def to_messages(prompt: str) -> list[Message]:
    """Turn a plain prompt into chat turns: one user turn, or those of a "\\n\\nHuman: … \\n\\nAssistant:" dialogue."""
    if not prompt.startswith("\n\nHuman:"):
        return [{"role": "user", "content": prompt}]
    messages: list[Message] = []
    for exchange in prompt.split("\n\nHuman:")[1:]:
        user, *answers = exchange.split(ASSISTANT_MARK)
        messages.append({"role": "user", "content": user.strip()})
        messages += [{"role": "assistant", "content": text.strip()} for text in answers if text.strip()]
    return messages
