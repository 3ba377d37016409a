"""SGA: add edges that a signed network is sure of and that close no unbalanced triangle, drop those it disbelieves.

An SGCN is trained first; then

1. every pair i < j is scored in blocks of rows; the m most probable positive and negative ones are kept, O(m) memory;
2. an edge is deleted if the probability of its own sign is below a threshold;
3. a candidate becomes an edge in both directions, where there is none, if its probability reaches a threshold and it
   closes no unbalanced triangle with the original edges: (Q^2)_ij - s (S^2)_ij <= 0.

The test is against the original graph alone, as published: two additions can still close an unbalanced triangle
together (`unbalanced_among_added` counts the edges concerned). A linear head cannot see agreement between two nodes, so
check what share of the candidates is right before trusting it: `candidate_precision`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from launch.errors import ConfigError
from tasks.graph.signed.backbones import LinkHead
from tasks.graph.signed.edges import SignedGraph, find
from tasks.graph.signed.options import ALMOST_ONE, Thresholds
from tasks.graph.signed.triangles import Pairs, pair_counts, two_paths

ROWS = 100
"""Rows of the pair table scored at once."""


@dataclass(frozen=True)
class Candidates:
    """Pairs i < j with the log-probability of one sign, most probable first."""

    i: np.ndarray
    """int64 [k], node positions."""
    j: np.ndarray
    logp: np.ndarray
    """float32 [k]."""


@dataclass(frozen=True)
class Scored:
    """What the encoder thinks of a graph."""

    positive: Candidates
    negative: Candidates
    own: np.ndarray
    """float [m]: log-probability of each edge's own sign."""


@dataclass(frozen=True)
class Changes:
    """What augmentation did, in directed edges."""

    kept: int
    deleted: int
    added: int
    added_positive: int
    flipped: int
    """Deleted, and back with the other sign."""


@torch.no_grad()
def score_pairs(graph: SignedGraph, z: np.ndarray, head: LinkHead) -> Scored:
    """Score the edges, and all pairs i < j of which m are kept for each sign.

    Args:
        graph: the training edges.
        z: float32 [n, d], the encoder's embeddings.
        head: its discriminator.
    """
    vectors = torch.from_numpy(z)
    own = head(vectors, torch.from_numpy(graph.source), torch.from_numpy(graph.target))
    signs = torch.from_numpy((graph.sign < 0).astype(np.int64))[:, None]
    best = [_Best(graph.m), _Best(graph.m)]
    for i, j, logp in _pair_blocks(vectors, head):
        for label in (0, 1):
            best[label].offer(i, j, logp[:, label])
    return Scored(best[0].sorted(), best[1].sorted(), own.gather(1, signs).ravel().numpy())


def augment(graph: SignedGraph, scored: Scored, limits: Thresholds) -> tuple[SignedGraph, Changes]:
    """The augmented training graph, on the same nodes: edges kept, in their order, then those added.

    Raises:
        ConfigError: thresholds that leave no edges, or none of one of the graph's signs.
    """
    floor = np.where(graph.sign > 0, limits.delete_positive, limits.delete_negative)
    kept = np.exp(scored.own) >= floor
    u, v, s = (np.concatenate(parts) for parts in zip(*_accepted(graph, scored, limits), strict=True))
    source, target, sign = np.concatenate([u, v]), np.concatenate([v, u]), np.concatenate([s, s])
    remaining = np.sort((graph.source * graph.n + graph.target)[kept])
    empty = find(remaining, source * graph.n + target) < 0
    source, target, sign = source[empty], target[empty], sign[empty]
    augmented = SignedGraph(
        graph.ids,
        np.concatenate([graph.source[kept], source]),
        np.concatenate([graph.target[kept], target]),
        np.concatenate([graph.sign[kept], sign]),
    )
    for word, one in (("positive", 1), ("negative", -1)):
        if (graph.sign == one).any() and not (augmented.sign == one).any():
            raise ConfigError(
                f"augmentation leaves none of {(graph.sign == one).sum()} {word} edges; "
                f"lower augment.thresholds.delete_{word}, now {getattr(limits, f'delete_{word}')}",
                f"augment.thresholds.delete_{word}",
            )
    return augmented, changes(graph, augmented)


