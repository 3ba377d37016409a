"""`PairHead`: the score of a pair of embeddings. Plain arrays, so that what was trained is used without torch."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class PairHead:
    """Log-odds of the positive sign: w . [z_u, z_v] + b, plus z_u^T M z_v where there is an M."""

    weight: np.ndarray
    """float [2 d]."""
    bias: float
    product: np.ndarray | None = None
    """float [d, d]."""

    def score(self, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        """float64 [k] from the embeddings [k, d] of both ends."""
        u, v = first.astype(np.float64), second.astype(np.float64)
        d = u.shape[1]
        scores = u @ self.weight[:d] + v @ self.weight[d:] + self.bias
        return scores if self.product is None else scores + ((u @ self.product) * v).sum(1)

    @classmethod
    def fitted(cls, first: np.ndarray, second: np.ndarray, signs: np.ndarray) -> PairHead:
        """By logistic regression on [z_u, z_v], as SiGAT and SDGNN are read out: embeddings [m, d] twice, signs [m]."""
        from sklearn.linear_model import LogisticRegression

        model = LogisticRegression(max_iter=1000).fit(np.concatenate([first, second], axis=1), signs)
        return cls(model.coef_[0], float(model.intercept_[0]))
