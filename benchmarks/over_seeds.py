"""How the studies' pages write a number that came out once for each seed."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

STUDENT = {2: 12.706, 3: 4.303, 4: 3.182, 5: 2.776, 6: 2.571, 7: 2.447, 8: 2.365}
"""Two-sided 95 % points of Student's t for n means."""


def interval(values: Sequence[float], digits: int = 2) -> str:
    """Mean and half the width of its 95 % interval (Student's t over seeds); of one value, the value."""
    n, mean = len(values), float(np.mean(values))
    if n < 2:
        return f"{mean:.{digits}f}"
    return f"{mean:.{digits}f} ± {STUDENT[n] * float(np.std(values, ddof=1)) / n**0.5:.{digits}f}"