def _accepted(graph: SignedGraph, scored: Scored, limits: Thresholds) -> Iterator[tuple[np.ndarray, ...]]:
    """(i, j, sign) of candidates that are probable enough and close no unbalanced triangle of the graph."""
    pairs = Pairs.of(graph)
    for candidates, sign, threshold in (
        (scored.positive, 1, limits.add_positive),
        (scored.negative, -1, limits.add_negative),
    ):
        sure = candidates.logp >= min(np.log(threshold), ALMOST_ONE)
        i, j = candidates.i[sure], candidates.j[sure]
        signed, total = two_paths(pairs, i, j)
        clean = total - sign * signed <= 0
        yield i[clean], j[clean], np.full(clean.sum(), sign)


def changes(before: SignedGraph, after: SignedGraph) -> Changes:
    """How two graphs on the same ids differ, by directed edge and sign."""
    old, new = ({(u, v): s for u, v, s in graph.rows.tolist()} for graph in (before, after))
    kept = sum(new.get(edge) == sign for edge, sign in old.items())
    flipped = sum(edge in new and new[edge] != sign for edge, sign in old.items())
    added = [sign for edge, sign in new.items() if edge not in old]
    return Changes(kept, len(old) - kept - flipped, len(added), sum(s > 0 for s in added), flipped)


def unbalanced_among_added(before: SignedGraph, after: SignedGraph) -> int:
    """Added edges that lie in an unbalanced triangle of the augmented graph: what the published test lets through."""
    pairs = Pairs.of(after)
    signed, total = (counts[pairs.of_edge] for counts in pair_counts(pairs))
    added = find(before.keys, after.source * after.n + after.target) < 0
    return int((added & (total - after.sign * signed > 0)).sum())


def candidate_precision(candidates: Candidates, sign: int, graph: SignedGraph, held_out: np.ndarray) -> Any:
    """Share of candidates with the right sign among those that are held-out edges, and how many those are.

    Args:
        held_out: int64 [k, 3] edges that the encoder was not trained on, by the ids of `graph`.
    """
    ends = find(graph.ids, held_out[:, :2])
    keys = ends.min(1) * graph.n + ends.max(1)
    order = np.argsort(keys)
    at = find(keys[order], candidates.i * graph.n + candidates.j)
    hit = held_out[order[at[at >= 0]], 2] == sign
    return (float(hit.mean()) if len(hit) else float("nan")), len(hit)


def _pair_blocks(z: torch.Tensor, head: LinkHead) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """(i, j, log-probabilities [., 3]) of all pairs i < j, `ROWS` values of i at a time."""
    n = len(z)
    for start in range(0, n - 1, ROWS):
        rows = torch.arange(start, min(start + ROWS, n - 1))
        i = rows.repeat_interleave(n - 1 - rows)
        j = torch.cat([torch.arange(int(row) + 1, n) for row in rows])
        yield i.numpy(), j.numpy(), head(z, i, j).numpy()


class _Best:
    """The k most probable pairs of a stream; at most 2 k and one block are in memory."""

    def __init__(self, k: int) -> None:
        self.k, self.floor = k, -np.inf
        self.parts: list[tuple[np.ndarray, ...]] = []
        self.held = 0

    def offer(self, i: np.ndarray, j: np.ndarray, logp: np.ndarray) -> None:
        some = logp > self.floor
        self.parts.append((i[some], j[some], logp[some]))
        self.held += int(some.sum())
        if self.held > 2 * self.k:
            self._shrink()

    def sorted(self) -> Candidates:
        self._shrink()
        i, j, logp = self.parts[0]
        order = np.argsort(-logp, kind="stable")
        return Candidates(i[order], j[order], logp[order])

    def _shrink(self) -> None:
        i, j, logp = (np.concatenate(part) for part in zip(*self.parts, strict=True))
        if len(logp) > self.k:
            top = np.argpartition(-logp, self.k - 1)[: self.k]
            top.sort()
            i, j, logp = i[top], j[top], logp[top]
            self.floor = float(logp.min())
        self.parts, self.held = [(i, j, logp)], len(logp)
