"""Vectors of named items: what a prompt's placeholders are looked up in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from launch.contracts import Encoder
from launch.errors import DataError


@dataclass(frozen=True)
class VectorTable:
    """Vectors of items, one row a vector; an item may have several."""

    vectors: np.ndarray
    """float32 [R, d]."""
    spans: dict[str, tuple[int, int]]
    """Each item's rows, first and end."""

    @classmethod
    def of(cls, encoder: Encoder, items: Sequence[Any], names: Sequence[object] | None = None) -> VectorTable:
        """What `encoder` says of `items`; see `make`. Names are the items themselves unless given."""
        found: Any = encoder.encode(items)
        vectors, mask = found if isinstance(found, tuple) else (found, None)
        return cls.make(items if names is None else names, vectors, mask)

    @classmethod
    def make(cls, names: Sequence[object], vectors: np.ndarray, mask: np.ndarray | None = None) -> VectorTable:
        """A table.

        Args:
            names: n different ones, as placeholders give them.
            vectors: float32 [n, d], or [n, m, d] where an item has up to m vectors.
            mask: bool [n, m], true at an item's own vectors; every item has at least one.

        Raises:
            DataError: numbers that do not fit each other, an item twice or without vector, or a value not finite.
        """
        keys = [str(name) for name in names]
        if len(set(keys)) < len(keys):
            twice = next(key for key in keys if keys.count(key) > 1)
            raise DataError(f"item {twice!r} is there twice; give every item a name of its own")
        every = np.asarray(vectors, dtype=np.float32)
        every = every[:, None] if every.ndim == 2 else every  # [n, m, d]
        if every.ndim != 3 or len(every) != len(keys) or len(keys) == 0:
            raise DataError(
                f"vectors have shape {np.shape(vectors)} for {len(keys)} items; [n, d] or [n, m, d] is needed"
            )
        own = np.ones(every.shape[:2], dtype=bool) if mask is None else np.asarray(mask, dtype=bool)
        if own.shape != every.shape[:2] or not own.any(-1).all():
            raise DataError(f"mask of shape {own.shape} for vectors {every.shape}: one flag a vector, one true an item")
        bad = ~np.isfinite(every).all(-1) & own
        if bad.any():
            raise DataError(
                f"item {keys[int(bad.any(-1).argmax())]!r} has a vector that is not finite; fit the encoder again"
            )
        ends = own.sum(-1).cumsum().tolist()
        return cls(every[own], dict(zip(keys, zip([0, *ends[:-1]], ends, strict=True), strict=True)))
