"""``arbiter report RUN``: everything a run recorded on one page, RUN/report.html.

The page is one file: inline SVG and CSS, no script, no font, no address outside itself, light or dark as the reader's
system is. It is made only from the run folder, so it can be built again at any time, also for a run that is still going
or that was killed.

What it reads, and who writes it:

    config.yaml, environment.json, data.json, timings.jsonl     launch.runfolder
    artifacts/work-*.json, machine.json                         launch.counters
    metrics.jsonl       rows {"stage", "step", "time", NAME: number …}; a row with "warning": str is shown as a warning
    artifacts/headline.json     {NAME: number}: the Result's metrics, written by ``arbiter run``
    samples/NAME.jsonl  rows of any keys. Files whose rows have "prompt" and one of "response" (text) or "responses"
                        (list) are set side by side by prompt, in the natural order of their names: before and after

Sections of other packages come from entry points of group ``arbiter.report_sections``: a callable
``(run: RunFolder) -> list[Section]`` that returns [] where it finds nothing of its own. A section that meets an
artifact it cannot read raises an ArbiterError, which the page shows as a warning.
"""

from __future__ import annotations

import json
import math
import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from html import escape
from importlib.metadata import entry_points
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import Any

from launch import __version__, plots, yamltree
from launch.counters import FIT_HEADER, PREFIX, STAGE_HEADER, Work, fit_rows, stage_rows
from launch.errors import ArbiterError, DataError
from launch.runfolder import RunFolder, read_rows, write_text

GROUP = "arbiter.report_sections"
MOST_SAMPLES = 12
LONGEST_TEXT = 1200
_NOT_CURVES = {"stage", "step", "time", "epoch", "warning", *(PREFIX + key for key in Work.__dataclass_fields__)}


@dataclass(frozen=True)
class Section:
    """One part of the page."""

    title: str
    html: str
    """Trusted markup: whoever makes it has escaped all text in it."""


def build(run: str | Path) -> Path:
    """Write RUN/report.html and return its path.

    Raises:
        DataError: `run` is no run folder.
    """
    folder = RunFolder(run)
    if not folder.path.is_dir():
        raise DataError(f"no run folder {str(run)!r}; `arbiter run CONFIG` makes one, at run.folder of its config")
    rows = [row for row in folder.metrics() if isinstance(row, dict)]
    warnings = find_warnings(folder, rows)
    extensions: list[Section] = []
    for point in sorted(entry_points(group=GROUP), key=lambda point: point.name):
        try:
            extensions += point.load()(folder)
        except ArbiterError as error:
            warnings.append(f"the section {point.name!r} is left out: {error}")
    sections = [
        *_warnings(warnings),
        *_headline(folder, rows),
        *extensions,
        *_curves(rows),
        *_times(folder),
        *_efficiency(folder, rows),
        *_samples(folder),
        *_origin(folder),
    ]
    page = Template(files("launch").joinpath("report_page.html").read_text(encoding="utf-8")).substitute(
        title=escape(folder.path.resolve().name),
        meta=escape(_meta(folder, rows)),
        links="".join(f'<a href="#{_anchor(s.title)}">{escape(s.title)}</a>' for s in sections),
        sections="\n".join(_section(s) for s in sections),
        footer=f"Made by Arbiter {__version__} from {len(rows)} rows of metrics.jsonl. "
        "What each number means: docs/reports.md.",
    )
    target = folder.path / "report.html"
    write_text(target, page)
    return target


# ---------------------------------------------------------------- for sections, here and elsewhere


def read_artifacts(run: RunFolder, prefix: str) -> dict[str, Any]:
    """artifacts/PREFIX*.json by name in natural order. Raises DataError naming a file that is no JSON."""
    found = {}
    for file in natural(run.path.joinpath("artifacts").glob(f"{prefix}*.json"), key=lambda file: file.stem):
        found[file.stem] = _json(file)
    return found


def natural(items: Iterable[Any], key: Any = str) -> list[Any]:
    """Sorted with numbers as numbers: round2 before round10."""

    def parts(item: Any) -> list[tuple[int, int, str]]:
        pieces = re.split(r"(\d+)", key(item))
        return [(0, int(p), "") if p.isdigit() else (1, 0, p) for p in pieces if p]

    return sorted(items, key=parts)


