"""Conflicts as rows of training: ``{"prompt", "instance"}``, from the embedded world or from files.

The instance travels beside its prompt as one JSON string, which is what `reward.kcr_rewards` reads. Instances are
diagnosed on the way (`instance.diagnose`): what is odd about them is counted, not dropped.
"""

from __future__ import annotations

import itertools
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, NamedTuple

from launch.errors import ConfigError, DataError
from launch.jsonlines import rows
from reasoning.conflict.balance import SHORTCUTS, balance, place, split_of
from reasoning.conflict.completion import Mode, chat_prompt
from reasoning.conflict.extract import make_extractor
from reasoning.conflict.instance import Instance, diagnose
from reasoning.conflict.lengthen import choose, lengthen, passages
from reasoning.conflict.paths import with_paths
from reasoning.conflict.quality import LEAST, entailment, keep_entailed
from reasoning.conflict.sources import conflictqa, ramdocs
from tasks.worlds.conflicts import ConflictsWorld

Row = dict[str, Any]


@dataclass
class DataOptions:
    """Conflicts from a file, split by question: nine tenths to learn from, one tenth to measure on."""

    path: str = ""
    """JSON lines, plain or gzipped; "" for the embedded world."""
    kind: Literal["instances", "conflictqa", "ramdocs"] = "instances"
    """instances: lines of `Instance.to_json`. The others: see `reasoning.conflict.sources`."""
    contexts: int = 2
    """Contexts per question, one of them true; of files that offer more."""
    extractor: str = ""
    """Names and links by `extract.make_extractor`'s name, stored with every context; "" extracts by rules as needed."""
    entailment: str = ""
    """Folder or hub name of an NLI model; conflicts whose evidence does not entail its claim are left out."""
    least_entailment: float = LEAST
    """Chance, 0 to 1, that the NLI model must give a claim."""
    balance: list[str] = field(default_factory=list)
    """Shortcuts to balance away, of gold, memory_right, true_is_longer."""
    tokens: int = 0
    """Length to fill each context to with passages of other questions; 0 leaves them as they are."""
    mode: Mode = "both"
    """What a prompt shows of a context: its text, its extracted paths, or both."""
    budget: int = 0
    """Words of all contexts above which "both" shows paths alone; 0 for no limit."""

    def __post_init__(self) -> None:
        unknown = [name for name in self.balance if name not in SHORTCUTS]
        if unknown:
            raise ConfigError(f"no shortcut {unknown[0]!r}; known: {', '.join(SHORTCUTS)}", "balance")
        if not 0 <= self.least_entailment <= 1:
            raise ConfigError(f"least_entailment {self.least_entailment}: give a chance, 0 to 1", "least_entailment")


class Feed(NamedTuple):
    """What a run learns from and is measured on."""

    train: list[Row]
    test: list[Row]
    odd: dict[str, int]
    """Instances by what is odd about them (`diagnose`), and rows left out by why."""


def of_world(world: ConflictsWorld, test: int = 0) -> Feed:
    """Rows of the embedded world; `test` of its held-out questions, 0 for all."""
    train, held = list(world.rows("train")), list(world.rows("test"))[: test or None]
    return Feed(train, held, dict(_odd(Instance.from_json(row["instance"]) for row in (*train, *held))))


def of_file(options: DataOptions, seed: int, test: int = 0) -> Feed:
    """Rows of a file.

    Raises:
        DataError: no such file, broken lines, or nothing left to learn from.
    """
    skipped: Counter[str] = Counter()
    extractor = make_extractor(options.extractor) if options.extractor else None  # a wrong name costs no reading
    sides = _split(options, seed, skipped)

    def row(instance: Instance) -> Row:
        if extractor is not None:
            instance = with_paths(instance, extractor)
        return {"prompt": chat_prompt(instance, options.mode, options.budget), "instance": instance.to_json()}

    learn, held = (list(map(row, side)) for side in sides)
    return Feed(learn, held[: test or None], dict(skipped + _odd(itertools.chain(*sides))))


def training_rows(options: DataOptions, seed: int) -> int:
    """How many rows `of_file` gives to learn from, counted without writing a prompt. It raises what that raises."""
    if options.extractor:
        make_extractor(options.extractor)
    return len(_split(options, seed, Counter())[0])


def _split(options: DataOptions, seed: int, skipped: Counter[str]) -> tuple[list[Instance], list[Instance]]:
    """The file's instances as they will be shown: to learn from, and to measure on."""
    read = _read(options, seed, skipped)
    if options.entailment:
        read = keep_entailed(read, entailment(options.entailment), options.least_entailment, skipped)
    found = list(read)
    if options.balance:
        found = balance(found, {name: SHORTCUTS[name] for name in options.balance}, seed)
    found = place(found, seed)
    if options.tokens:
        fillers = list(dict.fromkeys(p for instance in found for c in instance.contexts for p in passages(c)))
        found = [lengthen(instance, fillers, options.tokens, seed) for instance in found]
    sides: tuple[list[Instance], list[Instance]] = ([], [])
    for instance in found:
        sides[split_of(instance.question, (0.9, 0.1))].append(instance)
    if not all(sides):
        raise DataError(f"{options.path}: {len(found)} usable conflicts leave one split empty; give more rows")
    return sides


def keep_short(given: Sequence[Row], tokens: Callable[[Any], int], most: int) -> list[Row]:
    """The rows whose prompts leave room for an answer."""
    return [row for row in given if tokens(row["prompt"]) <= most]


def _read(options: DataOptions, seed: int, skipped: Counter[str]) -> Iterator[Instance]:
    if options.kind == "conflictqa":
        yield from conflictqa(options.path, skipped=skipped)
    elif options.kind == "ramdocs":
        for instance in ramdocs(options.path, skipped):
            chosen = choose(instance, options.contexts, seed)
            if chosen is None:
                skipped["too few contexts"] += 1
            else:
                yield replace(chosen, wrong=tuple(c.answer for c in chosen.contexts if not c.true))
    else:
        for number, row in rows(options.path):
            try:
                told = row.get("instance")
                yield Instance.from_json(told if isinstance(told, str) else json.dumps(row, ensure_ascii=False))
            except DataError as error:
                raise DataError(f"{options.path}, line {number}: {error}") from error


def _odd(instances: Iterable[Instance]) -> Counter[str]:
    return Counter(kind for instance in instances for kind in diagnose(instance))
