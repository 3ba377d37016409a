"""Adapters from real preference sets to Arbiter's groups (see align.preference.data) and Judged rows.

The files are read where they are: $ARBITER_DATA, by default ../shared/data beside the repository. Nothing is copied.
Where a set fits one of the loader's layouts, its rows are renamed and go through the loader, so that its checks are
checked on real input. PandaLM and the Vicuna bench are tournaments between *models*: their nodes are models, and two
models may have given the same text.
"""

from __future__ import annotations

import csv
import os
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from align.preference.files import read_rows
from align.preference.formats import Judged, Reading, Vote, parse
from launch.errors import DataError

PANDALM_JUDGES = ("annotator_1", "annotator_2", "annotator_3", "gpt35", "pandalm7b")
HUMANS = PANDALM_JUDGES[:3]


def data_root() -> Path:
    """Folder of the real data. Raises DataError if it is not there."""
    root = Path(os.environ.get("ARBITER_DATA") or Path(__file__).parents[2] / "shared" / "data")
    if not root.is_dir():
        raise DataError(f"{root}: no such folder; set ARBITER_DATA to where the real data are")
    return root


def preference_file(name: str) -> str:
    return str(data_root() / "preference" / name)


def parsed(rows: Iterable[tuple[str, dict[str, Any]]], format: str, skipped: Counter | None = None) -> list[Judged]:
    """Parse rows of one layout; bad ones are left out and counted by what is wrong with them."""
    kept = []
    for source, row in rows:
        try:
            kept.append(parse(row, format, Reading(), source))
        except DataError as error:
            if skipped is not None:
                skipped[str(error).removeprefix(f"{source}: ").split(";")[0]] += 1
    return kept


def arena() -> list[Judged]:
    """302 arena prompts, up to 16 models' answers, GPT-4 scores 1-10. Empty and repeated answers are left out."""
    questions = {
        row["question_id"]: row["question"]
        for _, row in read_rows(preference_file("arena_bench_v1/questions.jsonl.gz"))
    }
    answers: dict[str, dict[str, float]] = defaultdict(dict)
    for _, row in read_rows(preference_file("arena_bench_v1/answers_scored.jsonl.gz")):
        if row["answer"].strip():
            answers[row["question_id"]].setdefault(row["answer"], row["score"])
    rows = (
        (f"arena_bench_v1:{key}", {"prompt": questions[key], "responses": [*scored], "scores": [*scored.values()]})
        for key, scored in answers.items()
    )
    return parsed(rows, "scores")


def hh_rlhf() -> list[Judged]:
    """2,312 pairs of dialogues that share all but the last turn; four with an empty answer are left out."""
    return parsed(read_rows(preference_file("hh_rlhf/harmless_base_test.jsonl.gz")), "preference")


def auto_j() -> list[Judged]:
    """1,392 pairs over 58 scenarios, labelled by people, with ties."""
    return parsed(_auto_j_rows(), "labelled")


def _auto_j_rows() -> Iterator[tuple[str, dict[str, Any]]]:
    for source, row in read_rows(preference_file("auto_j/testdata_pairwise.jsonl.gz")):
        yield (
            source,
            {
                "prompt": row["prompt"],
                "response_1": row["response 1"],
                "response_2": row["response 2"],
                "label": {0: 1, 1: 2, 2: 0}[row["label"]],
            },
        )


def llmbar() -> dict[str, list[Judged]]:
    """1,200 pairs with a gold label, by subset."""
    subsets: dict[str, list] = defaultdict(list)
    for source, row in read_rows(preference_file("llmbar/llmbar_pairs.jsonl.gz")):
        named = {"prompt": row["input"], "response_1": row["output_1"], "response_2": row["output_2"]}
        subsets[row["subset"]].append((source, {**named, "label": row["label"]}))
    return {name: parsed(rows, "labelled") for name, rows in subsets.items()}


