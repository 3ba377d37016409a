"""What any method has to be better than: always positive, and a logistic regression on six counts.

The counts of a pair (u, v): sign of the reverse edge; smoothed share of positive edges out of u, and into v; signed
logarithm of (S^2)_uv; logarithms of u's out-degree and v's in-degree. A training edge's own sign is left out of its
shares, else they would tell it.
"""

from __future__ import annotations

import numpy as np

from tasks.graph.signed.edges import SignedGraph, find
from tasks.graph.signed.splits import reverse_signs
from tasks.graph.signed.triangles import Pairs, two_paths

PRIOR = 0.8
"""Share of positive edges that a node without edges is taken to have, with the weight of one edge."""


def always_positive(test: np.ndarray) -> np.ndarray:
    """The same score for every one of `test`: float64 [k]."""
    return np.ones(len(test))


def six_features(graph: SignedGraph, rows: np.ndarray, own: bool) -> np.ndarray:
    """The six counts of the pairs in `rows`.

    Args:
        graph: the training edges.
        rows: int64 [k, 3]: source, target (ids of the graph's, or unknown ones, which have no edges), sign.
        own: whether `rows` are edges of the graph; their own signs then do not count.

    Returns:
        float64 [k, 6].
    """
    u, v = find(graph.ids, rows[:, 0]), find(graph.ids, rows[:, 1])
    positive = graph.sign > 0
    out_positive, out_all = (np.bincount(graph.source, w, graph.n + 1) for w in (positive, np.ones(graph.m)))
    in_positive, in_all = (np.bincount(graph.target, w, graph.n + 1) for w in (positive, np.ones(graph.m)))
    less = (rows[:, 2] > 0) * 1.0 if own else 0.0
    known = (u >= 0) & (v >= 0)
    paths = np.zeros(len(rows))
    paths[known] = two_paths(Pairs.of(graph), u[known], v[known])[0]
    return np.stack(  # position -1 is the last entry of the counts, which belongs to no node
        [
            reverse_signs(graph.rows, rows),
            (out_positive[u] - less + PRIOR) / (out_all[u] - own + 1),
            (in_positive[v] - less + PRIOR) / (in_all[v] - own + 1),
            np.sign(paths) * np.log1p(np.abs(paths)),
            np.log1p(out_all[u] - own),
            np.log1p(in_all[v] - own),
        ],
        axis=1,
    )


def six_feature_scores(train: np.ndarray, test: np.ndarray, without_reverse: bool = False) -> np.ndarray:
    """Log-odds of the positive sign by a logistic regression on the six counts: float64 [k].

    Args:
        train: int64 [m, 3].
        test: int64 [k, 3]; its signs are not read.
        without_reverse: leave the sign of the reverse edge out.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    graph = SignedGraph.of(train)
    keep = slice(1 if without_reverse else 0, None)
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
    model.fit(six_features(graph, train, own=True)[:, keep], train[:, 2])
    scores: np.ndarray = model.decision_function(six_features(graph, test, own=False)[:, keep])
    return scores
