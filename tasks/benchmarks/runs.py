"""One evaluation from answers to score: answer, judge, score, and write the official files at every step.

Each function returns the numbers that ``scores.json`` holds and what they rest on (``provenance``). With a dry run it
returns what would be asked for, and asks for nothing.
"""

from __future__ import annotations

import math
import re
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from launch.contracts import Message
from launch.errors import ConfigError, DataError
from launch.judge import Question, Reply, plan
from tasks.benchmarks import alpaca_eval, arena_hard, mt_bench, official, rewardbench
from tasks.benchmarks.files import Row, index_by, need, read_rows, rows_sha256, write_rows
from tasks.benchmarks.sources import Options, generate, judge_cache, open_judge, open_scorer

TOP = 5
"""Likeliest tokens that AlpacaEval's judge returns; a name that is not among them counts as impossible."""
UNKNOWN = "x" * 1200
"""Stands for an answer not yet generated where a dry run counts tokens (about 300)."""


# ---------------------------------------------------------------- RewardBench


def run_rewardbench(options: Options) -> dict[str, Any]:
    """--model is a preference model's folder, or an official file of per-prompt scores."""
    if options.is_answers:
        rows = rewardbench.rows_of_scores_file(read_rows(options.model)[0])
    else:
        rows = read_rows(options.need("questions"))[: options.limit]
        if options.dry_run:
            return {"rows": len(rows), "answers": sum(len(row["chosen"]) + len(row["rejected"]) for row in rows)}
        rows = rewardbench.score_rows(rows, open_scorer(options.model))
    result = rewardbench.score(rows)
    if not options.dry_run:
        about = (options.name, "Preference Model", "tokenizer")
        for folder, content in (
            ("eval-set", rewardbench.results_file(result, *about)),
            ("eval-set-scores", rewardbench.scores_file(rows, *about)),
        ):
            write_rows(options.out / folder / f"{options.name}.json", [content])
    return {**result, "provenance": {"data_sha256": rows_sha256([_bare(row) for row in rows])}}


# ---------------------------------------------------------------- AlpacaEval


def run_alpaca_eval(options: Options) -> dict[str, Any]:
    """--baseline holds the reference's answers; its instructions are the questions."""
    reference = read_rows(options.need("baseline"))
    for number, row in enumerate(reference, 1):
        need(row, "instruction", f"{options.baseline} row {number}")
    reference = reference[: options.limit]
    preferring = options.judge is not None and not options.asks
    template, digest = ("", "") if preferring else official.alpaca_template(options.prompts, options.other_prompts)
    outputs = _alpaca_outputs(options, reference)
    pairs = alpaca_eval.pair_up(reference, outputs, allow_missing=options.limit is not None)
    unequal = [pair for pair in pairs if pair["output_1"] != pair["output_2"]]
    asked = [Question(alpaca_eval.judge_messages(template, p), 1, 1.0, TOP) for p in unequal] if template else []
    if options.dry_run:
        return _dry(options, asked, 0 if options.is_answers else len(reference))
    metrics: dict[str, float] = {}
    found: dict[int, tuple[float, Any]] = {pair["index"]: (1.5, None) for pair in pairs}
    if preferring:
        judge, scorer = str(options.judge), open_scorer(str(options.judge))
        for pair in unequal:
            P = scorer.score(pair["instruction"], [pair["output_1"], pair["output_2"]]).P
            found[pair["index"]] = (1 + float(P[1][0]), None)
    else:
        with open_judge(options) as client:
            judge = client.model
            swapped = iter([alpaca_eval.is_swapped(pair["instruction"]) for pair in unequal])
            judged = client.ask(asked, _first_name)
            metrics = judged.metrics
            for pair, turned, reply in zip(unequal, swapped, judged.replies, strict=True):
                value = alpaca_eval.preference(reply.top_logprobs[:TOP], turned) if reply else math.nan
                found[pair["index"]] = (value, reply.choice if reply else None)
    rows = [alpaca_eval.annotation_row(pair, judge, *found[pair["index"]]) for pair in pairs]
    write_rows(options.out / "results" / options.name / judge.replace("/", "_") / "annotations.json", rows)
    if options.asks:
        _alpaca_configs(options, judge)
    return {
        **_alpaca_score(options, rows),
        **metrics,
        "provenance": {"judge": judge, "prompt_sha256": digest, "data_sha256": rows_sha256(pairs)},
    }


