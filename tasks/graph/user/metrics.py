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
        DataError: lengths that differ, nothing to compare, or what is no whole number from 0.
    """
    predicted, true = class_numbers(predicted, "clusters"), class_numbers(true, "classes")
    if predicted.shape != true.shape or predicted.ndim != 1 or not len(true):
        raise DataError(f"{predicted.shape} clusters for {true.shape} classes; give one of each a node")
    size = max(predicted.max(), true.max()) + 1
    confusion = np.zeros((size, size), dtype=np.int64)
    np.add.at(confusion, (predicted, true), 1)
    return linear_sum_assignment(confusion, maximize=True)[1][predicted]


def class_numbers(labels: np.ndarray, name: str) -> np.ndarray:
    """`labels` as int64, of the shape they have; -1 would count as the last class, so that nothing below 0 passes.

    Raises:
        DataError: labels that are no whole numbers from 0.
    """
    labels = np.asarray(labels)
    if not np.issubdtype(labels.dtype, np.integer):
        raise DataError(f"{name} are of type {labels.dtype}; give every node a whole number from 0")
    if labels.size and labels.min() < 0:
        first = int((labels.ravel() < 0).argmax())
        raise DataError(f"{name} have {int(labels.ravel()[first])} for node {first}; number them from 0, one a node")
    return labels.astype(np.int64)


def clustering_scores(predicted: np.ndarray, true: np.ndarray) -> dict[str, float]:
    """accuracy, nmi and f1, each in 0 to 1; F1 is the mean over the classes that are there.

    Raises:
        DataError: see `aligned`.
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
