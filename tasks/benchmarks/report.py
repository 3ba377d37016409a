"""The page of an `arbiter eval` folder: a leaderboard, and what stands behind its numbers.

A section for each benchmark, judge and reference, made from scores.json and the official files alone, so that it can be
built again at any time (``arbiter report OUT``), also where the official scripts wrote some of them:

    scores with intervals; each model against a chosen one, question by question; categories; length and style of the
    answers; the judge's failures and its leaning to the answer shown first; answers side by side
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from html import escape
from typing import Any

import numpy as np

from launch import plots
from launch.report import Section, charts, figure, table
from launch.runfolder import RunFolder
from tasks.benchmarks.arena_hard import markdown_counts
from tasks.benchmarks.compare import compare
from tasks.benchmarks.files import read_rows
from tasks.benchmarks.intervals import bootstrap
from tasks.benchmarks.items import Item, Results, read_results
from tasks.benchmarks.runs.records import AGAINST, SCORES

TITLES = {
    "alpaca_eval": "AlpacaEval 2",
    "arena_hard": "Arena-Hard",
    "mt_bench": "MT-Bench",
    "mt_bench_pair": "MT-Bench, pairs",
    "rewardbench": "RewardBench",
}
FILES = (
    "results/*/*/annotations.json",
    "data/*/model_judgment/*.jsonl",
    "data/*/model_judgment/*/*.jsonl",
    "eval-set-scores/*.json",
)
MOST_MODELS = plots.COLOURS
MOST_ANSWERS = 12
MOST_CHARACTERS = 700
"""Of an answer that is shown beside others."""
NAME = 22
"""Characters that a chart has room for beside a line."""
BUCKETS = 5


def benchmark_section(run: RunFolder) -> list[Section]:
    """A section for each benchmark, judge and reference of the folder; [] where nothing was evaluated."""
    scores = run.path / SCORES
    if not scores.is_file():
        return []
    told = read_rows(scores)
    groups: dict[tuple[str, str, str], list[Results]] = {}
    for file in (file for kind in FILES for file in sorted(run.path.glob(kind))):
        for results in read_results(file):
            if results.items:
                groups.setdefault((results.bench, results.judge, results.against), []).append(results)
    wanted = run.artifacts(AGAINST).get(AGAINST, {}).get("model")
    return [_section(name, group, told, wanted) for name, group in groups.items()]


def _section(
    name: tuple[str, str, str], group: list[Results], told: list[dict[str, Any]], wanted: str | None
) -> Section:
    bench, judge, against = name
    models = sorted(group, key=lambda results: -_mean(results.items))[:MOST_MODELS]
    mine = {row["model"]: row for row in told if _is_of(row, bench, judge)}
    parts = [
        _leaderboard(models, mine, wanted),
        _categories(models),
        _length_and_style(models),
        _judge(models, mine),
        _answers(models),
    ]
    title = TITLES[bench] + (f", judged by {judge}" if judge else "") + (f", against {against}" if against else "")
    return Section(title, "".join(parts))


def _is_of(row: dict[str, Any], bench: str, judge: str) -> bool:
    kind = f"{row['bench']}_pair" if row.get("mode") == "pair" else row["bench"]
    return kind == bench and (row.get("judge") or "") == judge


# ---------------------------------------------------------------- the leaderboard


def _leaderboard(models: list[Results], told: dict[str, dict[str, Any]], wanted: str | None) -> str:
    """Official numbers where this folder has them, the items' mean else; differences to one model."""
    chosen = next((results for results in models if results.model == wanted), models[0])
    rows, lines = [], dict[str, list[tuple[str, tuple[float, float, float]]]]()
    for results in models:
        scores = official_scores(told.get(results.model, {})) or {"mean": _interval(results)}
        for name, line in scores.items():
            lines.setdefault(name, []).append((_short(results.model), line))
        bounds = [round(number, 2) for number in next(iter(scores.values()))]
        numbers: list[Any] = [results.model, *bounds, len(results.items), results.failed]
        rows.append(numbers + (_difference(results, chosen) if len(models) > 1 else []))
    header = ["model", "score", "low", "high", "questions", "failed"]
    header += [f"− {chosen.model}", "low ", "high ", "tell apart", "p, sign test"] if len(models) > 1 else []
    mark = 50.0 if models[0].against and models[0].bench != "mt_bench" else None
    figures = [
        figure(f"Scores: {name}", plots.interval_chart([b for _, b in some], [m for m, _ in some], name, mark=mark))
        for name, some in lines.items()
    ]
    below = "Dots are scores, lines their intervals (docs/evaluation.md says which)."
    if len(models) > 1:
        below += (
            f" Differences are in {'grades' if _unit(chosen) == 1 else 'points of 100'}, question by question against "
            f"{chosen.model}, with 95 % of a paired bootstrap; only questions that tell two models apart count in the "
            "test."
        )
    under = f'<p class="quiet">{escape(below)}</p>'
    return charts(figures) + "<h3>Leaderboard</h3>" + table(header, rows) + under


