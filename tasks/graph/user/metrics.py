"""How well clusters meet known classes: accuracy, normalised mutual information, macro F1, as the paper counts them.

Clusters have no names. Before accuracy and F1 they are given those of classes by the Hungarian method on the confusion
matrix, which is square: of size max(clusters, classes). NMI needs no names; it is divided by the arithmetic mean of
both entropies.
"""

from __future__ import annotations

import numpy as np
from scipy.optimize import linear_sum_assignment

from launch.errors import DataError, LaunchError


def aligned(predicted: np.ndarray, true: np.ndarray) -> np.ndarray:
    """`predicted` under the names of classes that make the most nodes right, int64 [n].

    Raises:
        DataError: lengths that differ, or nothing to compare.
    """
    predicted, true = np.asarray(predicted, dtype=np.int64), np.asarray(true, dtype=np.int64)
    if predicted.shape != true.shape or predicted.ndim != 1 or not len(true):
        raise DataError(f"{predicted.shape} clusters for {true.shape} classes; give one of each a node")
    size = max(predicted.max(), true.max()) + 1
    confusion = np.zeros((size, size), dtype=np.int64)
    np.add.at(confusion, (predicted, true), 1)
    return linear_sum_assignment(confusion, maximize=True)[1][predicted]


def clustering_scores(predicted: np.ndarray, true: np.ndarray) -> dict[str, float]:
    """accuracy, nmi and f1, each in 0 to 1; F1 is the mean over the classes that are there.

    Raises:
        LaunchError: scikit-learn is not installed.
    """
    try:
        from sklearn.metrics import f1_score, normalized_mutual_info_score
    except ImportError as error:
        raise LaunchError("scikit-learn is not installed; pip install 'arbiter-llm[graph]'") from error
    named = aligned(predicted, true)
    classes = np.unique(true)
    return {
        "accuracy": float((named == true).mean()),
        "nmi": float(normalized_mutual_info_score(true, predicted, average_method="arithmetic")),
        "f1": float(f1_score(true, named, labels=classes, average="macro", zero_division=0)),
    }
