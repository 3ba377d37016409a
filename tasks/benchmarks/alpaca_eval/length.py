"""Length-controlled win rate (Dubois et al., arXiv 2404.04475): what the win rate would be at equal length.

Per model, a logistic regression without intercept of q = preference - 1 on

    t = tanh((len_1 - len_2)/std)   characters, reference minus model (!), std over this model's rows, ddof 1
    d = difficulty of the instruction, published per row of the reference
    b = 1

    z = w_t t + w_d d + w_b b;   LC = 100 mean sigmoid(w_d d + w_b)      (t set to 0)

"full" adds the reference's own verbose and concise answers (b = 0) as regularisation, each row weighing 0.1; "noreg"
goes without; "minimal" has t and b only. The penalty is L1; C is chosen by five-fold cross-validation. q is continuous,
so each row enters twice, as a 1 of weight q and a 0 of weight 1 - q.

`length_controlled` makes the official fit, scikit-learn's liblinear, from the official df_gamed.csv. That file lives on
the hub only; without it the regularisation can still be done from two sums over it (`GamedSums`), because its targets
enter the loss in no other way: an exact minimiser (`fit_exact`) then takes liblinear's place. At the same C the two
agree to 0.02 points. Which C wins is decided by differences of 1e-5 in held-out loss, and scikit-learn's folds of equal
groups follow an unstable sort, so they depend on the processor: where two C are that close, expect another choice and
0.15 points of difference (2 for a gamed model without regularisation). `C=` fixes it.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from launch.errors import ConfigError, DataError
from tasks.benchmarks.alpaca_eval.winrate import lengths, preferences, win_rate
from tasks.benchmarks.files import Row, need, read_rows

Variant = Literal["full", "noreg", "minimal"]
CS = np.logspace(-4, 4, 10)
FOLDS = 5
GAMED_WEIGHT = 0.2 / 2
"""Weight of a gamed row: lambda 0.2, shared by the verbose and the concise answers."""
NAMES = {"t": "np.tanh(std_delta_len)", "d": "instruction_difficulty", "b": "not_gamed_baseline.astype(float)"}
"""Official names of the three weights."""


@dataclass(frozen=True)
class GamedSums:
    """What the loss needs to know of the gamed rows when their targets y are not at hand."""

    t: np.ndarray
    """float64 [g]: tanh of the standardised length difference."""
    d: np.ndarray
    """float64 [g]: difficulty."""
    y_t: float
    """Sum of y t."""
    y_d: float
    """Sum of y d."""


def length_controlled(
    rows: Sequence[Row],
    difficulty: Sequence[float] | Mapping[int, float] | None = None,
    variant: Variant = "full",
    gamed: Sequence[Row] | GamedSums | None = None,
    C: float | None = None,
) -> dict[str, Any]:
    """The official metrics of one model's annotations, length-controlled win rate included.

    Args:
        rows: {preference, output_1 and output_2 or len_baseline and len_model, optionally index}; ``index`` is the row
            of the reference, by default the position in `rows`.
        difficulty: per index; None reads it from the rows of `gamed`.
        variant: see the module header.
        gamed: rows of df_gamed.csv (`read_gamed`), or their sums; "full" needs one.
        C: skip the choice of C.

    Returns:
        What `win_rate` returns, and length_controlled_winrate, lc_standard_error, lc_low, lc_high, weights (by official
        name), C, variant, glm_preference (one per row), and warning: null, or why the result looks like a failed fit.

    Raises:
        ConfigError: no such variant, or "full" without gamed rows.
        DataError: bad rows, or a row without a difficulty.
    """
    if variant not in ("full", "noreg", "minimal"):
        raise ConfigError(f"no variant {variant!r}; use full, noreg or minimal", field="variant")
    if variant == "full" and gamed is None:
        raise ConfigError("variant full needs the gamed rows: pass read_gamed('df_gamed.csv'), or use variant noreg")
    metrics = win_rate(rows)
    values = preferences(rows)
    d = np.zeros(len(rows)) if variant == "minimal" else _difficulties(rows, difficulty, gamed)
    X = np.stack([_length_feature(rows), d, np.ones(len(rows))], axis=1)
    there = ~np.isnan(values)
    columns = [0, 2] if variant == "minimal" else [0, 1, 2]
    if variant == "full" and isinstance(gamed, GamedSums):
        w, C = _fit_with_sums(X[there], values[there] - 1, gamed, C)
    else:
        features, q, weight = X[there], values[there] - 1, None
        if variant == "full":
            assert gamed is not None and not isinstance(gamed, GamedSums)
            gamed_X, gamed_q = _gamed_features(gamed)
            features, q = np.concatenate([gamed_X, features]), np.concatenate([gamed_q, q])
            weight = np.where(features[:, 2] == 1, 1.0, GAMED_WEIGHT)
        fitted, C = fit_sklearn(features[:, columns], q, weight, C)
        w = np.zeros(3)
        w[columns] = fitted
    even = _sigmoid(w[1] * d + w[2])
    lc, error = 100 * float(even.mean()), 100 * float(even.std(ddof=1)) / math.sqrt(len(even))
    return {
        **metrics,
        "length_controlled_winrate": lc,
        "lc_standard_error": error,
        "lc_low": lc - 1.96 * error,
        "lc_high": lc + 1.96 * error,
        "weights": {NAMES["tdb"[column]]: float(w[column]) for column in columns},
        "C": float(C),
        "variant": variant,
        "glm_preference": even.tolist(),
        "warning": _suspicion(metrics["win_rate"], lc),
    }


def win_rate_from_weights(
    weights: Mapping[str, float], difficulty: Sequence[float], baseline: Mapping[str, float] | None = None
) -> tuple[float, float]:
    """(LC win rate, its standard error) in percent from fitted weights, by official name.

    Two models are compared by the difference of their weights; without `baseline` it is against the reference, whose
    weights are 0. Against itself any model has 50.
    """
    w = {key: float(weights[name]) - float(baseline[name] if baseline else 0) for key, name in NAMES.items()}
    even = _sigmoid(w["d"] * np.asarray(difficulty, dtype=np.float64) + w["b"])
    return 100 * float(even.mean()), 100 * float(even.std(ddof=1)) / math.sqrt(len(even))


def difficulty_from_preferences(glm_preference: Sequence[float], weights: Mapping[str, float]) -> np.ndarray:
    """Difficulties, float64 [n], solved from published length-controlled preferences of a model and its weights."""
    p = np.asarray(glm_preference, dtype=np.float64)
    if not ((p > 0) & (p < 1)).all():
        raise DataError("length-controlled preferences must lie inside 0 to 1; take the column glm_preference")
    return (np.log(p) - np.log1p(-p) - float(weights[NAMES["b"]])) / float(weights[NAMES["d"]])


def read_gamed(path: str | Path) -> list[dict[str, float]]:
    """Rows of the official df_gamed.csv {index, preference (0 to 1), std_delta_len, instruction_difficulty}.

    Raises:
        DataError: a column that is missing or a field that is no number.
    """
    rows = []
    for number, row in enumerate(read_rows(path), 1):
        names = ("index", "preference", "std_delta_len", "instruction_difficulty")
        texts = [need(row, name, f"{path} row {number}") for name in names]
        try:
            rows.append(dict(zip(names, map(float, texts), strict=True)))
        except ValueError as error:
            raise DataError(f"{path} row {number}: {error}; is this the official df_gamed.csv?") from error
    return rows


# ---------------------------------------------------------------- fitting


def fit_sklearn(
    X: np.ndarray, q: np.ndarray, weight: np.ndarray | None = None, C: float | None = None
) -> tuple[np.ndarray, float]:
    """The official fit: (weights [f], C) of features [n, f] and targets q [n] in 0 to 1.

    liblinear stops at a tolerance of 1e-4, so its weights differ from the exact minimum's in the third digit; those are
    the digits of the published board.
    """
    from sklearn.model_selection import GroupKFold

    n = len(q)
    both, labels = np.concatenate([X, X]), np.repeat([1, 0], n)
    target = np.concatenate([q, 1 - q])
    sample_weight = target if weight is None else target * np.concatenate([weight, weight])
    if C is None:
        losses = np.zeros(len(CS))
        for train, test in GroupKFold(FOLDS).split(both, groups=np.tile(np.arange(n), 2)):
            held = test[test < n]  # a row's two copies are held out together, and lose the same
            for i, candidate in enumerate(CS):
                w = _liblinear(both[train], labels[train], sample_weight[train], candidate)
                losses[i] += _log_loss(q[held], X[held] @ w, None if weight is None else weight[held])
        C = float(CS[losses.argmin()])
    return _liblinear(both, labels, sample_weight, C), C


def fit_exact(
    X: np.ndarray, q: np.ndarray, C: float, weight: np.ndarray | None = None, gamed: GamedSums | None = None
) -> np.ndarray:
    """The minimum itself, float64 [3], of |w|_1/C + sum weight * cross-entropy (+ the gamed rows, from their sums).

    L-BFGS-B on w = u - v with u, v >= 0, where the L1 norm is the sum of both.
    """
    from scipy.optimize import minimize

    weight = np.ones(len(q)) if weight is None else weight
    f = X.shape[1]
    G = np.zeros((0, f)) if gamed is None else np.stack([gamed.t, gamed.d, np.zeros(len(gamed.t))], axis=1)
    linear = X.T @ (weight * q)
    if gamed is not None:
        linear = linear + GAMED_WEIGHT * np.array([gamed.y_t, gamed.y_d, 0.0])

    def loss(uv: np.ndarray) -> tuple[float, np.ndarray]:
        w = uv[:f] - uv[f:]
        z, z_g = X @ w, G @ w
        value = weight @ np.logaddexp(0, z) + GAMED_WEIGHT * np.logaddexp(0, z_g).sum() - linear @ w
        slope = X.T @ (weight * _sigmoid(z)) + GAMED_WEIGHT * (G.T @ _sigmoid(z_g)) - linear
        return value + uv.sum() / C, np.concatenate([slope, -slope]) + 1 / C

    options = {"maxiter": 2000, "ftol": 1e-14, "gtol": 1e-8}
    found = minimize(loss, np.zeros(2 * f), jac=True, method="L-BFGS-B", bounds=[(0, None)] * (2 * f), options=options)
    return found.x[:f] - found.x[f:]


def _fit_with_sums(X: np.ndarray, q: np.ndarray, gamed: GamedSums, C: float | None) -> tuple[np.ndarray, float]:
    """C by the official cross-validation, as far as sums go: a fold holds a fifth of the gamed rows, and its share of
    the targets' two sums is taken to be a fifth of each."""
    if C is None:
        own, others = np.arange(len(q)) % FOLDS, np.arange(len(gamed.t)) % FOLDS
        losses = np.zeros(len(CS))
        for k in range(FOLDS):
            train, held, held_gamed = own != k, own == k, others == k
            rest = 1 - 1 / FOLDS
            kept = GamedSums(gamed.t[~held_gamed], gamed.d[~held_gamed], gamed.y_t * rest, gamed.y_d * rest)
            for i, candidate in enumerate(CS):
                w = fit_exact(X[train], q[train], candidate, gamed=kept)
                z, z_gamed = X[held] @ w, gamed.t[held_gamed] * w[0] + gamed.d[held_gamed] * w[1]
                fooled = np.logaddexp(0, z_gamed).sum() - (w[0] * gamed.y_t + w[1] * gamed.y_d) / FOLDS
                losses[i] += (np.logaddexp(0, z) - q[held] * z).sum() + GAMED_WEIGHT * fooled
        C = float(CS[losses.argmin()])
    return fit_exact(X, q, C, gamed=gamed), C


