"""Which context to follow on real conflicts: structure and embeddings beside choosers that understand nothing.

    OMP_NUM_THREADS=1 python -m benchmarks.real_conflicts                  RAMDocs and ConflictQA of $ARBITER_DATA
    OMP_NUM_THREADS=1 python -m benchmarks.real_conflicts GOLDEN NEGATIVE  and Faithful-RAG's two files of pairs
    OMP_NUM_THREADS=1 python -m benchmarks.real_conflicts --lengths        the long contexts anew, the sets as they are

No model is trained. Choosers are told what each context answers and pick a context; "resolve, answers not told" finds
the answers too. Each number is a share of questions with its 95 % Wilson interval; semantic accuracy is by text, alias
and all-MiniLM-L6-v2. Nothing of the data is written but these shares. Writes docs/results/real_conflicts.*.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.measure import machine
from benchmarks.real_data import data_root
from reasoning.conflict import Instance, resolve
from reasoning.conflict.balance import balance, place
from reasoning.conflict.baselines import BASELINES, embedding, predict, remembered, structural
from reasoning.conflict.lengthen import SEPARATOR, choose, lengthen, shuffled
from reasoning.conflict.metrics import Prediction, by_minilm, evaluate, judged
from reasoning.conflict.sources import conflictqa, paired, ramdocs
from reasoning.conflict.synthetic import FAULTS, conflict
from tasks.benchmarks.intervals import paired as paired_difference
from tasks.benchmarks.intervals import wilson

Answer = Callable[[Sequence[Instance]], list[Prediction]]

SEED = 0
LENGTHS = (1024, 4096, 16384)
LENGTHS_ALONE = "--lengths"
UNTOLD = "resolve, answers not told"
OUT = Path(__file__).parents[1] / "docs" / "results"
CELLS = Path(".cache") / "arbiter" / "real_conflicts"
"""Finished columns, so that a run that is killed goes on; they are deleted when all are there."""


def main(files: Sequence[str] = (), out: Path = OUT) -> None:
    results: dict[str, Any] = {"sets": {}, "lengths": {}, "machine": machine()}  # with the commit it began with
    if files == [LENGTHS_ALONE]:
        results = json.loads((out / "real_conflicts.json").read_text(encoding="utf-8"))
    else:
        for name, instances in sets(files):
            results["sets"][name] = cell(name, instances, methods())
        results["command"] = "OMP_NUM_THREADS=1 python -m benchmarks.real_conflicts" + " GOLDEN NEGATIVE" * bool(files)
        results["seed"] = SEED
    results["lengths_commit"] = machine()["commit"]
    # Fillers recur from question to question; embedded once each, 16k tokens take minutes and not an hour.
    apart = embedding(remembered(by_minilm), separator=SEPARATOR)
    for tokens, pairs in longer():
        told = {m: a for m, a in methods().items() if m != UNTOLD}
        told["embedding"] = partial(predict, choose=apart)
        results["lengths"][str(tokens)] = cell(f"{tokens} tokens", pairs, told)
    out.mkdir(parents=True, exist_ok=True)
    (out / "real_conflicts.json").write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    (out / "real_conflicts.md").write_text(page(results), encoding="utf-8")
    shutil.rmtree(CELLS)


def cell(name: str, instances: Callable[[], list[Instance]], answers: dict[str, Answer]) -> dict[str, Any]:
    """`measured` of one column, computed once."""
    file = CELLS / f"{name}.json"
    if not file.exists():
        found = measured(instances(), answers)
        print(name, {method: round(row["semantic"]["value"], 3) for method, row in found.items()}, flush=True)
        CELLS.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(found), encoding="utf-8")
    row: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return row


# ---------------------------------------------------------------- questions


def sets(files: Sequence[str]) -> Iterator[tuple[str, Callable[[], list[Instance]]]]:
    """Name and how to read it; in pairs the true context stands first and second equally often."""
    yield "planted faults", lambda: [conflict(h, f, s) for f in FAULTS for h in (2, 3, 4) for s in range(30)]
    yield "RAMDocs, all documents", misinformed
    yield "RAMDocs, one against one", one_against_one
    yield "ConflictQA gpt4", lambda: balanced("gpt4")
    yield "ConflictQA chatgpt", lambda: balanced("chatgpt")
    if files:
        yield "MuSiQue pairs", lambda: place(list(paired(*files)), SEED)


def balanced(model: str) -> list[Instance]:
    """ConflictQA's rows for one model, as many of each gold answer, side of the memory and longer side."""
    return place(balance(conflictqa(_file(f"conflictqa/strategyqa_{model}")), seed=SEED), SEED)


def misinformed() -> list[Instance]:
    """RAMDocs' questions with at least one document of misinformation and one that is right, documents shuffled.

    In the file the right ones come first: of its order, the first document is right in 99 % of these questions.
    """
    found = (shuffled(i, SEED) for i in ramdocs(_file("ramdocs/RAMDocs_test")))
    return [i for i in found if {"misinfo", "correct"} <= {c.source for c in i.contexts}]


