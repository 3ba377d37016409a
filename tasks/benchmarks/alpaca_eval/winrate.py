"""Win rate of annotated pairs: with q = preference - 1, the share of the model's win, 100 mean q and 100 sem q.

As the official package: a preference of 0 is an old way to write a draw, failed verdicts (null, NaN) are left out, a
draw is exactly 1.5 (so that a judge of token probabilities has hardly any), and the discrete rate rounds first.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from launch.errors import DataError
from tasks.benchmarks.files import Row, need


def preferences(rows: Sequence[Row]) -> np.ndarray:
    """Preferences as float64 [n]: 1 the reference wins, 2 the model wins, NaN the verdict failed.

    Raises:
        DataError: a value outside 1 to 2 that is not 0, or no number; names the row.
    """
    values = np.empty(len(rows))
    for i, row in enumerate(rows):
        raw = need(row, "preference", f"annotation row {i + 1}")
        try:
            value = math.nan if raw is None or raw == "" else float(raw)
        except (TypeError, ValueError) as error:
            raise DataError(
                f"annotation row {i + 1}: preference {raw!r} is no number; write 1 to 2, or null"
            ) from error
        if not (math.isnan(value) or value == 0 or 1 <= value <= 2):
            raise DataError(f"annotation row {i + 1}: preference {raw!r} is outside 1 (reference) to 2 (model)")
        values[i] = 1.5 if value == 0 else value
    return values


def lengths(rows: Sequence[Row], side: int) -> np.ndarray:
    """Characters of the reference's (`side` 1) or the model's (2) answers, float64 [n].

    Counted in ``output_1`` or ``output_2``, or read from ``len_baseline`` or ``len_model`` where rows hold lengths.
    """
    name = ("len_baseline", "len_model")[side - 1]
    if name in rows[0]:
        return np.array([float(need(row, name, f"annotation row {i}")) for i, row in enumerate(rows, 1)])
    return np.array([float(len(need(row, f"output_{side}", f"annotation row {i}"))) for i, row in enumerate(rows, 1)])


def win_rate(rows: Sequence[Row]) -> dict[str, Any]:
    """The official raw metrics.

    Args:
        rows: {preference, and output_2 or len_model for the mean length}.

    Returns:
        win_rate, standard_error (percent), n_wins, n_wins_base, n_draws, n_total, discrete_win_rate, n_failed (verdicts
        left out), avg_length (characters, cut to a whole number; null if lengths are not known), and low and high, the
        win rate -+ 1.96 standard errors.

    Raises:
        DataError: a preference that is none, or no verdict at all.
    """
    values = preferences(rows)
    q = values[~np.isnan(values)] - 1
    if not len(q):
        raise DataError(f"none of {len(rows)} annotations holds a preference; look at the judge's replies")
    wins, base, draws = int((q > 0.5).sum()), int((q < 0.5).sum()), int((q == 0.5).sum())
    rate = 100 * float(q.mean())
    error = 100 * float(q.std(ddof=1)) / math.sqrt(len(q)) if len(q) > 1 else math.nan
    known = "len_model" in rows[0] or "output_2" in rows[0]
    return {
        "win_rate": rate,
        "standard_error": error,
        "n_wins": wins,
        "n_wins_base": base,
        "n_draws": draws,
        "n_total": len(q),
        "discrete_win_rate": 100 * (wins + draws / 2) / len(q),
        "n_failed": len(values) - len(q),
        "avg_length": int(lengths(rows, 2).mean()) if known else None,
        "low": rate - 1.96 * error,
        "high": rate + 1.96 * error,
    }
