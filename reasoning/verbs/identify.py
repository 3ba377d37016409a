"""Argument identification: can *piano* be the object of *wear*? Yes if it falls under one of the verb's k concepts.

Test pairs are arguments held out; as many false pairs are made by giving a verb the argument of another one, where the
two were never seen together. (The paper's pairs were corrected by hand; ours are not, so some "false" ones are true.)
What is held out are arguments as they occur, where a frequent pair stands in both parts, or pairs as such, where what
is asked was never read.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from launch.errors import DataError
from reasoning.verbs.arguments import Argument, Role
from reasoning.verbs.concepts import covered_by
from reasoning.verbs.statistics import Statistics
from reasoning.verbs.taxonomy import Taxonomy

HELD_OUT = 0.3
_TRIES = 50


class Pair(NamedTuple):
    """A question: can `term` be an argument of `verb`?"""

    verb: str
    term: str
    true: bool


class Identification(NamedTuple):
    """How well pairs were told apart."""

    accuracy: float
    true_positive_rate: float
    false_positive_rate: float
    pairs: int


def frequent_verbs(found: Sequence[Argument], role: Role, count: int) -> list[str]:
    """The verbs with most arguments of a role, most first."""
    return [verb for verb, _ in Statistics(found, role).verbs.most_common(count)]


def held_out(
    found: Sequence[Argument],
    role: Role,
    verbs: Sequence[str],
    seed: int,
    share: float = HELD_OUT,
    unseen: bool = False,
) -> tuple[list[Argument], list[Pair]]:
    """Arguments to count, and true and false pairs to ask about, as many of each.

    Args:
        found: all arguments.
        role: of these, the ones of this role.
        verbs: and of these verbs.
        seed: draws what is held out and how it is exchanged.
        share: part that is held out.
        unseen: hold out pairs of a verb and a term with all their occurrences, each asked about once; else occurrences.

    Raises:
        DataError: too few arguments to hold any out.
    """
    wanted = frozenset(verbs)
    mine = [a for a in found if a.role == role and a.verb in wanted]
    seen = {(a.verb, a.term) for a in mine}
    units = sorted(seen) if unseen else [(a.verb, a.term) for a in mine]
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(units)).tolist()
    cut = round(share * len(units))
    test = [units[i] for i in order[:cut]]
    if not test or len({verb for verb, _ in test}) < 2:
        raise DataError(f"{len(mine)} {role}s of {len(wanted)} verbs are too few to hold some out; give more text")
    pairs = []
    for verb, term in test:
        for other in rng.integers(len(test), size=_TRIES).tolist():
            swapped = test[other][1]
            if (verb, swapped) not in seen:
                pairs += [Pair(verb, term, True), Pair(verb, swapped, False)]
                break
    if unseen:
        kept_back = set(test)
        return [a for a in mine if (a.verb, a.term) not in kept_back], pairs
    return [mine[i] for i in order[cut:]], pairs


def identify(pairs: Sequence[Pair], says_yes: Callable[[str, str], bool]) -> Identification:
    """Measure ``says_yes(verb, term)`` on pairs."""
    yes = np.array([says_yes(p.verb, p.term) for p in pairs])
    true = np.array([p.true for p in pairs])
    return Identification(float((yes == true).mean()), float(yes[true].mean()), float(yes[~true].mean()), len(pairs))


def by_concepts(taxonomy: Taxonomy, concepts: dict[str, Sequence[str]]) -> Callable[[str, str], bool]:
    """Yes where the term falls under one of the verb's concepts; no for terms that the taxonomy lacks."""
    return lambda verb, term: bool(covered_by(taxonomy, term, concepts[verb]))
