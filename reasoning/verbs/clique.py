"""Maximum-weight clique of exactly k nodes: branch and bound, and a brute-force twin.

Nodes come sorted by descending weight. Once some are chosen, only those compatible with all of them are left, still
sorted, so the next r weights in a row bound whatever r of them can add; prefix sums give that in O(1), and when the
window at one node does not reach the best score, no later one does. (The paper's bound takes the window over all nodes,
compatible or not: it is looser.) The size is tested before the end of the list: the paper's pseudo-code has it the
other way round and loses every optimum that holds the last node.

    python -c "import numpy as np; from reasoning.verbs.clique import *; \\
               print(best_clique([3., 2., 1.], ~np.array([[1, 1, 0], [1, 1, 0], [0, 0, 1]], bool), 2))"
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations, pairwise

import numpy as np

from launch.errors import ConfigError

SLACK = 1e-9
"""A clique must be better by this share of the largest weight to replace one found before: rounding is no reason."""


@dataclass(frozen=True)
class Clique:
    """What a search found."""

    nodes: tuple[int, ...]
    """Ascending; empty if no clique of the size has a positive weight."""
    weight: float
    proven: bool
    """Whether nothing better is left: False if the node budget ran out first."""
    visited: int
    """Partial cliques looked at."""


def best_clique(weights: Sequence[float], compatible: np.ndarray, k: int, budget: int | None = None) -> Clique:
    """The k-clique of largest positive total weight.

    Args:
        weights: [n], descending. Negative ones are allowed: a clique may need them to reach its size.
        compatible: bool [n, n], symmetric; the diagonal is not read.
        k: nodes in the clique, at least 1.
        budget: partial cliques to look at before giving up with the best so far; None for no limit.

    Raises:
        ConfigError: weights that do not descend, a matrix of another shape, or k below 1.
    """
    values = _checked(weights, compatible, k)
    slack = SLACK * max(map(abs, values), default=0.0)
    search = _Search(compatible, values, budget, slack)
    search.extend(list(range(len(values))), [], 0.0, k)
    return Clique(tuple(search.best), search.score if search.best else 0.0, not search.stopped, search.visited)


class _Search:
    def __init__(self, compatible: np.ndarray, values: list[float], budget: int | None, slack: float) -> None:
        self.compatible, self.values, self.budget, self.slack = compatible, values, budget, slack
        self._near: dict[int, frozenset[int]] = {}
        self.best: list[int] = []
        self.score = 0.0
        self.visited = 0
        self.stopped = False

    def extend(self, left: list[int], chosen: list[int], score: float, need: int) -> None:
        """Try every way to take `need` more of `left`, which are compatible with all of `chosen`."""
        self.visited += 1
        if need == 0:
            if score > self.score + self.slack:
                self.best, self.score = list(chosen), score
            return
        sums = [0.0]
        for node in left:
            sums.append(sums[-1] + self.values[node])
        for i in range(len(left) - need + 1):
            if score + sums[i + need] - sums[i] <= self.score + self.slack:
                return
            if self.budget is not None and self.visited >= self.budget:
                self.stopped = True
                return
            node = left[i]
            near = self.near(node)
            rest = [other for other in left[i + 1 :] if other in near] if need > 1 else []
            self.extend(rest, [*chosen, node], score + self.values[node], need - 1)

    def near(self, node: int) -> frozenset[int]:
        """What is compatible with a node, looked up once."""
        if node not in self._near:
            self._near[node] = frozenset(np.flatnonzero(self.compatible[node]).tolist())
        return self._near[node]


def brute_force(weights: Sequence[float], compatible: np.ndarray, k: int) -> Clique:
    """The slow twin of `best_clique`: every set of k nodes is looked at."""
    values = _checked(weights, compatible, k)
    slack = SLACK * max(map(abs, values), default=0.0)
    best: tuple[int, ...] = ()
    score, visited = 0.0, 0
    for nodes in combinations(range(len(values)), k):
        visited += 1
        total = sum(values[i] for i in nodes)
        if total > score + slack and all(compatible[i, j] for i, j in combinations(nodes, 2)):
            best, score = nodes, total
    return Clique(best, score, True, visited)


def _checked(weights: Sequence[float], compatible: np.ndarray, k: int) -> list[float]:
    values = [float(w) for w in weights]
    if k < 1:
        raise ConfigError(f"a clique of {k} nodes; ask for at least 1")
    if compatible.shape != (len(values), len(values)):
        raise ConfigError(f"{len(values)} weights but a matrix of {compatible.shape}; give one row and column each")
    if any(a < b for a, b in pairwise(values)):
        raise ConfigError("weights do not descend; sort the nodes by weight")
    return values
