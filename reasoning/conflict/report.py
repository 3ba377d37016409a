"""The conflicts section of a run's report: what a policy learnt to follow, and what was odd on the way.

It reads ``artifacts/conflict-data.json`` ({"train", "test": rows, "odd": {kind: count}}), ``conflict-evaluation.json``
({"before", "after": numbers of `answering.answered`}) and the rows of stage "grpo" in metrics.jsonl (``kcr/...``). The
answers before and after stand in the page's own section of samples.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from launch import plots
from launch.errors import DataError
from launch.report import Section, charts, figure, read_artifacts, table
from launch.runfolder import RunFolder
from reasoning.conflict.reward import VERDICTS

Row = dict[str, Any]
PARTS = ("total", "answer", "logic", "consistency", "format")
SHOWN = {
    "accuracy": "right answers, greedy",
    "conflict_error": "wrong candidates, greedy",
    "sampled_accuracy": "right answers, sampled",
    "sampled_conflict_error": "wrong candidates, sampled",
    "followed": "a true context followed",
    "reward": "mean reward",
    "mean_logic": "mean logic reward",
    "mean_consistency": "mean consistency reward",
    "mean_tokens": "words in a trace",
}


def conflict_section(run: RunFolder) -> list[Section]:
    """Evaluation, reward parts, constant groups, trace length and odd input; [] for a run of another kind."""
    found = read_artifacts(run, "conflict-")
    data = found.get("conflict-data")
    if data is None:
        return []
    if not isinstance(data, dict) or not isinstance(data.get("odd"), dict):
        raise DataError('artifacts/conflict-data.json: no table "odd"; run the recipe again')
    steps = [row for row in run.metrics() if row.get("stage") == "grpo" and "kcr/total" in row]
    parts = [
        f"<p>{data['train']} conflicts to learn from, {data['test']} held out.</p>",
        *_evaluation(found.get("conflict-evaluation")),
        *_learning(steps),
        "<h3>Odd input</h3>",
        _odd(data["odd"], steps, _completions(run)),
    ]
    return [Section("Conflicts", "".join(parts))]


def _evaluation(found: Any) -> list[str]:
    if not found:
        return ['<p class="quiet">Not measured yet.</p>']
    rows = []
    for name, label in SHOWN.items():
        row: list[Any] = [label]
        for when in ("before", "after"):
            numbers = found[when]
            low, high = numbers.get(f"{name}_low"), numbers.get(f"{name}_high")
            row += [numbers.get(name), None if low is None else f"{low:.2f} to {high:.2f}"]
        rows.append(row)
    return [table(["held-out questions", "before", "95 %", "after", "95 %"], rows)]


def _learning(steps: Sequence[Row]) -> list[str]:
    """Reward parts, the share of groups that taught nothing, and the length of traces, by step."""
    if not steps:
        return []

    def curve(key: str) -> list[tuple[float, float]]:
        return [(float(row["step"]), float(row[key])) for row in steps if row.get(key) is not None]

    rewards = plots.line_chart({name: curve(f"kcr/{name}") for name in PARTS}, "step", "reward", integer_x=True)
    constant = {"constant groups": curve("frac_reward_zero_std")}
    errors = {"wrong candidate": curve("kcr/wrong"), "right": curve("kcr/answer")}
    length = {"words": curve("kcr/tokens")}
    return [
        plots.legend(list(PARTS)),
        charts(
            [
                figure("Reward and its parts", rewards, "Means over a step's completions."),
                figure(
                    "Groups whose rewards are all the same",
                    plots.line_chart(constant, "step", "share", (0.0, 1.0), integer_x=True),
                    "They have no advantage: such a step teaches nothing but to stay near the start.",
                ),
                figure("Answers", plots.line_chart(errors, "step", "share", (0.0, 1.0), integer_x=True)),
                figure(
                    "Trace length",
                    plots.line_chart(length, "step", "words of the trace", from_zero=True, integer_x=True),
                ),
            ]
        ),
    ]


def _odd(instances: dict[str, int], steps: Sequence[Row], completions: int) -> str:
    """Counts of every kind of odd instance, and of completions by verdict."""
    rows: list[list[Any]] = [["conflict", kind, count] for kind, count in sorted(instances.items())]
    for verdict in VERDICTS:
        shares = [float(row.get(f"kcr/verdict_{verdict}") or 0.0) for row in steps]
        if verdict != "ok" and any(shares):
            rows.append(["completion", verdict, round(sum(shares) * completions)])
    if not rows:
        return '<p class="quiet">None: every conflict is ordinary, every completion has the form asked for.</p>'
    return table(["", "kind", "count"], rows)


def _completions(run: RunFolder) -> int:
    """Completions behind one row of the "grpo" stage."""
    from launch import yamltree

    file = run.path / "config.yaml"
    if not file.exists():
        return 0
    config = yamltree.read(file).plain()
    train = config["train"]
    processes = max(1, int(train["processes"]))
    per_step = int(train["batch_size"]) * int(train["accumulation"]) * processes * int(config["grpo"]["generations"])
    return per_step * int(train["log_steps"])
