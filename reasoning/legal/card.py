"""The model card that travels in every saved folder: what the model is, and what it must never be used for."""

from __future__ import annotations

from typing import Any

from reasoning.legal.feed import Feed

ETHICS = """\
**Not for deciding cases.** This model must not be used to decide, to prepare or to suggest a decision in a real
person's case, nor to advise one. It repeats what courts wrote, their errors and inequalities included; it does not find
facts; its numbers are wrong in most cases (see below). It is for research on whether a model's reasons and its
conclusion agree.

Training texts are public judgments. Names behind a role are masked before anything is read; rare ones may remain, so
treat outputs as personal data and publish none. An opinion is worth nothing without the law it rests on: show the
charge's chains and their article beside it (`reasoning.legal.check_opinion` gives both, and whether they agree).
"""


def model_card(config: Any, feed: Feed, numbers: dict[str, float]) -> str:
    """Markdown."""
    measured = "\n".join(
        f"| {name} | {numbers[name]:.3f} |"
        for name in ("loss_clause", "mae", "rmse", "log_distance", "cail", "parse_rate", "consistency")
        if name in numbers
    )
    charges = ", ".join(list(feed.provisions)[:30]) + (" …" if len(feed.provisions) > 30 else "")
    data = config.data.path.rsplit("/", 1)[-1] or f"the embedded world `cases` ({config.world.language})"
    return f"""\
# Reasons and a sentence from facts and legal chains

Decoder `{config.policy or "made on the spot"}`, law told as `{config.law}`, trained on {len(feed.train)} cases of
{data}, selected on {len(feed.validation)} others, measured on {len(feed.test)} it never saw. Method: LegalChainReasoner
(arXiv 2509.00783), as reconstructed in Arbiter's docs/legal.md.

{ETHICS}
| on the test cases | |
|---|---|
{measured}

Charges: {charges}
"""