def _difference(results: Results, chosen: Results) -> list[Any]:
    if results is chosen:
        return [None] * 5
    told = compare(results, chosen, common=True)
    bounds = [round(_unit(chosen) * told[name], 2) for name in ("difference", "low", "high")]
    return [*bounds, told["discordant"], float(f"{told['p_value']:.2g}")]


def official_scores(row: dict[str, Any]) -> dict[str, tuple[float, float, float]]:
    """{name: (score, low, high)} of a row of scores.json, as its benchmark prints them."""
    if "boards" in row:
        styled = {f"{name}, at equal style": board for name, board in row.get("at_equal_style", {}).items()}
        return {
            category: _three(line, "score", "low", "high")
            for category, board in {**row["boards"], **styled}.items()
            for line in board
            if line["model"] == row["model"]
        }
    if "table" in row:
        line: dict[str, Any] = next((line for line in row["table"] if line["model"] == row["model"]), {})
        if "average" in line:
            return {"average": _three(line, "average", "low", "high")}
        return {"win rate": _three(line, "win_rate_adjusted", "low", "high", scale=100)} if line else {}
    if "win_rate" in row:
        found = {"win rate": _three(row, "win_rate", "low", "high")}
        if "length_controlled_winrate" in row:
            found["length-controlled"] = _three(row, "length_controlled_winrate", "lc_low", "lc_high")
        return found
    intervals = dict(row.get("intervals", {}))
    first = {"Average": intervals.pop("Average")} if "Average" in intervals else {}
    return {name: _three(line, "value", "low", "high", scale=100) for name, line in {**first, **intervals}.items()}


def _three(row: dict[str, Any], *names: str, scale: float = 1.0) -> tuple[float, float, float]:
    value, low, high = (np.nan if row.get(name) is None else scale * float(row[name]) for name in names)
    return value, low, high


# ---------------------------------------------------------------- categories, length, style


def _categories(models: list[Results]) -> str:
    names = list(dict.fromkeys(item.category for results in models for item in results.items))
    if len(names) < 2:
        return ""
    figures = []
    for results in models[:4]:
        split = {name: [item for item in results.items if item.category == name] for name in names}
        there = {name: items for name, items in split.items() if items}
        lines = [_interval(replace(results, items=items)) for items in there.values()]
        labels = [f"{name} ({len(items)})" for name, items in there.items()]
        figures.append(figure(results.model, plots.interval_chart(lines, labels, f"categories of {results.model}")))
    return "<h3>Categories</h3>" + charts(figures)


def _length_and_style(models: list[Results]) -> str:
    texts = {results.model: [item for item in results.items if item.answer is not None] for results in models}
    texts = {model: items for model, items in texts.items() if items}
    if not texts:
        return ""
    lines = {model: length_curve(items) for model, items in texts.items()}
    relative = any(item.reference is not None for items in texts.values() for item in items)
    x_label = "characters more than the reference" if relative else "characters"
    curve = plots.line_chart(lines, x_label, "earned")
    note = f"Questions in {BUCKETS} parts by length, what each part earned. A slope says that length goes with winning."
    header = ["answers of", "characters", "headers", "list items", "bold"]
    rows = [[model, *_style([item.answer or "" for item in items])] for model, items in texts.items()]
    references = {item.key: item.reference for items in texts.values() for item in items if item.reference is not None}
    if references:
        rows.append([models[0].against, *_style(list(references.values()))])
    picture = charts([figure("Length against winning", curve, note)])
    quiet = '<p class="quiet">Means per answer, markdown counted outside code.</p>'
    return f"<h3>Length and style</h3>{plots.legend(list(lines))}{picture}{table(header, rows)}{quiet}"


def length_curve(items: Sequence[Item]) -> list[tuple[float, float]]:
    """(mean length, mean value) of the items in five parts by length, in characters, over the reference's if known."""
    length = np.array([len(item.answer or "") - len(item.reference or "") for item in items], dtype=float)
    value = np.array([item.value for item in items])
    parts = np.array_split(np.argsort(length, kind="stable"), min(BUCKETS, len(items)))
    return [(float(length[part].mean()), float(value[part].mean())) for part in parts]


