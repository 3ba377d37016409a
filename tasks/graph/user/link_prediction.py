"""Link prediction as USER's authors measure it: edges held out of the training graph, told from pairs without one.

    split = split_links(edges, n, seed=0)
    noisy = split.noisy(n, rate=0.2, seed=0)
    encoder = UserEncoder(6, seed=0).fit(Graph.of(noisy, X, isolated="keep"))
    link_scores(encoder.link_probability(split.test.T), encoder.link_probability(split.test_absent.T))

A tenth of the edges is for the test and a twentieth for validation, taken in random order and only where the nodes stay
in as many connected components as before; beside them as many pairs that no edge joins. Noise falls on the training
graph alone, never on a held-out pair, so that no answer is given away. arXiv 2302.05889; the split is that of the graph
autoencoder (Kipf and Welling, 2016). Left out: directed edges.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import sparse

from launch.errors import DataError, LaunchError
from tasks.graph.user.noise import absent_pairs, random_flips


@dataclass(frozen=True)
class LinkSplit:
    """Pairs of nodes, each part int64 [2, ...] with i < j, ascending; no pair is in two parts."""

    train: np.ndarray
    val: np.ndarray
    test: np.ndarray
    val_absent: np.ndarray
    """As many as `val`; no edge of the whole graph joins them."""
    test_absent: np.ndarray
    """As many as `test`."""

    @property
    def held_out(self) -> np.ndarray:
        """All pairs that are asked for, edges or not, int64 [2, H]."""
        return np.concatenate([self.val, self.test, self.val_absent, self.test_absent], axis=1)

    def noisy(self, n: int, rate: float, seed: int) -> np.ndarray:
        """The training edges after int(rate x their number) flips, none of a held-out pair; see `random_flips`."""
        return random_flips(self.train, n, rate, seed, spared=self.held_out)


def split_links(edges: np.ndarray, n: int, seed: int, test: float = 0.1, val: float = 0.05) -> LinkSplit:
    """Hold out int(test x E) and int(val x E) edges, and as many pairs without an edge.

    Edges are gone through in random order, and one is held out unless its removal would part a component. Those that
    would are a spanning forest, the one that prefers the last in the order, so one forest answers for all edges
    (its slow twin in the tests asks for each).

    Args:
        edges: int [2, E], i < j, each once.
        n: nodes, those without edges included.

    Raises:
        DataError: shares outside 0 to 1, too few edges that can go, or too few pairs without an edge.
    """
    E = edges.shape[1]
    wanted, checked = int(test * E), int(val * E)
    if min(test, val) < 0 or wanted < 1:
        raise DataError(f"test={test:g} and val={val:g} of {E} edges; hold out at least one edge for the test")
    rng = np.random.default_rng(seed)
    order = rng.permutation(E)
    order = order[~_forest(edges[:, order], n)]
    if wanted + checked > len(order):
        told = f"{wanted + checked} edges are to be held out, but only {len(order)} can go without parting a component"
        raise DataError(f"{told}; lower test={test:g} or val={val:g}")
    out, spent = order[:wanted], order[wanted : wanted + checked]
    kept = np.setdiff1d(np.arange(E), order[: wanted + checked])
    absent = absent_pairs(edges, n, wanted + checked, rng)
    return LinkSplit(
        train=_ascending(edges[:, kept], n),
        val=_ascending(edges[:, spent], n),
        test=_ascending(edges[:, out], n),
        val_absent=_ascending(absent[:, wanted:], n),
        test_absent=_ascending(absent[:, :wanted], n),
    )


def link_scores(present: np.ndarray, absent: np.ndarray) -> dict[str, float]:
    """How well scores tell pairs with an edge from pairs without: `auc` (.5 by chance) and average precision `ap`.

    Args:
        present: [P], scores of pairs that an edge joins; the higher, the likelier.
        absent: [A], scores of pairs without one; with as many of them as of the others chance gives an `ap` of .5.

    Raises:
        DataError: nothing to compare, or a score that is not finite.
        LaunchError: scikit-learn is not installed.
    """
    try:
        from sklearn.metrics import average_precision_score, roc_auc_score
    except ImportError as error:
        raise LaunchError("scikit-learn is not installed; pip install 'arbiter-llm[graph]'") from error
    if not len(present) or not len(absent):
        raise DataError(f"{len(present)} edges and {len(absent)} pairs without one; give at least one of each")
    scores = np.concatenate([present, absent])
    if not np.isfinite(scores).all():
        raise DataError(f"score {int((~np.isfinite(scores)).argmax())} is not finite; give numbers")
    truth = np.arange(len(scores)) < len(present)
    return {"auc": float(roc_auc_score(truth, scores)), "ap": float(average_precision_score(truth, scores))}


def common_neighbours(edges: np.ndarray, n: int, pairs: np.ndarray) -> np.ndarray:
    """How many nodes are joined to both ends of a pair: the plainest score of missing links, int64 [P].

    Args:
        edges: int [2, E], i < j, each once.
        pairs: int [2, P].
    """
    ones = np.ones(2 * edges.shape[1], dtype=np.int64)
    ends = np.concatenate([edges, edges[::-1]], axis=1)
    A = sparse.coo_matrix((ones, tuple(ends)), shape=(n, n)).tocsr()
    return np.asarray(A[pairs[0]].multiply(A[pairs[1]]).sum(1), dtype=np.int64).ravel()


def _forest(edges: np.ndarray, n: int) -> np.ndarray:
    """Which edges, in the order given, part a component when all that can go before them have gone: bool [E]."""
    E = edges.shape[1]
    late_first = np.arange(E, 0, -1, dtype=np.float64)  # the later, the cheaper: kept before the earlier
    forest = sparse.csgraph.minimum_spanning_tree(sparse.coo_matrix((late_first, tuple(edges)), shape=(n, n)))
    return np.isin(late_first, forest.data)


def _ascending(pairs: np.ndarray, n: int) -> np.ndarray:
    keys = np.sort(pairs[0].astype(np.int64) * n + pairs[1])
    return np.stack([keys // n, keys % n])
