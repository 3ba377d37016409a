"""How USER is fitted."""

from __future__ import annotations

from dataclasses import dataclass

from launch.errors import ConfigError

SETTLED = 1e-5
"""Share of the first learning rate under which a fit ends: what is left moves no label (docs/user_graph.md)."""


@dataclass
class Options:
    """How USER is fitted. The defaults are the authors' for Cora, but for the learned graph, which is off."""

    hidden: int = 256
    """Width of the vectors."""
    alpha: float = 0.5
    """Weight of edge retention; without a learned graph it does nothing."""
    beta: float = 0.005
    """Weight of the Davies-Bouldin index."""
    learning_rate: float = 0.1
    epochs: int = 400
    """At most; a fit ends earlier once the learning rate has fallen to `SETTLED`. Fewer than 200 look like failure."""
    weight_decay: float = 5e-4
    dropout: float = 0.5
    learn_graph: bool = False
    """Learn A' beside the given graph: n x n numbers, O(n^3) a step; the paper does. See docs/user_graph.md."""

    def __post_init__(self) -> None:
        if self.hidden < 1 or self.epochs < 1 or self.learning_rate <= 0:
            raise ConfigError("hidden and epochs are whole numbers from 1, learning_rate is above 0")
        if min(self.alpha, self.beta, self.weight_decay) < 0 or not 0 <= self.dropout < 1:
            raise ConfigError("alpha, beta and weight_decay are at least 0, dropout is at least 0 and below 1")
