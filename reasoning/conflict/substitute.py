"""False contexts by substitution: the answer, or some of its mentions, replaced by another answer of the same kind.

Replacing every mention gives a passage that is consistent in itself: no logic can tell it from the true one. Replacing
some of them gives one that contradicts itself, which is what a logic reward can learn from. Use both.

    python -c "from reasoning.conflict.substitute import substitute; print(substitute('Oslo is big. I like Oslo.', \\
               ['Oslo'], 'Rome', share=0.5, seed=0))"
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from launch.errors import DataError
from reasoning.conflict.instance import Context, Instance, build_instance
from reasoning.conflict.text import contains, normalise, truth_value


class Substituted(NamedTuple):
    """A passage with some mentions replaced."""

    text: str
    replaced: int
    mentions: int


def substitute(text: str, names: Iterable[str], new: str, share: float = 1.0, seed: int = 0) -> Substituted:
    """Replace mentions of `names` by `new`, whole words only, whatever their case.

    Args:
        names: the answer and its aliases; where they overlap the longest is replaced.
        share: 1 replaces every mention; less, that share of them chosen by `seed`, at least one and not all.

    Raises:
        DataError: share outside (0, 1].
    """
    if not 0 < share <= 1:
        raise DataError(f"share {share} of mentions; give more than 0, at most 1")
    ordered = sorted({n for n in names if n.strip()}, key=lambda n: (-len(n), n))
    if not ordered:
        return Substituted(text, 0, 0)
    pattern = re.compile("|".join(rf"(?<!\w){re.escape(n)}(?!\w)" for n in ordered), re.IGNORECASE)
    found = list(pattern.finditer(text))
    count = len(found)
    if share < 1:
        count = min(max(1, round(share * len(found))), len(found) - 1)
    if count <= 0:
        return Substituted(text, 0, len(found))
    chosen = set(random.Random(f"substitute-{seed}").sample(range(len(found)), count))
    pieces, end = [], 0
    for i, match in enumerate(found):
        if i in chosen:
            pieces += [text[end : match.start()], new]
            end = match.end()
    return Substituted("".join([*pieces, text[end:]]), count, len(found))


def kind(answer: str) -> str:
    """truth, date, number, or name by its number of words: answers of one kind may stand for each other."""
    if truth_value(answer) is not None:
        return "truth"
    parts = normalise(answer).split()
    if any(re.fullmatch(r"[12]\d{3}", p) for p in parts):
        return f"date of {len(parts)}"
    if parts and parts[0][0].isdigit():
        return f"number of {len(parts)}"
    return f"name of {min(len(parts), 3)}"


def distractor(answer: str, pool: Sequence[str], passage: str, seed: int = 0) -> str | None:
    """Another answer of the same kind from `pool` (answers of the same relation) that the passage does not mention."""
    said = normalise(passage).split()
    free = sorted(
        {
            other
            for other in pool
            if kind(other) == kind(answer)
            and normalise(other) != normalise(answer)
            and contains(said, normalise(other).split()) < 0
        }
    )
    return random.Random(f"distractor-{seed}-{answer}").choice(free) if free else None


def substituted(
    question: str,
    passage: str,
    answer: str,
    pool: Sequence[str],
    *,
    aliases: Sequence[str] = (),
    share: float = 1.0,
    seed: int = 0,
    id: str = "",
) -> Instance | None:
    """True passage against the same with a distractor for its answer; None where that cannot be made.

    That is: no distractor, the answer is not in the passage, or it is there once and only some mentions should change.
    """
    other = distractor(answer, pool, passage, seed)
    if other is None:
        return None
    made = substitute(passage, (answer, *aliases), other, share, seed)
    if not made.replaced:
        return None
    contexts = [
        Context(passage, answer, True, source="original"),
        Context(made.text, other, False, source="substituted" if share == 1 else "partly substituted"),
    ]
    meta = {"replaced": made.replaced, "mentions": made.mentions}
    return build_instance(question, contexts, [answer, *aliases], id=id, source="substitution", meta=meta)
