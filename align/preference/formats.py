"""One row of preference data, in any of six layouts, to one `Judged`: a prompt, its answers, who beat whom.

| format | columns |
|---|---|
| preference | [prompt], chosen, rejected: TRL's rows, text or message lists, prompt given or implied; [margin] |
| gpm | instruction, chosen, reject, [margin] |
| labelled | prompt, response_1, response_2, label: 1 or 2 is better, 0 a tie, null not judged |
| scores | prompt, responses, scores: one number per answer, null not judged |
| votes | prompt, responses, votes: [i, j, winner] (null: tie) or {"i", "j", "wins_i", "wins_j", "ties"} |
| table | prompt, responses, table: row i, column j = votes or probability for i over j, null not judged |

Every check on the content of a row is here, so that whatever leaves this file is sound: each error names file and
row, the value, and what to do. Left out: scores for parts of an answer, and preferences between whole dialogues
that differ before their last turn.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any

from launch.contracts import Message, Prompt
from launch.errors import DataError
from launch.rendering import check_messages

ROLES = ("system", "developer", "user", "assistant", "tool")
ASSISTANT_MARK = "\n\nAssistant:"


@dataclass
class Vote:
    """One judgement of one pair of answers, by index."""

    winner: int
    loser: int
    weight: float = 1.0
    tie: bool = False
    """True: neither is better, and the order of the two means nothing."""
    annotator: str = ""


@dataclass
class Judged:
    """A prompt, K answers, and votes between them."""

    prompt: Prompt
    responses: list[str]
    votes: list[Vote]
    source: str
    """"file:row"."""


@dataclass(frozen=True)
class Reading:
    """How rows are read, apart from their format."""

    columns: dict[str, str] = field(default_factory=dict)
    """Our column name -> the file's."""
    labels: tuple[str, ...] = ("label",)
    """Label columns of format `labelled`; with several, each is one annotator of that name."""
    label_values: dict[str, int] = field(default_factory=dict)
    """The file's label, as text -> 1, 2 or 0; empty: the labels are these already."""
    annotator: str = "annotator"
    """Column that names who judged the row; used where a row has it."""
    min_margin: float = 0.0
    """Scores (or a margin column) closer than this count as a tie."""


REQUIRED: dict[str, tuple[str, ...]] = {
    "table": ("prompt", "responses", "table"),
    "votes": ("prompt", "responses", "votes"),
    "scores": ("prompt", "responses", "scores"),
    "labelled": ("prompt", "response_1", "response_2"),
    "gpm": ("instruction", "chosen", "reject"),
    "preference": ("chosen", "rejected"),
}


def detect(row: dict[str, Any], reading: Reading, source: str) -> str:
    """Name the format whose columns `row` has; DataError with the nearest names when none fits."""
    have = _known(row, reading)
    for name, needed in REQUIRED.items():
        if have.issuperset(needed) and (name != "labelled" or have.issuperset(reading.labels)):
            return name
    nearest = max(REQUIRED, key=lambda name: _closeness(REQUIRED[name], have))
    needed = REQUIRED[nearest] + (reading.labels if nearest == "labelled" else ())
    raise _missing(source, nearest, [name for name in needed if name not in have], row)


def parse(row: dict[str, Any], format: str, reading: Reading, source: str) -> Judged:
    """Read `row` as `format`. Raises DataError, one line, for anything that would train a model on nonsense."""
    needed = REQUIRED[format] + (reading.labels if format == "labelled" else ())
    missing = [name for name in needed if name not in _known(row, reading)]
    if missing:
        raise _missing(source, format, missing, row)
    named = {**row, **{ours: row[theirs] for ours, theirs in reading.columns.items() if theirs in row}}
    judged = _PARSERS[format](named, reading, source)
    _check_prompt(judged.prompt, source)
    _check_responses(judged, source)
    who = named.get(reading.annotator)
    if who is not None:
        for vote in judged.votes:
            vote.annotator = vote.annotator or str(who)
    return judged


# ---------------------------------------------------------------- pairs


