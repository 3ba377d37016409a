"""A knowledge conflict: one question, contexts that support different answers, and which of them is right.

Training knows which context is true; inference does not, and uses only `question` and the contexts' texts. An instance
travels as one JSON string (a column of a data set), so that it reaches a reward function through TRL unchanged.

    python -c "from reasoning.conflict.instance import *; \\
               print(Instance('q', (Context('x', 'a', True), Context('y', 'b', False)), ('a',)).to_json())"
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any, Literal, NamedTuple

from launch.errors import DataError
from reasoning.conflict.text import Span, answer_matches, contains, normalise, truth_value

Form = Literal["graph", "text"]


class Triple(NamedTuple):
    """One link: `head` and `tail` as written, the words between them, and the sentence it is from."""

    head: str
    relation: str
    tail: str
    sentence: int = -1
    cooccurrence: bool = True
    """False for a link that a relation model or rule asserts, which is cheaper to walk."""


@dataclass(frozen=True)
class Path:
    """One chain of evidence. Without triples it is a bare list of sentences (the fall-back)."""

    triples: tuple[Triple, ...] = ()
    sentences: tuple[str, ...] = ()
    """Source sentences, distinct, in the order of the chain."""
    entities: tuple[str, ...] = ()
    """Normalised names in the order of the chain."""

    def lines(self) -> list[str]:
        """Graph form: ``(h | r | t)`` per link."""
        return [f"({t.head} | {t.relation} | {t.tail})" for t in self.triples]


@dataclass(frozen=True)
class PathSet:
    """What a context offers for one answer. `kind` is "text" where no chain was found."""

    kind: Form = "text"
    paths: tuple[Path, ...] = ()
    confidence: float = 0.0
    """0 to 1: how directly the best chain is stated; 0 for the fall-back."""

    @property
    def entities(self) -> set[str]:
        return {entity for path in self.paths for entity in path.entities}

    @property
    def edges(self) -> set[tuple[str, str]]:
        return {(normalise(t.head), normalise(t.tail)) for path in self.paths for t in path.triples}

    @property
    def sentences(self) -> set[str]:
        return {sentence for path in self.paths for sentence in path.sentences}

    def render(self, form: Form | None = None) -> str:
        """As a block of a prompt: one link per line, or the sentences of each path."""
        if (form or self.kind) == "graph":
            return "\n".join(" ".join(path.lines()) for path in self.paths if path.triples)
        return "\n".join(" ".join(path.sentences) for path in self.paths)


@dataclass(frozen=True)
class Context:
    """One passage and the answer it supports."""

    text: str
    answer: str
    true: bool
    evidence: tuple[Span, ...] = ()
    """Where the supporting passages lie in `text`; empty means: the whole text."""
    paths: PathSet | None = None
    """Extracted beforehand; None: extracted where needed."""
    source: str = ""
    """Where the passage is from: memory, counter, correct, misinfo, substituted …"""


@dataclass(frozen=True)
class Instance:
    """One question with its contexts. `gold` holds the right answer first, then its aliases."""

    question: str
    contexts: tuple[Context, ...]
    gold: tuple[str, ...]
    wrong: tuple[str, ...] = ()
    """Candidates that are not right; those of false contexts are added by `build_instance`."""
    id: str = ""
    source: str = ""
    meta: dict[str, Any] = field(default_factory=dict)

    @property
    def boolean(self) -> bool:
        """Whether the answer is True or False."""
        return bool(self.gold) and truth_value(self.gold[0]) is not None

    @property
    def candidates(self) -> tuple[str, ...]:
        """Right answer and wrong ones, each once."""
        return tuple(dict.fromkeys((*self.gold[:1], *self.wrong)))

    @property
    def true_indices(self) -> tuple[int, ...]:
        return tuple(j for j, context in enumerate(self.contexts) if context.true)

    def to_json(self) -> str:
        """One line; `from_json` gives back an equal instance."""
        return json.dumps(_plain(self), ensure_ascii=False)

    @staticmethod
    def from_json(text: str) -> Instance:
        """Raises DataError for anything that `to_json` did not write."""
        try:
            raw = json.loads(text)
            contexts = tuple(_context(c) for c in raw["contexts"])
            return Instance(
                question=raw["question"],
                contexts=contexts,
                gold=tuple(raw["gold"]),
                wrong=tuple(raw.get("wrong", ())),
                id=raw.get("id", ""),
                source=raw.get("source", ""),
                meta=dict(raw.get("meta", {})),
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            shown = repr(text)[:60]
            raise DataError(
                f"{shown} is not a conflict instance ({type(error).__name__}: {str(error)[:60]}); "
                "write it with Instance.to_json"
            ) from error

    def reordered(self, order: Iterable[int]) -> Instance:
        """The same conflict with its contexts in another order."""
        return replace(self, contexts=tuple(self.contexts[j] for j in order))

    def swapped(self) -> Instance:
        """The mirror image: false contexts are true, and the first wrong candidate is right. For tests of symmetry."""
        if not self.wrong:
            raise DataError(f"instance {self.id!r} has no wrong candidate to swap with; give it `wrong`")
        flipped = tuple(replace(c, true=not c.true) for c in self.contexts)
        return replace(self, contexts=flipped, gold=self.wrong[:1], wrong=(self.gold[0], *self.wrong[1:]))


def build_instance(
    question: str,
    contexts: Iterable[Context],
    gold: Iterable[str],
    wrong: Iterable[str] = (),
    *,
    id: str = "",
    source: str = "",
    meta: dict[str, Any] | None = None,
) -> Instance:
    """An instance with its wrong candidates completed from the false contexts' answers.

    Raises:
        DataError: empty question, no gold answer, or no context.
    """
    contexts, gold = tuple(contexts), tuple(g for g in gold if g.strip())
    if not question.strip() or not gold:
        raise DataError(f"instance {id!r} lacks a question or a gold answer; drop the row")
    if not contexts:
        raise DataError(f"instance {id!r} has no context; drop the row")
    said = [c.answer for c in contexts if not c.true and c.answer.strip()]
    completed = tuple(dict.fromkeys(w for w in (*wrong, *said) if not answer_matches(w, gold)))
    return Instance(question, contexts, gold, completed, id, source, dict(meta or {}))


def diagnose(instance: Instance) -> list[str]:
    """What is odd about an instance, so that a report can count it; [] for an ordinary conflict.

    one_context; empty_context; agree (no two contexts say different answers); all_false (no context is true);
    no_entity (no context holds a name of the question); answer_nowhere (no context holds the gold answer, entity
    questions only); huge_context (over 500 000 characters); mixed_scripts (letters of more than one script among
    question and contexts).
    """
    from reasoning.conflict.paths import asked_in  # which is built on this module

    found = []
    texts = [c.text for c in instance.contexts]
    if len(texts) == 1:
        found.append("one_context")
    if any(not text.strip() for text in texts):
        found.append("empty_context")
    if len(texts) > 1 and len({normalise(c.answer) for c in instance.contexts}) == 1:
        found.append("agree")
    if not any(c.true for c in instance.contexts):
        found.append("all_false")
    if not asked_in(instance.question, texts):
        found.append("no_entity")
    if not instance.boolean:
        bags = [normalise(text).split() for text in texts]
        if not any(contains(bag, normalise(g).split()) >= 0 for g in instance.gold for bag in bags):
            found.append("answer_nowhere")
    if any(len(text) > 500_000 for text in texts):
        found.append("huge_context")
    if len({script for text in (instance.question, *texts) for script in _scripts(text)}) > 1:
        found.append("mixed_scripts")
    return found


_SCRIPTS = {
    "latin": (0x41, 0x24F),
    "greek": (0x370, 0x3FF),
    "cyrillic": (0x400, 0x52F),
    "hebrew": (0x590, 0x5FF),
    "arabic": (0x600, 0x6FF),
    "indic": (0x900, 0xDFF),
    "east asian": (0x3040, 0x9FFF),
    "hangul": (0xAC00, 0xD7A3),
}
_SCRIPT_SHARE = 0.1


def _scripts(text: str) -> set[str]:
    """Scripts that hold at least a tenth of the letters (a lone foreign name is no second language)."""
    letters = Counter(filter(str.isalpha, text[:20_000]))
    counts = {
        name: sum(n for letter, n in letters.items() if low <= ord(letter) <= high)
        for name, (low, high) in _SCRIPTS.items()
    }
    return {name for name, count in counts.items() if letters and count >= _SCRIPT_SHARE * letters.total()}


def _plain(instance: Instance) -> dict[str, Any]:
    contexts = []
    for c in instance.contexts:
        row: dict[str, Any] = {"text": c.text, "answer": c.answer, "true": c.true}
        if c.evidence:
            row["evidence"] = [list(span) for span in c.evidence]
        if c.paths is not None:
            paths = [{"triples": [list(t) for t in p.triples], "sentences": list(p.sentences)} for p in c.paths.paths]
            for row_path, path in zip(paths, c.paths.paths, strict=True):
                row_path["entities"] = list(path.entities)
            row["paths"] = {"kind": c.paths.kind, "confidence": c.paths.confidence, "paths": paths}
        if c.source:
            row["source"] = c.source
        contexts.append(row)
    plain: dict[str, Any] = {"question": instance.question, "contexts": contexts, "gold": list(instance.gold)}
    optional = {"wrong": list(instance.wrong), "id": instance.id, "source": instance.source, "meta": instance.meta}
    return plain | {key: value for key, value in optional.items() if value}


def _context(raw: dict[str, Any]) -> Context:
    if not isinstance(raw["text"], str) or not isinstance(raw["answer"], str) or not isinstance(raw["true"], bool):
        raise TypeError("a context needs text, answer and true")
    paths = None
    if raw.get("paths") is not None:
        stored = raw["paths"]
        paths = PathSet(stored["kind"], tuple(_path(p) for p in stored["paths"]), float(stored.get("confidence", 0.0)))
    evidence = tuple(Span(*span) for span in raw.get("evidence", ()))
    return Context(raw["text"], raw["answer"], raw["true"], evidence, paths, raw.get("source", ""))


def _path(raw: dict[str, Any]) -> Path:
    triples = tuple(Triple(*t) for t in raw.get("triples", ()))
    entities = tuple(raw.get("entities", ())) or chain_of(triples)
    return Path(triples, tuple(raw.get("sentences", ())), entities)


def chain_of(triples: Iterable[Triple]) -> tuple[str, ...]:
    """Normalised names of a chain's links, each once, in order."""
    return tuple(dict.fromkeys(normalise(name) for t in triples for name in (t.head, t.tail)))
