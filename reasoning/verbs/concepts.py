"""Verbs as argument concepts: k concepts that cover a verb's good arguments and overlap little (AC, AAAI 2016).

    w_v(c) = sum of Q_v(e) over e isA c           C* = the k-clique of largest sum of w_v(c), where two concepts are
                                                  joined if |E_a and E_b| / min(|E_a|, |E_b|) is at most tau

Source: Gong, Zhao, Zhu, Representing Verbs as Argument Concepts (arXiv 1803.00729). Nothing is learnt or drawn. The
baselines are BL (Q = 1 for every argument) and SP (Resnik's selectional association, the k best, no control of
overlap).

    python -m benchmarks.verb_table
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from launch.errors import ConfigError
from reasoning.verbs.clique import best_clique
from reasoning.verbs.statistics import Statistics
from reasoning.verbs.taxonomy import Taxonomy

TAU = 0.2
BUDGET = 200_000
"""Partial cliques looked at; about two seconds of one core."""


@dataclass(frozen=True)
class Concepts:
    """The concepts of a verb in one role, by descending weight; none if no k of them fit together."""

    chosen: tuple[tuple[str, float], ...]
    weight: float = 0.0
    """f_v: the sum of their weights."""
    proven: bool = True
    """Whether this is the optimum: False if the search's budget ran out first."""

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(name for name, _ in self.chosen)


def argument_quality(statistics: Statistics, verb: str, method: str = "ac") -> dict[str, float]:
    """Q_v(e) of the method: "ac" by entropy and mutual information, "bl" 1 for every argument."""
    if method == "bl":
        return dict.fromkeys(statistics.of(verb), 1.0)
    return statistics.quality(verb)


def weighted(taxonomy: Taxonomy, quality: dict[str, float]) -> list[tuple[int, float]]:
    """(concept number, weight) of every concept whose weight is not 0, heaviest first, then as the terms come."""
    weights = taxonomy.weigh(quality)
    # Sums that should cancel may leave a rounding error; it is no weight.
    order = np.flatnonzero(np.abs(weights) > 1e-12)
    return sorted(((int(c), float(weights[c])) for c in order), key=lambda p: (-p[1], p[0]))


def conceptualise(
    taxonomy: Taxonomy,
    quality: dict[str, float],
    k: int,
    *,
    tau: float = TAU,
    budget: int | None = BUDGET,
    allow_nonpositive: bool = False,
) -> Concepts:
    """The k concepts of largest total weight that overlap pairwise by at most `tau`.

    Args:
        quality: of each argument, what it counts for or against its concepts.
        k: how many concepts: the finer, the more.
        tau: largest overlap of two; 1 leaves the k heaviest, 0 only disjoint ones.
        budget: partial cliques looked at before the best so far is taken; None for no limit.
        allow_nonpositive: let concepts of negative weight complete a clique, as the paper's objective does. A concept
            that speaks against itself is no abstraction of the verb, so by default they stay out; the optimum over all
            can hold one even where k positive ones fit together.

    Raises:
        ConfigError: k below 1, or tau outside 0 to 1.
    """
    if k < 1 or not 0 <= tau <= 1:
        raise ConfigError(f"k {k} and tau {tau}; give k of at least 1 and tau in 0 to 1")
    candidates = [(c, w) for c, w in weighted(taxonomy, quality) if w > 0 or allow_nonpositive]
    weights = [w for _, w in candidates]
    compatible = taxonomy.overlaps([c for c, _ in candidates]) <= tau
    found = best_clique(weights, compatible, k, budget)
    chosen = tuple((taxonomy.terms[candidates[i][0]], weights[i]) for i in found.nodes)
    return Concepts(chosen, found.weight, found.proven)


def heaviest(taxonomy: Taxonomy, quality: dict[str, float], k: int) -> Concepts:
    """The k heaviest concepts whatever their overlap: what control of overlap is compared with."""
    chosen = tuple((taxonomy.terms[c], w) for c, w in weighted(taxonomy, quality)[:k])
    return Concepts(chosen, sum(w for _, w in chosen))


class SelectionalAssociation:
    """SP, Resnik's baseline: P(c|v) ln(P(c|v) / P(c)), an argument's count spread equally over its concepts."""

    def __init__(self, statistics: Statistics, taxonomy: Taxonomy) -> None:
        self.statistics, self.taxonomy = statistics, taxonomy
        everywhere = sum((self._frequency(v) for v in statistics.counts), start=np.zeros(len(taxonomy)))
        self._prior = everywhere / max(everywhere.sum(), 1e-300)

    def _frequency(self, verb: str) -> np.ndarray:
        frequency = np.zeros(len(self.taxonomy))
        for term, count in self.statistics.of(verb).items():
            concepts = self.taxonomy.covering(term)
            if len(concepts):
                frequency[concepts] += count / len(concepts)
        return frequency

    def distributions(self, verb: str) -> tuple[np.ndarray, np.ndarray]:
        """P(c|v) and P(c), float64 [terms] each; P(c|v) is 0 throughout if no argument is in the taxonomy."""
        frequency = self._frequency(verb)
        return frequency / max(frequency.sum(), 1e-300), self._prior

    def scores(self, verb: str) -> dict[str, float]:
        """Of each concept that the verb's arguments fall under; their sum is the divergence of P(c|v) from P(c)."""
        own, prior = self.distributions(verb)
        return {self.taxonomy.terms[c]: float(own[c] * math.log(own[c] / prior[c])) for c in np.flatnonzero(own)}

    def concepts(self, verb: str, k: int) -> Concepts:
        """The k best concepts."""
        best = sorted(self.scores(verb).items(), key=lambda p: -p[1])[:k]
        return Concepts(tuple(best), sum(s for _, s in best))


def covered_by(taxonomy: Taxonomy, term: str, concepts: Sequence[str]) -> list[str]:
    """Those of `concepts` that a term falls under; none for a term that the taxonomy lacks."""
    above = {taxonomy.terms[i] for i in taxonomy.covering(term)}
    return [c for c in concepts if c in above]
