"""MT-Bench (Zheng et al., arXiv 2306.05685): a judge's grades, 1 to 10, of 80 two-turn answers.

Turn 1 is graded from the first answer alone, turn 2 from the whole dialogue; math, reasoning and coding also see a
reference. A model's score is the mean of all grades that could be read (which is not the mean of the two turns' means
where failures are unequal). Pairwise mode plays two games with the answers in both orders; two games that disagree are
a tie. Prompts are FastChat's own judge_prompts.jsonl, read from a file. Checked against lm-sys/FastChat 0e6d3e4.

    score(read_rows("gpt-4_single.jsonl"))
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from launch.contracts import Message
from launch.errors import ConfigError, DataError
from tasks.benchmarks.files import Row, need
from tasks.benchmarks.intervals import bootstrap
from tasks.benchmarks.official import fill

CATEGORIES = ("writing", "roleplay", "reasoning", "math", "coding", "extraction", "stem", "humanities")
"""Ten questions each, from 81 on."""
TEMPERATURES = {
    **{"writing": 0.7, "roleplay": 0.7, "stem": 0.1, "humanities": 0.1},
    **dict.fromkeys(("extraction", "math", "coding", "reasoning"), 0.0),
}
"""At which answers are sampled, by category."""
OTHER_TEMPERATURE = 0.7
"""Of any other category."""
REFERENCED = ("math", "reasoning", "coding")
FAILED = -1
ROUNDS = 1000
_GRADE = re.compile(r"\[\[(\d+\.?\d*)\]\]")
_GRADE_BACKUP = re.compile(r"\[(\d+\.?\d*)\]")


# ---------------------------------------------------------------- reading a judge


def parse_grade(reply: str) -> float:
    """The first [[number]], else the first [number], else -1."""
    found = _GRADE.search(reply) or _GRADE_BACKUP.search(reply)
    return float(found.group(1)) if found else float(FAILED)


def parse_pair(reply: str) -> str:
    """Who wins a game: "A", "B", "tie" ([[C]]) or "error". Where several labels stand, A goes before B before C."""
    for label, winner in (("[[A]]", "A"), ("[[B]]", "B"), ("[[C]]", "tie")):
        if label in reply:
            return winner
    return "error"


# ---------------------------------------------------------------- scores


def score(
    judgments: Sequence[Row], questions: Sequence[Row] | None = None, latest: bool = False, seed: int = 0
) -> list[dict[str, Any]]:
    """Rows {model, turn_1, turn_2, average, low, high, n, failed, categories}, best first.

    Args:
        judgments: rows {model, question_id, turn, score} of the official single-answer files, -1 where a grade
            could not be read.
        questions: rows {question_id, category}; default, the official ids 81 to 160.
        latest: of several judgments of one answer keep the last; the official script averages appended reruns.

    Returns:
        Means over grades that were read (a turn without any is NaN), and a 95 % bootstrap interval of the average that
        resamples questions, since a question's two grades go together.

    Raises:
        DataError: a grade outside 0 to 10 that is not -1, or a turn that is neither 1 nor 2; names the row.
    """
    category = {str(row["question_id"]): str(row["category"]) for row in questions or ()}
    graded: dict[str, dict[Any, tuple[str, int, float]]] = {}
    for number, row in enumerate(judgments, 1):
        what = f"judgment row {number}"
        model, question, turn = (need(row, key, what) for key in ("model", "question_id", "turn"))
        grade = grade_of(row, what)
        if turn not in (1, 2):
            raise DataError(f"{what}: turn {turn!r} is neither 1 nor 2")
        key = (str(question), turn) if latest else number
        graded.setdefault(str(model), {})[key] = (str(question), turn, grade)
    if not graded:
        raise DataError("no judgments; give rows of a judgment file")
    table = [_row(model, list(rows.values()), category, seed) for model, rows in graded.items()]
    return sorted(table, key=lambda row: -row["average"])


def _row(model: str, rows: Sequence[tuple[str, int, float]], category: Mapping[str, str], seed: int) -> dict[str, Any]:
    read = [row for row in rows if row[2] != FAILED]
    groups: dict[str, list[float]] = {}
    for question, _, grade in read:
        groups.setdefault(category.get(question) or official_category(question), []).append(grade)
    low, high = _interval(read, seed)
    return {
        "model": model,
        "turn_1": _mean([grade for _, turn, grade in read if turn == 1]),
        "turn_2": _mean([grade for _, turn, grade in read if turn == 2]),
        "average": _mean([grade for _, _, grade in read]),
        "low": low,
        "high": high,
        "n": len(read),
        "failed": len(rows) - len(read),
        "categories": {name: _mean(grades) for name, grades in sorted(groups.items())},
    }


def _interval(read: Sequence[tuple[str, int, float]], seed: int) -> tuple[float, float]:
    questions = sorted({question for question, _, _ in read})
    if not questions:
        return math.nan, math.nan
    at = {question: i for i, question in enumerate(questions)}
    index = np.array([at[question] for question, _, _ in read])
    total = np.bincount(index, [grade for _, _, grade in read], len(questions))
    count = np.bincount(index, minlength=len(questions))
    drawn = np.random.default_rng(seed).integers(0, len(questions), (ROUNDS, len(questions)))
    low, high = np.quantile(total[drawn].sum(axis=1) / count[drawn].sum(axis=1), [0.025, 0.975])
    return float(low), float(high)


def pairwise(judgments: Sequence[Row], baseline: str | None = "gpt-3.5-turbo") -> list[dict[str, Any]]:
    """Rows {model, win, loss, tie, win_rate, loss_rate, win_rate_adjusted, low, high}, best first.

    Args:
        judgments: rows {model_1, model_2, g1_winner, g2_winner} of the official pairwise files; a winner is "model_1",
            "model_2", "tie" or "error", and rows with an error are left out.
        baseline: count only its pairs and leave itself out; None counts all pairs.

    Returns:
        Shares of 1; low and high bound win_rate_adjusted, 95 % of a bootstrap over pairs of answers.
    """
    earned: dict[str, list[float]] = {}
    for number, row in enumerate(judgments, 1):
        pair = pair_of(row, f"judgment row {number}")
        if pair.value is None or (baseline is not None and baseline not in (pair.model_1, pair.model_2)):
            continue
        for name, value in ((pair.model_1, pair.value), (pair.model_2, 1 - pair.value)):
            earned.setdefault(name, []).append(value)
    earned.pop(baseline or "", None)
    if not earned:
        raise DataError(
            f"none of {len(judgments)} pairs is with {baseline} and without an error; name another baseline"
        )
    table = []
    for name, values in earned.items():
        counts = {"win": values.count(1.0), "loss": values.count(0.0), "tie": values.count(0.5)}
        rates = {f"{result}_rate": counts[result] / len(values) for result in ("win", "loss")}
        sure = bootstrap(values, ROUNDS)
        bounds = {"win_rate_adjusted": sure.value, "low": sure.low, "high": sure.high}
        table.append({"model": name, **counts, **rates, **bounds})
    return sorted(table, key=lambda row: -row["win_rate_adjusted"])


@dataclass(frozen=True)
class Pair:
    """What two games about one pair of answers say."""

    model_1: str
    model_2: str
    value: float | None
    """What model_1 earned: 1, 0.5 (a tie, or games that disagree) or 0; None if a game failed."""
    first: tuple[float, ...]
    """What the answer shown first earned in either game: model_1's in the first, model_2's in the second."""


def pair_of(row: Row, what: str) -> Pair:
    """A row of the official pairwise files. Raises DataError, beginning with `what`, for a winner that is none."""
    first, second = (str(need(row, key, what)) for key in ("model_1", "model_2"))
    games = [need(row, key, what) for key in ("g1_winner", "g2_winner")]
    for game in games:
        if game not in ("model_1", "model_2", "tie", "error"):
            raise DataError(f"{what}: winner {game!r}; write model_1, model_2, tie or error")
    if "error" in games:
        return Pair(first, second, None, ())
    one, two = ({"model_1": 1.0, "tie": 0.5, "model_2": 0.0}[game] for game in games)
    return Pair(first, second, one if one == two else 0.5, (one, 1 - two))


# ---------------------------------------------------------------- asking a judge


def judge_messages(
    prompts: Mapping[str, Row], question: Row, turns: Sequence[str], turn: int, reference: Sequence[str] | None = None
) -> tuple[str, list[Message]]:
    """(prompt name, messages) that ask for the grade of one turn.

    Args:
        prompts: rows of FastChat's judge_prompts.jsonl by name.
        question: {question_id, category, turns}.
        turns: the model's two answers.
        turn: 1 or 2.
        reference: the reference's two answers; needed for math, reasoning and coding, unused for others.

    Raises:
        ConfigError: a prompt file without the prompt needed.
        DataError: a reference is needed and missing.
    """
    name = _prompt_name("single", question, turn)
    filling = {"question": question["turns"][0], "answer": turns[0]}
    for i, (asked, answered) in enumerate(zip(question["turns"], turns, strict=True), 1):
        filling |= {f"question_{i}": asked, f"answer_{i}": answered}
    return name, _messages(prompts, name, question, filling, reference)


def pair_messages(
    prompts: Mapping[str, Row],
    question: Row,
    answers: tuple[Sequence[str], Sequence[str]],
    turn: int,
    reference: Sequence[str] | None = None,
) -> tuple[str, list[Message]]:
    """(prompt name, messages) that ask which of two dialogues is better, `answers` in the order that is shown.

    Args, Raises: as `judge_messages`.
    """
    name = _prompt_name("pair", question, turn)
    filling = {"question": question["turns"][0]}
    for side, turns in zip("ab", answers, strict=True):
        filling[f"answer_{side}"] = turns[0]
        for i, (asked, answered) in enumerate(zip(question["turns"], turns, strict=True), 1):
            filling |= {f"question_{i}": asked, f"answer_{side}_{i}": answered}
    return name, _messages(prompts, name, question, filling, reference)


def _prompt_name(kind: str, question: Row, turn: int) -> str:
    """FastChat's name of a prompt: single-v1, pair-math-v1-multi-turn …"""
    plain = {"single": "single-v1", "pair": "pair-v2"}[kind]
    return (f"{kind}-math-v1" if question["category"] in REFERENCED else plain) + ("-multi-turn" if turn == 2 else "")


