"""Arena-Hard: --baseline holds the baseline's answers, --prompts is a checkout of arena-hard-auto.

By the rules of v2.0, which also know v0.1's questions as a category, or with --rules v0.1 by the old ones: one
template, 4096 tokens, a judge whose reply holds no label is asked once more to finish, and the old score.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

from launch.contracts import Message
from launch.errors import DataError
from launch.judge import JudgeClient, Judged, Question, Reply, add_metrics
from tasks.benchmarks import arena_hard, official
from tasks.benchmarks.files import Row, index_by, read_rows, rows_sha256, write_rows
from tasks.benchmarks.sources import UNKNOWN, Options, answering, answers_of, baseline_answers, dry, open_judge, user

TOKENS = {"v0.1": 4096, "v2.0": 16000}
"""How long a judge's reply may be."""
UNDECIDED = "undecided"
"""A reply without a label, of a judge who is asked on."""


def run(options: Options) -> dict[str, Any]:
    """Answer, judge each prompt in both orders, score by category."""
    old = options.rules == "v0.1"
    read = official.arena_prompts_v01 if old else official.arena_prompts
    prompts = read(options.need("prompts"), options.other_prompts)
    questions = index_by(read_rows(options.need("questions"))[: options.limit], "uid", "questions")
    theirs, baseline = baseline_answers(options, "uid", "model")
    mine = _answers(options, questions)
    if lacking := [uid for uid in questions if uid not in mine or uid not in theirs]:
        raise DataError(
            f"question {lacking[0]} and {len(lacking) - 1} others lack an answer of the model or the baseline"
        )
    asked = [
        question
        for uid, question_ in questions.items()
        for question in _both_orders(prompts, question_, _text(theirs[uid]), _text(mine[uid]), TOKENS[options.rules])
    ]
    if options.dry_run:
        return dry(options, asked, 0 if options.is_answers else len(questions))
    answers: Mapping[str, Mapping[str, Row]] = {options.name: mine, baseline: theirs}
    if options.style:
        answers = _with_metadata(options, answers)
    with open_judge(options) as client:
        judge = client.model
        games, metrics = _ask_twice(client, asked, prompts.go_on) if old else _ask(client, asked)
    rows = []
    for number, (uid, question) in enumerate(questions.items()):
        about: dict[str, Any] = {"question_id": uid} if old else {"uid": uid, "category": question["category"]}
        about |= {"judge": judge, "model": options.name} | ({} if old else {"baseline": baseline})
        rows.append({**about, "games": games[2 * number : 2 * number + 2]})
    _write(options, questions, answers, judge, rows)
    more = {"style": options.style, "answers": {model: list(some.values()) for model, some in answers.items()}}
    styled = {"at_equal_style": _boards(options, rows, baseline, **more)} if options.style else {}
    return {
        "boards": _boards(options, rows, baseline),
        **styled,
        **metrics,
        "provenance": {
            "judge": judge,
            "prompt_sha256": prompts.sha256,
            "data_sha256": rows_sha256(list(mine.values())),
        },
    }


def _boards(options: Options, rows: Sequence[Row], baseline: str, **style: Any) -> dict[str, Any]:
    """A table for each category."""
    more: dict[str, Any] = {"seed": options.seed + 42, **style}
    if options.rules == "v0.1":
        return {"arena-hard-v0.1": arena_hard.score(rows, "v0.1", None, baseline, **more)}
    categories = sorted({str(row["category"]) for row in rows})
    return {category: arena_hard.score(rows, "v2.0", category, baseline, **more) for category in categories}


def _with_metadata(options: Options, answers: Mapping[str, Mapping[str, Row]]) -> dict[str, dict[str, dict[str, Any]]]:
    """Answers with the official ``metadata``. Counted anew for all unless all have it, since one tokenizer must have
    measured them all."""
    rows = [row for some in answers.values() for row in some.values()]
    if all("metadata" in row or "conv_metadata" in row for row in rows):
        return {model: {uid: dict(row) for uid, row in some.items()} for model, some in answers.items()}
    count = official.token_counter(options.tokenizer)
    return {
        model: {uid: {**row, "metadata": arena_hard.metadata(_text(row), count)} for uid, row in some.items()}
        for model, some in answers.items()
    }


def _write(
    options: Options,
    questions: Mapping[str, Row],
    answers: Mapping[str, Mapping[str, Row]],
    judge: str,
    rows: list[Any],
) -> None:
    """As the official script looks for them below its data/: questions, the answers of both models, judgments."""
    home = options.out / "data" / f"arena-hard-{options.rules}"
    write_rows(home / "question.jsonl", questions.values())
    for model, some in answers.items():
        named = [{**row, "model": model} for row in some.values()]
        write_rows(home / "model_answer" / f"{options.file_name(model)}.jsonl", named)
    folder = home / "model_judgment" / options.file_name(judge)
    write_rows(folder / f"{options.file_name(options.name)}.jsonl", rows)


