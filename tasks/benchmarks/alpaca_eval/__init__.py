"""AlpacaEval 2: how often a judge prefers a model's answer to a reference model's, as it is and at equal length.

    pairs     the model's and the reference's answers side by side, the order they are shown in, what a judge is asked
    winrate   win rate, standard error and counts
    length    the length-controlled win rate (arXiv 2404.04475)

Checked against tatsu-lab/alpaca_eval cd543a1 (release 0.6.6). Its data are CC BY-NC 4.0; none is shipped here.
"""

from tasks.benchmarks.alpaca_eval.length import (
    GamedSums,
    difficulty_from_preferences,
    length_controlled,
    read_gamed,
    win_rate_from_weights,
)
from tasks.benchmarks.alpaca_eval.pairs import annotation_row, is_swapped, judge_messages, pair_up, preference
from tasks.benchmarks.alpaca_eval.winrate import win_rate

__all__ = [
    "GamedSums",
    "annotation_row",
    "difficulty_from_preferences",
    "is_swapped",
    "judge_messages",
    "length_controlled",
    "pair_up",
    "preference",
    "read_gamed",
    "win_rate",
    "win_rate_from_weights",
]
