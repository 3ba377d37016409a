"""The tables of ``make bench`` from bench.json: docs/results/bench.md, and the goals in docs/performance.md too."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.bench import Bench, Expect
from launch.runfolder import write_text

PAGE = Path("docs/results/bench.md")
GUIDE = Path("docs/performance.md")
MARKS = ("<!-- make bench writes from here -->", "<!-- to here -->")
INTRO = """# Side by side with its peers

`make bench` wrote this page. CPU seconds of one thread, the smallest of all runs; both sides ran in turn, each in a
process of its own. Models have random weights (4 layers, width 256, unless said otherwise): work is measured, not
quality. *Ratio* above 1 is in our favour and printed only where both sides' outputs agree. *Bound* is the ratio of the
FLOPs counted on the two sides, products alone; *of it* is the ratio over the bound, and passes 100 % where the other
side also does work that products do not count. *Peak* is the growth of resident memory in a case's first run, 0 where
an earlier case of the same process had claimed as much. What stands behind the numbers, and what they do not say:
[performance](../performance.md).
"""


def write_page(results: Mapping[str, Any], benches: Mapping[str, Bench]) -> str:
    """Write the page and return it; the guide gets the goals between its marks."""
    parts = [INTRO]
    for key, bench in benches.items():
        if key in results:
            parts.append(section(bench, results[key]))
    if "scaling" in results:
        parts.append(scaling(results["scaling"]))
    goals = verdicts(results, benches)
    text = "\n".join([*parts, goals])
    write_text(PAGE, text)
    before, _, rest = GUIDE.read_text().partition(MARKS[0])
    write_text(GUIDE, "\n".join([before + MARKS[0], goals, MARKS[1] + rest.partition(MARKS[1])[2]]))
    return text


def section(bench: Bench, result: Mapping[str, Any]) -> str:
    m = result["machine"]
    lines = [
        f"## {bench.key.upper()}: {bench.title}",
        "",
        bench.what,
        "",
        "| case | ours, s | other, s | ratio | bound | of it | peak MB, ours / other | differ by |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, row in result["cases"].items():
        ours, other = row["ours"], row["other"]
        best = [min(side["cpu"]) for side in (ours, other)]
        peaks = " / ".join(f"{side['peak_bytes'] / 2**20:.0f}" for side in (ours, other))
        limit = bound(bench, row)
        ratio = f"**{row['cpu_ratio']:.2f}**" if "cpu_ratio" in row else row["refused"]
        share = f"{row['cpu_ratio'] / limit:.0%}" if limit and "cpu_ratio" in row else "–"
        differ = f"{row['oracle_difference']:.0e}" if "oracle_difference" in row else "–"
        shown = f"{limit:.2f}" if limit else "–"
        lines.append(
            f"| {name} | {seconds(best[0])} | {seconds(best[1])} | {ratio} | {shown} | {share} | {peaks} | {differ} |"
        )
    notes = [f"- {name}: {e.note}." for name, e in bench.cases.items() if e.note]
    changed = " with changes" if (m["commit"] or "").endswith("+") else ""
    where = (
        f"{m['cpu']}, {m['cores']} cores; torch {m['torch']}, transformers {m['transformers']}, TRL {m['trl']}; "
        f"commit `{(m['commit'] or 'unknown')[:10]}`{changed}, {m['date']}, load {m['load']}"
    )
    return "\n".join([*lines, "", *notes, *([""] if notes else []), f"<sub>{where}</sub>", ""])


def bound(bench: Bench, row: Mapping[str, Any]) -> float | None:
    """Ratio other / ours of the counter that bounds this benchmark, where both sides count it."""
    counters = [row[side]["counters"].get(bench.bound_by) for side in ("ours", "other")]
    return counters[1] / counters[0] if all(counters) else None


def seconds(value: float) -> str:
    return f"{value:.2f}" if value >= 0.1 else f"{1000 * value:.2f} ms"


def verdict(bench: Bench, expect: Expect, row: Mapping[str, Any]) -> list[tuple[str, float, float]]:
    """(what, asked, got) of every goal of a case."""
    if "cpu_ratio" not in row:
        return [("agreement of outputs", 1.0, 0.0)]
    found = []
    limit = bound(bench, row)
    if expect.goal is not None:
        found.append(("ratio", expect.goal, row["cpu_ratio"]))
    if expect.share is not None and limit:
        found.append(("share of the bound", expect.share, row["cpu_ratio"] / limit))
    if expect.memory is not None:
        found.append(("ratio of peak memory", expect.memory, row["memory_ratio"]))
    if expect.counter is not None:
        name, ratio = expect.counter
        counts = [row[side]["counters"][name] for side in ("ours", "other")]
        found.append((f"ratio of {name.replace('_', ' ')}", ratio, counts[1] / counts[0]))
    return found


def verdicts(results: Mapping[str, Any], benches: Mapping[str, Bench]) -> str:
    """Every goal beside what came out, and by how much a missed one was missed."""
    lines = ["## Goals", "", "| benchmark | case | goal | got | |", "|---|---|---|---|---|"]
    for key, bench in benches.items():
        for name, expect in bench.cases.items():
            row = results.get(key, {}).get("cases", {}).get(name)
            if row is None:
                lines.append(f"| {key.upper()} | {name} | – | not measured | |")
                continue
            for what, asked, got in verdict(bench, expect, row):
                met = "met" if got >= asked * (1 - 1e-9) else f"missed by {1 - got / asked:.0%}"
                lines.append(f"| {key.upper()} | {name} | {what} at least {asked:.2f} | {got:.2f} | {met} |")
            if expect.loses and "cpu_ratio" in row:
                came = "lost, as expected" if row["cpu_ratio"] < 1 else "not lost after all"
                lines.append(f"| {key.upper()} | {name} | none: we should lose | {row['cpu_ratio']:.2f} | {came} |")
    return "\n".join([*lines, ""])


def scaling(result: Mapping[str, Any]) -> str:
    """Cost per pair over sizes, and one process against two."""
    lines = [
        "## Scaling",
        "",
        "| pairs | file MB | reading, µs a pair | a pass, µs a pair | collating, µs a pair | MB kept | MB at peak |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in result["data"]:
        n = row["pairs"]
        lines.append(
            f"| {n:,} | {row['file_bytes'] / 1e6:.1f} | {row['load_us_per_pair']:.0f} | {row['order_us_per_pair']:.1f} "
            f"| {row['collate_us_per_pair']:.0f} | {row['kept_bytes'] / 1e6:.1f} | {row['peak_bytes'] / 1e6:.1f} |"
        )
    lines += ["", "Memory is the process's own; groups lie in a file that is mapped. Collating was timed on 512 pairs."]
    one, two = result["processes"]["1"], result["processes"]["2"]
    alone, each = one["cpu_seconds"][0], max(two["cpu_seconds"])
    lines += [
        "",
        f"One process to two (gloo, half the batch each): {alone:.2f} s of CPU time against {each:.2f} s in the busier "
        f"of two: {alone / each:.2f}x the speed where each has a core, {alone / (2 * each):.0%} of the ideal. Wall "
        f"time here: {one['wall_seconds']:.2f} s and {two['wall_seconds']:.2f} s. Gradient norm of the last step: "
        f"{one['grad_norm']:.6g} and {two['grad_norm']:.6g}.",
        "",
    ]
    return "\n".join(lines)