def _style(answers: list[str]) -> list[float]:
    counts = [markdown_counts(text) for text in answers]
    kinds = ("header_count", "list_count", "bold_count")
    means = [float(np.mean([sum(count[kind].values()) for count in counts])) for kind in kinds]
    return [round(float(np.mean([len(text) for text in answers]))), *(round(mean, 2) for mean in means)]


# ---------------------------------------------------------------- the judge


def _judge(models: list[Results], told: dict[str, dict[str, Any]]) -> str:
    header = ["model", "verdicts", "paid now", "from the cache", "no reply", "not read", "not read, %"]
    keys = ("questions", "calls", "cached", "unanswered", "parse_failures")
    rows = [
        [
            results.model,
            *(told[results.model].get(f"judge/{key}") for key in keys),
            round(100 * told[results.model].get("judge/parse_failure_rate", 0.0), 2),
        ]
        for results in models
        if "judge/questions" in told.get(results.model, {})
    ]
    leaning = {results.model: [value for item in results.items for value in item.first] for results in models}
    shares = {model: values for model, values in leaning.items() if values}
    figures = []
    if shares:
        lines = [_three(bootstrap(values).to_dict(), "value", "low", "high") for values in shares.values()]
        chart = plots.interval_chart(
            lines, list(map(_short, shares)), "earned by the answer shown first", (0.0, 1.0), 0.5
        )
        note = "1/2: no leaning to either place. Above: the answer shown first is favoured."
        figures.append(figure("Judge: what the answer shown first earned", chart, note))
    agree = [[model, *_agreement(results)] for results in models if (model := results.model) and _twice(results)]
    both = ["model", "asked in both orders", "same winner, share"]
    tables = (table(header, rows) if rows else "") + (table(both, agree) if agree else "")
    return f"<h3>Judge</h3>{charts(figures)}{tables}" if figures or tables else ""


def _twice(results: Results) -> list[Item]:
    return [item for item in results.items if len(item.first) == 2]


def _agreement(results: Results) -> list[Any]:
    """The same answer is ahead in both orders, or neither is in both."""
    twice = _twice(results)
    same = [np.sign(item.first[0] - 0.5) == -np.sign(item.first[1] - 0.5) for item in twice]
    return [len(twice), round(float(np.mean(same)), 3)]


# ---------------------------------------------------------------- answers


def _answers(models: list[Results]) -> str:
    """The questions on which the models earned the most different, or a single model the least and the most."""
    shown = models[:3]
    by_key = [{item.key: item for item in results.items} for results in shown]
    common = [key for key in by_key[0] if all(key in items for items in by_key) and by_key[0][key].answer is not None]
    if not common:
        return ""
    if len(shown) > 1:
        order = sorted(common, key=lambda key: -np.ptp([items[key].value for items in by_key]))[:MOST_ANSWERS]
    else:
        ranked = sorted(common, key=lambda key: by_key[0][key].value)
        half = MOST_ANSWERS // 2
        order = ranked if len(ranked) <= MOST_ANSWERS else [*ranked[:half], *ranked[-half:]]
    with_reference = by_key[0][order[0]].reference is not None
    header = ["question", *([shown[0].against] if with_reference else []), *(results.model for results in shown)]
    rows = []
    for key in order:
        first = by_key[0][key]
        row = [_part(first.prompt or key), *([_part(first.reference or "")] if with_reference else [])]
        rows.append([*row, *(f"[{items[key].value:.2f}] {_part(items[key].answer or '')}" for items in by_key)])
    what = "where the models differ most" if len(shown) > 1 else "the least and the most that it earned"
    title = f"Answers side by side: {what}; in brackets what each earned"
    return f"<details><summary>{title}</summary>{table(header, rows)}</details>"


# ---------------------------------------------------------------- numbers


def _mean(items: Sequence[Item]) -> float:
    return sum(item.weight * item.value for item in items) / sum(item.weight for item in items)


def _unit(results: Results) -> float:
    """What a value of 1 counts in the benchmark's scores: grades are grades, shares are percent."""
    return 1.0 if results.bench == "mt_bench" else 100.0


def _interval(results: Results) -> tuple[float, float, float]:
    """(mean, low, high) of the values in the scores' unit, 95 % of a bootstrap over questions."""
    estimate = bootstrap([_unit(results) * item.value for item in results.items])
    return estimate.value, estimate.low, estimate.high


def _short(name: str) -> str:
    """A name's beginning and end, since versions of a model differ at the end."""
    half = (NAME - 1) // 2
    return name if len(name) <= NAME else f"{name[:half]}…{name[-half:]}"


def _part(text: str) -> str:
    """The beginning of a long text, and how much is missing."""
    lost = len(text) - MOST_CHARACTERS
    return text if lost <= 0 else f"{text[:MOST_CHARACTERS]} … ({lost} characters more)"
