"""What a benchmark says of itself: its two sides, and what is expected of each case."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Expect:
    """What one case should come to."""

    goal: float | None = None
    """Least ratio of CPU times that was aimed at; None: none."""
    share: float | None = None
    """Least share of the bound that was aimed at."""
    memory: float | None = None
    """Least ratio of peak memories that was aimed at."""
    counter: tuple[str, float] | None = None
    """A counter and the ratio other / ours that it must have exactly: work, not time."""
    loses: bool = False
    """We should not win here; the case is kept to show it."""
    note: str = ""


@dataclass(frozen=True)
class Bench:
    """Two sides of one piece of work. ``counters["flops"]`` of both, where given, bound the ratio of times."""

    key: str
    title: str
    module: str
    ours: str
    other: str
    what: str
    """What is done, against whom, and what must agree."""
    cases: dict[str, Expect] = field(default_factory=dict)
    rounds: int = 2
    tolerance: float = 1e-4
    bound_by: str = "flops"
    """The counter whose ratio other / ours bounds the ratio of times."""
