"""RewardBench: --model is itself what is tested.

a preference model's folder     scores every answer (2), both answers of a pair (1)
a file of per-prompt scores     is scored
http://… of a language model    judges in words (2): names the best of four, or with --ratings rates each; Ties
                                are always rated. --prompts is reward-bench's generative_v2.py
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from launch.errors import DataError
from launch.judge import Question, add_metrics
from tasks.benchmarks import official, rewardbench, rewardbench_v1
from tasks.benchmarks.files import Row, index_by, need, read_rows, rows_sha256, write_rows
from tasks.benchmarks.sources import Options, dry, open_judge, open_scorer, user

RANKING_TOKENS, RATING_TOKENS = 2048, 1024
"""How long the official judge's replies may be."""


def run(options: Options) -> dict[str, Any]:
    """Score, and write the two official files of RewardBench 2."""
    if options.is_answers:
        return _score(options, rewardbench.rows_of_scores_file(read_rows(options.model)[0]), {}, "Preference Model")
    rows = read_rows(options.need("questions"))[: options.limit]
    if not rows:
        raise DataError(f"{options.questions} holds no rows; give RewardBench's test split")
    if isinstance(rows[0].get("chosen"), str):
        return _run_v1(options, rows)
    if options.is_server:
        return _generative(options, rows)
    if options.dry_run:
        return {"rows": len(rows), "answers": sum(len(row["chosen"]) + len(row["rejected"]) for row in rows)}
    with open_scorer(options, options.model) as scorer:
        rows = rewardbench.score_rows(rows, scorer)
    return _score(options, rows, {}, "Preference Model")


def _score(options: Options, rows: Sequence[Row], judged: dict[str, Any], kind: str) -> dict[str, Any]:
    result = rewardbench.score(rows)
    if not options.dry_run:
        about = (options.name, kind, "tokenizer")
        for folder, content in (
            ("eval-set", rewardbench.results_file(result, *about)),
            ("eval-set-scores", rewardbench.scores_file(rows, *about)),
        ):
            write_rows(options.out / folder / f"{options.file_name(options.name)}.json", [content])
    digest = {"data_sha256": rows_sha256([_bare(row) for row in rows])}
    return {**result, **judged, "provenance": {**judged.get("provenance", {}), **digest}}


def _run_v1(options: Options, rows: Sequence[Row]) -> dict[str, Any]:
    """RewardBench 1: rows {id, subset, prompt, chosen, rejected}, both answers texts. A pairwise model's preference is
    what counts: the chosen answer's score is S[chosen, rejected], the rejected one's 0."""
    if options.is_server:
        raise DataError("RewardBench 1 is scored by a preference model here; judges in words judge RewardBench 2")
    if options.dry_run:
        return {"rows": len(rows), "answers": 2 * len(rows)}
    scored = []
    with open_scorer(options, options.model) as scorer:
        for number, row in enumerate(rows, 1):
            prompt, *pair = (need(row, key, f"RewardBench row {number}") for key in ("prompt", "chosen", "rejected"))
            S = scorer.score(prompt, pair).S
            scored.append({**row, "scores_chosen": float(S[0, 1]), "scores_rejected": 0.0})
    result = rewardbench_v1.score(scored)
    write_rows(options.out / "eval-set-v1-scores" / f"{options.file_name(options.name)}.json", scored)
    return {**result, "mode": "v1", "provenance": {"data_sha256": rows_sha256(rows)}}


# ---------------------------------------------------------------- judges in words


def _generative(options: Options, rows: Sequence[Row]) -> dict[str, Any]:
    prompts = official.rewardbench_prompts(options.need("prompts"), options.other_prompts)
    keyed = index_by(
        rows, lambda row: tuple(need(row, key, "RewardBench row") for key in ("subset", "id")), "RewardBench"
    )
    rated = {key: options.ratings or str(key[0]).lower() == "ties" for key in keyed}
    ask_best = {key: _ranking(prompts, row, options.seed) for key, row in keyed.items() if not rated[key]}
    ask_rating = {key: _rating(prompts, row) for key, row in keyed.items() if rated[key]}
    ratings = [question for several in ask_rating.values() for question in several]
    if options.dry_run:
        return dry(options, [*ask_best.values(), *ratings], 0)
    with open_judge(options, options.model, options.model_name) as client:
        best = client.ask(list(ask_best.values()), lambda reply: rewardbench.parse_letter(reply.text))
        rating = client.ask(ratings, lambda reply: _read_rating(reply.text))
    named, rates = iter(best.replies), iter(rating.replies)
    scored = []
    for key, row in keyed.items():
        several = [next(rates) for _ in ask_rating[key]] if rated[key] else [next(named)]
        texts = ["" if reply is None else reply.text for reply in several]
        if rated[key]:
            scores = [float(rewardbench.parse_rating(text)) for text in texts]
        else:
            scores = rewardbench.ranked(texts[0], rewardbench.slot(str(row["id"]), options.seed))
        scored.append({**row, "num_correct": len(row["chosen"]), "scores": scores, "judgments": texts})
    write_rows(options.out / "eval-set-judgments" / f"{options.file_name(options.name)}.jsonl", scored)
    told = {**add_metrics(best.metrics, rating.metrics), "mode": "ratings" if options.ratings else "ranking"}
    return _score(options, scored, {**told, "provenance": {"prompt_sha256": prompts.sha256}}, "Generative RM")


def _read_rating(text: str) -> int | None:
    rating = rewardbench.parse_rating(text)
    return None if rating == rewardbench.UNREAD else rating


def _ranking(prompts: official.RewardPrompts, row: Row, seed: int) -> Question:
    answers = [*row["chosen"], *row["rejected"]]
    if len(answers) != len(rewardbench.LETTERS):
        raise DataError(f"RewardBench row {row['id']!r} has {len(answers)} answers, not four; rate them (--ratings)")
    at = rewardbench.slot(str(row["id"]), seed)
    answers[0], answers[at] = answers[at], answers[0]
    filling = {"question": row["prompt"]} | {
        f"answer_{letter.lower()}": text for letter, text in zip(rewardbench.LETTERS, answers, strict=True)
    }
    messages = [{"role": "system", "content": prompts.system}, *user(official.fill(prompts.ranking, filling))]
    return Question(messages, RANKING_TOKENS)  # type: ignore[arg-type]


def _rating(prompts: official.RewardPrompts, row: Row) -> list[Question]:
    template = prompts.ties if str(row["subset"]).lower() == "ties" else prompts.ratings
    return [
        Question(user(official.fill(template, {"prompt": row["prompt"], "completion": text})), RATING_TOKENS)
        for text in [*row["chosen"], *row["rejected"]]
    ]


def _bare(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row without what the model added."""
    return {key: value for key, value in row.items() if key not in ("scores", "S", "results", "judgments")}
