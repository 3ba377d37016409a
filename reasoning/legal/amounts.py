"""Sums of money in a case's facts: 3.5万元, 35,000元, 三万五千元, 5万余元.

python -c "from reasoning.legal.amounts import amounts; print(amounts('骗取人民币3.5万余元'))"
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from reasoning.legal.numerals import LARGE_NUMERAL, number

_SUM = re.compile(
    r"(?:(?P<digits>\d{1,3}(?:[,，]\d{3})+(?:\.\d+)?|\d+(?:\.\d+)?)(?P<unit>[百千万亿]*)"
    rf"|(?P<numeral>{LARGE_NUMERAL}))[余多]?(?P<late>[万亿]?)[余多]?元"
)
_SCALE = {"": 1, "百": 100, "千": 1000, "万": 10_000, "亿": 100_000_000}


def amounts(text: str) -> list[float]:
    """Every sum in yuan, in order; [] for a text that names none. Full-width digits are read too."""
    found = []
    for match in _SUM.finditer(text.translate(_HALF_WIDTH)):
        if match["digits"]:
            value = float(re.sub("[,，]", "", match["digits"]))
            for unit in match["unit"]:
                value *= _SCALE[unit]
        else:
            value = float(number(match["numeral"]))
        found.append(value * _SCALE[match["late"]])
    return found


def amount_tier(text: str, thresholds: Sequence[float]) -> int | None:
    """Which threshold the largest sum of the facts reaches, from 0; None if there is no sum or it reaches none.

    A text may name sums that contradict each other or belong to other events; the largest is a rule, not a finding.
    """
    found = amounts(text)
    reached = [k for k, limit in enumerate(thresholds) if found and max(found) >= limit]
    return reached[-1] if reached else None


_HALF_WIDTH = str.maketrans("０１２３４５６７８９．", "0123456789.")