def pandalm() -> list[Judged]:
    """164 prompts; nodes are models, votes by three people and two model judges. Six prompts whose models have more
    than one text are left out. Empty answers stay: they were judged, and the counts of cycles include them."""
    kept = []
    for models, texts, rows in _pandalm_prompts():
        votes = []
        for _, row in rows:
            i, j = models.index(row["model_1"]), models.index(row["model_2"])
            for judge in PANDALM_JUDGES:
                if row[judge] is not None:
                    winner, loser = (j, i) if row[judge] == 2 else (i, j)
                    votes.append(Vote(winner, loser, tie=row[judge] == 0, annotator=judge))
        source, row = rows[0]
        prompt = "\n\n".join(part for part in (row["instruction"], row["input"]) if part)
        # One row holds the JSON value true where two models answered "true".
        kept.append(Judged(prompt, [str(texts[model]) for model in models], votes, source))
    return kept


def pandalm_shown_first() -> list[dict[frozenset[int], int]]:
    """For every prompt of `pandalm`, which node of a judged pair was shown first."""
    return [
        {
            frozenset((models.index(row["model_1"]), models.index(row["model_2"]))): models.index(row["model_1"])
            for _, row in rows
        }
        for models, _, rows in _pandalm_prompts()
    ]


def _pandalm_prompts() -> Iterator[tuple[list[str], dict[str, Any], list[tuple[str, dict[str, Any]]]]]:
    """(models in order, text of each, judged rows) of the prompts whose models have one text each."""
    prompts: dict[int, list] = defaultdict(list)
    for source, row in read_rows(preference_file("pandalm/pandalm_testset.jsonl.gz")):
        prompts[row["prompt_id"]].append((source, row))
    for rows in prompts.values():
        texts: dict[str, set] = defaultdict(set)
        for _, row in rows:
            for side in "12":
                texts[row[f"model_{side}"]].add(row[f"response_{side}"])
        if all(len(found) == 1 for found in texts.values()):
            yield sorted(texts), {model: next(iter(found)) for model, found in texts.items()}, rows


def vicuna_bench(judge: str = "gpt-4") -> list[Judged]:
    """80 prompts; nodes are models, votes of one judge with both orders of showing (its mean score decides)."""
    questions = {
        str(row["question_id"]): row["question"]
        for _, row in read_rows(preference_file("vicuna_bench/questions.jsonl"))
    }
    texts = {
        (str(row["question_id"]), row["model"]): row["answer"]
        for _, row in read_rows(preference_file("vicuna_bench/answers.jsonl.gz"))
    }
    votes: dict[str, list[tuple[str, str, float]]] = defaultdict(list)
    path = Path(preference_file("vicuna_bench/pair_votes.csv"))
    with path.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            if row["judge"] == judge and row["model_1"] != row["model_2"]:
                difference = float(row["score_1"]) - float(row["score_2"])
                votes[row["question_id"]].append((row["model_1"], row["model_2"], difference))
    groups = []
    for question, found in votes.items():
        models = sorted({model for first, second, _ in found for model in (first, second)})
        balance: dict[tuple[int, int], float] = defaultdict(float)
        for first, second, difference in found:
            i, j = models.index(first), models.index(second)
            balance[min(i, j), max(i, j)] += difference if i < j else -difference
        judged = [Vote(i, j, tie=not d) if d >= 0 else Vote(j, i) for (i, j), d in balance.items()]
        groups.append(
            Judged(questions[question], [texts[question, m] for m in models], judged, f"{path}:question {question}")
        )
    return groups


def stories(count: int | None = None) -> list[str]:
    """The first `count` of 1,000 TinyStories, with one newline between paragraphs, as stories260K writes them."""
    rows = read_rows(str(data_root() / "lm" / "corpora" / "tinystories_1000.jsonl.gz"))
    texts = (row["text"] for _, (_, row) in zip(range(count or 1000), rows, strict=False))
    return [text.replace("\n\n", "\n") for text in texts]