def _first_name(reply: Reply) -> float | None:
    """Whether a reply names a model; the order is undone where the pair is known."""
    value = alpaca_eval.preference(reply.top_logprobs[:TOP], False)
    return None if math.isnan(value) else value


def _alpaca_outputs(options: Options, reference: Sequence[Row]) -> list[dict[str, Any]]:
    if options.is_answers:
        outputs = read_rows(options.model)
        wanted = {row["instruction"] for row in reference}
        return [row for row in outputs if row.get("instruction") in wanted] if options.limit else outputs
    dialogues = [_user(row["instruction"]) for row in reference]
    if options.dry_run:
        answers = [UNKNOWN] * len(dialogues)
    else:
        answers = generate(options, dialogues, options.temperature, "turn1")
    outputs = [
        {
            "dataset": row.get("dataset", ""),
            "instruction": row["instruction"],
            "output": answer,
            "generator": options.name,
        }
        for row, answer in zip(reference, answers, strict=True)
    ]
    if not options.dry_run:
        write_rows(options.out / "results" / options.name / "model_outputs.json", outputs)
    return outputs


def _alpaca_score(options: Options, rows: Sequence[Row]) -> dict[str, Any]:
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


def _alpaca_configs(options: Options, judge: str) -> None:
    """What the official package needs to call our judge: a client config, and an annotator like the official one."""
    import yaml

    folder = options.out / "official"
    (folder / "annotator").mkdir(parents=True, exist_ok=True)
    url = str(options.judge).rstrip("/").removesuffix("/v1") + "/v1"
    key = f"${{{options.api_key_env}}}" if options.api_key_env else "none"
    client = {"default": [{"client_class": "openai.OpenAI", "base_url": url, "api_key": key}]}
    (folder / "openai_configs.yaml").write_text(yaml.safe_dump(client, sort_keys=False), encoding="utf-8")
    sampling = {"model_name": judge, "max_tokens": 1, "temperature": 1, "logprobs": True, "top_logprobs": 5}
    parser = {"numerator_token": "m", "denominator_tokens": ["m", "M"], "is_binarize": False}
    annotator = {
        "prompt_template": "alpaca_eval_clf_gpt4_turbo/alpaca_eval_clf.txt",
        "fn_completions": "openai_completions",
        "completions_kwargs": sampling,
        "fn_completion_parser": "logprob_parser",
        "completion_parser_kwargs": parser,
        "completion_key": "completions_all",
        "batch_size": 1,
    }
    text = yaml.safe_dump({f"weighted_{judge.replace('/', '_')}": annotator}, sort_keys=False)
    (folder / "annotator" / "configs.yaml").write_text(text, encoding="utf-8")


# ---------------------------------------------------------------- Arena-Hard


