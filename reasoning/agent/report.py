"""The agents section of a run's report: which tools a policy learnt to call.

It reads ``artifacts/agent-evaluation.json`` ({"before", "after": numbers of `measure.measured`}) and the rows of stage
"grpo" in metrics.jsonl (``agent/...``). Chats before and after stand in the page's own section of samples.
"""

from __future__ import annotations

from typing import Any

from launch import plots
from launch.report import Section, charts, figure, read_artifacts, table
from launch.runfolder import RunFolder

SHOWN = {
    "right_tool": "right tool, greedy",
    "sampled_right_tool": "right tool, sampled",
    "right_answer": "right answer, greedy",
    "sampled_right_answer": "right answer, sampled",
    "calls": "calls a chat, greedy",
    "failed": "failed calls a chat, greedy",
}


def agent_section(run: RunFolder) -> list[Section]:
    """Held-out chats before and after, and shares by step; [] for a run of another kind."""
    found = read_artifacts(run, "agent-").get("agent-evaluation")
    if found is None:
        return []
    steps = [row for row in run.metrics() if row.get("stage") == "grpo" and "agent/right" in row]
    return [Section("Tools", _evaluation(found) + _learning(steps))]


def _evaluation(found: dict[str, dict[str, float]]) -> str:
    rows = []
    for name, label in SHOWN.items():
        row: list[Any] = [label]
        for when in ("before", "after"):
            numbers = found[when]
            low, high = numbers.get(f"{name}_low"), numbers.get(f"{name}_high")
            row += [numbers.get(name), None if low is None else f"{low:.2f} to {high:.2f}"]
        rows.append(row)
    return table(["held-out questions", "before", "95 %", "after", "95 %"], rows)


def _learning(steps: list[dict[str, Any]]) -> str:
    if not steps:
        return ""

    def curve(key: str) -> list[tuple[float, float]]:
        return [(float(row["step"]), float(row[key])) for row in steps if row.get(key) is not None]

    shares = {"right tool": curve("agent/right_tool"), "right answer": curve("agent/right")}
    shares = {name: points for name, points in shares.items() if points}
    calls = {"calls": curve("agent/calls")}
    return plots.legend(list(shares)) + charts(
        [
            figure("Chats of a step", plots.line_chart(shares, "step", "share", (0.0, 1.0), integer_x=True)),
            figure("Calls", plots.line_chart(calls, "step", "calls a chat", from_zero=True, integer_x=True)),
        ]
    )
