"""What is a what: pairs (entity, concept) as a sparse matrix, from WordNet's nouns or from a TSV of the user's.

A term may be both entity and concept. ``E_c``, the entities of a concept, are those paired with it; whether a term
*falls under* a concept also holds for the concept itself, as in the authors' code. WordNet's pairs are word to word by
direct hypernym and instance links, so that the senses of a word are merged (the authors' choice); with ``closure`` all
ancestors of the first senses count, and concepts of too many entities are left out, or "entity" would win everywhere.

    python -c "from reasoning.verbs.taxonomy import wordnet; print(wordnet().concepts('piano'))"
"""

from __future__ import annotations

import gzip
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from launch.errors import DataError
from reasoning.verbs.wordnet import load, sense_counts

CLOSURE_SENSES, CLOSURE_CAP = 2, 3000
"""Where all ancestors count: senses per lemma, and entities per concept at most."""


class Taxonomy:
    """Terms by number, and who falls under whom."""

    def __init__(self, terms: Sequence[str], under: Any, cap: int | None = None) -> None:
        """From a sparse matrix.

        Args:
            terms: all different. Their order decides ties: of concepts that weigh the same, the first is taken.
            under: sparse [terms, terms]: row concept, column entity, not 0 for each pair. A term paired with itself is
                left out.
            cap: concepts of more entities than this are no concepts.
        """
        from scipy.sparse import coo_array, csr_array

        self.terms = list(terms)
        self.ids = {term: i for i, term in enumerate(self.terms)}
        pairs = coo_array(under)
        kept = pairs.row != pairs.col
        ones = (np.ones(int(kept.sum())), (pairs.row[kept], pairs.col[kept]))
        matrix: Any = csr_array(coo_array(ones, shape=pairs.shape))  # the same pair twice is summed
        matrix.data[:] = 1.0
        if cap is not None:
            matrix.data *= np.repeat(np.diff(matrix.indptr) <= cap, np.diff(matrix.indptr))
            matrix.eliminate_zeros()
        self.under: Any = matrix
        """float64 sparse [terms, terms]: row concept, column entity, 1 for each pair."""
        self.above: Any = matrix.T.tocsr()
        """The same with entities as rows."""
        self.sizes = np.diff(matrix.indptr)
        """``|E_c|`` of every term, int [terms]; 0 for what is no concept."""

    @classmethod
    def from_pairs(cls, pairs: Iterable[tuple[str, str]], cap: int | None = None) -> Taxonomy:
        """From (entity, concept) pairs, each counted once."""
        from scipy.sparse import coo_array

        ids: dict[str, int] = {}
        entities, concepts = [], []
        for entity, concept in pairs:
            entities.append(ids.setdefault(entity, len(ids)))
            concepts.append(ids.setdefault(concept, len(ids)))
        ones = np.ones(len(entities))
        return cls(list(ids), coo_array((ones, (concepts, entities)), (len(ids), len(ids))), cap)

    def __contains__(self, term: object) -> bool:
        return term in self.ids

    def __len__(self) -> int:
        return len(self.terms)

    @property
    def pairs(self) -> int:
        """How many (entity, concept) pairs there are."""
        return int(self.under.nnz)

    def covering(self, term: str) -> np.ndarray:
        """Numbers of the concepts that `term` falls under, itself included if it is one; empty for an unknown term."""
        number = self.ids.get(term)
        if number is None:
            return np.empty(0, dtype=np.int64)
        above = self.above.indices[self.above.indptr[number] : self.above.indptr[number + 1]]
        return np.append(above, number) if self.sizes[number] else above

    def concepts(self, term: str) -> list[str]:
        """The concepts that a term is paired with, in alphabetical order."""
        return sorted(self.terms[i] for i in self.covering(term) if self.terms[i] != term)

    def entities(self, concept: str) -> set[str]:
        """``E_c``: the terms paired with a concept; empty for an unknown one."""
        number = self.ids.get(concept)
        if number is None:
            return set()
        return {self.terms[i] for i in self.under.indices[self.under.indptr[number] : self.under.indptr[number + 1]]}

    def falls_under(self, term: str, concept: str) -> bool:
        """Whether `term` is paired with `concept`, or is it."""
        return concept in self.ids and self.ids[concept] in self.covering(term)

    def weigh(self, values: dict[str, float]) -> np.ndarray:
        """Per concept the sum of the values of the terms that fall under it, float64 [terms]; unknown terms count not.

        The weight w_v(c) = sum over e isA c of Q_v(e), with e = c included.
        """
        weights = np.zeros(len(self.terms))
        for term, value in values.items():
            weights[self.covering(term)] += value
        return weights

    def overlaps(self, concepts: Sequence[int]) -> np.ndarray:
        """``|E_a and E_b| / min(|E_a|, |E_b|)`` for every two of these concepts, over all entities; float64 [n, n]."""
        chosen = self.under[np.asarray(concepts, dtype=np.int64)]
        shared = (chosen @ chosen.T).toarray()
        sizes = self.sizes[np.asarray(concepts, dtype=np.int64)]
        return np.asarray(shared / np.minimum.outer(sizes, sizes))


