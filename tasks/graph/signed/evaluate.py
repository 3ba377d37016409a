"""Measuring on held-out edges, with and without those whose reverse was learned from."""

from __future__ import annotations

from typing import Any

import numpy as np

from tasks.graph.signed.metrics import sign_metrics
from tasks.graph.signed.splits import reverse_signs


def measured(scores: np.ndarray, train: np.ndarray, test: np.ndarray) -> dict[str, Any]:
    """Metrics on all test edges, and on those whose reverse is no training edge.

    Args:
        scores: float [k], log-odds of the positive sign of each test edge.
        train: int64 [m, 3]; the original training edges, not augmented ones.
        test: int64 [k, 3].

    Returns:
        {"all": metrics, "no_reverse": metrics, "edges": k, "edges_no_reverse": how many those are}. "no_reverse" is
        empty where such edges have one sign only.
    """
    apart = reverse_signs(train, test) == 0
    signs = test[:, 2]
    both = len(np.unique(signs[apart])) == 2
    return {
        "all": sign_metrics(scores, signs),
        "no_reverse": sign_metrics(scores[apart], signs[apart]) if both else {},
        "edges": len(test),
        "edges_no_reverse": int(apart.sum()),
    }
