"""Rows about one prompt to groups, groups to training and test.

Two ways, which tests hold equal: `group_by_prompt` and `split_by_prompt` on lists, to read and for data that fit in
memory; `Spool`, which sets the rows down in an SQLite file and takes them up again group by group. SQLite sorts on
disk, so that what `Spool` needs in memory is one group and the database's cache of 2 MB, however many rows there are.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from align.preference.formats import Judged, Vote
from launch.contracts import Prompt
from launch.errors import DataError


def prompt_key(prompt: Prompt) -> str:
    """A text that two prompts share exactly if they are the same prompt."""
    return prompt if isinstance(prompt, str) else json.dumps(prompt, sort_keys=True, ensure_ascii=False)


def put_together(rows: Iterable[tuple[int, Judged]], max_responses: int) -> Iterator[tuple[int, Judged]]:
    """Numbered rows about one prompt to groups, each with the number of its first row.

    The same answer text becomes the same answer. A group that would outgrow `max_responses` is closed and another
    begun.
    """
    first, group = 0, None
    for number, row in rows:
        if group is not None:
            new = [text for text in row.responses if text not in group.responses]
            if len(group.responses) + len(new) <= max_responses:
                group.responses += new
                place = [group.responses.index(text) for text in row.responses]
                group.votes += [Vote(place[v.winner], place[v.loser], v.weight, v.tie, v.annotator) for v in row.votes]
                continue
            yield first, group
        first, group = number, Judged(row.prompt, list(row.responses), list(row.votes), row.source)
    if group is not None:
        yield first, group


# ---------------------------------------------------------------- lists


def group_by_prompt(rows: Iterable[Judged], max_responses: int = 16) -> list[Judged]:
    """Groups of all rows (see `put_together`), in the order of their first rows."""
    of_prompt: dict[str, list[tuple[int, Judged]]] = {}
    for number, row in enumerate(rows):
        of_prompt.setdefault(prompt_key(row.prompt), []).append((number, row))
    groups = [group for rows in of_prompt.values() for group in put_together(rows, max_responses)]
    return [judged for _, judged in sorted(groups, key=lambda group: group[0])]


def split_by_prompt(groups: Sequence[Judged], fraction: float, seed: int) -> tuple[list[Judged], list[Judged]]:
    """Keep a share of the prompts for the test. Which ones depends on their text and `seed`, not on their order."""
    keys = sorted({prompt_key(judged.prompt) for judged in groups}, key=lambda key: lot(key, seed))
    kept = set(keys[: test_count(len(keys), fraction)])
    sides: tuple[list[Judged], list[Judged]] = ([], [])
    for judged in groups:
        sides[prompt_key(judged.prompt) in kept].append(judged)
    return sides


def draw_groups(groups: list[Judged], count: int, seed: int) -> list[Judged]:
    """`count` groups (0: all), drawn by their prompts, in their order."""
    if not count or count >= len(groups):
        return groups
    order = sorted(range(len(groups)), key=lambda i: draw_lot(groups[i].prompt, seed))
    return [groups[i] for i in sorted(order[:count])]


def test_count(prompts: int, fraction: float) -> int:
    """How many of `prompts` are kept for the test; at least one if any are asked for.

    Raises:
        DataError: there is one prompt, which cannot be on both sides.
    """
    count = round(fraction * prompts) or int(fraction > 0)
    if count and count == prompts:
        raise DataError("one prompt only: it cannot be split into training and test; set data.test_fraction=0")
    return count


def lot(key: str, seed: int) -> bytes:
    """32 bytes that decide which prompts are drawn."""
    return hashlib.sha256(f"{seed}\n{key}".encode()).digest()


def draw_lot(prompt: Prompt, seed: int) -> bytes:
    # Another text than the split's: the same lots would send all of a small draw to the test.
    return lot("draw\n" + prompt_key(prompt), seed)


# ---------------------------------------------------------------- a file

_TABLES = """
CREATE TABLE rows (n INTEGER PRIMARY KEY, prompt BLOB, draw BLOB, row TEXT);
CREATE TABLE groups (first INTEGER PRIMARY KEY, last INTEGER, prompt BLOB, draw BLOB, test INTEGER DEFAULT 0);
"""
"""A row is JSON. A prompt is known by its lot; `draw` is its other one. A group: all of its prompt's rows from first to
last."""


class Spool:
    """Rows set down in a file and taken up again group by group. Close it when its groups have been read.

    Args:
        file: written anew.
        rows: read once, in order.
        seed: of the lots, by which prompts are drawn and split.
        max_responses: see `put_together`.

    Raises:
        DataError: the file cannot be written, or the disk is full.
    """

    def __init__(self, file: Path, rows: Iterable[Judged], seed: int, max_responses: int = 16) -> None:
        self.file, self.seed, self.max_responses = file, seed, max_responses
        with _told(file):
            self._database = sqlite3.connect(file, isolation_level=None)
            # Nothing to be safe from: the file is of this process alone and goes with it.
            self._database.executescript("PRAGMA journal_mode=OFF; PRAGMA synchronous=OFF; PRAGMA temp_store=FILE;")
            self._database.executescript(f"BEGIN; {_TABLES}")
            self._database.executemany("INSERT INTO rows VALUES (NULL, ?, ?, ?)", map(self._set_down, rows))
            self._database.execute("CREATE INDEX by_prompt ON rows (prompt, n)")
            self._database.executemany(
                "INSERT INTO groups (first, last, prompt, draw) VALUES (?, ?, ?, ?)", self._extents()
            )
            self._database.execute("CREATE INDEX by_lot ON groups (prompt)")
            self._database.execute("COMMIT")

    def close(self) -> None:
        self._database.close()

    def prompts(self) -> int:
        """How many prompts there are."""
        return int(self._database.execute("SELECT count(DISTINCT prompt) FROM groups").fetchone()[0])

    def leave_out(self, other: Spool) -> int:
        """Take out the prompts that `other`, which has the same seed, knows; returns how many."""
        before = self.prompts()
        with _told(self.file):
            self._database.execute("ATTACH ? AS other", (str(other.file),))
            self._database.execute("DELETE FROM groups WHERE prompt IN (SELECT prompt FROM other.groups)")
            self._database.execute("DETACH other")
        return before - self.prompts()

    def draw(self, count: int) -> None:
        """Leave `count` groups (0: all), those that `draw_groups` draws."""
        drawn = "SELECT first FROM groups ORDER BY draw, first LIMIT ?"
        with _told(self.file):
            self._database.execute(f"DELETE FROM groups WHERE first NOT IN ({drawn})", (count or -1,))

    def split(self, fraction: float) -> None:
        """Set the prompts aside for the test that `split_by_prompt` does."""
        kept = "SELECT DISTINCT prompt FROM groups ORDER BY prompt LIMIT ?"
        count = test_count(self.prompts(), fraction)
        with _told(self.file):
            self._database.execute(f"UPDATE groups SET test = 1 WHERE prompt IN ({kept})", (count,))

    def groups(self, test: bool = False) -> Iterator[Judged]:
        """Groups to train on, or those set aside, in the order of their first rows."""
        found = self._database.execute(
            "SELECT first, last, prompt FROM groups WHERE test = ? ORDER BY first", (int(test),)
        )
        for first, last, prompt in found:
            yield from (group for _, group in put_together(self._rows_of(prompt, first, last), self.max_responses))

    def _set_down(self, row: Judged) -> tuple[bytes, bytes, str]:
        text = json.dumps({**vars(row), "votes": [list(vars(vote).values()) for vote in row.votes]})
        return lot(prompt_key(row.prompt), self.seed)[:16], draw_lot(row.prompt, self.seed)[:16], text

    def _extents(self) -> Iterator[tuple[int, int, bytes, bytes]]:
        """(first row, last row, prompt, draw) of every group."""
        found = self._database.execute("SELECT prompt, min(n), max(n), draw FROM rows GROUP BY prompt")
        for prompt, begin, end, draw in found:
            if begin == end:  # one row, which need not be read
                yield begin, end, prompt, draw
                continue
            first = begin
            for number, _ in put_together(self._rows_of(prompt, begin, end), self.max_responses):
                if number > first:
                    yield first, number - 1, prompt, draw
                first = number
            yield first, end, prompt, draw

    def _rows_of(self, prompt: bytes, first: int, last: int) -> Iterator[tuple[int, Judged]]:
        wanted = "SELECT n, row FROM rows WHERE prompt = ? AND n BETWEEN ? AND ? ORDER BY n"
        for number, text in self._database.execute(wanted, (prompt, first, last)):
            row = json.loads(text)
            yield number, Judged(row["prompt"], row["responses"], [Vote(*vote) for vote in row["votes"]], row["source"])


@contextmanager
def _told(file: Path) -> Iterator[None]:
    """SQLite's errors in one line that says what to do."""
    try:
        yield
    except sqlite3.OperationalError as error:
        raise DataError(f"cannot write {file}: {error}; make room there, or choose another folder") from error
