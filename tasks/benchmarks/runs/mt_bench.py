"""MT-Bench: --questions, --references and --prompts are FastChat's files.

Single-answer grading; with --baseline, a file of another model's answers, pairwise instead: which of the two is better,
asked in both orders for either turn.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from launch.contracts import Message
from launch.errors import DataError
from launch.judge import Question, Reply
from tasks.benchmarks import mt_bench, official
from tasks.benchmarks.files import Row, index_by, read_rows, rows_sha256, write_rows
from tasks.benchmarks.sources import UNKNOWN, Options, answering, answers_of, baseline_answers, dry, open_judge, user

TOKENS = 2048
"""How long a judge's reply may be."""
ERROR = "$ERROR$"
"""FastChat's judgment where no reply came."""


@dataclass(frozen=True)
class Job:
    """What there is to be judged."""

    prompts: Mapping[str, Row]
    """By FastChat's name."""
    prompt_sha256: str
    questions: Mapping[Any, Row]
    references: Mapping[Any, Sequence[str]]
    """Both turns, by question."""
    answers: Mapping[str, Mapping[Any, Row]]
    """By model, the one that is tested first."""

    @property
    def places(self) -> list[tuple[Any, int]]:
        """(question id, turn), all first turns before all second ones."""
        return [(key, turn) for turn in (1, 2) for key in self.questions]

    def turns(self, model: str, key: Any) -> Sequence[str]:
        """A model's two answers."""
        return self.answers[model][key]["choices"][0]["turns"]

    def provenance(self, judge: str) -> dict[str, Any]:
        data = [row for some in self.answers.values() for row in some.values()]
        return {"judge": judge, "prompt_sha256": self.prompt_sha256, "data_sha256": rows_sha256(data)}


def run(options: Options) -> dict[str, Any]:
    """Answer both turns, judge, score."""
    prompts, digest = official.mt_bench_prompts(options.need("prompts"), options.other_prompts)
    questions = index_by(read_rows(options.need("questions"))[: options.limit], "question_id", "questions")
    references = index_by(read_rows(options.need("references")), "question_id", "references")
    known = {key: row["choices"][0]["turns"] for key, row in references.items()}
    answers = {options.name: _answers(options, questions)}
    if options.baseline is not None:
        theirs, baseline = baseline_answers(options, "question_id", "model_id")
        answers[baseline] = theirs
    for model, some in answers.items():
        _check(some, questions, model)
    job = Job(prompts, digest, questions, known, answers)
    return _grades(options, job) if options.baseline is None else _pairs(options, job)


def _grades(options: Options, job: Job) -> dict[str, Any]:
    """Single-answer grading."""
    told = [
        mt_bench.judge_messages(
            job.prompts, job.questions[key], job.turns(options.name, key), turn, job.references.get(key)
        )
        for key, turn in job.places
    ]
    asked = [Question(messages, TOKENS) for _, messages in told]
    if options.dry_run:
        return dry(options, asked, 0 if options.is_answers else 2 * len(job.questions))
    with open_judge(options) as client:
        judge, judged = client.model, client.ask(asked, _grade)
    rows = []
    for (key, turn), (name, messages), grade, reply in zip(
        job.places, told, judged.verdicts, judged.replies, strict=True
    ):
        rows.append(
            {
                "question_id": key,
                "model": options.name,
                "judge": [judge, name],
                "user_prompt": messages[-1]["content"],
                "judgment": reply.text if reply else ERROR,
                "score": mt_bench.FAILED if grade is None else grade,
                "turn": turn,
                "tstamp": time.time(),
            }
        )
    _write(options, job, f"{options.file_name(judge)}_single", rows, ("model",))
    return {
        "table": mt_bench.score(rows, list(job.questions.values()), seed=options.seed),
        **judged.metrics,
        "mode": "single",
        "provenance": job.provenance(judge),
    }


