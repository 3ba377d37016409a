"""Self-play against a preference model: SPPO, GPO and DSPPO, the average policy, and an anchored update.

``selfplay.round`` makes one round's dataset, ``selfplay.train`` fits it, ``selfplay.nash`` solves any preference matrix;
``align.selfplay.rounds`` is the whole recipe. Names are imported when first used, so this costs nothing.
"""

from __future__ import annotations

import importlib
from typing import Any

_WHERE = {
    "round": "rounds",
    "train": "rounds",
    "nash": "tabular",
    "PairDataset": "pairs",
    "PolicyMixture": "mixture",
    "SelfPlayObjective": "objective",
    "coefficients": "schedule",
    "mixed_scores": "schedule",
}

__all__ = [
    "PairDataset",
    "PolicyMixture",
    "SelfPlayObjective",
    "coefficients",
    "mixed_scores",
    "nash",
    "round",
    "train",
]  # noqa: F822


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_WHERE[name]}"), name)
