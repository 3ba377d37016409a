"""The demo's yardstick: policies and preference models against a world's true game, exactly.

The true game is over types of answers, so a policy is worth what its distribution over types is worth: its gap is
2 (max_y P(y > pi) - 1/2) with the best reply taken over all types, not over what happened to be sampled. Only that
distribution is an estimate, from ``answers`` samples of every held-out prompt.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from align.preference import game
from align.selfplay import tabular


def type_shares(world: Any, prompts: Sequence[str], answers: Sequence[Sequence[str]]) -> np.ndarray:
    """How often each type of the true game was answered, float64 [n], over all prompts and samples."""
    types = [world.describe(prompt, text)["type"] for prompt, row in zip(prompts, answers, strict=True) for text in row]
    return np.bincount(types, minlength=len(world.game().S)) / len(types)


def type_facts(world: Any) -> list[dict[str, Any]]:
    """`describe` of one answer of each type."""
    prompt = world.prompts("train")[0]
    return [world.describe(prompt, text) for text in world.examples(prompt)]


def worth(world: Any, shares: Sequence[np.ndarray], start: np.ndarray) -> dict[str, Any]:
    """The numbers of one row of the table: of the last of `shares`, and the gap of their average.

    Args:
        shares: type distributions [n] of rounds 1 … t (of round 0 itself for t = 0).
        start: round 0's.
    """
    P, last, facts = world.game().P, shares[-1], type_facts(world)
    styles: dict[str, float] = {}
    for fact, share in zip(facts, last, strict=True):
        if fact["style"] is not None:
            styles[fact["style"]] = styles.get(fact["style"], 0.0) + float(share)
    return {
        "right": float(sum(share for fact, share in zip(facts, last, strict=True) if fact["right"])),
        "malformed": float(sum(share for fact, share in zip(facts, last, strict=True) if fact["malformed"])),
        "styles": styles,
        "win_vs_start": float(last @ P @ start),
        "gap_last": float(game.duality_gap(P, last)),
        "gap_average": float(game.duality_gap(P, np.mean(shares, axis=0))),
    }


def mean_parts(world: Any, scorer: Any, prompts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """S_T and S_C of a preference model among one answer of each type, [prompts, n, n] each."""
    scores = scorer.score_many([(prompt, world.examples(prompt)) for prompt in prompts], batch_size=64)
    return np.stack([s.S_T for s in scores]), np.stack([s.S_C for s in scores])


def judge_quality(world: Any, S_T: np.ndarray, S_C: np.ndarray) -> dict[str, float]:
    """How a preference model does on held-out prompts, well-formed types only.

    ``correctness``, ``style``, ``mixed``: share of pairs whose sign is that of the true game, among pairs that differ
    in correctness alone, in style alone, and in both. ``right_T`` and ``right_C``: logits by which right beats wrong in
    each head (the truth is all in T). ``cycle_T``, ``cycle_C``: logits along the style cycle. ``leak``: share of the
    cyclic head's mean table that is a ranking (`game.leak`). ``error``: root mean square error of P.
    """
    facts, truth = type_facts(world), world.game()
    kept = [i for i, fact in enumerate(facts) if not fact["malformed"]]
    pairs = [(i, j) for i in kept for j in kept if truth.S[i, j] > 0]
    S = S_T + S_C

    def rate(keep: Any) -> float:
        chosen = [(i, j) for i, j in pairs if keep(facts[i], facts[j])]
        return float(np.mean([S[:, i, j] > 0 for i, j in chosen]))

    def logit(part: np.ndarray, keep: Any) -> float:
        return float(np.mean([part[:, i, j] for i, j in pairs if keep(facts[i], facts[j])]))

    def value(a: dict[str, Any], b: dict[str, Any]) -> bool:
        return a["style"] == b["style"]

    def manner(a: dict[str, Any], b: dict[str, Any]) -> bool:
        return a["right"] == b["right"]

    block = np.ix_(kept, kept)
    errors = [(game.probabilities(one[block]) - truth.P[block]) ** 2 for one in S]
    return {
        "correctness": rate(value),
        "style": rate(manner),
        "mixed": rate(lambda a, b: not value(a, b) and not manner(a, b)),
        "right_T": logit(S_T, value),
        "right_C": logit(S_C, value),
        "cycle_T": logit(S_T, manner),
        "cycle_C": logit(S_C, manner),
        "leak": float(game.leak(S_C.mean(0)[block])) if np.abs(S_C).max() > 0 else 0.0,
        "error": float(np.sqrt(np.mean(errors))),
    }


def prediction(world: Any, S_T: np.ndarray, S_C: np.ndarray, start: np.ndarray, **options: Any) -> list[dict[str, Any]]:
    """What exact rounds on the preference model's mean table would reach: one `worth` per round 0 … T.

    Exact means full support, a perfect fit and no sampling noise; see `align.selfplay.tabular`.
    """
    positive = np.maximum(start, 1e-6)
    positive = positive / positive.sum()
    rows = tabular.predict(S_T.mean(0), S_C.mean(0), positive, world.game().P, **options)
    policies = [np.array(row["policy"]) for row in rows]
    return [worth(world, policies[min(1, t) : t + 1], positive) for t in range(len(policies))]