def _preference(row: dict[str, Any], reading: Reading, source: str) -> Judged:
    chosen, rejected, prompt = row["chosen"], row["rejected"], row.get("prompt")
    if type(chosen) is not type(rejected) or not isinstance(chosen, (str, list)):
        raise DataError(f"{source}: chosen and rejected must both be text or both be message lists")
    if prompt is None:
        prompt, chosen, rejected = _implied(chosen, rejected, source)
    elif isinstance(chosen, list):
        prompt = prompt if isinstance(prompt, list) else [{"role": "user", "content": prompt}]
        chosen, rejected = (_after(prompt, messages, source) for messages in (chosen, rejected))
    return Judged(prompt, [chosen, rejected], [_pair_vote(row, reading, source)], source)


def _gpm(row: dict[str, Any], reading: Reading, source: str) -> Judged:
    return Judged(row["instruction"], [row["chosen"], row["reject"]], [_pair_vote(row, reading, source)], source)


def _pair_vote(row: dict[str, Any], reading: Reading, source: str) -> Vote:
    margin = row.get("margin")
    weight = _number(row.get("weight", 1.0), "weight", source)
    if weight <= 0:
        raise DataError(f"{source}: weight {weight} is not above 0; leave the row out instead")
    if margin is None:
        return Vote(0, 1, weight)
    size = _number(margin, "margin", source)
    if size < 0:
        raise DataError(f"{source}: margin {size} says that the rejected answer is better; swap the two answers")
    return Vote(0, 1, weight, tie=size < reading.min_margin)


def _labelled(row: dict[str, Any], reading: Reading, source: str) -> Judged:
    votes = []
    for column in reading.labels:
        label = row[reading.columns.get(column, column)]
        who = column if len(reading.labels) > 1 else ""
        if label is None:
            continue
        if reading.label_values:
            if str(label) not in reading.label_values:
                known = ", ".join(reading.label_values)
                raise DataError(f"{source}: {column} is {label!r}; label_values knows {known}")
            label = reading.label_values[str(label)]
        if isinstance(label, bool) or label not in (0, 1, 2):
            raise DataError(
                f"{source}: {column} is {label!r}; 1 or 2 names the better response, 0 a tie, null none "
                "(label_values translates others)"
            )
        votes.append(Vote(int(label == 2), int(label != 2), tie=label == 0, annotator=who))
    return Judged(row["prompt"], [row["response_1"], row["response_2"]], votes, source)


def _implied(chosen: Any, rejected: Any, source: str) -> tuple[Prompt, str, str]:
    """Split off the prompt that both sides begin with, as TRL does, but never inside a word or a dialogue turn."""
    if isinstance(chosen, list):
        shared = 0
        while shared < min(len(chosen), len(rejected)) and chosen[shared] == rejected[shared]:
            shared += 1
        if shared == len(chosen) == len(rejected):
            raise DataError(f"{source}: chosen and rejected are identical; a pair needs two different answers")
        prompt = chosen[:shared]
        return prompt, _after(prompt, chosen, source), _after(prompt, rejected, source)
    if chosen == rejected:
        raise DataError(f"{source}: chosen and rejected are identical; a pair needs two different answers")
    differs = (n for n, (a, b) in enumerate(zip(chosen, rejected, strict=False)) if a != b)
    shared = next(differs, min(len(chosen), len(rejected)))
    turn = chosen.rfind(ASSISTANT_MARK, 0, shared)
    if turn >= 0:
        shared = turn + len(ASSISTANT_MARK)
    else:
        while shared and not chosen[shared - 1].isspace():
            shared -= 1
        shared = len(chosen[:shared].rstrip())
    if not shared:
        raise DataError(f"{source}: chosen and rejected begin with no common prompt; give a prompt column")
    return chosen[:shared], chosen[shared:], rejected[shared:]


