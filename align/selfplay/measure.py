"""What is measured of a round: on the samples it was trained on, and afterwards on held-out prompts.

Per round, from its own samples: how saturated the targets are, how long, how varied and how often finished the answers
are. After all rounds, `evaluate` pools every policy's answers to the same held-out prompts and reads win rates and gaps
off one table per prompt. Gaps take their best reply from that pool: lower bounds of the true gap, comparable between
policies because the pool is the same.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from align.preference import game
from align.selfplay.inputs import Describe
from align.selfplay.pairs import PairDataset
from align.selfplay.winrate import win_rates
from launch.contracts import Completion, Prompt

SATURATED = 0.01
SHOWN = 8
"""Prompts whose answers are kept as text."""


def sample_metrics(samples: Sequence[Sequence[Completion]]) -> dict[str, float]:
    """Of the sampled text: ``answer_tokens`` (mean), ``ended`` (share that met an end), ``empty``, ``distinct`` (share
    of different texts among a prompt's K)."""
    tokens, ended, empty, distinct = [], [], [], []
    for row in samples:  # once: they may lie on disk
        tokens += [len(c.token_ids) for c in row]
        ended += [c.finish == "stop" for c in row]
        empty += [not c.text.strip() for c in row]
        distinct.append(len({c.text for c in row}) / len(row))
    return {
        "answer_tokens": float(np.mean(tokens)),
        "ended": float(np.mean(ended)),
        "empty": float(np.mean(empty)),
        "distinct": float(np.mean(distinct)),
    }


def table_metrics(dataset: PairDataset) -> dict[str, float]:
    """Of the tables P a round is played with.

    ``gap_sample``: mean over prompts of 2 (max_k P_hat_k - 1/2), how much the best of the K samples beats the K.
    ``win_spread``: standard deviation of P_hat. ``saturated``: share of pairs whose P is within 0.01 of 0 or 1.
    ``dropped``: share of prompts whose answers all agree. ``rows``: what is left.
    """
    P = np.stack(dataset.P)  # [N, K, K]
    K = P.shape[-1]
    off = P[:, ~np.eye(K, dtype=bool)]
    return {
        "gap_sample": float(np.mean(game.duality_gap(P, np.full((len(P), K), 1.0 / K)))),
        "win_spread": float(win_rates(P).std()),
        "saturated": float(np.mean((off < SATURATED) | (off > 1 - SATURATED))),
        "dropped": dataset.dropped / len(dataset.P),
        "rows": float(len(dataset)),
    }


def cut_rows(dataset: PairDataset, max_length: int) -> list[int]:
    """Numbers of the rows of which training reads less than was sampled: prompt and longest answer exceed the limit."""
    return [
        i for i, row in enumerate(dataset) if len(row["prompt_ids"]) + max(map(len, row["response_ids"])) > max_length
    ]


def text_samples(prompts: Sequence[Prompt], samples: Sequence[Sequence[Completion]]) -> list[dict[str, Any]]:
    """``prompt`` and ``responses`` of the first few prompts, for samples/ and the report."""
    return [
        {"prompt": prompt, "responses": [c.text for c in row]}
        for prompt, row in zip(prompts[:SHOWN], samples[:SHOWN], strict=True)
    ]


def truth_metrics(
    prompts: Sequence[Prompt], samples: Sequence[Sequence[Completion]], describe: Describe | None
) -> dict[str, Any]:
    """Of what a world knows: the rate of each yes/no fact (``right``, ``malformed``) and ``styles``, shares of a word.

    Facts that are numbers are left out; empty without a world.
    """
    if describe is None:
        return {}
    facts = [describe(str(p), c.text) for p, row in zip(prompts, samples, strict=True) for c in row]
    out: dict[str, Any] = {}
    for key in facts[0]:
        values = [fact[key] for fact in facts]
        if all(isinstance(value, bool) for value in values):
            out[key] = float(np.mean(values))
    if "style" in facts[0]:
        styles = Counter(str(fact["style"]) for fact in facts if fact["style"] is not None)
        out["styles"] = {style: count / len(facts) for style, count in sorted(styles.items())}
    return out


def pool_metrics(tables: Sequence[np.ndarray], policies: int) -> list[dict[str, float]]:
    """Win rates and gaps of policies 0 … T that answered the same prompts, K times each.

    Args:
        tables: P float [policies * K, policies * K] of each prompt, answers in the order of the policies.

    Returns:
        One dict per policy: ``win_vs_start`` P(pi_t > pi_0), ``win_vs_previous``, ``gap_last``, and ``gap_average``
        of the mixture of policies 1 … t (of policy 0 itself for t = 0).
    """
    P = np.stack(tables)  # [N, M, M], M = policies * K
    M = P.shape[-1]
    K = M // policies
    blocks = P.reshape(len(P), policies, K, policies, K).mean((0, 2, 4))  # [policies, policies]
    out = []
    for t in range(policies):
        last, average = np.zeros(M), np.zeros(M)
        last[t * K : (t + 1) * K] = 1.0 / K
        first = min(1, t)
        average[first * K : (t + 1) * K] = 1.0 / ((t + 1 - first) * K)
        out.append(
            {
                "win_vs_start": float(blocks[t, 0]),
                "win_vs_previous": float(blocks[t, max(0, t - 1)]),
                "gap_last": float(np.mean(game.duality_gap(P, np.broadcast_to(last, (len(P), M))))),
                "gap_average": float(np.mean(game.duality_gap(P, np.broadcast_to(average, (len(P), M))))),
            }
        )
    return out
