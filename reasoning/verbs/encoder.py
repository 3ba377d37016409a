"""Verbs as sparse vectors over concepts: one block for subjects, one for objects, each readable by name."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Self

import numpy as np

from launch.errors import ConfigError, DataError
from reasoning.verbs.arguments import ROLES
from reasoning.verbs.lexicon import Lexicon
from tasks.encoder import SavedEncoder


class VerbEncoder(SavedEncoder):
    """The weights of a verb's concepts of both roles, made to sum to 1 (L1), over the concepts of all fitted verbs.

    A dimension is named "subject:person", "object:garment". Roles in which a verb has no concept of positive weight are
    left empty; a verb without any is no item. The vocabulary is fixed by `fit` and kept by ``save_pretrained``.
    """

    def __init__(self, k: int = 10) -> None:
        """With up to `k` concepts per role."""
        if k < 1:
            raise ConfigError(f"k {k}; give at least 1 concept per role")
        self.k = k
        self.vocabulary: list[str] = []
        self.verbs: dict[str, int] = {}
        self._vectors: Any = None  # float32 sparse [verbs, vocabulary]

    def fit(self, data: Lexicon, verbs: Iterable[str] | None = None) -> Self:
        """Take the concepts of these verbs, or of every verb of the lexicon.

        Raises:
            DataError: none of them has a concept.
        """
        from scipy.sparse import csr_array

        counts = {v: 0 for role in ROLES for v in data.statistics[role].counts}
        rows = {}
        for verb in sorted(counts) if verbs is None else dict.fromkeys(verbs):
            row = _weights(data, verb, self.k)
            if row:
                rows[verb] = row
        if not rows:
            raise DataError("no verb has a concept of positive weight; give more text or other verbs")
        self.verbs = {verb: i for i, verb in enumerate(rows)}
        self.vocabulary = sorted({name for row in rows.values() for name in row})
        column = {name: i for i, name in enumerate(self.vocabulary)}
        indices = [column[name] for row in rows.values() for name in row]
        values = [w / sum(row.values()) for row in rows.values() for w in row.values()]
        ends = np.cumsum([0, *map(len, rows.values())])
        shape = (len(rows), len(self.vocabulary))
        self._vectors = csr_array((np.array(values, np.float32), np.array(indices), ends), shape)
        return self

    def encode(self, items: Sequence[str]) -> np.ndarray:
        """float32 [n, d], rows that sum to 1.

        Raises:
            DataError: a verb that was not fitted.
        """
        return np.asarray(self._vectors[self._rows(items)].toarray(), dtype=np.float32)

    def sparse(self, verb: str) -> dict[str, float]:
        """The same as {"role:concept": weight}, heaviest first."""
        row = self._vectors[self._rows([verb])].tocoo()
        order = sorted(zip(row.data.tolist(), row.col.tolist(), strict=True), key=lambda p: (-p[0], p[1]))
        return {self.vocabulary[i]: weight for weight, i in order}

    def _rows(self, items: Sequence[str]) -> list[int]:
        unknown = [verb for verb in items if verb not in self.verbs]
        if unknown:
            raise DataError(f"the verb {unknown[0]!r} was not fitted or has no concept; fit with it, in its base form")
        return [self.verbs[verb] for verb in items]

    def settings(self) -> dict[str, Any]:
        return {"k": self.k, "verbs": list(self.verbs), "vocabulary": self.vocabulary}

    def tensors(self) -> dict[str, np.ndarray]:
        v = self._vectors
        return {"values": v.data, "indices": v.indices.astype(np.int64), "ends": v.indptr.astype(np.int64)}

    @classmethod
    def restore(cls, settings: dict[str, Any], tensors: dict[str, np.ndarray]) -> Self:
        from scipy.sparse import csr_array

        encoder = cls(settings["k"])
        encoder.vocabulary = settings["vocabulary"]
        encoder.verbs = {verb: i for i, verb in enumerate(settings["verbs"])}
        parts = (tensors["values"], tensors["indices"], tensors["ends"])
        encoder._vectors = csr_array(parts, (len(encoder.verbs), len(encoder.vocabulary)))
        return encoder


def _weights(lexicon: Lexicon, verb: str, k: int) -> dict[str, float]:
    """{"role:concept": weight} of both roles."""
    return {
        f"{role}:{name}": weight
        for role in ROLES
        if verb in lexicon.statistics[role].counts
        for name, weight in lexicon.finest(verb, role, k)[1].chosen
    }