def _after(prompt: Sequence[Message], messages: list[Message], source: str) -> str:
    """Return the text of the one assistant message that follows `prompt` (which `messages` may repeat)."""
    rest = messages[len(prompt) :] if messages[: len(prompt)] == list(prompt) else messages
    if len(rest) != 1:
        raise DataError(
            f"{source}: {len(rest)} messages after the shared prompt; the two sides may differ in the last turn only"
        )
    answer: Any = rest[0]
    if not isinstance(answer, dict) or not isinstance(answer.get("content"), str):
        raise DataError(f"{source}: an answer is a {{'role': 'assistant', 'content': text}}, not {_kind(answer)}")
    if answer.get("role") != "assistant":
        raise DataError(f"{source}: the last turn is by {answer.get('role')!r}; an answer has the role 'assistant'")
    return answer["content"]


# ---------------------------------------------------------------- K answers


def _scores(row: dict[str, Any], reading: Reading, source: str) -> Judged:
    responses, scores = _texts(row["responses"], source), row["scores"]
    if not isinstance(scores, list) or len(scores) != len(responses):
        raise DataError(f"{source}: {len(responses)} responses need as many scores, not {_size(scores)}")
    values = [None if score is None else _number(score, f"score {i + 1}", source) for i, score in enumerate(scores)]
    votes = []
    for i, j in combinations(range(len(responses)), 2):
        a, b = values[i], values[j]
        if a is not None and b is not None:
            tie = a == b or abs(a - b) < reading.min_margin
            votes.append(Vote(i, j, tie=tie) if a >= b else Vote(j, i, tie=tie))
    return Judged(row["prompt"], responses, votes, source)


def _votes(row: dict[str, Any], reading: Reading, source: str) -> Judged:
    responses = _texts(row["responses"], source)
    if not isinstance(row["votes"], list):
        raise DataError(f"{source}: votes is a {type(row['votes']).__name__}; a list belongs here")
    votes: list[Vote] = []
    for entry in row["votes"]:
        if isinstance(entry, dict):
            i, j = (_index(entry.get(key), len(responses), source) for key in ("i", "j"))
            who = str(entry.get(reading.annotator) or "")
            if "winner" in entry:
                votes.append(_winner(i, j, entry["winner"], who, source))
                continue
            for key, winner, loser in (("wins_i", i, j), ("wins_j", j, i), ("ties", i, j)):
                count = _number(entry.get(key) or 0, key, source)
                if count < 0:
                    raise DataError(f"{source}: {key} is {count}; a count of votes is not below 0")
                if count:
                    votes.append(Vote(winner, loser, count, tie=key == "ties", annotator=who))
        elif isinstance(entry, (list, tuple)) and len(entry) == 3:
            i, j = (_index(value, len(responses), source) for value in entry[:2])
            votes.append(_winner(i, j, entry[2], "", source))
        else:
            raise DataError(f'{source}: vote {entry!r}; write [i, j, winner] or {{"i", "j", "wins_i", "wins_j"}}')
    if any(vote.winner == vote.loser for vote in votes):
        raise DataError(f"{source}: a vote compares an answer with itself; i and j must differ")
    return Judged(row["prompt"], responses, votes, source)


def _winner(i: int, j: int, winner: Any, who: str, source: str) -> Vote:
    if winner is None:
        return Vote(i, j, tie=True, annotator=who)
    if isinstance(winner, bool) or winner not in (i, j):
        raise DataError(f"{source}: winner {winner!r} is neither {i} nor {j}; indices count from 0, null is a tie")
    return Vote(winner, j if winner == i else i, annotator=who)


def _table(row: dict[str, Any], reading: Reading, source: str) -> Judged:
    responses, table = _texts(row["responses"], source), row["table"]
    K = len(responses)
    if not isinstance(table, list) or len(table) != K or any(_size(line) != K for line in table):
        raise DataError(f"{source}: {K} responses need a table of {K} rows and {K} columns")
    votes = []
    for i, j in combinations(range(K), 2):
        if table[i][j] is None and table[j][i] is None:
            continue
        for winner, loser in ((i, j), (j, i)):
            weight = _number(table[winner][loser] or 0, f"table[{winner}][{loser}]", source)
            if weight < 0:
                raise DataError(
                    f"{source}: table[{winner}][{loser}] is {weight}; votes or probabilities are not below 0 "
                    "(give logits as probabilities: 1/(1+exp(-s)))"
                )
            if weight:
                votes.append(Vote(winner, loser, weight))
    return Judged(row["prompt"], responses, votes, source)


