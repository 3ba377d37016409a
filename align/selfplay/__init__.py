"""Self-play against a preference model: SPPO, GPO and DSPPO, the average policy, and an anchored update.

    dataset = selfplay.round(policy, prompts, pm, t, schedule="inv_sqrt", lam=1.0, k=5)     one round's pairs
    folder = selfplay.train(policy, ref, dataset, loss="sppo", beta=1e-3)                   fit them
    mixture, gap = selfplay.nash(P)                                                         solve a preference matrix

`align.selfplay.rounds` is the whole recipe. Names are imported when first used, so importing this costs nothing.
"""

from __future__ import annotations

import importlib
from typing import Any

_HOME = {
    "round": ("rounds", "play_round"),
    "train": ("rounds", "train_policy"),
    "nash": ("tabular", "nash"),
    "PairDataset": ("pairs", "PairDataset"),
    "PolicyMixture": ("mixture", "PolicyMixture"),
    "SelfPlayObjective": ("objective", "SelfPlayObjective"),
    "coefficients": ("schedule", "coefficients"),
    "mixed_scores": ("schedule", "mixed_scores"),
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, attribute = _HOME[name]
    return getattr(importlib.import_module(f"{__name__}.{module}"), attribute)