def _messages(
    prompts: Mapping[str, Row],
    name: str,
    question: Row,
    filling: dict[str, str],
    reference: Sequence[str] | None,
) -> list[Message]:
    if name not in prompts:
        raise ConfigError(f"the prompt file has no {name!r}; use FastChat's judge_prompts.jsonl", field="prompts")
    if question["category"] in REFERENCED and not reference:
        raise DataError(
            f"question {question['question_id']} ({question['category']}) needs a reference answer; give it"
        )
    told = filling | {f"ref_answer_{i}": text for i, text in enumerate(reference or (), 1)}
    template = prompts[name]
    return [
        {"role": "system", "content": template["system_prompt"]},
        {"role": "user", "content": fill(template["prompt_template"], told)},
    ]


def grade_of(row: Row, what: str) -> float:
    """A judgment's grade, `FAILED` where none was read. Raises DataError, beginning with `what`, if it is neither."""
    value = need(row, "score", what)
    if isinstance(value, int | float) and (value == FAILED or 0 <= value <= 10):
        return float(value)
    raise DataError(f"{what}: score {value!r} is no grade from 0 to 10; write -1 where none was read")


def official_category(question: str) -> str:
    """The category of an official question id, 81 to 160; "other" for any other."""
    number = int(question) - 81 if question.isdigit() else -1
    return CATEGORIES[number // 10] if 0 <= number < 80 else "other"


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values) if values else math.nan
