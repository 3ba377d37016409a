"""Arena-Hard-Auto (arXiv 2406.11939): win rate over a baseline model on hard prompts, judged pairwise in both orders.

    verdicts   labels such as [[A>>B]] in a judge's reply, and the battles they stand for
    rating     Bradley-Terry in closed form and by logistic regression, bootstraps
    style      length and markdown of answers, and ratings at equal style
    board      `score`: the official table of v0.1 and of v2.0

Checked against lmarena/arena-hard-auto a06dde2 (the last of v0.1) and 196f6b8 (v2.0). The two differ in what they read
from a reply, what they drop, what they bootstrap and which percentiles they print; both are kept, by name.
"""

from tasks.benchmarks.arena_hard.board import score
from tasks.benchmarks.arena_hard.rating import bradley_terry, win_rates
from tasks.benchmarks.arena_hard.style import markdown_counts, metadata
from tasks.benchmarks.arena_hard.verdicts import (
    BASELINES,
    battles_v01,
    earned,
    flip,
    outcomes_v2,
    verdict_v01,
    verdict_v2,
)

__all__ = [
    "BASELINES",
    "battles_v01",
    "bradley_terry",
    "earned",
    "flip",
    "markdown_counts",
    "metadata",
    "outcomes_v2",
    "score",
    "verdict_v01",
    "verdict_v2",
    "win_rates",
]
