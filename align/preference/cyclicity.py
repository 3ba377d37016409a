"""How cyclic a set of preferences is in itself, before any model: the data report.

Two measures, both per judge and pooled (majority of the votes on a pair):

- **Cyclic triads.** Among closed triples (three answers to one prompt, all three pairs judged): strict cycles
  a > b > c > a, and, apart, triples with one tie that break transitivity, a > b > c = a.
- **Share of energy no scalar can explain.** Every judged pair is an edge with flow Y_ij = (votes for i - votes for j)
  / votes, in [-1, 1]. Least squares finds the potential f whose differences fit best (HodgeRank, Jiang et al. 2011);
  what remains, ||Y - grad f||^2 / ||Y||^2, no reward model can express. On a complete table that is exactly
  `game.cyclicity`, since f_i is then the row mean.

Read the share beside its two marks. Votes say who wins, not by how much, so even one perfect ranking leaves a rest
(three answers: 1/9): ``floor`` is what would be left if every comparison agreed with the fitted ranking. ``chance`` is
what random votes would leave on the same pairs. The prompt's comparisons are not weighted by how many voted.

Left out: the split of the rest into local (curl) and global (harmonic) cycles; groups are small and mostly complete.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from align.preference import game

Group = dict[str, Any]


@dataclass
class Counts:
    """What one judge's votes (or the majority) hold."""

    prompts: int = 0
    """Prompts with at least one judged pair."""
    pairs: int = 0
    """Judged pairs of answers."""
    ties: int = 0
    """Pairs judged equal."""
    closed: int = 0
    """Triples with all three pairs judged."""
    strict: int = 0
    """Cycles a > b > c > a."""
    one_tie: int = 0
    """Triples a > b > c with a = c."""
    share: float = 0.0
    """Energy no scalar explains, in [0, 1]."""
    floor: float = 0.0
    """The same if every comparison agreed with the fitted ranking."""
    chance: float = 0.0
    """The same if votes were random."""


@dataclass
class CyclicityReport:
    """Counts of the majority and of each judge; where the majority's cycles are."""

    pooled: Counts
    judges: dict[str, Counts]
    cycles: list[dict[str, Any]] = field(default_factory=list)
    """Strict cycles of the majority: {"source", "answers": (i, j, k)} with i > j > k > i."""

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def cyclicity_report(groups: Sequence[Group]) -> CyclicityReport:
    """Measure groups in the normal form of `align.preference.data`."""
    judges = sorted({who for group in groups for who in _judges(group)})
    pooled, found = _count(groups, None)
    per_judge = {who: _count(groups, who)[0] for who in judges} if len(judges) > 1 else {}
    return CyclicityReport(pooled, per_judge, found)


def flows(group: Group, judge: str | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Comparison flow Y [K, K] (float64, skew-symmetric, in [-1, 1]) and judged [K, K] (bool, symmetric) of one group.

    judge: only this judge's votes. A tie counts as one vote for neither side.
    """
    K = len(group["responses"])
    votes, total = np.zeros((K, K)), np.zeros((K, K))
    names = group.get("annotators") or [""] * len(group["winners"])
    for i, j, weight, who in zip(group["winners"], group["losers"], group["weights"], names, strict=True):
        if judge is None or who == judge:
            votes[i, j] += weight
            total[i, j] += weight
            total[j, i] += weight
    names = group.get("tie_annotators") or [""] * len(group["ties"])
    for (i, j), who in zip(group["ties"], names, strict=True):
        if judge is None or who == judge:
            total[i, j] += 1
            total[j, i] += 1
    judged = total > 0
    return (votes - votes.T) / np.where(judged, total, 1), judged


def explain(Y: np.ndarray, judged: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Fit potentials to flows by least squares over the judged pairs.

    Y, judged: [K, K] as from `flows`. Returns f [K] (mean 0 over the answers) and the rest [K, K], 0 off the judged
    pairs, orthogonal to every gradient.
    """
    i, j = np.nonzero(np.triu(judged, 1))
    gradient = np.zeros((len(i), len(Y)))
    edge = np.arange(len(i))
    gradient[edge, i], gradient[edge, j] = 1, -1
    f = np.linalg.lstsq(gradient, Y[i, j], rcond=None)[0]  # the shortest solution, so each component averages to 0
    return f, np.where(judged, Y - (f[:, None] - f[None, :]), 0.0)


def _count(groups: Sequence[Group], judge: str | None) -> tuple[Counts, list[dict[str, Any]]]:
    counts, found = Counts(), []
    energy = rest_energy = ranked_energy = ranked_rest = edges = cyclic_dimensions = 0.0
    for group in groups:
        Y, judged = flows(group, judge)
        if not judged.any():
            continue
        beats, level = (Y > 0).astype(float), (judged & (Y == 0)).astype(float)
        counts.prompts += 1
        counts.pairs += int(judged.sum()) // 2
        counts.ties += int(level.sum()) // 2
        counts.closed += round(np.trace(np.linalg.matrix_power(judged.astype(float), 3)) / 6)
        counts.strict += round(np.trace(beats @ beats @ beats) / 3)
        counts.one_tie += round(((beats @ beats) * level).sum())
        found += [{"source": group["source"], "answers": cycle} for cycle in game.cycles(Y)]
        f, rest = explain(Y, judged)
        energy += (Y**2).sum()
        rest_energy += (rest**2).sum()
        order = np.sign(np.round(f[:, None] - f[None, :], 9)) * np.abs(Y)
        ranked_energy += (order**2).sum()
        ranked_rest += (explain(order, judged)[1] ** 2).sum()
        edges += judged.sum() / 2
        cyclic_dimensions += judged.sum() / 2 - _rank(judged)
    counts.share = float(rest_energy / energy) if energy else 0.0
    counts.floor = float(ranked_rest / ranked_energy) if ranked_energy else 0.0
    counts.chance = float(cyclic_dimensions / edges) if edges else 0.0
    return counts, found


def _rank(judged: np.ndarray) -> int:
    """Dimensions that potentials span on the judged pairs: answers less connected components."""
    degrees = np.diag(judged.sum(1).astype(float))
    return int(np.linalg.matrix_rank(degrees - judged))


def _judges(group: Group) -> set[str]:
    return {who for key in ("annotators", "tie_annotators") for who in group.get(key, ()) if who}