def run_arena_hard(options: Options) -> dict[str, Any]:
    """v2.0 rules, also for v0.1's questions (a category there). --prompts is a checkout of arena-hard-auto."""
    prompts = official.arena_prompts(options.need("prompts"), options.other_prompts)
    questions = index_by(read_rows(options.need("questions"))[: options.limit], "uid", "questions")
    theirs = index_by(read_rows(options.need("baseline")), "uid", "baseline answers")
    baseline = str(next(iter(theirs.values()))["model"]) if theirs else ""
    mine = _arena_answers(options, questions)
    if lacking := [uid for uid in questions if uid not in mine or uid not in theirs]:
        raise DataError(
            f"question {lacking[0]} and {len(lacking) - 1} others lack an answer of the model or the baseline"
        )
    asked = []
    for uid, question in questions.items():
        category = str(question["category"])
        if category not in prompts.system:
            raise DataError(f"question {uid}: no judge prompt for category {category!r}; use official questions")
        a, b = _arena_text(theirs[uid]), _arena_text(mine[uid])
        for first, second in ((a, b), (b, a)):
            filling = {"QUESTION": question["prompt"], "ANSWER_A": first, "ANSWER_B": second}
            text = re.sub(r"\{(QUESTION|ANSWER_A|ANSWER_B)\}", _filler(filling), prompts.template)
            asked.append(Question([{"role": "system", "content": prompts.system[category]}, *_user(text)], 16000))
    if options.dry_run:
        return _dry(options, asked, 0 if options.is_answers else len(questions))
    with open_judge(options) as client:
        judge, judged = client.model, client.ask(asked, lambda reply: arena_hard.verdict_v2(reply.text))
    rows = []
    for number, (uid, question) in enumerate(questions.items()):
        games = []
        for place in (2 * number, 2 * number + 1):
            reply = judged.replies[place]
            prompt = list(asked[place].messages)
            told = {"answer": reply.text} if reply else None
            games.append({"score": judged.verdicts[place], "judgment": told, "prompt": prompt} if reply else None)
        about = {"uid": uid, "category": question["category"], "judge": judge, "model": options.name}
        rows.append({**about, "baseline": baseline, "games": games})
    folder = options.out / "model_judgment" / judge.replace("/", "_")
    write_rows(folder / f"{options.name}.jsonl", rows)
    boards = {}
    for category in sorted({str(row["category"]) for row in rows}):
        boards[category] = arena_hard.score(rows, "v2.0", category, baseline, seed=options.seed + 42)
    return {
        "boards": boards,
        **judged.metrics,
        "provenance": {
            "judge": judge,
            "prompt_sha256": prompts.sha256,
            "data_sha256": rows_sha256(list(mine.values())),
        },
    }


def _arena_answers(options: Options, questions: Mapping[str, Row]) -> Mapping[str, Row]:
    if options.is_answers:
        return index_by(read_rows(options.model), "uid", "model answers")
    dialogues = [_user(question["prompt"]) for question in questions.values()]
    if options.dry_run:
        texts = [UNKNOWN] * len(dialogues)
    else:
        texts = generate(options, dialogues, options.temperature, "turn1")
    rows: list[dict[str, Any]] = [
        {
            "uid": uid,
            "ans_id": f"{options.name}-{uid}",
            "model": options.name,
            "messages": [*_user(question["prompt"]), {"role": "assistant", "content": {"answer": text}}],
            "tstamp": time.time(),
        }
        for (uid, question), text in zip(questions.items(), texts, strict=True)
    ]
    if not options.dry_run:
        write_rows(options.out / "model_answer" / f"{options.name}.jsonl", rows)
    return {row["uid"]: row for row in rows}


def _arena_text(row: Row) -> str:
    return str(row["messages"][-1]["content"]["answer"])


# ---------------------------------------------------------------- MT-Bench


def run_mt_bench(options: Options) -> dict[str, Any]:
    """Single-answer grading. --questions, --references and --prompts are FastChat's files."""
    prompts, digest = official.mt_bench_prompts(options.need("prompts"), options.other_prompts)
    questions = index_by(read_rows(options.need("questions"))[: options.limit], "question_id", "questions")
    references = index_by(read_rows(options.need("references")), "question_id", "references")
    answers = _mt_answers(options, questions)
    places, asked, names = [], [], []
    for turn in (1, 2):
        for key, question in questions.items():
            if key not in answers:
                raise DataError(f"question {key}: the model has no answer; answer all questions")
            reference = references[key]["choices"][0]["turns"] if key in references else None
            turns = answers[key]["choices"][0]["turns"]
            name, messages = mt_bench.judge_messages(prompts, question, turns, turn, reference)
            places.append((key, turn))
            names.append(name)
            asked.append(Question(messages, 2048))
    if options.dry_run:
        return _dry(options, asked, 0 if options.is_answers else 2 * len(questions))
    with open_judge(options) as client:
        judge, judged = client.model, client.ask(asked, _grade)
    rows = []
    for (key, turn), name, question_, verdict, reply in zip(
        places, names, asked, judged.verdicts, judged.replies, strict=True
    ):
        rows.append(
            {
                "question_id": key,
                "model": options.name,
                "judge": [judge, name],
                "user_prompt": question_.messages[-1]["content"],
                "judgment": reply.text if reply else "$ERROR$",
                "score": mt_bench.FAILED if verdict is None else verdict,
                "turn": turn,
                "tstamp": time.time(),
            }
        )
    write_rows(options.out / "model_judgment" / f"{judge.replace('/', '_')}_single.jsonl", rows)
    return {
        "table": mt_bench.score(rows, list(questions.values()), seed=options.seed),
        **judged.metrics,
        "provenance": {"judge": judge, "prompt_sha256": digest, "data_sha256": rows_sha256(list(answers.values()))},
    }


