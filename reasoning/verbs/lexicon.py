"""A verb lexicon: text in, concepts of any verb out.

python -c "from reasoning.verbs import wordnet_lexicon as w; print(w().concepts('wear', 'object').names)"
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import TypedDict

from launch.errors import DataError
from reasoning.verbs.arguments import ROLES, Argument, Role, arguments
from reasoning.verbs.concepts import BUDGET, TAU, Concepts, argument_quality, conceptualise, covered_by, weighted
from reasoning.verbs.conllu import Sentence, read_conllu
from reasoning.verbs.shallow import lemma, parse_all
from reasoning.verbs.statistics import Statistics
from reasoning.verbs.taxonomy import Taxonomy, wordnet
from reasoning.verbs.wordnet import VERSION, examples


class Check(TypedDict):
    """Whether a term is a likely argument."""

    covered: bool
    by: list[str]
    """The verb's concepts that the term falls under, heaviest first."""
    score: float
    """0 to 1: the weight of the heaviest of them, as a share of the verb's heaviest concept; 0 if none."""


class Lexicon:
    """Statistics of both roles over one text, a taxonomy, and what follows from them."""

    def __init__(self, found: Iterable[Argument], taxonomy: Taxonomy, source: str) -> None:
        """Count in one pass; the arguments themselves are not kept.

        Args:
            source: where the arguments are from, in words.
        """
        self.taxonomy, self.source = taxonomy, source
        self.statistics: dict[Role, Statistics] = {role: Statistics((), role) for role in ROLES}
        for argument in found:
            self.statistics[argument.role].add(argument)
        self._known: dict[tuple[str, Role, int, float], Concepts] = {}

    @classmethod
    def from_sentences(cls, sentences: Iterable[Sentence], taxonomy: Taxonomy, source: str) -> Lexicon:
        """From trees. Raises DataError if no verb in them has an argument."""
        lexicon = cls(arguments(sentences, taxonomy), taxonomy, source)
        if not any(s.total for s in lexicon.statistics.values()):
            raise DataError(f"{source} holds no verb with a noun as subject or object; give parsed English text")
        return lexicon

    @classmethod
    def from_conllu(cls, path: str | Path, taxonomy: Taxonomy | None = None) -> Lexicon:
        """From a CoNLL-U file, or from all such files of a folder. The taxonomy is WordNet's direct pairs if not given.

        Raises:
            DataError: no such file, none in the folder, or one that is broken.
        """
        files = conllu_files(path)
        trees = (sentence for file in files for sentence in read_conllu(file))
        return cls.from_sentences(trees, taxonomy or wordnet(), ", ".join(f.name for f in files))

    def of(self, role: Role) -> Statistics:
        """The statistics of a role; raises DataError if there is no such role."""
        if role not in ROLES:
            raise DataError(f"no role {role!r}; use subject or object")
        return self.statistics[role]

    def concepts(self, verb: str, role: Role, k: int = 5, tau: float = TAU, budget: int | None = BUDGET) -> Concepts:
        """The k concepts of a verb; see `conceptualise`.

        Raises:
            DataError: the verb has no argument of this role in the text, or there is no such role.
        """
        key = (verb, role, k, tau)
        if key not in self._known:
            quality = argument_quality(self.of(role), verb)
            self._known[key] = conceptualise(self.taxonomy, quality, k, tau=tau, budget=budget)
        return self._known[key]

    def finest(self, verb: str, role: Role, k: int, tau: float = TAU) -> tuple[int, Concepts]:
        """At most k concepts: the largest number of them that fits together, 0 if no concept has a positive weight."""
        positive = sum(weight > 0 for _, weight in weighted(self.taxonomy, argument_quality(self.of(role), verb)))
        for size in range(min(k, positive), 0, -1):
            found = self.concepts(verb, role, size, tau)
            if found.chosen:
                return size, found
        return 0, Concepts(())

    def known(self, term: str) -> str:
        """How the taxonomy writes a term: in small letters, in the singular; as given where it has neither."""
        written = " ".join(term.casefold().split())
        return written if written in self.taxonomy else lemma(written, "noun")

    def check(self, verb: str, role: Role, term: str, k: int = 10) -> Check:
        """Whether `term` falls under one of the verb's k concepts (fewer, where k do not fit together)."""
        _, found = self.finest(verb, role, k)
        covering = covered_by(self.taxonomy, self.known(term), found.names)
        weights = dict(found.chosen)
        score = max((weights[c] for c in covering), default=0.0) / max(weights.values(), default=1.0)
        return Check(covered=bool(covering), by=covering, score=round(score, 6))


def conllu_files(path: str | Path) -> list[Path]:
    """The file, or the ``*.conllu`` of a folder in alphabetical order; raises DataError if there is none."""
    path = Path(path)
    files = sorted(path.glob("*.conllu")) if path.is_dir() else [path]
    if not files or not files[0].is_file():
        raise DataError(f"no CoNLL-U file at {path}; give a file or a folder of *.conllu")
    return files


def example_sentences() -> Iterator[Sentence]:
    """WordNet's own example sentences, parsed by `shallow`: text for those who have none."""
    return parse_all(examples())


@lru_cache(1)
def example_arguments() -> tuple[Argument, ...]:
    """The arguments in WordNet's example sentences: 28,000 of 4,300 verbs. Made in about 15 seconds."""
    return tuple(arguments(example_sentences(), wordnet()))


@lru_cache(2)
def wordnet_lexicon(closure: bool = False) -> Lexicon:
    """From WordNet's example sentences and its nouns: direct pairs, or all ancestors (`taxonomy.wordnet`)."""
    return Lexicon(
        example_arguments(), wordnet(closure), f"the example sentences of WordNet {VERSION}, parsed by rules"
    )
