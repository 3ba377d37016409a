"""AlpacaEval 2: --baseline holds the reference's answers; its instructions are the questions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from launch.judge import Question, Reply
from tasks.benchmarks import alpaca_eval, official
from tasks.benchmarks.files import Row, need, read_rows, rows_sha256, write_rows
from tasks.benchmarks.runs.alpaca_official import TOP, write_official
from tasks.benchmarks.sources import UNKNOWN, Options, answering, dry, open_judge, open_scorer, user

Verdict = tuple[float, Reply | None]
"""(preference, the reply it was read from)."""


def run(options: Options) -> dict[str, Any]:
    """Answer, judge by words or by a preference model, score."""
    reference = _reference(options)
    preferring = options.judge is not None and not options.asks
    template, digest = ("", "") if preferring else official.alpaca_template(options.prompts, options.other_prompts)
    outputs = _outputs(options, reference)
    pairs = alpaca_eval.pair_up(reference, outputs, allow_missing=options.limit is not None)
    unequal = [pair for pair in pairs if pair["output_1"] != pair["output_2"]]
    if options.dry_run:
        asked = [] if preferring else [_question(template, pair) for pair in unequal]
        return dry(options, asked, 0 if options.is_answers else len(reference))
    if preferring:
        judge = options.judge_model or Path(str(options.judge)).resolve().name
        verdicts, metrics = _preferences(options, unequal), dict[str, float]()
    else:
        judge, verdicts, metrics = _verdicts(options, template, unequal)
    found = {pair["index"]: verdict for pair, verdict in zip(unequal, verdicts, strict=True)}
    rows = []
    for pair in pairs:
        value, reply = found.get(pair["index"], (1.5, None))
        raw, usage = (reply.choice, reply.usage) if reply else (None, {})
        spent = {"price_per_example": _price(options, usage), "time_per_example": reply.seconds if reply else 0.0}
        rows.append(alpaca_eval.annotation_row(pair, judge, value, raw) | spent)
    folder = options.out / "results" / options.file_name(options.name)
    write_rows(folder / options.file_name(judge) / "annotations.json", rows)
    write_rows(options.out / "official" / "reference_outputs.json", reference)
    if options.asks:
        write_official(options, judge)
    return {
        **_score(options, rows),
        **metrics,
        "provenance": {"judge": judge, "prompt_sha256": digest, "data_sha256": rows_sha256(pairs)},
    }


def _reference(options: Options) -> list[dict[str, Any]]:
    reference = read_rows(options.need("baseline"))
    for number, row in enumerate(reference, 1):
        need(row, "instruction", f"{options.baseline} row {number}")
    return reference[: options.limit]


def _outputs(options: Options, reference: Sequence[Row]) -> list[dict[str, Any]]:
    if options.is_answers:
        outputs = read_rows(options.model)
        wanted = {row["instruction"] for row in reference}
        outputs = [row for row in outputs if row.get("instruction") in wanted] if options.limit else outputs
    else:
        outputs = _generated(options, reference)
    if not options.dry_run:
        write_rows(options.out / "results" / options.file_name(options.name) / "model_outputs.json", outputs)
    return outputs


def _generated(options: Options, reference: Sequence[Row]) -> list[dict[str, Any]]:
    if options.dry_run:
        answers = [UNKNOWN] * len(reference)
    else:
        with answering(options) as answer:
            answers = answer([user(row["instruction"]) for row in reference], options.temperature, "turn1")
    return [
        {
            "dataset": row.get("dataset", ""),
            "instruction": row["instruction"],
            "output": answer,
            "generator": options.name,
        }
        for row, answer in zip(reference, answers, strict=True)
    ]


# ---------------------------------------------------------------- judging


def _question(template: str, pair: Row) -> Question:
    return Question(alpaca_eval.judge_messages(template, pair), 1, 1.0, TOP)


def _verdicts(options: Options, template: str, pairs: Sequence[Row]) -> tuple[str, list[Verdict], dict[str, float]]:
    """(judge, verdicts, its metrics) of a judge that names the better model."""
    with open_judge(options) as client:
        judged = client.ask([_question(template, pair) for pair in pairs], _names_one)
    verdicts: list[Verdict] = []
    for pair, reply in zip(pairs, judged.replies, strict=True):
        turned = alpaca_eval.is_swapped(pair["instruction"])
        value = math.nan if reply is None else alpaca_eval.preference(reply.top_logprobs[:TOP], turned)
        verdicts.append((value, reply))
    return client.model, verdicts, judged.metrics


def _names_one(reply: Reply) -> float | None:
    """Whether a reply names a model; the order is undone where the pair is known."""
    value = alpaca_eval.preference(reply.top_logprobs[:TOP], False)
    return None if math.isnan(value) else value


def _preferences(options: Options, pairs: Sequence[Row]) -> list[Verdict]:
    """A preference model's P is the preference; the order of the answers does not matter to it."""
    with open_scorer(options, str(options.judge)) as scorer:
        return [
            (1 + float(scorer.score(pair["instruction"], [pair["output_1"], pair["output_2"]]).P[1, 0]), None)
            for pair in pairs
        ]


def _price(options: Options, usage: dict[str, Any]) -> float:
    """Of one reply, in the currency of --prices."""
    tokens = (usage.get("prompt_tokens") or 0, usage.get("completion_tokens") or 0)
    return sum(count * price for count, price in zip(tokens, options.prices, strict=True)) / 1e6


def _score(options: Options, rows: Sequence[Row]) -> dict[str, Any]:
    """Length-controlled as far as the files allow: full with df_gamed.csv, noreg with difficulties, else raw alone."""
    if options.gamed is None and options.difficulty is None:
        return {**alpaca_eval.win_rate(rows), "length_control": "none: pass --gamed df_gamed.csv or --difficulty"}
    gamed = alpaca_eval.read_gamed(options.gamed) if options.gamed else None
    difficulty = None
    if options.difficulty is not None:
        table = read_rows(options.difficulty)
        difficulty = {int(row["index"]): float(row["instruction_difficulty"]) for row in table}
    result = alpaca_eval.length_controlled(rows, difficulty, "full" if gamed else "noreg", gamed)
    return {key: value for key, value in result.items() if key != "glm_preference"}