def _grade(reply: Reply) -> float | None:
    grade = mt_bench.parse_grade(reply.text)
    return grade if 0 <= grade <= 10 else None


def _mt_answers(options: Options, questions: Mapping[Any, Row]) -> Mapping[Any, Row]:
    if options.is_answers:
        return index_by(read_rows(options.model), "question_id", "model answers")
    if options.dry_run:
        return {key: {"choices": [{"index": 0, "turns": [UNKNOWN, UNKNOWN]}]} for key in questions}
    turns: dict[Any, list[str]] = {key: [] for key in questions}
    for turn in (0, 1):
        for temperature in sorted(set(mt_bench.TEMPERATURES.values())):
            keys = [key for key, q in questions.items() if mt_bench.TEMPERATURES[q["category"]] == temperature]
            dialogues = []
            for key in keys:
                asked = questions[key]["turns"]
                before: list[Message] = []
                if turn:
                    before = [*_user(asked[0]), {"role": "assistant", "content": turns[key][0]}]
                dialogues.append([*before, *_user(asked[turn])])
            if keys:
                texts = generate(options, dialogues, temperature, f"turn{turn + 1}-t{temperature}")
                for key, text in zip(keys, texts, strict=True):
                    turns[key].append(text)
    rows: list[dict[str, Any]] = [
        {
            "question_id": key,
            "answer_id": f"{options.name}-{key}",
            "model_id": options.name,
            "choices": [{"index": 0, "turns": texts}],
            "tstamp": time.time(),
        }
        for key, texts in turns.items()
    ]
    write_rows(options.out / "model_answer" / f"{options.name}.jsonl", rows)
    return {row["question_id"]: row for row in rows}


# ---------------------------------------------------------------- all


RUNS: dict[str, Callable[[Options], dict[str, Any]]] = {
    "rewardbench": run_rewardbench,
    "alpaca_eval": run_alpaca_eval,
    "arena_hard": run_arena_hard,
    "mt_bench": run_mt_bench,
}


def run(options: Options) -> dict[str, Any]:
    """Run a benchmark; writes ``out/scores.json`` unless dry."""
    if options.bench != "rewardbench" and options.judge is None and not options.dry_run:
        raise ConfigError(f"arbiter eval {options.bench} needs --judge", field="judge")
    result = RUNS[options.bench](options)
    if not options.dry_run:
        write_rows(options.out / "scores.json", [{"bench": options.bench, "model": options.name, **result}])
    return result


def _dry(options: Options, asked: Sequence[Question], answers: int) -> dict[str, Any]:
    """Calls, tokens and cost. The judge's name is asked of no server, so give --judge-model to see what is cached."""
    what = plan(asked, options.judge_model or "", judge_cache(options), prices=options.prices)
    generation = {"answers": answers, "tokens_at_most": answers * options.max_tokens}
    return {"generation": generation, "judge": vars(what), "summary": f"generate {answers} answers; judge: {what}"}


def _user(text: str) -> list[Message]:
    return [{"role": "user", "content": text}]


def _filler(filling: Mapping[str, str]) -> Callable[[re.Match[str]], str]:
    """Fills all places in one pass, so that a place written inside an answer stays text."""
    return lambda found: filling[found.group(1)]


def _bare(row: Row) -> dict[str, Any]:
    """A row without what the model added."""
    return {key: value for key, value in row.items() if key not in ("scores", "S", "results")}
