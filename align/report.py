"""The alignment sections of a run's report: preference games as pictures, and self-play round by round.

They read two kinds of artifacts from the run folder.

``artifacts/scores-NAME.json``: one prompt's game as one model sees it, K answers ::

    {"prompt": str | messages, "responses": [str] * K, "model": str,
     "S": [[float] * K] * K, "S_T": …, "S_C": …, "P": …,      S[i][j] > 0: answer i beats j; S = S_T + S_C
     "rank_value": [float] * K, "nash": [float] * K,          nash of the game P - 1/2
     "cyclicity": float, "winner": int | null,                winner: the Condorcet winner, if there is one
     "vectors": [[float] * 2d] * K | null}                    cyclic embeddings, d planes of two coordinates

``artifacts/rounds.json``: every method, seed and round of a self-play comparison (round 0 is the start) ::

    {"rows": [{"method": str, "seed": int, "round": int, "right": float, "styles": {name: share},
               "win_vs_start": float, "gap_last": float, "gap_average": float, "malformed": float,
               "tabular": {any of the numbers above, as the exact game predicts them}}],
     "histograms": [{"method": str, "round": int, "edges": [float] * (n + 1), "counts": [float] * n}]}

Any number of a row may be missing or null. Rates and gaps are fractions, not percent.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from html import escape
from typing import Any

import numpy as np

from align.preference.game import cycles
from launch import plots
from launch.errors import DataError
from launch.report import Section, charts, figure, read_artifacts, table
from launch.runfolder import RunFolder

MOST_GAMES = 6
MOST_CYCLES = 3
Row = dict[str, Any]


# ---------------------------------------------------------------- preference games


def preference_section(run: RunFolder) -> list[Section]:
    """Score matrices, embeddings and mixtures of every artifacts/scores-*.json; [] if there is none."""
    games = read_artifacts(run, "scores-")
    for name, game in games.items():
        _require(name, game, ("prompt", "responses", "S", "S_T", "S_C", "nash", "cyclicity"))
    shown = list(games.items())[:MOST_GAMES]
    parts = [_game(name, game, is_open=index == 0 or len(games) <= 3) for index, (name, game) in enumerate(shown)]
    if len(games) > len(shown):
        parts.append(f'<p class="quiet">{len(games) - len(shown)} more in artifacts/.</p>')
    intro = (
        "<p>Row against column, in logits: blue where the row's answer is preferred, red where the column's is. "
        "S is the sum of a ranking, S_T, and of pure cycles, S_C.</p>"
    )
    return [Section("Preference games", intro + "".join(parts))] if games else []


def _game(name: str, game: dict[str, Any], is_open: bool) -> str:
    K = len(game["responses"])
    names = [str(i + 1) for i in range(K)]
    S = np.array(game["S"], dtype=float)
    if S.shape != (K, K):
        raise DataError(f"artifacts/{name}.json: S is {S.shape} but there are {K} responses")
    scale = max(float(np.abs(np.array(game[part])).max(initial=0.0)) for part in ("S", "S_T", "S_C"))
    maps = [
        figure(title, plots.heat_map(game[part], names, scale, f"{part} of {name}"))
        for part, title in (("S", "S, the whole score"), ("S_T", "S_T, the ranking"), ("S_C", "S_C, the cycles"))
    ]
    triads = strongest_cycles(S)
    pictures = [
        figure("Nash mixture: how often to give each answer", plots.bar_chart(game["nash"], names, "Nash", 1.0))
    ]
    planes = np.array(game["vectors"], dtype=float) if game.get("vectors") else np.zeros((K, 0))
    for plane in range(planes.shape[1] // 2):
        points = [(float(x), float(y)) for x, y in planes[:, 2 * plane : 2 * plane + 2]]
        arrows = [(i, j) for a, b, c in triads for i, j in ((a, b), (b, c), (c, a))]
        title = f"Cyclic embedding{f', plane {plane + 1}' if planes.shape[1] > 2 else ''}"
        label = f"{title} of {name}"
        note = "An arrow goes from the preferred answer of a pair in a cycle."
        pictures.append(figure(title, plots.unit_circle(points, names, list(dict.fromkeys(arrows)), label), note))
    winner = game.get("winner")
    facts = [
        f"cyclicity {plots.number(game['cyclicity'])} (share of the score that no ranking explains)",
        "no answer beats all others" if winner is None else f"answer {winner + 1} beats all others",
        *(f"cycle {a + 1} › {b + 1} › {c + 1} › {a + 1}" for a, b, c in triads),
    ]
    title = f"{game.get('model', name)}: {_one_line(game['prompt'])}"
    body = (
        f'<p class="meta">{escape(" · ".join(facts))}</p>{charts(maps)}<h3>Answers</h3>{_answers(game)}'
        f"<h3>Mixture and cycles</h3>{charts(pictures)}"
    )
    return f"<details{' open' if is_open else ''}><summary>{escape(title)}</summary>{body}</details>"


def _answers(game: dict[str, Any]) -> str:
    ranks = game.get("rank_value") or [None] * len(game["responses"])
    header = ["", "answer", "rank value", "Nash share"]
    rows = zip(game["responses"], ranks, game["nash"], strict=True)
    return table(header, [[i, text, rank, share] for i, (text, rank, share) in enumerate(rows, 1)])


def strongest_cycles(S: np.ndarray, most: int = MOST_CYCLES) -> list[tuple[int, int, int]]:
    """Triads i > j > k > i of S [K, K] with the largest weakest link, at most `most`, strongest first."""
    return sorted(cycles(S), key=lambda t: -min(S[t[0], t[1]], S[t[1], t[2]], S[t[2], t[0]]))[:most]


# ---------------------------------------------------------------- self-play


def selfplay_section(run: RunFolder) -> list[Section]:
    """Curves and a table over rounds, and the histograms of P_hat - 1/2, of artifacts/rounds.json; [] without it."""
    found = read_artifacts(run, "rounds").get("rounds")
    if found is None:
        return []
    _require("rounds", found, ("rows",))
    rows = found["rows"]
    for row in rows:
        _require("rounds", row, ("method", "round"))
    methods = list(dict.fromkeys(row["method"] for row in rows))
    seeds = sorted({row.get("seed", 0) for row in rows})
    over = f"Lines are means over {len(seeds)} seeds. " if len(seeds) > 1 else ""
    parts = [
        f"<p>{over}Round 0 is the policy that all methods start from. A gap is how much the best reply wins against "
        "the policy: 0 at the equilibrium.</p>",
        plots.legend(methods),
        charts(list(_round_curves(rows, methods))),
        "<h3>Style mix</h3>" if _styles(rows) else "",
        *_style_curves(rows, methods),
        "<h3>All rounds</h3>",
        _round_table(rows, len(seeds) > 1),
        *_histograms(found.get("histograms") or []),
    ]
    return [Section("Self-play", "".join(parts))]


CURVES = (
    ("right", "Right answers", (0.0, 1.0)),
    ("win_vs_start", "Win rate against round 0", (0.0, 1.0)),
    ("gap_last", "Duality gap of the last policy", None),
    ("gap_average", "Duality gap of the average policy", None),
    ("malformed", "Malformed answers", None),
)


def _round_curves(rows: Sequence[Row], methods: Sequence[str]) -> Iterable[str]:
    for key, title, y_range in CURVES:
        series = {method: _by_round(rows, method, key) for method in methods}
        if any(series.values()):
            yield figure(title, plots.line_chart(series, "round", title, y_range, from_zero=True, integer_x=True))


def _style_curves(rows: Sequence[Row], methods: Sequence[str]) -> list[str]:
    styles = _styles(rows)
    figures = []
    for method in methods:
        series = {style: _by_round(rows, method, style, "styles") for style in styles}
        if any(series.values()):
            figures.append(figure(method, plots.line_chart(series, "round", "share", (0.0, 1.0), integer_x=True)))
    return [plots.legend(styles), charts(figures)] if figures else []


def _by_round(rows: Sequence[Row], method: str, key: str, part: str = "") -> list[tuple[float, float]]:
    """(round, mean over seeds) of one number of one method."""
    found: dict[int, list[float]] = defaultdict(list)
    for row in rows:
        value = _value(row, key, part)
        if row["method"] == method and value is not None:
            found[row["round"]].append(float(value))
    return [(number, sum(values) / len(values)) for number, values in sorted(found.items())]


def _round_table(rows: Sequence[Row], with_seed: bool) -> str:
    """Every measured number, the tabular prediction beside it where there is one."""
    columns = [("method", "method", ""), ("round", "round", ""), *([("seed", "seed", "")] if with_seed else [])]
    names = {"right": "right", "win_vs_start": "win", "gap_last": "gap, last", "gap_average": "gap, average"}
    for key, name in (*names.items(), ("malformed", "malformed")):
        columns.append((name, key, ""))
        if any(_value(row, key, "tabular") is not None for row in rows):
            columns.append(("predicted", key, "tabular"))
    columns += [(style, style, "styles") for style in _styles(rows)]
    body = [[_value(row, key, part) for _, key, part in columns] for row in rows]
    return table([name for name, _, _ in columns], body)


def _styles(rows: Sequence[Row]) -> list[str]:
    return list(dict.fromkeys(style for row in rows for style in row.get("styles") or {}))


def _value(row: Row, key: str, part: str = "") -> Any:
    return (row.get(part) or {}).get(key) if part else row.get(key)


def _histograms(histograms: Sequence[dict[str, Any]]) -> list[str]:
    figures = []
    for one in histograms:
        _require("rounds", one, ("method", "round", "edges", "counts"))
        title = f"{one['method']}, round {one['round']}"
        figures.append(figure(title, plots.histogram(one["edges"], one["counts"], title, "estimated win rate − 1/2")))
    note = (
        '<p class="quiet">The regression targets before division by beta. Piled up at the ends: the scores saturate; '
        "piled up at 0: the answers are alike.</p>"
    )
    return ["<h3>Estimated win rates</h3>", note, charts(figures)] if figures else []


# ---------------------------------------------------------------- pieces


def _require(name: str, data: Any, keys: Sequence[str]) -> None:
    missing = [key for key in keys if not isinstance(data, dict) or key not in data]
    if missing:
        raise DataError(f"artifacts/{name}.json has no {', '.join(missing)}; align/report.py says what it holds")


def _one_line(prompt: Any) -> str:
    text = prompt if isinstance(prompt, str) else prompt[-1]["content"]
    flat = " ".join(text.split())
    return flat if len(flat) <= 100 else flat[:99] + "…"
