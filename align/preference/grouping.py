"""Rows about one prompt to groups, groups to training and test.

Two ways, which tests hold equal: `group_by_prompt` and `split_by_prompt` on lists, to read and for data that fit in
memory; `Spool`, which sets the rows down in a file and takes them up again prompt by prompt. It keeps a hash and some
places for each row, and one prompt's rows: 9 MB for 100,000 pairs, and nothing once they are grouped.
"""

from __future__ import annotations

import hashlib
import heapq
import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from align.preference.formats import Judged, Vote
from align.preference.stored import StoredRows
from launch.contracts import Prompt
from launch.errors import DataError

Group = dict[str, Any]


def prompt_key(prompt: Prompt) -> str:
    """A text that two prompts share exactly if they are the same prompt."""
    return prompt if isinstance(prompt, str) else json.dumps(prompt, sort_keys=True, ensure_ascii=False)


def put_together(rows: Iterable[tuple[int, Judged]], max_responses: int) -> list[tuple[int, Judged]]:
    """Numbered rows about one prompt to groups, each with the number of its first row.

    The same answer text becomes the same answer. A group that would outgrow `max_responses` is closed and another
    begun.
    """
    groups: list[tuple[int, Judged]] = []
    for number, row in rows:
        current = groups[-1][1] if groups else None
        if current is not None:
            new = [text for text in row.responses if text not in current.responses]
            if len(current.responses) + len(new) > max_responses:
                current = None
        if current is None:
            groups.append((number, Judged(row.prompt, list(row.responses), list(row.votes), row.source)))
            continue
        current.responses += new
        place = [current.responses.index(text) for text in row.responses]
        current.votes += [Vote(place[v.winner], place[v.loser], v.weight, v.tie, v.annotator) for v in row.votes]
    return groups


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


class Spool:
    """Rows set down in a file and taken up again prompt by prompt. Prompts are numbered in the order of their lots.

    Args:
        file: written anew.
        rows: read once, in order.
        seed: of the lots, by which prompts are drawn and split.
        max_responses: see `put_together`.
    """

    def __init__(self, file: Path, rows: Iterable[Judged], seed: int, max_responses: int = 16) -> None:
        self.seed, self.max_responses = seed, max_responses
        self._taken: dict[int, int] = {}
        lots = bytearray()

        def noted() -> Iterator[dict[str, Any]]:
            for row in rows:
                lots.extend(lot(prompt_key(row.prompt), seed)[:16])
                yield {**vars(row), "votes": [list(vars(vote).values()) for vote in row.votes]}

        self._rows = StoredRows.write(file, noted())
        of_row = np.ndarray(len(self._rows), dtype="S16", buffer=lots)
        self._order = np.argsort(of_row, kind="stable")  # prompt by prompt, each in the order of its rows
        ordered = of_row[self._order]
        begins = np.ones(len(ordered), dtype=bool)
        begins[1:] = ordered[1:] != ordered[:-1]
        self._starts = np.flatnonzero(begins)
        self._lots = ordered[self._starts]
        self._first = self._order[self._starts]

    def __len__(self) -> int:
        """Prompts."""
        return len(self._starts)

    @property
    def prompts(self) -> np.ndarray:
        """Numbers of all prompts; others are subsets of them, ascending like these."""
        return np.arange(len(self))

    def without(self, other: Spool) -> np.ndarray:
        """Prompts that `other`, which has the same seed, does not know."""
        return np.flatnonzero(~np.isin(self._lots, other._lots))

    def draw(self, prompts: np.ndarray, count: int) -> np.ndarray:
        """The prompts of which `draw_groups` draws; `groups` then stops at the last one's groups that are drawn."""
        if not count or not len(prompts):
            return prompts
        prompt_of = (self._rows[self._first[prompt]]["prompt"] for prompt in prompts)
        lots = np.array([draw_lot(prompt, self.seed)[:16] for prompt in prompt_of], dtype="S16")
        order = prompts[np.argsort(lots, kind="stable")]
        for drawn, prompt in enumerate(order.tolist(), start=1):
            here = len(self._groups_of(prompt))
            if here >= count:
                self._taken[prompt] = count
                return np.sort(order[:drawn])
            count -= here
        return prompts

    def groups(self, prompts: np.ndarray) -> Iterator[Judged]:
        """Groups of these prompts, in the order of their first rows."""
        later: list[tuple[int, Judged]] = []  # of prompts that have several
        for prompt in prompts[np.argsort(self._first[prompts])].tolist():
            while later and later[0][0] < self._first[prompt]:
                yield heapq.heappop(later)[1]
            for group in self._groups_of(prompt)[: self._taken.get(prompt)]:
                heapq.heappush(later, group)
        while later:
            yield heapq.heappop(later)[1]

    def _groups_of(self, prompt: int) -> list[tuple[int, Judged]]:
        end = self._starts[prompt + 1] if prompt + 1 < len(self) else None
        numbers = self._order[self._starts[prompt] : end].tolist()
        return put_together(((n, _judged(self._rows[n])) for n in numbers), self.max_responses)


def _judged(row: dict[str, Any]) -> Judged:
    return Judged(row["prompt"], row["responses"], [Vote(*vote) for vote in row["votes"]], row["source"])
