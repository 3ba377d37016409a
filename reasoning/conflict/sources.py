"""Conflicts from published data, read one row at a time: ConflictQA, RAMDocs, Faithful-RAG pairs, StrategyQA chains.

Readers are generators: memory does not grow with the number of rows. What a reader leaves out, and why, is counted in
`skipped` if a Counter is passed.

| reader | file | one instance |
|---|---|---|
| `conflictqa` | ConflictQA-strategyQA, JSON lines | generated evidence for True against generated evidence for False |
| `ramdocs` | RAMDocs_test, JSON lines | all documents of a question: correct, misinformation, noise |
| `paired` | Faithful-RAG *_golden and *_negative, JSON lists | gold against counterfactual passage, joined on the id |
| `strategyqa` | StrategyQA train/dev, a JSON list | facts and decomposition of a yes/no question (`Chain`) |

ConflictQA does not say which side is right, and its *aligned* evidence betrays it by style (short human facts stand on
the right side), so the two generated memories are paired. A side is False if it alone carries a negation; rows where
both or neither do are decided by the human facts, if `facts` is given, else left out.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from launch.errors import DataError
from launch.jsonlines import rows
from reasoning.conflict.instance import Context, Instance, build_instance
from reasoning.conflict.text import answer_matches, contains, negates, normalise, words

Count = Counter[str] | None


def items(path: str | Path) -> list[dict[str, Any]]:
    """The objects of a file that is one JSON list."""
    path = Path(path)
    if not path.is_file():
        raise DataError(f"no file {path}; give the path of a JSON list")
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise DataError(f"{path}: not JSON ({error})") from error
    if not isinstance(found, list) or not all(isinstance(item, dict) for item in found):
        raise DataError(f"{path}: not a list of objects")
    return found


def conflictqa(
    path: str | Path, facts: Mapping[str, Sequence[str]] | None = None, skipped: Count = None
) -> Iterator[Instance]:
    """One True/False instance per usable row: the memory's context first, then the counter's.

    `meta` holds memory_right (bool), popularity, and in "claims" the sentence that each side claims, by its source.
    Always trusting the memory is right in 70 to 75 % of rows: balance with `balance.SHORTCUTS` before training.

    Args:
        facts: question to human facts (`strategyqa`), for rows whose negations do not decide.
    """
    for number, row in rows(path):
        where = f"{path}, line {number}"
        question, truth = _text(row, "question", where), _truth(row, where)
        memory, counter = _text(row, "memory_answer", where), _text(row, "counter_answer", where)
        evidence = _text(row, "parametric_memory", where), _text(row, "counter_memory", where)
        if not all(e.strip() for e in evidence):
            _count(skipped, "empty evidence")
            continue
        memory_right = _decide(memory, counter, truth)
        if memory_right is None and facts:
            memory_right = _by_facts(row, facts.get(question, ()))
        if memory_right is None:
            _count(skipped, "undecided")
            continue
        sides = zip(evidence, (memory_right, not memory_right), ("memory", "counter"), strict=True)
        contexts = [
            Context(text, str(truth if right else not truth), right, source=name) for text, right, name in sides
        ]
        meta = {
            "memory_right": memory_right,
            "popularity": row.get("popularity", 0),
            "claims": {"memory": memory, "counter": counter},
        }
        yield build_instance(
            question, contexts, [str(truth)], id=f"conflictqa-{number}", source="conflictqa", meta=meta
        )


def _decide(memory: str, counter: str, truth: bool) -> bool | None:
    """Whether the memory's answer is right, if exactly one of the two is negated; the negated one says False."""
    memory_negated, counter_negated = negates(words(memory)), negates(words(counter))
    if memory_negated == counter_negated:
        return None
    return memory_negated != truth


def _by_facts(row: Mapping[str, Any], facts: Sequence[str]) -> bool | None:
    """Whether the human facts stand in the memory's aligned evidence or in the counter's."""
    found = [
        sum(contains(normalise(str(row.get(key, ""))).split(), normalise(fact).split()) >= 0 for fact in facts)
        for key in ("parametric_memory_aligned_evidence", "counter_memory_aligned_evidence")
    ]
    return None if found[0] == found[1] else found[0] > found[1]


