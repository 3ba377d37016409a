"""How sure a share of counted items is."""

from __future__ import annotations

import math

Z95 = 1.959963984540054
"""The 97.5 % point of the standard normal."""


def wilson(successes: float, n: int, z: float = Z95) -> tuple[float, float]:
    """Wilson's score interval (1927) of successes / n, within [0, 1], for n >= 1 independent items."""
    p = successes / n
    middle = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    return max(0.0, middle - half), min(1.0, middle + half)