def one_against_one() -> list[Instance]:
    """One right document and one of misinformation of each question."""
    return place([pair for i in misinformed() if (pair := choose(i, 2, SEED)) is not None], SEED)


def longer() -> Iterator[tuple[int, Callable[[], list[Instance]]]]:
    """The pairs of RAMDocs, each context filled to a length with documents of other questions."""

    def filled(tokens: int) -> list[Instance]:
        fillers = list(dict.fromkeys(c.text for i in ramdocs(_file("ramdocs/RAMDocs_test")) for c in i.contexts))
        return place([lengthen(pair, fillers, tokens, SEED) for pair in one_against_one()], SEED)

    for tokens in LENGTHS:
        yield tokens, partial(filled, tokens)


def _file(name: str) -> Path:
    return data_root() / "conflict" / f"{name}.jsonl.gz"


# ---------------------------------------------------------------- answers


def methods() -> dict[str, Answer]:
    """What answers a list of instances."""
    choosers = {**BASELINES, "embedding": embedding(by_minilm), "structural": structural}
    told: dict[str, Answer] = {name: lambda known, c=c: predict(known, c) for name, c in choosers.items()}  # type: ignore[misc]
    return {**told, UNTOLD: untold}


def untold(instances: Sequence[Instance]) -> list[Prediction]:
    """`resolve` as a user calls it who knows no answer."""
    found = (resolve(i.question, [c.text for c in i.contexts]) for i in instances)
    return [Prediction(r["answer"], r["followed"]) for r in found]


def measured(instances: Sequence[Instance], answers: dict[str, Answer]) -> dict[str, dict[str, Any]]:
    """All metrics of every method, and of each its difference to BM25 in semantic accuracy, question by question."""
    predictions = {name: answer(instances) for name, answer in answers.items()}
    right = {name: [row["semantic"] for row in judged(instances, told)] for name, told in predictions.items()}
    rows = {}
    for name, told in predictions.items():
        report = evaluate(instances, told)
        rows[name] = {key: estimate.to_dict() for key, estimate in report.items()}
        rows[name]["over_bm25"] = paired_difference(right[name], right["bm25"], seed=SEED).to_dict()
    rows["coin"] = {"semantic": wilson(chance(instances), len(instances)).to_dict()}
    return rows


def chance(instances: Sequence[Instance]) -> float:
    """Right answers to expect of a context drawn among those that answer."""
    total = 0.0
    for instance in instances:
        answering = Counter(c.true for c in instance.contexts if c.answer.strip())
        total += answering[True] / answering.total()
    return total


# ---------------------------------------------------------------- the page


def page(results: dict[str, Any]) -> str:
    """The results as Markdown."""
    sets, machine = results["sets"], results["machine"]
    lines = [
        "# Which context to follow on real conflicts",
        "",
        "Nothing is trained here. All but the row that says so are told what each context answers and choose one:",
        "shares of right answers in per cent, with 95 % Wilson intervals. `coin` is what a context drawn at random is",
        "expected to give. ConflictQA is balanced by gold answer, by which side is the model's memory, and by length.",
        "What the rows mean is said in [the guide](../conflict.md).",
        "",
        f"`{results['command']}` ({machine['cores']} cores, torch {machine['torch']}, commit {machine['commit']};",
        f"draws of contexts and fillers with seed {results['seed']}).",
        "",
        "## Right answers",
        "",
        *_table(sets, lambda row: _cell(row["semantic"])),
        "",
        "## Wrong candidates given as the answer",
        "",
        *_table(sets, lambda row: _cell(row.get("conflict_error"))),
        "",
        "## Difference to BM25, question by question, in points",
        "",
        *_table(sets, lambda row: _difference(row.get("over_bm25"))),
        "",
        "## Right answers by length: RAMDocs, one against one, contexts filled to so many tokens",
        "",
        f"Commit {results['lengths_commit']}. `embedding` keeps passages apart here, so that each is embedded once.",
        "",
        *_table(results["lengths"], lambda row: _cell(row["semantic"])),
    ]
    return "\n".join(lines) + "\n"


def _table(columns: dict[str, Any], cell: Callable[[dict[str, Any]], str]) -> list[str]:
    names = list(dict.fromkeys(name for rows in columns.values() for name in rows))
    counts = [str(next(iter(rows.values()))["semantic"]["n"]) for rows in columns.values()]
    return [
        "| | " + " | ".join(columns) + " |",
        "|---" * (len(columns) + 1) + "|",
        "| questions | " + " | ".join(counts) + " |",
        *(
            f"| {name} | " + " | ".join(cell(rows[name]) if name in rows else "–" for rows in columns.values()) + " |"
            for name in names
        ),
    ]


def _cell(found: dict[str, Any] | None) -> str:
    return "–" if found is None else f"{100 * found['value']:.1f} ({100 * found['low']:.1f}–{100 * found['high']:.1f})"


def _difference(found: dict[str, Any] | None) -> str:
    if found is None:
        return "–"
    return f"{100 * found['difference']:+.1f} ({100 * found['low']:+.1f} to {100 * found['high']:+.1f})"


if __name__ == "__main__":
    main(sys.argv[1:])
