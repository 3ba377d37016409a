"""How well signs of links are predicted. Labels are 1 and -1; the positive class of F1-binary is 1.

SGA's tables call the AUC of hard labels "AUC" for some models: it is the balanced accuracy, `hard_auc` here. F1-binary
and F1-micro follow the share of positive edges: predicting 1 everywhere has F1-binary .97 on bitcoin-alpha. Decide by
`auc` and `f1_macro`.
"""

from __future__ import annotations

import numpy as np

from launch.errors import DataError

METRICS = ("auc", "hard_auc", "f1_binary", "f1_micro", "f1_macro")


def sign_metrics(scores: np.ndarray, signs: np.ndarray) -> dict[str, float]:
    """Metrics of real `scores` [m], positive where 1 is predicted, against `signs` [m].

    Returns:
        auc of the scores, hard_auc of the predicted labels, f1_binary, f1_micro (accuracy), f1_macro; in 0 to 1.

    Raises:
        DataError: only one sign among `signs`, or a score that is not finite.
    """
    from sklearn.metrics import f1_score, roc_auc_score

    if len(np.unique(signs)) < 2:
        raise DataError(f"all {len(signs)} test edges have one sign; an AUC needs both")
    if not np.isfinite(scores).all():
        raise DataError(f"score {int((~np.isfinite(scores)).argmax())} is not finite; the model did not train")
    predicted = np.where(scores > 0, 1, -1)
    return {
        "auc": float(roc_auc_score(signs, scores)),
        "hard_auc": float(roc_auc_score(signs, predicted)),
        "f1_binary": float(f1_score(signs, predicted, pos_label=1, zero_division=0)),
        "f1_micro": float(f1_score(signs, predicted, average="micro", zero_division=0)),
        "f1_macro": float(f1_score(signs, predicted, average="macro", zero_division=0)),
    }