def table(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """A table; numbers to the right, text escaped, None as a dash. It scrolls sideways where it has to."""
    numeric = [
        any(_is_number(row[i]) for row in rows) and all(_is_number(row[i]) or row[i] is None for row in rows)
        for i in range(len(header))
    ]

    def cell(value: Any, column: int) -> str:
        if numeric[column]:
            return f'<td class="n">{plots.number(value)}</td>'
        text = "–" if value is None else plots.number(value) if _is_number(value) else str(value)
        return f'<td class="text">{escape(_cut(text))}</td>' if len(text) > 24 else f"<td>{escape(text)}</td>"

    head = "".join(f"<th{' class=n' if n else ''}>{escape(h)}</th>" for h, n in zip(header, numeric, strict=True))
    body = "".join("<tr>" + "".join(cell(v, i) for i, v in enumerate(row)) + "</tr>" for row in rows)
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def figure(title: str, svg: str, caption: str = "") -> str:
    """A chart with its title and, if given, a line below it."""
    below = f"<figcaption>{escape(caption)}</figcaption>" if caption else ""
    return f"<figure><h4>{escape(title)}</h4>{svg}{below}</figure>"


def charts(figures: Sequence[str]) -> str:
    """Figures side by side, as many as fit."""
    return f'<div class="charts">{"".join(figures)}</div>'


# ---------------------------------------------------------------- the page's own sections


def find_warnings(run: RunFolder, rows: Sequence[dict[str, Any]]) -> list[str]:
    """What a reader must know before believing the numbers."""
    found = [str(row["warning"]) for row in rows if "warning" in row]
    file = run.path / "metrics.jsonl"
    if not rows:
        found.append("no metrics yet: the run logged nothing, or has not come so far")
    elif broken := sum(bool(line.strip()) for line in file.read_text(errors="replace").split("\n")) - len(rows):
        found.append(f"metrics.jsonl: {broken} broken line{'s' * (broken > 1)} left out (a kill cuts a line short)")
    for row in rows:
        wrong = [name for name, value in row.items() if isinstance(value, float) and not math.isfinite(value)]
        if wrong:
            found.append(f"{row.get('stage', 'run')}, step {row.get('step', '?')}: {', '.join(wrong)} not finite")
    if (_facts(run, "environment.json").get("commit") or "").endswith("+"):
        found.append("the code had changes that are not in the commit named below")
    return list(dict.fromkeys(found))


def _warnings(warnings: Sequence[str]) -> list[Section]:
    if not warnings:
        return []
    more = [f"… and {len(warnings) - 20} more"] if len(warnings) > 20 else []
    items = "".join(f"<li>{escape(text)}</li>" for text in [*warnings[:20], *more])
    return [Section("Warnings", f"<ul>{items}</ul>")]


def _headline(run: RunFolder, rows: Sequence[dict[str, Any]]) -> list[Section]:
    numbers = _facts(run, "artifacts/headline.json")
    if not numbers:  # the run has not ended: the newest loss and accuracy of each stage
        for row in rows:
            for name in ("loss", "accuracy", "eval_loss", "eval_accuracy"):
                if _is_number(row.get(name)):
                    numbers[f"{row.get('stage', 'run')}: {name}"] = row[name]
    if not numbers:
        return []
    tiles = "".join(
        f"<div><dt>{escape(name.replace('_', ' '))}</dt><dd>{escape(plots.number(value))}</dd></div>"
        for name, value in numbers.items()
        if _is_number(value)
    )
    return [Section("Headline", f'<dl class="tiles">{tiles}</dl>')]


def _curves(rows: Sequence[dict[str, Any]]) -> list[Section]:
    """One chart a metric, one line a stage; stages that log the same metrics share charts."""
    stages: dict[str, dict[str, list[tuple[float, float]]]] = defaultdict(lambda: defaultdict(list))
    for index, row in enumerate(rows):
        for name, value in row.items():
            if name not in _NOT_CURVES and _is_number(value):
                stages[str(row.get("stage", "run"))][name].append((float(row.get("step", index)), float(value)))
    groups: dict[tuple[str, ...], list[str]] = defaultdict(list)
    for stage, metrics in stages.items():
        groups[tuple(sorted(metrics))].append(stage)
    parts = []
    for metrics_here, members in groups.items():
        order = sorted(metrics_here, key=lambda name: (not name.endswith("loss"), "accuracy" not in name))
        for family in _families(members):
            figures = []
            for metric in order:
                series = {stage: stages[stage][metric] for stage in family}
                figures.append(figure(metric, plots.line_chart(series, "step", metric, integer_x=True)))
            parts.append(f"<h3>{escape(family[0])}</h3>" if len(family) == 1 else plots.legend(family))
            parts.append(charts(figures[:6]))
            if figures[6:]:
                parts.append(f"<details><summary>{len(figures) - 6} more</summary>{charts(figures[6:])}</details>")
    return [Section("Learning curves", "".join(parts))] if parts else []


def _families(stages: list[str]) -> list[list[str]]:
    """At most eight lines a chart: stages that differ only in their last number stay together."""
    if len(stages) <= plots.COLOURS:
        return [stages]
    families: dict[str, list[str]] = defaultdict(list)
    for stage in stages:
        families[re.sub(r"\d+$", "", stage)].append(stage)
    return [
        members[i : i + plots.COLOURS] for members in families.values() for i in range(0, len(members), plots.COLOURS)
    ]


def _times(run: RunFolder) -> list[Section]:
    seconds: dict[str, float] = defaultdict(float)
    for row in run.timings():
        seconds[str(row["stage"])] += float(row["seconds"])
    if not seconds:
        return []
    names = sorted(seconds, key=lambda name: -seconds[name])
    shown = {name: seconds[name] for name in names[:14]}
    if names[14:]:
        shown[f"{len(names) - 14} others"] = sum(seconds[name] for name in names[14:])
    total = sum(seconds.values())
    chart = plots.bar_chart(list(shown.values()), list(shown), "seconds per stage")
    share = 100 * seconds[names[0]] / total if total else 0.0
    longest = f"{names[0]} takes {share:.0f} % of {plots.number(round(total, 1))} s"
    return [Section("Time", figure("Seconds per stage", chart, f"{longest}. Stages inside one another count in each."))]


def _efficiency(run: RunFolder, rows: Sequence[dict[str, Any]]) -> list[Section]:
    """How near fits and stages came to what their work must cost (`launch.counters`)."""
    machine = _facts(run, "artifacts/machine.json")
    fits = {name.removeprefix("work-"): facts for name, facts in read_artifacts(run, "work-").items()}
    tables = [(FIT_HEADER, fit_rows(rows, fits, machine)), (STAGE_HEADER, stage_rows(run.timings(), machine))]
    found = "".join(table(header, body) for header, body in tables if body)
    if not found:
        return []
    device, speed = escape(str(machine.get("device"))), plots.number(round(machine.get("matmul_flops", 0) / 1e9, 1))
    note = f"The limit: needed FLOPs at {speed} GFLOP/s, the speed of a large matrix product measured on {device}."
    return [Section("Distance to the limit", f'<p class="quiet">{note}</p>{found}')]


def _samples(run: RunFolder) -> list[Section]:
    found = natural(run.path.joinpath("samples").glob("*.jsonl"), key=lambda file: file.stem)
    files_rows = {file.stem: read_rows(file, forgive_broken=True) for file in found}
    files_rows = {name: rows for name, rows in files_rows.items() if rows}
    paired = {name: rows for name, rows in files_rows.items() if _answer(rows[0]) is not None and "prompt" in rows[0]}
    parts = []
    if paired:
        names = list(paired)
        shown = names if len(names) <= 3 else [names[0], names[-1]]
        answers: dict[str, dict[str, str]] = defaultdict(dict)
        for name in shown:
            for row in paired[name]:
                answers[_text(row["prompt"])].setdefault(name, _answer(row) or "")
        full = sorted(answers, key=lambda prompt: -len(answers[prompt]))[:MOST_SAMPLES]
        parts.append(table(["prompt", *shown], [[prompt, *(answers[prompt].get(n) for n in shown)] for prompt in full]))
        if len(names) > len(shown):
            parts.append(f'<p class="quiet">First and last of {len(names)} sets; all are in samples/.</p>')
    for name, rows in files_rows.items():
        if name in paired:
            continue
        keys = list(dict.fromkeys(key for row in rows[:MOST_SAMPLES] for key in row))
        body = [[_text(row[key]) if key in row else None for key in keys] for row in rows[:MOST_SAMPLES]]
        parts.append(f"<details><summary>{escape(name)} ({len(rows)})</summary>{table(keys, body)}</details>")
    return [Section("Samples", "".join(parts))] if parts else []


def _origin(run: RunFolder) -> list[Section]:
    """What the run was made from: resolved config, environment with seed and versions, data."""
    environment = _facts(run, "environment.json")
    versions = environment.pop("versions", {})
    folded = {
        "Resolved config": _config_text(run),
        f"Environment, seed {environment.get('seed')}": _fact_table({**environment, **versions}),
        "Data fingerprints (sha256)": _fact_table(_facts(run, "data.json")),
    }
    html = "".join(f"<details><summary>{escape(t)}</summary>{body}</details>" for t, body in folded.items() if body)
    return [Section("Made from", html)] if html else []


def _config_text(run: RunFolder) -> str:
    file = run.path / "config.yaml"
    return f"<pre>{escape(file.read_text(encoding='utf-8'))}</pre>" if file.exists() else ""


def _fact_table(facts: dict[str, Any]) -> str:
    rows = (f"<tr><td>{escape(k)}</td><td><code>{escape(_text(v))}</code></td></tr>" for k, v in facts.items())
    return f'<div class="scroll"><table><tbody>{"".join(rows)}</tbody></table></div>' if facts else ""


# ---------------------------------------------------------------- pieces


def _section(section: Section) -> str:
    kind = ' class="warnings"' if section.title == "Warnings" else ""
    return f'<section id="{_anchor(section.title)}"{kind}><h2>{escape(section.title)}</h2>{section.html}</section>'


def _anchor(title: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")


def _meta(run: RunFolder, rows: Sequence[dict[str, Any]]) -> str:
    """One line under the title: recipe, seed, commit, when and how long."""
    parts = []
    config = run.path / "config.yaml"
    if config.exists():
        recipe = yamltree.read(config).plain().get("recipe")
        parts += [f"recipe {recipe}"] if recipe else []
    environment = _facts(run, "environment.json")
    if "seed" in environment:
        parts.append(f"seed {environment['seed']}")
    if environment.get("commit"):
        parts.append(f"commit {environment['commit'][:10]}")
    times = [row["time"] for row in rows if _is_number(row.get("time"))]
    if times:
        last = datetime.fromtimestamp(max(times), UTC)
        parts.append(f"{last:%Y-%m-%d %H:%M} UTC, {(max(times) - min(times)) / 60:.1f} min from first to last metric")
    return " · ".join(parts) or "nothing recorded yet"


def _facts(run: RunFolder, name: str) -> dict[str, Any]:
    file = run.path / name
    return _json(file) if file.exists() else {}


def _json(file: Path) -> Any:
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise DataError(f"{file}: broken JSON ({error}); remove the file and build the report again") from error


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _answer(row: dict[str, Any]) -> str | None:
    if isinstance(row.get("response"), str):
        return row["response"]
    many = row.get("responses")
    return "\n".join(_text(one) for one in many[:4]) if isinstance(many, list) and many else None


def _text(value: Any) -> str:
    """Anything as a reader sees it; chat messages as one line a turn."""
    if isinstance(value, list) and value and all(isinstance(turn, dict) and "content" in turn for turn in value):
        return "\n".join(f"{turn.get('role', '?')}: {turn['content']}" for turn in value)
    if _is_number(value):
        return plots.number(value)
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


def _cut(text: str) -> str:
    return text if len(text) <= LONGEST_TEXT else text[:LONGEST_TEXT] + f" … ({len(text) - LONGEST_TEXT} more)"
