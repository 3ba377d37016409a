"""`Curriculum`: easy examples first, whatever the examples are.

It knows an order and how many of its first examples stage t = 0, 1, …, T uses, nothing of graphs: preference pairs by
how often they lie in cycles can be ordered with it as edges are by their unbalanced triangles.

    plan = Curriculum.csg(difficulty(graph))
    plan.order[: plan.count(epoch)]      # examples of an epoch

Pacing (CSG, arXiv 2310.11083): linear l + (1 - l) t/T, root sqrt(l^2 + (1 - l^2) t/T), geometric 2^(log2(l) (1 - t/T)),
with l the share to start from. All examples after stage T.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from launch.errors import DataError
from tasks.graph.signed.options import STAGES, Pacing, check_pace, check_stages


@dataclass(frozen=True)
class Curriculum:
    """An order of m examples, and a pace."""

    order: np.ndarray
    """int64 [m]: examples from easy to hard."""
    pacing: Pacing = "linear"
    start: float = 0.25
    """lambda_0 in (0, 1]: the share of examples in stage 0."""
    stages: int = STAGES["csg"]
    """T: all examples are used from stage T on."""
    epochs_per_stage: int = 101
    first_stage: int = 0
    """The stage that epoch 0 belongs to."""

    def __post_init__(self) -> None:
        check_pace(self.pacing, self.start, self.stages, self.epochs_per_stage)

    @classmethod
    def of(cls, difficulty: np.ndarray, **pace: object) -> Curriculum:
        """By ascending `difficulty` [m], equal ones in the order given.

        Raises:
            ConfigError: a pace that cannot be.
            DataError: a difficulty that is not finite.
        """
        values = np.asarray(difficulty, dtype=np.float64)
        if not np.isfinite(values).all():
            raise DataError(f"example {int((~np.isfinite(values)).argmax())} has no finite difficulty; leave it out")
        return cls(np.argsort(values, kind="stable"), **pace)  # type: ignore[arg-type]

    @classmethod
    def csg(cls, difficulty: np.ndarray, **pace: object) -> Curriculum:
        """CSG's: T = 20, lambda_0 = .25, 101 epochs a stage, stage 0 first."""
        return cls.of(difficulty, **pace)

    @classmethod
    def sga(cls, difficulty: np.ndarray, epochs: int, stages: int = STAGES["sga"], start: float = 0.25) -> Curriculum:
        """SGA's: T = 30, lambda_0 = .25, epochs // T epochs a stage, and the first epoch is in stage 1.

        Raises:
            ConfigError: fewer epochs than stages.
        """
        check_pace("linear", start, stages, 1)
        check_stages(stages, epochs)
        return cls.of(difficulty, stages=stages, start=start, epochs_per_stage=epochs // stages, first_stage=1)

    @property
    def epochs(self) -> int:
        """Epochs until the end of stage T."""
        return (self.stages + 1 - self.first_stage) * self.epochs_per_stage

    def fraction(self, t: float) -> float:
        """Share of the examples in stage `t`."""
        done, first = min(max(t / self.stages, 0.0), 1.0), self.start
        if self.pacing == "linear":
            return first + (1 - first) * done
        if self.pacing == "root":
            return float(np.sqrt(first**2 + (1 - first**2) * done))
        return float(2 ** (np.log2(first) * (1 - done)))

    def count(self, epoch: int) -> int:
        """How many examples epoch `epoch` (from 0) uses: at least one."""
        t = self.first_stage + epoch // self.epochs_per_stage
        return max(1, int(np.floor(self.fraction(t) * len(self.order) + 1e-9)))