def _liblinear(X: np.ndarray, labels: np.ndarray, weight: np.ndarray, C: float) -> np.ndarray:
    from sklearn.linear_model import LogisticRegression

    model = LogisticRegression(C=C, l1_ratio=1.0, solver="liblinear", fit_intercept=False, random_state=123)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Liblinear failed to converge")  # as the official fit goes on from it
        return model.fit(X, labels, sample_weight=weight).coef_[0]


def _log_loss(q: np.ndarray, z: np.ndarray, weight: np.ndarray | None = None) -> float:
    loss = np.logaddexp(0, z) - q * z
    return float((loss if weight is None else loss * weight).mean())


# ---------------------------------------------------------------- features


def _length_feature(rows: Sequence[Row]) -> np.ndarray:
    difference = lengths(rows, 1) - lengths(rows, 2)
    spread = difference.std(ddof=1) if len(rows) > 1 else 0.0
    if not spread > 0:
        raise DataError(
            f"the {len(rows)} answers differ from the reference's by one and the same length, "
            "so length cannot be controlled for; use win_rate"
        )
    return np.tanh(difference / spread)


def _difficulties(
    rows: Sequence[Row],
    difficulty: Sequence[float] | Mapping[int, float] | None,
    gamed: Sequence[Row] | GamedSums | None,
) -> np.ndarray:
    table: Mapping[int, float]
    if isinstance(difficulty, Mapping):
        table = difficulty
    elif difficulty is not None:
        table = dict(enumerate(difficulty))
    elif gamed is not None and not isinstance(gamed, GamedSums):
        table = {int(row["index"]): float(row["instruction_difficulty"]) for row in reversed(gamed)}
    else:
        raise ConfigError("no instruction difficulties; pass them, or rows of df_gamed.csv, or use variant minimal")
    found, seen = np.empty(len(rows)), set()
    for i, row in enumerate(rows):
        index = int(row.get("index", i))
        if index not in table:
            raise DataError(f"annotation row {i + 1}: no difficulty for index {index}; index is the reference's row")
        if index in seen:
            raise DataError(f"annotation row {i + 1}: index {index} is there already; give one model's annotations")
        seen.add(index)
        found[i] = table[index]
    return found


def _gamed_features(gamed: Sequence[Row]) -> tuple[np.ndarray, np.ndarray]:
    q = np.array([float(need(row, "preference", "gamed row")) for row in gamed])
    there = ~np.isnan(q)
    if not ((q[there] >= 0) & (q[there] <= 1)).all():
        raise DataError("gamed rows: preferences must lie in 0 to 1, as in df_gamed.csv")
    t = np.tanh([float(need(row, "std_delta_len", "gamed row")) for row in gamed])
    d = np.array([float(need(row, "instruction_difficulty", "gamed row")) for row in gamed])
    return np.stack([t, d, np.zeros(len(q))], axis=1)[there], q[there]


def _suspicion(raw: float, lc: float) -> str | None:
    """The official warning's rule: off by more than ten points and by more than a quarter of the room there is."""
    if min(raw - raw / 4, raw - 10) <= lc <= max(raw + (100 - raw) / 4, raw + 10):
        return None
    return f"length-controlled win rate {lc:.1f} is far from the raw {raw:.1f}; the fit may have failed"


def _sigmoid(x: np.ndarray) -> np.ndarray:
    return np.exp(-np.logaddexp(0, -x))