@lru_cache(2)
def wordnet(closure: bool = False) -> Taxonomy:
    """WordNet 3.0's nouns: direct pairs of all senses, or all ancestors of the first two, concepts up to 3,000.

    Words are in the order of their use, so that of synonyms, which weigh the same, the common one is taken.
    """
    nouns = load("noun")
    often = sense_counts()
    by_use = sorted(nouns.senses, key=lambda lemma: (-often.get(lemma, {}).get("noun", 0), lemma))
    lemmas = {lemma: i for i, lemma in enumerate(by_use)}
    synsets = {offset: i for i, offset in enumerate(nouns.synsets)}
    senses = CLOSURE_SENSES if closure else None
    n, m = len(lemmas), len(synsets)
    means = _matrix(((lemmas[w], synsets[s]) for w, all_ in nouns.senses.items() for s in all_[:senses]), (n, m))
    up = _matrix(((synsets[s], synsets[h]) for s, of in nouns.synsets.items() for h in of.hypernyms), (m, m))
    said = _matrix(((synsets[s], lemmas[w]) for s, of in nouns.synsets.items() for w in of.words), (m, n))
    above = step = means @ up
    while closure and step.nnz:  # one step further up until nobody has anything above
        step = step @ up
        above = above + step
    return Taxonomy(list(lemmas), (above @ said).T, CLOSURE_CAP if closure else None)


def _matrix(pairs: Iterable[tuple[int, int]], shape: tuple[int, int]) -> Any:
    """Sparse 0/1 matrix with 1 at each pair."""
    from scipy.sparse import coo_array

    at = np.array(list(pairs), dtype=np.int64).reshape(-1, 2)
    return coo_array((np.ones(len(at)), (at[:, 0], at[:, 1])), shape).tocsr()


def read_tsv(path: str | Path, min_count: float = 0) -> Taxonomy:
    """A taxonomy from lines ``concept TAB entity`` or ``concept TAB entity TAB count``, plain or gzipped.

    This is the order of Microsoft's Concept Graph (``data-concept-instance-relations.txt``). Terms are put in small
    letters.

    Args:
        min_count: pairs seen less often are left out; pairs without a count stay.

    Raises:
        DataError: no such file, a line of another form, or nothing left.
    """
    path = Path(path)
    try:
        taxonomy = Taxonomy.from_pairs(_tsv_pairs(path, min_count))
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 ({error.reason}); convert it") from error
    if not taxonomy.pairs:
        raise DataError(f"{path} holds no pair seen at least {min_count:g} times; lower min_count or give another file")
    return taxonomy


def _tsv_pairs(path: Path, min_count: float) -> Iterator[tuple[str, str]]:
    if not path.is_file():
        raise DataError(f"no file {path}; give the path of a TSV of concept and entity")
    with gzip.open(path, "rt", encoding="utf-8") if path.suffix == ".gz" else path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, 1):
            fields = [f.strip() for f in line.rstrip("\n").split("\t")]
            if fields == [""]:
                continue
            try:
                concept, entity, *count = fields
                often = float(count[0]) if count else min_count
                if len(fields) > 3 or not concept or not entity:
                    raise ValueError
            except ValueError:
                raise DataError(
                    f"{path}, line {number}: {line.strip()[:60]!r}; write concept TAB entity, or with TAB count"
                ) from None
            if often >= min_count:
                yield entity.casefold(), concept.casefold()