# ---------------------------------------------------------------- answers


def _answers(options: Options, questions: Mapping[str, Row]) -> Mapping[str, Row]:
    if options.is_answers:
        return answers_of(read_rows(options.model), "uid", "model", "model answers")[0]
    if options.dry_run:
        texts = [UNKNOWN] * len(questions)
    else:
        with answering(options) as answer:
            texts = answer([user(q["prompt"]) for q in questions.values()], options.temperature, "turn1")
    rows: list[dict[str, Any]] = [
        {
            "uid": uid,
            "ans_id": f"{options.name}-{uid}",
            "model": options.name,
            "messages": [*user(question["prompt"]), {"role": "assistant", "content": {"answer": text}}],
            "tstamp": time.time(),
        }
        for (uid, question), text in zip(questions.items(), texts, strict=True)
    ]
    return {row["uid"]: row for row in rows}


def _text(row: Row) -> str:
    return str(row["messages"][-1]["content"]["answer"])


# ---------------------------------------------------------------- judging


def _both_orders(
    prompts: official.ArenaPrompts, question: Row, baseline: str, model: str, tokens: int
) -> list[Question]:
    """Game 1 shows the baseline as A, game 2 the model."""
    category = str(question["category"])
    if category not in prompts.system:
        raise DataError(
            f"question {question['uid']}: no judge prompt for category {category!r}; use official questions"
        )
    made = []
    for first, second in ((baseline, model), (model, baseline)):
        filling = {"QUESTION": question["prompt"], "ANSWER_A": first, "ANSWER_B": second}
        text = official.fill(prompts.template, filling)
        made.append(Question([{"role": "system", "content": prompts.system[category]}, *user(text)], tokens))
    return made


def _ask(client: JudgeClient, asked: Sequence[Question]) -> tuple[list[dict[str, Any] | None], dict[str, float]]:
    """v2.0's games."""
    judged = client.ask(asked, lambda reply: arena_hard.verdict_v2(reply.text))
    games: list[dict[str, Any] | None] = []
    for question, reply, label in zip(asked, judged.replies, judged.verdicts, strict=True):
        told = None if reply is None else {"answer": reply.text}
        game = {"score": label, "judgment": told, "prompt": list(question.messages)}
        games.append(None if reply is None else game)
    return games, judged.metrics


def _ask_twice(
    client: JudgeClient, asked: Sequence[Question], go_on: str
) -> tuple[list[dict[str, Any] | None], dict[str, float]]:
    """v0.1's games: who gave no label is told to go on, once, and is read from both replies together."""
    first = client.ask(asked, _label_or_undecided)
    said = [None if reply is None else f"\n{reply.text}" for reply in first.replies]
    again = [i for i, verdict in enumerate(first.verdicts) if verdict == UNDECIDED]
    second = _go_on(client, [asked[i] for i in again], [said[i] or "" for i in again], go_on)
    for i, reply in zip(again, second.replies, strict=True):
        said[i] = (said[i] or "") + ("" if reply is None else f"\n{reply.text}")
    games: list[dict[str, Any] | None] = []
    for question, text in zip(asked, said, strict=True):
        label = None if text is None else arena_hard.verdict_v01(text)[0]
        game = {"user_prompt": question.messages[-1]["content"], "judgment": text, "score": label}
        games.append(game)
    metrics = add_metrics(first.metrics, second.metrics)
    # What counts is one verdict a game: a first reply without a label is no failure, if the second has one.
    failures = sum(game is not None and game["judgment"] is not None and game["score"] is None for game in games)
    answered = sum(text is not None for text in said)
    rates = {"judge/parse_failures": failures, "judge/parse_failure_rate": failures / answered if answered else 0.0}
    return games, metrics | rates | {"judge/questions": len(asked), "judge/asked_on": len(again)}


def _label_or_undecided(reply: Reply) -> str | None:
    label, undecided = arena_hard.verdict_v01(reply.text)
    return UNDECIDED if undecided else label


def _go_on(client: JudgeClient, asked: Sequence[Question], said: Sequence[str], go_on: str) -> Judged[str]:
    """The second request. Its verdict is read from both replies together, which is what the game counts."""
    longer = []
    for question, text in zip(asked, said, strict=True):
        turns: list[Message] = [{"role": "assistant", "content": text[1:]}, {"role": "user", "content": go_on}]
        longer.append(Question([*question.messages, *turns], question.max_tokens, question.temperature))
    return client.ask(longer, lambda reply: arena_hard.verdict_v01(reply.text)[0])
