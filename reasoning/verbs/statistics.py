"""How often a verb takes an argument, and how good an argument it is.

Q_v(e) = Entropy_v(e) * MI_v(e) (AC, section on argument weighting). True arguments occur in many patterns, errors of a
parser in few: the entropy (natural logarithm) of an argument's patterns tells them apart. MI is +1 where the argument
is seen with this verb more often than independence would have it, else -1, so that an argument at home everywhere
("thing") counts against its concepts. Both are per role and over the verbs given: other verbs, other signs.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable

from launch.errors import DataError
from reasoning.verbs.arguments import Argument, Pattern, Role


class Statistics:
    """Counts of one role."""

    def __init__(self, found: Iterable[Argument], role: Role, verbs: Iterable[str] | None = None) -> None:
        """Count the arguments of `role`; only of these verbs, if they are given."""
        self.role: Role = role
        self.counts: dict[str, Counter[str]] = {}
        """n(v, e)."""
        self._patterns: dict[tuple[str, str], Counter[Pattern]] = {}
        self.terms: Counter[str] = Counter()
        """n(e), over all verbs."""
        self.verbs: Counter[str] = Counter()
        """n(v), over all terms."""
        self.total = 0
        wanted = None if verbs is None else frozenset(verbs)
        for argument in found:
            if argument.role == role and (wanted is None or argument.verb in wanted):
                self.add(argument)

    def add(self, argument: Argument) -> None:
        """Count one more."""
        self.counts.setdefault(argument.verb, Counter())[argument.term] += 1
        self._patterns.setdefault((argument.verb, argument.term), Counter()).update(argument.patterns)
        self.terms[argument.term] += 1
        self.verbs[argument.verb] += 1
        self.total += 1

    def of(self, verb: str) -> Counter[str]:
        """n(v, e) of one verb.

        Raises:
            DataError: it was never seen with an argument of this role.
        """
        if verb not in self.counts:
            some = ", ".join(v for v, _ in self.verbs.most_common(5)) or "none"
            raise DataError(
                f"the verb {verb!r} has no {self.role} in the parsed text; give its base form, or more text "
                f"(most frequent there: {some})"
            )
        return self.counts[verb]

    def entropy(self, verb: str, term: str) -> float:
        """- sum P(m) ln P(m) over the patterns m of this argument, in nats; 0 for a single pattern or none."""
        counts = self._patterns[verb, term].values()
        total = sum(counts)
        return -sum(c / total * math.log(c / total) for c in counts if c < total)

    def information(self, verb: str, term: str) -> int:
        """+1 if p(v, e) > p(v) p(e), else -1: the sign of p(v, e) ln(p(v, e) / p(v) p(e)), in whole numbers."""
        return 1 if self.counts[verb][term] * self.total > self.verbs[verb] * self.terms[term] else -1

    def quality(self, verb: str) -> dict[str, float]:
        """Q_v(e) of every argument of a verb. Each distinct argument counts once, however frequent."""
        return {term: self.entropy(verb, term) * self.information(verb, term) for term in self.of(verb)}
