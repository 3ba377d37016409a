"""What a judge's reply says, and what two replies about one prompt count.

Every prompt is judged twice. In game 1 answer A is the baseline's and B the model's, in game 2 the other way round.
A strong verdict (>>) counts three times. Parsing reads the reply alone, never the judged answers: a label inside an
answer counts only if the judge repeats it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from launch.errors import DataError
from tasks.benchmarks.files import Row, need

BASELINES = {
    "arena-hard-v0.1": "gpt-4-0314",
    "hard_prompt": "o3-mini-2025-01-31",
    "coding": "o3-mini-2025-01-31",
    "math": "o3-mini-2025-01-31",
    "creative_writing": "gemini-2.0-flash-001",
}
"""Whom a model is compared with, by category."""
STRONG = 3
_DOUBLE = re.compile(r"\[\[([AB<>=]+)\]\]")
_SINGLE = re.compile(r"\[([AB<>=]+)\]")
_V01 = {"A>>B": ("a", STRONG), "A>B": ("a", 1), "A=B": ("tie", 1), "B>A": ("b", 1), "B>>A": ("b", STRONG)}
_V2 = {
    **{"A>B": [1.0], "B<A": [1.0], "A>>B": [1.0] * STRONG, "B<<A": [1.0] * STRONG},
    **{"A=B": [0.5], "B=A": [0.5]},
    **{"B>A": [0.0], "A<B": [0.0], "B>>A": [0.0] * STRONG, "A<<B": [0.0] * STRONG},
}
"""What A earns."""


@dataclass(frozen=True)
class Battle:
    """One outcome of one game. `winner` is "model_a" (the baseline), "model_b" or "tie"."""

    uid: str
    model_a: str
    model_b: str
    winner: str


@dataclass(frozen=True)
class Outcome:
    """What a model earns in one game: 1, 0.5 or 0."""

    uid: str
    model: str
    category: str
    value: float


def verdict_v01(reply: str) -> tuple[str | None, bool]:
    """(label, whether to ask on): the one label in double brackets; None if there are several different ones, and None
    with a request to go on if there is none (the official judge is asked once more to finish)."""
    labels = set(_DOUBLE.findall(reply))
    return (labels.pop(), False) if len(labels) == 1 else (None, not labels)


def verdict_v2(reply: str) -> str | None:
    """The last label of the upper-cased reply, in double brackets or, if there is none, in single ones."""
    labels = _DOUBLE.findall(reply.upper()) or _SINGLE.findall(reply.upper())
    return labels[-1] if labels else None


def flip(label: str) -> str:
    """The same verdict on the answers in the other order: A>>B becomes B>>A; a tie stays A=B."""
    return label if "=" in label else label.translate(str.maketrans("AB", "BA"))


def battles_v01(judgments: Sequence[Row], baseline: str = BASELINES["arena-hard-v0.1"]) -> list[Battle]:
    """Battles of v0.1 judgments {uid or question_id, model, games: [{score}, {score}]}, strong verdicts three times.

    A game without one of the five labels counts nothing; the other game of its row does.
    """
    found = []
    for number, row in enumerate(_checked(judgments), 1):
        games = _games(row, number)
        for game, sides in zip(games, (("model_a", "model_b"), ("model_b", "model_a")), strict=True):
            who, times = _V01.get(str((game or {}).get("score")), ("", 0))
            winner = "tie" if who == "tie" else sides[who == "b"]
            found += [Battle(_uid(row, number), baseline, row["model"], winner)] * times
    return found


def outcomes_v2(judgments: Sequence[Row]) -> tuple[list[Outcome], int]:
    """(outcomes, rows left out) of v2.0 judgments {uid, category, model, games: [{score}, {score}]}.

    A row with a failed game is left out whole. Game 2 shows the model as A, so it counts as it is, game 1 turned.

    Raises:
        DataError: a score that is no label.
    """
    found, dropped = [], 0
    for number, row in enumerate(_checked(judgments), 1):
        games = earned(row, number, "v2.0")
        dropped += not any(games)
        category = row.get("category", "arena-hard-v0.1")
        values = [*games[1], *games[0]]  # in the order of the official script, which its resamples follow
        found += [Outcome(_uid(row, number), row["model"], category, value) for value in values]
    return found, dropped


def earned(row: Row, number: int, version: Literal["v0.1", "v2.0"]) -> list[list[float]]:
    """What the model earned in game 1 and in game 2, a strong verdict three times; [] for a game that does not count.

    v0.1 leaves out a game without one of its five labels, v2.0 the row with a failed game. `number` is for a complaint.

    Raises:
        DataError: a row of v2.0 with a score that is no label.
    """
    labels = [None if game is None or game.get("score") is None else str(game["score"]) for game in _games(row, number)]
    if version == "v0.1":
        labels = [label if label in _V01 else None for label in labels]
    elif None in labels:
        return [[], []]
    for label in labels:
        if label is not None and label not in _V2:
            raise DataError(f"judgment row {number}: score {label!r} is no label; use {', '.join(_V2)} or null")
    as_a = [[] if label is None else _V2[label] for label in labels]
    return [[1 - value for value in as_a[0]], list(as_a[1])]


def _checked(judgments: Sequence[Row]) -> Sequence[Row]:
    """A model's answer to a prompt is judged once by each judge."""
    seen: dict[tuple[Any, ...], int] = {}
    for number, row in enumerate(judgments, 1):
        key = (_uid(row, number), need(row, "model", f"judgment row {number}"), row.get("judge"))
        if key in seen:
            raise DataError(
                f"judgment row {number}: {key[1]} on {key[0]} is there already, in row {seen[key]}; keep one"
            )
        seen[key] = number
    return judgments


def _games(row: Row, number: int) -> Sequence[Any]:
    games = need(row, "games", f"judgment row {number}")
    if not isinstance(games, list) or len(games) != 2:
        raise DataError(f"judgment row {number}: {len(games) if isinstance(games, list) else games!r} games, not two")
    return games


def _uid(row: Row, number: int) -> str:
    return str(row["question_id"] if "question_id" in row else need(row, "uid", f"judgment row {number}"))
