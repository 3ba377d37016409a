"""Signed graphs whose truth is known: two factions, friends within and foes across."""

from __future__ import annotations

import numpy as np


def two_factions(n: int = 150, edges: int = 5600, seed: int = 0, noise: float = 0.0) -> np.ndarray:
    """Random edges between even and odd nodes: positive within a faction, negative across, a share `noise` turned.

    Who is friendly tells nothing here, only whether two nodes agree: a head that is linear in [z_u, z_v] has AUC .5.

    Returns:
        int64 [edges, 3]: source, target, sign.
    """
    generator = np.random.default_rng(seed)
    source, target = np.nonzero(~np.eye(n, dtype=bool))
    some = generator.permutation(len(source))[:edges]
    source, target = source[some], target[some]
    turned = np.where(generator.random(len(some)) < noise, -1, 1)
    return np.stack([source, target, np.where(source % 2 == target % 2, 1, -1) * turned], axis=1)