def _pairs(options: Options, job: Job) -> dict[str, Any]:
    """Pairwise: the model is model_1 and is shown first in game 1, the baseline in game 2."""
    models = list(job.answers)
    told = []
    for key, turn in job.places:
        for one, other in (models, models[::-1]):
            shown = (job.turns(one, key), job.turns(other, key))
            told.append(mt_bench.pair_messages(job.prompts, job.questions[key], shown, turn, job.references.get(key)))
    asked = [Question(messages, TOKENS) for _, messages in told]
    if options.dry_run:
        return dry(options, asked, 0 if options.is_answers else 2 * len(job.questions))
    with open_judge(options) as client:
        judge, judged = client.model, client.ask(asked, _winner)
    rows = []
    for number, (key, turn) in enumerate(job.places):
        row = {"question_id": key, "model_1": models[0], "model_2": models[1]}
        games: dict[str, Any] = {}
        for game, names in ((1, ("model_1", "model_2")), (2, ("model_2", "model_1"))):
            at = 2 * number + game - 1
            verdict, reply = judged.verdicts[at] or "error", judged.replies[at]
            row[f"g{game}_winner"] = {"A": names[0], "B": names[1]}.get(verdict, verdict)
            games[f"g{game}_user_prompt"] = told[at][1][-1]["content"]
            games[f"g{game}_judgment"] = reply.text if reply else ERROR
        rows.append({**row, "judge": [judge, told[2 * number][0]], **games, "turn": turn, "tstamp": time.time()})
    _write(options, job, f"{options.file_name(judge)}_pair", rows, ("model_1", "model_2"))
    return {
        "table": mt_bench.pairwise(rows, models[1]),
        **judged.metrics,
        "mode": "pair",
        "provenance": {**job.provenance(judge), "baseline": models[1]},
    }


def _grade(reply: Reply) -> float | None:
    grade = mt_bench.parse_grade(reply.text)
    return grade if 0 <= grade <= 10 else None


def _winner(reply: Reply) -> str | None:
    winner = mt_bench.parse_pair(reply.text)
    return None if winner == "error" else winner


def _write(options: Options, job: Job, name: str, rows: list[dict[str, Any]], models: Sequence[str]) -> None:
    """As the official script looks for them below its data/. A judge's file holds all models: this one's rows are
    replaced, others' are kept."""
    home = options.out / "data" / "mt_bench"
    write_rows(home / "question.jsonl", job.questions.values())
    for model, some in job.answers.items():
        named = [{**row, "model_id": model} for row in some.values()]
        write_rows(home / "model_answer" / f"{options.file_name(model)}.jsonl", named)
    file = home / "model_judgment" / f"{name}.jsonl"
    new = {tuple(row[key] for key in models) for row in rows}
    kept = [row for row in read_rows(file) if tuple(row[key] for key in models) not in new] if file.is_file() else []
    write_rows(file, [*kept, *rows])


# ---------------------------------------------------------------- answers


def _check(answers: Mapping[Any, Row], questions: Mapping[Any, Row], model: str) -> None:
    """Raise DataError unless every question has two answers of text."""
    for key in questions:
        if key not in answers:
            raise DataError(f"question {key}: {model} has no answer; answer all questions")
        turns = answers[key]["choices"][0]["turns"]
        if len(turns) != 2 or not all(isinstance(text, str) for text in turns):
            raise DataError(f"question {key}: {model} has {len(turns)} answers, not two of text; give both turns")


def _answers(options: Options, questions: Mapping[Any, Row]) -> Mapping[Any, Row]:
    if options.is_answers:
        return answers_of(read_rows(options.model), "question_id", "model_id", "model answers")[0]
    if options.dry_run:
        return {key: {"choices": [{"index": 0, "turns": [UNKNOWN, UNKNOWN]}]} for key in questions}
    turns: dict[Any, list[str]] = {key: [] for key in questions}
    groups: dict[float, list[Any]] = {}
    for key, question in questions.items():
        temperature = mt_bench.TEMPERATURES.get(question["category"], mt_bench.OTHER_TEMPERATURE)
        groups.setdefault(temperature, []).append(key)
    with answering(options) as answer:
        for turn in (1, 2):
            for temperature, keys in groups.items():
                dialogues = [_dialogue(questions[key]["turns"], turns[key]) for key in keys]
                for key, text in zip(keys, answer(dialogues, temperature, f"turn{turn}-t{temperature}"), strict=True):
                    turns[key].append(text)
    return {
        key: {
            "question_id": key,
            "answer_id": f"{options.name}-{key}",
            "model_id": options.name,
            "choices": [{"index": 0, "turns": texts}],
            "tstamp": time.time(),
        }
        for key, texts in turns.items()
    }


def _dialogue(asked: Sequence[str], answered: Sequence[str]) -> list[Message]:
    """What comes before the next answer."""
    made: list[Message] = []
    for question, answer in zip(asked, answered, strict=False):
        made += [*user(question), {"role": "assistant", "content": answer}]
    return [*made, *user(asked[len(answered)])]
