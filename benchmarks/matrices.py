"""B3: K x K preference matrices and win rates of many prompts, from embeddings that are there already.

Ours: `heads.score_matrix` and `winrate` on [prompts, K, K] at once. The other side is a twin of what the GPM and SPPO
pipelines do, written anew: a Python loop over pairs that builds the skew operator each time, then loops over i and j
for probabilities and win rates (with (S - S^T)/2, so that both sides compute the same numbers).

    python -m benchmarks.run b3
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import torch

from benchmarks.bench import Bench, Expect
from benchmarks.measure import Case, main

PROMPTS, PLANES = 16, 3
SIZES = (5, 16, 64)
BENCH = Bench(
    key="b3",
    title="K x K preference matrices",
    module="benchmarks.matrices",
    ours="batched",
    other="loops",
    what=f"Scores, probabilities and win rates of {PROMPTS} prompts from embeddings of {2 * PLANES} dimensions, "
    "against a twin of the pipelines' pair loops. All win rates agree, all tables are skew. Beside an encoder both are "
    "small.",
    cases={"K 5": Expect(), "K 16": Expect(goal=30.0), "K 64": Expect()},
    bound_by="",
)
Embeddings = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


def embeddings(K: int) -> Embeddings:
    draw = torch.Generator().manual_seed(K)
    v = torch.randn(PROMPTS, K, 2 * PLANES, generator=draw)
    return (
        torch.randn(PROMPTS, K, generator=draw),
        v / v.norm(dim=-1, keepdim=True),
        torch.rand(PROMPTS, PLANES, generator=draw),
    )


def batched(folder: Path) -> Iterator[Case]:
    from align.preference.heads import score_matrix
    from align.selfplay.winrate import probabilities, win_rates

    @torch.no_grad()
    def work(r: torch.Tensor, v: torch.Tensor, weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        S_T, S_C = score_matrix(r, v, weight)
        S = S_T + S_C
        return S, win_rates(probabilities(S))

    for K in SIZES:
        yield Case(f"K {K}", partial(work, *embeddings(K)), oracle, repeats=20)


def loops(folder: Path) -> Iterator[Case]:
    @torch.no_grad()
    def work(r: torch.Tensor, v: torch.Tensor, weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        K = r.shape[1]
        tables, rates = torch.zeros(PROMPTS, K, K), torch.zeros(PROMPTS, K)
        even, scale = torch.arange(0, 2 * PLANES, 2), weight.repeat_interleave(2, -1)
        for n in range(PROMPTS):
            for i in range(K):
                for j in range(K):
                    R = torch.zeros(2 * PLANES, 2 * PLANES)
                    R[even, even + 1], R[even + 1, even] = 1.0, -1.0
                    tables[n, i, j] = r[n, i] - r[n, j] + (v[n, i] * scale[n]) @ R @ v[n, j]
            table = tables[n].tolist()
            for i in range(K):
                chances = [1 / (1 + math.exp(-(table[i][j] - table[j][i]) / 2)) for j in range(K)]
                rates[n, i] = sum(chances) / K
        return tables, rates

    for K in SIZES:
        yield Case(f"K {K}", partial(work, *embeddings(K)), oracle, repeats=2 if K < 64 else 1)


def oracle(found: tuple[torch.Tensor, torch.Tensor]) -> list[float]:
    """Win rates, and how far the tables are from skew."""
    tables, rates = found
    return [*rates.flatten().tolist(), float((tables + tables.mT).abs().max())]


SIDES = {"batched": batched, "loops": loops}

if __name__ == "__main__":
    torch.set_num_threads(1)
    main(SIDES, BENCH.module)
