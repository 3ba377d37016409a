"""What each question earned: the official files of every benchmark as one kind of row.

Paired tests, pictures and answers side by side are made of these, so they work on official files whoever wrote them.

| benchmark | official file | an item | its value | its weight |
|---|---|---|---|---|
| alpaca_eval | annotations.json | instruction | preference - 1 | 1 |
| arena_hard | model_judgment/JUDGE/MODEL.jsonl | prompt | mean outcome of its two games | outcomes (strong: 3) |
| mt_bench | model_judgment/JUDGE_single.jsonl | question | mean of its grades | grades that were read |
| mt_bench_pair | model_judgment/JUDGE_pair.jsonl | question and turn | 1 win, 1/2 tie, 0 loss | 1 |
| rewardbench | eval-set-scores/MODEL.json | row | credit; Ties: all right above all wrong | 1/(rows of its domain) |

The weighted mean of the values is the official score, but for RewardBench's Ties, whose formula knows no rows, and for
the mean of bootstrap means that Arena-Hard v2.0 prints.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from launch.errors import DataError
from tasks.benchmarks import alpaca_eval, arena_hard, mt_bench, rewardbench
from tasks.benchmarks.alpaca_eval.winrate import preferences
from tasks.benchmarks.files import Row, need, read_rows


@dataclass(frozen=True)
class Item:
    """One question."""

    key: str
    """The same for every model that answered it."""
    value: float
    weight: float = 1.0
    category: str = ""
    prompt: str = ""
    answer: str | None = None
    reference: str | None = None
    """The answer it was compared with."""
    first: tuple[float, ...] = ()
    """What the answer that the judge saw first earned, once per game; without a leaning to one place 1/2 on average."""


@dataclass(frozen=True)
class Results:
    """One model's items on one benchmark, by one judge."""

    bench: str
    model: str
    judge: str
    against: str
    """The model it was compared with; "" where answers are graded alone."""
    items: list[Item]
    failed: int = 0
    """Verdicts that could not be read."""


def read_results(path: str | Path) -> list[Results]:
    """Results of an official file, one for each model in it. The benchmark is told by the rows' fields.

    Answers and questions are looked for where the official layouts have them, in model_answer/ and question.jsonl
    above model_judgment/; without them the items have no texts.

    Raises:
        DataError: rows of no benchmark known here, or bad rows; names file and row.
    """
    path = Path(path)
    rows = read_rows(path)
    first = rows[0] if rows else {}
    if "preference" in first:
        return of_alpaca_eval(rows)
    if "games" in first:
        return of_arena_hard(rows, _texts(path, "uid"), _prompts(_questions(path)))
    if "g1_winner" in first:
        return of_mt_bench_pairs(rows, _texts(path, "question_id"), _prompts(_questions(path)))
    if "turn" in first and "score" in first:
        questions = _questions(path)
        return of_mt_bench(rows, _texts(path, "question_id"), _prompts(questions), _categories(questions))
    if "num_correct" in first and "scores" in first:
        return [of_rewardbench(first)]
    raise DataError(
        f"{path}: row 1 has {', '.join(map(repr, list(first)[:8])) or 'nothing'}, which is no official result; give an "
        "annotations.json, a file of model_judgment/ or of eval-set-scores/"
    )


Texts = Mapping[str, Mapping[str, str]]
"""Answers by model and question."""


def of_alpaca_eval(rows: Sequence[Row]) -> list[Results]:
    """Of rows of annotations.json."""
    values = preferences(rows)
    groups: dict[tuple[str, str, str], list[Item]] = {}
    failed: Counter[tuple[str, str, str]] = Counter()
    for number, (row, value) in enumerate(zip(rows, values, strict=True), 1):
        what = f"annotation row {number}"
        model, against = (str(need(row, name, what)) for name in ("generator_2", "generator_1"))
        name = (model, str(row.get("annotator", "")), against)
        items = groups.setdefault(name, [])
        if value != value:
            failed[name] += 1
            continue
        instruction, q = str(need(row, "instruction", what)), float(value) - 1
        shown = (q if alpaca_eval.is_swapped(instruction) else 1 - q,) if row.get("raw_completion") else ()
        answer, reference = row.get("output_2"), row.get("output_1")
        items.append(Item(instruction, q, 1.0, str(row.get("dataset", "")), instruction, answer, reference, shown))
    return [Results("alpaca_eval", *name, _unique(items, name[0]), failed[name]) for name, items in groups.items()]


def of_arena_hard(
    rows: Sequence[Row], answers: Texts | None = None, prompts: Mapping[str, str] | None = None
) -> list[Results]:
    """Of judgments, by the rules of v0.1 where rows have a question_id, else of v2.0."""
    groups: dict[tuple[str, str, str], list[Item]] = {}
    failed: Counter[tuple[str, str, str]] = Counter()
    for number, row in enumerate(rows, 1):
        old = "question_id" in row
        uid = str(row["question_id"] if old else need(row, "uid", f"judgment row {number}"))
        category = str(row.get("category", "arena-hard-v0.1"))
        against = str(row.get("baseline") or arena_hard.BASELINES.get(category, ""))
        name = (str(need(row, "model", f"judgment row {number}")), str(row.get("judge", "")), against)
        games = arena_hard.earned(row, number, "v0.1" if old else "v2.0")
        items = groups.setdefault(name, [])
        outcomes = [value for game in games for value in game]
        if not outcomes:
            failed[name] += 1
            continue
        means = [sum(game) / len(game) if game else None for game in games]
        shown = [None if means[0] is None else 1 - means[0], means[1]]
        answer, reference = (((answers or {}).get(model) or {}).get(uid) for model in (name[0], against))
        items.append(
            Item(
                uid,
                sum(outcomes) / len(outcomes),
                float(len(outcomes)),
                category,
                (prompts or {}).get(uid, ""),
                answer,
                reference,
                tuple(value for value in shown if value is not None),
            )
        )
    return [Results("arena_hard", *name, _unique(items, name[0]), failed[name]) for name, items in groups.items()]


