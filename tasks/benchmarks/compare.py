"""``arbiter compare FIRST SECOND``: two models on one benchmark, question by question.

    arbiter compare runs/a/results/mine/JUDGE/annotations.json runs/a/results/theirs/JUDGE/annotations.json
    arbiter compare model_judgment/gpt-4_single.jsonl --models mine,theirs --items differences.jsonl

FIRST and SECOND are official files (``tasks.benchmarks.items``) of one benchmark. Told are the difference of the two
scores, its 95 % interval by a paired bootstrap over questions, how many questions tell the two apart and who is ahead
on them (exact sign test), for all questions and for each category.

Verdicts of different judges, or against different reference models, are not compared.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from launch.errors import ConfigError, DataError

if TYPE_CHECKING:  # the command line's help should not wait for numpy
    from tasks.benchmarks.items import Item, Results

LEAST = 5
"""Questions that a category needs for a line of its own."""


def compare(first: Results, second: Results, common: bool = False, rounds: int = 1000, seed: int = 0) -> dict[str, Any]:
    """What tells two models apart.

    Args:
        common: leave out the questions that only one of them has a verdict on, instead of refusing.

    Returns:
        {bench, first, second, judge, against, scores: [2], difference, low, high, n, discordant, first_better, p_value,
        left_out, categories: {name: the same numbers}}. Scores are weighted means of the items' values: shares of 1
        (grades 0 to 10 in MT-Bench). A category has at least `LEAST` questions.

    Raises:
        DataError: another benchmark, judge or reference, other questions, or no question in common.
    """
    for what in ("bench", "judge", "against"):
        mine, theirs = getattr(first, what), getattr(second, what)
        if mine != theirs:
            raise DataError(
                f"{first.model} has the {what} {mine or 'none'!r}, {second.model} {theirs or 'none'!r}; "
                "numbers of different ones cannot be compared"
            )
    pairs, left_out = _pair(first, second, common)
    groups: dict[str, list[tuple[Item, Item]]] = {}
    for pair in pairs:
        groups.setdefault(pair[0].category, []).append(pair)
    split = {name: rows for name, rows in sorted(groups.items()) if len(rows) >= LEAST} if len(groups) > 1 else {}
    return {
        "bench": first.bench,
        "first": first.model,
        "second": second.model,
        "judge": first.judge,
        "against": first.against,
        **_numbers(pairs, rounds, seed),
        "left_out": left_out,
        "categories": {name: _numbers(rows, rounds, seed) for name, rows in split.items()},
    }


def item_rows(first: Results, second: Results, common: bool = False) -> list[dict[str, Any]]:
    """One row per question, the largest difference first: {key, category, difference, first, second, prompt, …}."""
    pairs, _ = _pair(first, second, common)
    rows = [
        {
            "key": mine.key,
            "category": mine.category,
            "difference": mine.value - theirs.value,
            "first": mine.value,
            "second": theirs.value,
            "prompt": mine.prompt,
            "answer_first": mine.answer,
            "answer_second": theirs.answer,
        }
        for mine, theirs in pairs
    ]
    return sorted(rows, key=lambda row: -abs(row["difference"]))


def _pair(first: Results, second: Results, common: bool) -> tuple[list[tuple[Item, Item]], int]:
    """(items of both in the first's order, how many questions only one of them has)."""
    theirs = {item.key: item for item in second.items}
    pairs = [(item, theirs[item.key]) for item in first.items if item.key in theirs]
    left_out = len(first.items) + len(second.items) - 2 * len(pairs)
    if not pairs:
        raise DataError(f"{first.model} and {second.model} have no question in common; are both of one benchmark?")
    if left_out and not common:
        lone = next(i.key for i in [*first.items, *second.items] if i.key not in {pair[0].key for pair in pairs})
        raise DataError(
            f"{left_out} questions have a verdict for only one of {first.model} and {second.model}, such as "
            f"{lone[:60]!r}; judge the same questions, or compare the common ones (--common)"
        )
    return pairs, left_out


def _numbers(pairs: list[tuple[Item, Item]], rounds: int, seed: int) -> dict[str, Any]:
    from tasks.benchmarks.intervals import paired

    values = [[pair[side].value for pair in pairs] for side in (0, 1)]
    weights = [[pair[side].weight for pair in pairs] for side in (0, 1)]
    told = paired(values[0], values[1], rounds, seed, (weights[0], weights[1])).to_dict()
    scores = [
        sum(w * x for w, x in zip(weights[side], values[side], strict=True)) / sum(weights[side]) for side in (0, 1)
    ]
    return {"scores": scores, **told}


# ---------------------------------------------------------------- the command


def add_parser(commands: Any) -> None:
    """Add the subcommand (entry point of group ``arbiter.commands``)."""
    parser = commands.add_parser("compare", help="two models on one benchmark, question by question")
    parser.add_argument("first", type=Path, metavar="FIRST", help="an official file with verdicts on the first model")
    parser.add_argument(
        "second", type=Path, nargs="?", metavar="SECOND", help="the same of the second; default FIRST, which has both"
    )
    parser.add_argument("--models", metavar="A,B", help="which models, where a file has several")
    parser.add_argument("--common", action="store_true", help="compare the questions that both have a verdict on")
    parser.add_argument("--items", type=Path, metavar="PATH", help="write every question's row there (.jsonl or .json)")
    parser.add_argument("--rounds", type=int, default=1000, help="bootstrap resamples (default 1000)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(command=run)


def run(arguments: argparse.Namespace) -> int:
    """Compare, print, return the exit code."""
    from tasks.benchmarks.files import write_rows

    names = [name.strip() for name in arguments.models.split(",")] if arguments.models else [None, None]
    if len(names) != 2:
        raise ConfigError(f"--models {arguments.models}: name two models, A,B")
    if arguments.second is None and arguments.models is None:
        raise ConfigError("name the second file, or two models of the first by --models A,B")
    first = _choose(arguments.first, names[0])
    second = _choose(arguments.second or arguments.first, names[1])
    told = compare(first, second, arguments.common, arguments.rounds, arguments.seed)
    if arguments.items is not None:
        write_rows(arguments.items, item_rows(first, second, arguments.common))
    print(json.dumps(told, indent=2, ensure_ascii=False) if arguments.json else describe(told))
    return 0


def _choose(path: Path, name: str | None) -> Results:
    from tasks.benchmarks.items import read_results

    found = read_results(path)
    chosen = [results for results in found if name is None or results.model == name]
    if len(chosen) != 1:
        there = ", ".join(f"{results.model} by {results.judge or 'no judge'}" for results in found[:6])
        raise DataError(f"{path}: {len(chosen)} of {len(found)} results fit; it has {there}; name one by --models A,B")
    return chosen[0]


def describe(told: dict[str, Any]) -> str:
    """The comparison as a few lines of text."""
    judge = f", judged by {told['judge']}" if told["judge"] else ""
    against = f" against {told['against']}" if told["against"] else ""
    lines = [f"{told['bench']}{against}{judge}", _line(f"{told['first']} - {told['second']}", told)]
    lines += [f"  {_line(name or 'no category', numbers)}" for name, numbers in told["categories"].items()]
    if told["left_out"]:
        lines.append(f"{told['left_out']} questions have a verdict for one of them only and are left out")
    return "\n".join(lines)


def _line(what: str, told: dict[str, Any]) -> str:
    one, two = told["scores"]
    return (
        f"{what}: {one:.4g} - {two:.4g} = {told['difference']:+.4g} [{told['low']:+.4g}, {told['high']:+.4g}], "
        f"{told['n']} questions, {told['discordant']} tell them apart, "
        f"{told['first_better']} of these for the first (sign test p = {told['p_value']:.3g})"
    )
