"""Pairs of answers, the order a judge sees them in, and what its token probabilities say.

The reference's answer is output_1, the model's output_2. A judge sees them as model "m" and model "M", changed round
for about half of the instructions by a draw seeded with the instruction itself, and answers with one token. With p the
share of "m" in the probability of the two tokens, preference = 2 - p, turned back by 3 - preference: 1 means that the
reference wins, 2 that the model does. Equal answers are a draw, 1.5, without a call.

Two differences from the official package, where an answer holds template text: placeholders are filled in one pass, so
that "{output_2}" inside an answer stays text, and turns are cut before filling, so that "<|im_start|>" inside an answer
opens no turn.
"""

from __future__ import annotations

import math
import random
import re
from collections.abc import Mapping, Sequence
from typing import Any

from launch.contracts import Message
from launch.errors import DataError
from tasks.benchmarks.files import Row, index_by, need
from tasks.benchmarks.official import fill

FIRST, SECOND = "m", "M"
"""Names under which a judge sees the two answers."""
_TURN = re.compile(r"<\|im_start\|>(\w+)\n(.*?)\n?<\|im_end\|>", re.DOTALL)
_PLACES = ("instruction", "output_1", "output_2")


def pair_up(reference: Sequence[Row], outputs: Sequence[Row], allow_missing: bool = False) -> list[dict[str, Any]]:
    """Join on the instruction, in the reference's order.

    Args:
        reference, outputs: rows {instruction, output, generator, optionally dataset}; one generator each.
        allow_missing: leave out instructions that only one side has, as the official package does with a warning.

    Returns:
        Rows {index, instruction, dataset, output_1, generator_1, output_2, generator_2}; ``index`` is the row in
        `reference`, by which instruction difficulty is looked up whatever is missing.

    Raises:
        DataError: an instruction that is there twice, answers of two models in one file, an answer that is no text, or
            instructions missing on one side.
    """
    sides = {"reference": index_by(reference, "instruction", "reference")}
    sides["model"] = index_by(outputs, "instruction", "model outputs")
    for side, rows in sides.items():
        names = sorted({str(need(row, "generator", f"{side} row")) for row in rows.values()})
        if len(names) != 1:
            raise DataError(
                f"{side}: answers of {len(names)} models ({', '.join(names[:3])}); give one model's answers"
            )
    mine, theirs = sides["model"], sides["reference"]
    if not allow_missing and mine.keys() != theirs.keys():
        lost, extra = theirs.keys() - mine.keys(), mine.keys() - theirs.keys()
        example = next(iter(lost or extra))[:60]
        raise DataError(
            f"model outputs lack {len(lost)} instructions and have {len(extra)} others, such as {example!r}; "
            "answer the same instructions, or allow missing ones"
        )
    pairs: list[dict[str, Any]] = []
    for index, (instruction, row) in enumerate(theirs.items()):
        if instruction not in mine:
            continue
        other = mine[instruction]
        for side, one in (("reference", row), ("model", other)):
            if not isinstance(need(one, "output", f"{side} answer to instruction {index}"), str):
                raise DataError(f"{side} answer to instruction {index} is {one['output']!r}; write a text, '' if empty")
        pairs.append(
            {
                "index": index,
                "instruction": instruction,
                "dataset": row.get("dataset", ""),
                "output_1": row["output"],
                "generator_1": row["generator"],
                "output_2": other["output"],
                "generator_2": other["generator"],
            }
        )
    if not pairs:
        raise DataError("reference and model have no instruction in common; are these outputs of the same benchmark?")
    return pairs


def is_swapped(instruction: str, seed: int = 0) -> bool:
    """Whether a judge sees the model's answer first."""
    return random.Random(f"is_switched_outputs{instruction}{seed}").choices([False, True])[0]


def judge_messages(template: str, pair: Row, seed: int = 0) -> list[Message]:
    """What a judge is asked about a pair: the official ChatML template, filled.

    Raises:
        DataError: a template without turns or without one of its three places.
    """
    turns = _TURN.findall(template)
    places = [place for place in _PLACES if f"{{{place}}}" in template]
    if not turns or len(places) != 3:
        raise DataError(
            f"judge template has {len(turns)} turns and the places {places}; use the official file "
            "(<|im_start|>role … <|im_end|> with {instruction}, {output_1}, {output_2})"
        )
    first, second = pair["output_1"], pair["output_2"]
    if is_swapped(pair["instruction"], seed):
        first, second = second, first
    filling = {"instruction": pair["instruction"], "output_1": first, "output_2": second}
    return [{"role": role, "content": fill(content, filling).strip()} for role, content in turns]


def preference(top_logprobs: Sequence[Mapping[str, Any]], swapped: bool) -> float:
    """A preference from the likeliest first tokens {token, logprob} of a judge's reply.

    Returns:
        1 (the reference wins) to 2 (the model wins); NaN if neither name is among the tokens.
    """
    found = {str(entry["token"]): float(entry["logprob"]) for entry in top_logprobs}
    first, second = found.get(FIRST, -math.inf), found.get(SECOND, -math.inf)
    top = max(first, second)
    if top == -math.inf:
        return math.nan
    share = math.exp(first - top) / (math.exp(first - top) + math.exp(second - top))
    return 1 + share if swapped else 2 - share


def annotation_row(pair: Row, annotator: str, value: float, raw_completion: Any = None) -> dict[str, Any]:
    """A row of the official annotations.json. A failed verdict's preference is null."""
    kept = ("instruction", "output_1", "generator_1", "dataset", "output_2", "generator_2")
    return {
        **{key: pair[key] for key in kept},
        "annotator": annotator,
        "preference": None if math.isnan(value) else value,
        "raw_completion": raw_completion,
        "index": pair["index"],
    }