_PARSERS: dict[str, Callable[[dict[str, Any], Reading, str], Judged]] = {
    "preference": _preference,
    "gpm": _gpm,
    "labelled": _labelled,
    "scores": _scores,
    "votes": _votes,
    "table": _table,
}


# ---------------------------------------------------------------- checks


def _known(row: dict[str, Any], reading: Reading) -> set[str]:
    return set(row) | {ours for ours, theirs in reading.columns.items() if theirs in row}


def _closeness(needed: Sequence[str], have: set[str]) -> float:
    found = [max((difflib.SequenceMatcher(None, name, other).ratio() for other in have), default=0) for name in needed]
    return sum(found) / len(needed)


def _missing(source: str, format: str, missing: list[str], row: dict[str, Any]) -> DataError:
    near = [difflib.get_close_matches(name, list(row), n=1, cutoff=0.5) for name in missing]
    hints = [f"columns.{name}={match[0]}" for name, match in zip(missing, near, strict=True) if match]
    remedy = f"did you mean {' '.join(hints)}?" if hints else f"its columns are {', '.join(map(str, row)) or 'none'}"
    return DataError(f"{source}: no column {', '.join(map(repr, missing))} (format {format}); {remedy}")


def _check_prompt(prompt: Any, source: str) -> None:
    if isinstance(prompt, str):
        if not prompt.strip():
            raise DataError(f"{source}: the prompt is empty; give the model something to answer")
        return
    if not isinstance(prompt, list):
        raise DataError(f"{source}: the prompt is a {type(prompt).__name__}; text or a message list belongs here")
    for message in prompt:
        if isinstance(message, dict) and message.get("role", "user") not in ROLES:
            raise DataError(f"{source}: role {message['role']!r} is none of {', '.join(ROLES)}")
    try:
        check_messages(prompt)
    except DataError as error:
        raise DataError(f"{source}: {error}") from error


def _check_responses(judged: Judged, source: str) -> None:
    if len(judged.responses) < 2:
        raise DataError(f"{source}: {len(judged.responses)} answer; a preference needs at least two")
    seen: dict[str, int] = {}
    for number, text in enumerate(judged.responses):
        if not isinstance(text, str):
            raise DataError(f"{source}: response {number + 1} is a {type(text).__name__}; text belongs here")
        if not text.strip():
            raise DataError(f"{source}: response {number + 1} is empty; remove it, or skip such rows (bad_rows=skip)")
        if seen.setdefault(text, number) != number:
            raise DataError(f"{source}: responses {seen[text] + 1} and {number + 1} are identical; keep one of them")


def _texts(value: Any, source: str) -> list[str]:
    """Read K answers: texts, or message lists of one assistant turn each."""
    if not isinstance(value, list):
        raise DataError(f"{source}: responses is a {type(value).__name__}; a list of answers belongs here")
    return [_after([], item, source) if isinstance(item, list) else item for item in value]


def _index(value: Any, K: int, source: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < K:
        raise DataError(f"{source}: index {value!r} in a vote; the {K} answers are numbered 0 to {K - 1}")
    return value


def _number(value: Any, name: str, source: str) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise DataError(f"{source}: {name} is {value!r}; a number belongs here")
    if not math.isfinite(value):
        raise DataError(f"{source}: {name} is {value}; only finite numbers can be compared (null: not judged)")
    return float(value)


def _size(value: Any) -> int:
    return len(value) if isinstance(value, list) else 0


def _kind(value: Any) -> str:
    return f"one with {', '.join(map(str, value)) or 'nothing'}" if isinstance(value, dict) else type(value).__name__
