"""The official tables: a row per model with its score and interval, in percent.

    score(judgments, "v2.0", category="hard_prompt")
    score(judgments, "v0.1", style=("length", "markdown"), answers={"gpt-4-0314": [...], "mine": [...]})

| | v0.1 | v2.0 |
|---|---|---|
| score | Bradley-Terry win rate over the baseline | mean of bootstrap means; with style: median of bootstrap fits |
| resampled | battles of all models together | a model's outcomes; with style: all rows together |
| interval | 2.5 and 97.5 % | 5 and 95 % |
| seed | 42 | none there; here 42 |

Each row also holds ``n``, the outcomes it is of (a strong verdict counts three times), and ``dropped``, the prompts of
which no verdict counts.
"""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np

from launch.errors import ConfigError, DataError
from tasks.benchmarks.arena_hard import rating
from tasks.benchmarks.arena_hard import style as styling
from tasks.benchmarks.arena_hard.verdicts import BASELINES, Battle, Outcome, battles_v01, outcomes_v2
from tasks.benchmarks.files import Row
from tasks.benchmarks.intervals import bootstrap_means

Version = Literal["v0.1", "v2.0"]
Answers = Mapping[str, Sequence[Row]]


def score(
    judgments: Sequence[Row],
    version: Version = "v2.0",
    category: str | None = None,
    baseline: str | None = None,
    style: Sequence[str] = (),
    answers: Answers | None = None,
    rounds: int = 100,
    seed: int = 42,
) -> list[dict[str, Any]]:
    """Rows {model, score, low, high, n, dropped, …}, best first, the baseline at 50 among them.

    Args:
        judgments: rows of the official judgment files, of any number of models and judges (judges are pooled).
        version: whose rules.
        category: v2.0's; default the only one that is there.
        baseline: default the category's own (BASELINES).
        style: "length", "markdown" or both: also control for these, from the answers' metadata.
        answers: {model: rows of its answer file}, for style control; the baseline's too.

    Raises:
        ConfigError: no such version, a category missing or unknown, or style control without answers.
        DataError: bad judgments, or none left.
    """
    if version not in ("v0.1", "v2.0"):
        raise ConfigError(f"no version {version!r}; use v0.1 or v2.0", field="version")
    if style and answers is None:
        raise ConfigError("style control needs the answers of all models; pass answers={model: rows}", field="answers")
    if version == "v0.1":
        baseline = baseline or BASELINES["arena-hard-v0.1"]
        battles = battles_v01(judgments, baseline)
        lost = _lost(judgments, {(battle.model_b, battle.uid) for battle in battles})
        rows = _styled_v01(battles, baseline, style, answers or {}, rounds, seed) if style else None
        rows = rows or _plain_v01(battles, baseline, rounds, seed)
        return _finish(rows, baseline, Counter(battle.model_b for battle in battles), lost)
    there = sorted({str(row.get("category", "arena-hard-v0.1")) for row in judgments})
    if category is None and len(there) != 1:
        raise ConfigError(f"judgments are of {', '.join(there) or 'no category'}; name one category", field="category")
    category = category or there[0]
    baseline = baseline or BASELINES.get(category)
    if baseline is None:
        raise ConfigError(f"no baseline is known for category {category!r}; name one", field="baseline")
    chosen = [row for row in judgments if row.get("category", "arena-hard-v0.1") == category]
    outcomes, _ = outcomes_v2(chosen)
    if not outcomes:
        raise DataError(f"none of {len(chosen)} judgments of {category} has two verdicts; look at the judge's replies")
    lost = _lost(chosen, {(outcome.model, outcome.uid) for outcome in outcomes})
    rows = _styled_v2(outcomes, baseline, style, answers or {}, rounds, seed) if style else None
    rows = rows or _plain_v2(outcomes, rounds, seed)
    return _finish(rows, baseline, Counter(outcome.model for outcome in outcomes), lost)


# ---------------------------------------------------------------- v0.1


def _plain_v01(battles: Sequence[Battle], baseline: str, rounds: int, seed: int) -> list[dict[str, Any]]:
    if not battles:
        raise DataError("no judgment holds a verdict; look at the judge's replies")
    rates = rating.win_rates(battles, baseline)
    names, elo = rating.bootstrap_elo(battles, baseline, rounds, seed)
    low, high = rating.score_of_elo(np.nanpercentile(elo, [2.5, 97.5], axis=0))
    return [
        {"model": name, "score": 100 * rates[name], "low": float(low[i]), "high": float(high[i])}
        for i, name in enumerate(names)
    ]