def of_mt_bench(
    rows: Sequence[Row],
    answers: Texts | None = None,
    prompts: Mapping[str, str] | None = None,
    categories: Mapping[str, str] | None = None,
) -> list[Results]:
    """Of single-answer grades. A question's grades are one item, since they go together."""
    grades: dict[tuple[str, str], dict[str, list[float]]] = {}
    failed: Counter[tuple[str, str]] = Counter()
    for number, row in enumerate(rows, 1):
        what = f"judgment row {number}"
        name = (str(need(row, "model", what)), _judge(row))
        question, grade = str(need(row, "question_id", what)), mt_bench.grade_of(row, what)
        found = grades.setdefault(name, {})
        if grade == mt_bench.FAILED:
            failed[name] += 1
        else:
            found.setdefault(question, []).append(grade)
    made = []
    for (model, judge), questions in grades.items():
        items = [
            Item(
                question,
                sum(read) / len(read),
                float(len(read)),
                (categories or {}).get(question) or mt_bench.official_category(question),
                (prompts or {}).get(question, ""),
                ((answers or {}).get(model) or {}).get(question),
            )
            for question, read in questions.items()
        ]
        made.append(Results("mt_bench", model, judge, "", items, failed[model, judge]))
    return made


def of_mt_bench_pairs(
    rows: Sequence[Row], answers: Texts | None = None, prompts: Mapping[str, str] | None = None
) -> list[Results]:
    """Of pairwise judgments, each pair from model_1's side."""
    groups: dict[tuple[str, str, str], list[Item]] = {}
    failed: Counter[tuple[str, str, str]] = Counter()
    for number, row in enumerate(rows, 1):
        what = f"judgment row {number}"
        pair = mt_bench.pair_of(row, what)
        name = (pair.model_1, _judge(row), pair.model_2)
        items = groups.setdefault(name, [])
        if pair.value is None:
            failed[name] += 1
            continue
        question = str(need(row, "question_id", what))
        answer, reference = (((answers or {}).get(model) or {}).get(question) for model in (pair.model_1, pair.model_2))
        key, category = f"{question}, turn {row.get('turn', 1)}", mt_bench.official_category(question)
        prompt = (prompts or {}).get(question, "")
        items.append(Item(key, pair.value, 1.0, category, prompt, answer, reference, pair.first))
    return [Results("mt_bench_pair", *name, _unique(items, name[0]), failed[name]) for name, items in groups.items()]


def of_rewardbench(columns: Row) -> Results:
    """Of a file of per-prompt scores."""
    rows = rewardbench.rows_of_scores_file(columns)
    sizes = Counter(row["subset"] for row in rows)
    items = [
        Item(f"{row['subset']} {row['id']}", rewardbench.earned(row), 1 / sizes[row["subset"]], row["subset"])
        for row in rows
    ]
    name = str(columns.get("model", "model"))
    return Results("rewardbench", name, "", "", _unique(items, name))


# ---------------------------------------------------------------- pieces


def _unique(items: list[Item], model: str) -> list[Item]:
    for key, count in Counter(item.key for item in items).items():
        if count > 1:
            raise DataError(f"{model} has {count} verdicts on {key[:60]!r}; keep one of them")
    return items


def _judge(row: Row) -> str:
    """FastChat names its judge [model, prompt]."""
    judge = row.get("judge", "")
    return str(judge[0] if isinstance(judge, list | tuple) and judge else judge)


def _above(path: Path) -> Path | None:
    """The folder that holds model_judgment/."""
    return next((folder.parent for folder in path.resolve().parents if folder.name == "model_judgment"), None)


def _texts(path: Path, key: str) -> Texts:
    """What the models answered; both turns of a dialogue as one text."""
    home = _above(path)
    found: dict[str, dict[str, str]] = {}
    for file in sorted((home / "model_answer").rglob("*.jsonl")) if home else ():
        for number, row in enumerate(read_rows(file), 1):
            model = str(row.get("model", row.get("model_id", file.stem)))
            uid = str(row[key] if key in row else need(row, "question_id", f"{file} row {number}"))
            found.setdefault(model, {})[uid] = _said(row)
    return found


def _said(row: Row) -> str:
    if "messages" in row:
        return str(row["messages"][-1]["content"]["answer"])
    return _joined(row["choices"][0]["turns"])


def _joined(turns: Sequence[Any]) -> str:
    """Turns as one text; official files have them as text or as {"content"}."""
    return "\n\n".join(str(turn["content"] if isinstance(turn, Mapping) else turn) for turn in turns)


def _questions(path: Path) -> list[dict[str, Any]]:
    home = _above(path)
    return read_rows(home / "question.jsonl") if home and (home / "question.jsonl").is_file() else []


def _prompts(questions: Sequence[Row]) -> dict[str, str]:
    found = {}
    for row in questions:
        turns = row["turns"] if "turns" in row else [row.get("prompt", "")]
        found[str(row.get("uid", row.get("question_id")))] = _joined(turns)
    return found


def _categories(questions: Sequence[Row]) -> dict[str, str]:
    return {str(row["question_id"]): str(row["category"]) for row in questions if "question_id" in row}
