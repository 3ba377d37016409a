"""What a model may ask about criminal law: the chains of a charge, and whether reasons and sentence agree.

Not for deciding cases: see docs/legal.md. Every answer names the article it rests on.
"""

from __future__ import annotations

from typing import Any

from launch.tools import tool
from reasoning.legal import check


@tool(seconds=10)
def legal_chains(charge: str) -> list[dict[str, Any]]:
    """List what the Criminal Law of China says of a charge: conduct, condition and penalty.

    Args:
        charge: Name of the charge in Chinese, e.g. 诈骗罪; 罪 may be left out.

    Returns:
        One row per chain: premise (conduct), situation (condition, alternatives joined by OR), conclusion (penalty),
        article of the Criminal Law, and months, the range of imprisonment that it allows.
    """
    return [dict(row) for row in check.legal_chains(charge)]


@tool(seconds=20)
def check_opinion(fact: str, opinion: str, months: int, charge: str = "") -> dict[str, Any]:
    """Check that a court's reasons and its sentence agree with each other and with the statute.

    Args:
        fact: The facts of the case in Chinese; may be empty.
        opinion: The court's reasons in Chinese.
        months: Prison term in months from 0 to 300; -1 for life, -2 for death.
        charge: Name of the charge; leave it out if the opinion names it (构成…罪).

    Returns:
        charge; matched_chains, those of the tier that applies; range in months; consistent, true if the term lies in
        it; tier_from, what chose the tier; circumstances found; citations, articles of the Criminal Law that the range
        rests on; cited, those that the opinion cites; notes, what was decided by a rule of thumb.
    """
    return dict(check.check_opinion(fact, opinion, months, charge))