def ramdocs(path: str | Path, skipped: Count = None) -> Iterator[Instance]:
    """One instance per question with all its documents, in their order; noise supports no answer.

    A question may have several gold answers, each right for another entity of the same name.
    """
    for number, row in rows(path):
        where = f"{path}, line {number}"
        contexts = [
            Context(
                _text(d, "text", where),
                "" if d.get("type") == "noise" else str(d.get("answer", "")),
                d.get("type") == "correct",
                source=str(d.get("type", "")),
            )
            for d in row.get("documents", ())
        ]
        if not contexts:
            _count(skipped, "no document")
            continue
        gold, wrong = [str(a) for a in row["gold_answers"]], [str(a) for a in row.get("wrong_answers", ())]
        meta = {"entities": row.get("disambig_entity", [])}
        yield build_instance(
            _text(row, "question", where), contexts, gold, wrong, id=f"ramdocs-{number}", source="ramdocs", meta=meta
        )


def paired(
    golden: str | Path, negative: str | Path, skipped: Count = None, keep_leaks: bool = False
) -> Iterator[Instance]:
    """Gold and counterfactual passage of the same question, gold first.

    Left out unless `keep_leaks`: pairs whose counterfactual answer is not in its own passage, and pairs whose gold
    answer stands in the counterfactual passage.

    Raises:
        DataError: the two files do not hold the same ids, or a pair has the same answer twice.
    """
    gold_rows = {str(row["id"]): row for row in items(golden)}
    bad_rows = {str(row["id"]): row for row in items(negative)}
    alone = gold_rows.keys() ^ bad_rows.keys()
    if alone:
        raise DataError(f"{len(alone)} ids are in only one of {golden} and {negative}, e.g. {min(alone)!r}")
    for name, gold in gold_rows.items():
        bad = bad_rows[name]
        right, wrong = gold["answer"].strip(), bad["answer"].strip()
        if normalise(right) == normalise(wrong):
            raise DataError(f"{negative}: {name!r} has the gold answer {right!r}; a pair needs two answers")
        said = normalise(bad["context"]).split()
        if contains(said, normalise(wrong).split()) < 0 and not keep_leaks:
            _count(skipped, "counterfactual answer not in its passage")
            continue
        if contains(said, normalise(right).split()) >= 0 and not keep_leaks:
            _count(skipped, "gold answer in the counterfactual passage")
            continue
        contexts = [
            Context(gold["context"].strip(), right, True, source="gold"),
            Context(bad["context"].strip(), wrong, False, source="counterfactual"),
        ]
        others = [c.strip() for c in gold.get("choices", ()) if not answer_matches(c, [right])]
        yield build_instance(
            gold["question"], contexts, [right], id=name, source="paired", meta={"options": [right, *others]}
        )


@dataclass(frozen=True)
class Chain:
    """A yes/no question with the facts that decide it and the questions that lead there."""

    question: str
    answer: bool
    facts: tuple[str, ...]
    steps: tuple[str, ...]
    id: str = ""


def strategyqa(path: str | Path) -> Iterator[Chain]:
    """Human reasoning chains of StrategyQA; ``{c.question: c.facts for c in strategyqa(path)}`` joins ConflictQA."""
    for number, row in enumerate(items(path)):
        where = f"{path}, item {number}"
        if not isinstance(row.get("answer"), bool):
            raise DataError(f"{where}: answer {row.get('answer')!r} is not true or false")
        yield Chain(
            _text(row, "question", where),
            row["answer"],
            tuple(row.get("facts", ())),
            tuple(row.get("decomposition", ())),
            str(row.get("qid", "")),
        )


def _text(row: Mapping[str, Any], key: str, where: str) -> str:
    value = row.get(key)
    if not isinstance(value, str):
        raise DataError(f"{where}: {key!r} is {type(value).__name__}, not text; is this the right file?")
    return value


def _truth(row: Mapping[str, Any], where: str) -> bool:
    value = row.get("ground_truth")
    if value not in (["True"], ["False"]):
        raise DataError(f"{where}: ground_truth {value!r} is not ['True'] or ['False']; PopQA rows have no such reader")
    return value == ["True"]


def _count(skipped: Count, why: str) -> None:
    if skipped is not None:
        skipped[why] += 1