def _styled_v01(
    battles: Sequence[Battle], baseline: str, kinds: Sequence[str], answers: Answers, rounds: int, seed: int
) -> list[dict[str, Any]]:
    table = styling.style_table(answers)
    kept = styling.columns(kinds)
    ours, theirs = (
        np.stack([styling.of(table, getattr(battle, side), battle.uid) for battle in battles])[:, kept]
        for side in ("model_a", "model_b")
    )
    z, used = styling.standardise(styling.features_v01(ours, theirs), [styling.FEATURES[i] for i in kept], ddof=0)
    names = sorted({baseline, *(battle.model_b for battle in battles)})
    X = -styling.one_hot([battle.model_b for battle in battles], names, baseline, styling.LN10)
    X = np.concatenate([X, z], axis=1)
    outcome = np.array([{"model_a": 1.0, "tie": 0.5, "model_b": 0.0}[battle.winner] for battle in battles])

    def elo(count: np.ndarray) -> np.ndarray:
        coef = styling.fit_v01(X, outcome, count)
        return rating.SCALE * (coef[: len(names)] - coef[names.index(baseline)]) + rating.ANCHOR

    generator = np.random.RandomState(seed)
    n = len(battles)
    draws = [np.bincount(generator.choice(n, n, replace=True), minlength=n) for _ in range(rounds)]
    low, high = rating.score_of_elo(np.percentile([elo(count) for count in draws], [2.5, 97.5], axis=0))
    centre = styling.fit_v01(X, outcome, np.ones(n))
    points = rating.score_of_elo(elo(np.ones(n)))
    effects = dict(zip(used, centre[len(names) :].tolist(), strict=True))
    return [
        {"model": name, "score": float(points[i]), "low": float(low[i]), "high": float(high[i]), "style": effects}
        for i, name in enumerate(names)
    ]


# ---------------------------------------------------------------- v2.0


def _plain_v2(outcomes: Sequence[Outcome], rounds: int, seed: int) -> list[dict[str, Any]]:
    rows = []
    for name in sorted({outcome.model for outcome in outcomes}):
        values = [outcome.value for outcome in outcomes if outcome.model == name]
        # Seeded by name, so that another model in the table changes nothing.
        means = 100 * bootstrap_means(values, rounds, np.random.default_rng([seed, zlib.crc32(name.encode())]))
        low, high = np.quantile(means, [0.05, 0.95])
        rows.append({"model": name, "score": float(means.mean()), "low": float(low), "high": float(high)})
    return rows


def _styled_v2(
    outcomes: Sequence[Outcome], baseline: str, kinds: Sequence[str], answers: Answers, rounds: int, seed: int
) -> list[dict[str, Any]]:
    table = styling.style_table(answers)
    kept = styling.columns(kinds)
    ours = np.stack([styling.of(table, outcome.model, outcome.uid) for outcome in outcomes])
    theirs = np.stack([styling.of(table, baseline, outcome.uid) for outcome in outcomes])
    features = styling.features_v2(ours, theirs)[:, kept]
    z, used = styling.standardise(features, [styling.FEATURES[i] for i in kept], ddof=1)
    names = sorted({baseline, *(outcome.model for outcome in outcomes)})
    X = np.concatenate([styling.one_hot([outcome.model for outcome in outcomes], names, baseline), z], axis=1)
    value = np.array([outcome.value for outcome in outcomes])
    rng, n = np.random.default_rng(seed), len(outcomes)
    draws = (np.bincount(rng.integers(0, n, n), minlength=n).astype(float) for _ in range(rounds))
    coefs = np.stack([styling.fit_v2(X, value, count) for count in draws])
    gap = coefs[:, : len(names)] - coefs[:, [names.index(baseline)]]
    low, middle, high = np.quantile(100 / (1 + np.exp(-gap)), [0.05, 0.5, 0.95], axis=0)
    effects = dict(zip(used, np.median(coefs[:, len(names) :], axis=0).tolist(), strict=True))
    return [
        {"model": name, "score": float(middle[i]), "low": float(low[i]), "high": float(high[i]), "style": effects}
        for i, name in enumerate(names)
    ]


# ---------------------------------------------------------------- both


def _lost(judgments: Sequence[Row], counted: set[tuple[str, str]]) -> dict[str, int]:
    """Prompts per model of which no verdict counts."""
    lost: dict[str, int] = {}
    for row in judgments:
        uid = str(row.get("question_id", row.get("uid")))
        lost[row["model"]] = lost.get(row["model"], 0) + ((row["model"], uid) not in counted)
    return lost


def _finish(
    rows: list[dict[str, Any]], baseline: str, n: Mapping[str, int], lost: Mapping[str, int]
) -> list[dict[str, Any]]:
    table = [{**row, "n": n[row["model"]], "dropped": lost[row["model"]]} for row in rows if row["model"] != baseline]
    table.append({"model": baseline, "score": 50.0, "low": 50.0, "high": 50.0})
    return sorted(table, key=lambda row: -row["score"])
