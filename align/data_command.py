"""``arbiter data FILE``: read preference data as a run would, and say what is in it.

    arbiter data pairs.jsonl
    arbiter data table.jsonl.gz columns.prompt=question bad_rows=skip --json

Prints rows, groups, ties and bad rows, and the cyclicity report (align.preference.cyclicity).
"""

from __future__ import annotations

import argparse
import json
from typing import Any


def add_parser(commands: Any) -> None:
    """Add the subcommand (entry point of group ``arbiter.commands``)."""
    parser = commands.add_parser("data", help="check preference data and report how cyclic they are")
    parser.add_argument("path", metavar="FILE", help="file, saved data set or hub name")
    parser.add_argument(
        "overrides", nargs="*", metavar="key=value", help="fields of data, e.g. columns.prompt=question"
    )
    parser.add_argument("--json", action="store_true", help="print JSON instead of tables")
    parser.set_defaults(command=run)


def run(arguments: argparse.Namespace) -> int:
    """Load everything (no split, no cap on answers, so that no triple is lost), print, return the exit code."""
    from align.preference.cyclicity import cyclicity_report
    from align.preference.data import DataOptions, Loading, group_by_prompt, read_judged, to_group
    from launch.errors import DataError

    options = _options(DataOptions, arguments.path, arguments.overrides)
    loading = Loading()
    judged = group_by_prompt(read_judged(options.path, options, loading), max_responses=10**9)
    groups = [to_group(one, options.votes, options.ties) for one in judged]
    if not groups:
        first = f"; the first bad row: {loading.skipped[0]}" if loading.skipped else ""
        raise DataError(f"{arguments.path}: no judged pair in {loading.rows} rows{first}")
    loading.tied = sum(not group["winners"] for group in groups)
    loading.train = len(groups) - loading.tied
    report = cyclicity_report(groups)
    if arguments.json:
        print(json.dumps({"loading": vars(loading), "cyclicity": report.to_dict()}, indent=2, ensure_ascii=False))
    else:
        _show(loading, groups, report)
    return 0


def _options(kind: type, path: str, overrides: list[str]) -> Any:
    """DataOptions from key=value texts: the same parser, types and complaints as in any config's section data."""
    from launch.config import build
    from launch.yamltree import Value, override

    section = Value({"path": Value(path, "FILE")}, "arbiter data")
    for text in overrides:
        override(section, text)
    return build(kind, section, "data")


def _show(loading: Any, groups: list[dict[str, Any]], report: Any) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console()
    sizes = [len(group["responses"]) for group in groups]
    console.print(f"{loading.rows} rows, {len(groups)} prompts, {min(sizes)} to {max(sizes)} answers each")
    if loading.skipped:
        console.print(f"{len(loading.skipped)} bad rows left out, the first: {loading.skipped[0]}", markup=False)
    if loading.unjudged:
        console.print(f"{loading.unjudged} rows without a vote")
    if loading.tied:
        console.print(f"{loading.tied} prompts with ties only, which training leaves out")
    table = Table(title="Cyclicity")
    for head in (
        "judge",
        "prompts",
        "pairs",
        "ties",
        "closed triples",
        "cycles",
        "one-tie",
        "share",
        "floor",
        "chance",
    ):
        table.add_column(head, justify="left" if head == "judge" else "right")
    for name, c in [*report.judges.items(), ("majority" if report.judges else "all", report.pooled)]:
        numbers = (c.prompts, c.pairs, c.ties, c.closed, c.strict, c.one_tie)
        shares = (f"{value:.3f}" for value in (c.share, c.floor, c.chance))
        table.add_row(name, *map(str, numbers), *shares)
    console.print(table)
    console.print(
        "share: energy of the votes that no scalar reward explains; floor: what one perfect ranking would leave; "
        "chance: what random votes would leave.",
        style="dim",
    )
    for cycle in report.cycles[:5]:
        answers = " > ".join(str(n + 1) for n in (*cycle["answers"], cycle["answers"][0]))
        console.print(f"cycle at {cycle['source']}: answers {answers}", markup=False)
