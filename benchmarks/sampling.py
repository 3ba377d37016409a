"""B7: K samples of each prompt in one request, against K passes with a seed each.

The predecessors sweep over the prompts K times, so that every prompt is prefilled K times. The twin does that with
this project's own generator, pass k drawing the k-th stream of random numbers, so that both sides sample the same
tokens: all ids and log-probabilities agree. The tokens prefilled must be exactly 1/K.

    python -m benchmarks.run b7
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from benchmarks.bench import Bench, Expect
from benchmarks.material import llama, text, tokenizer
from benchmarks.measure import Case, main
from launch.contracts import Completion, Sampling
from launch.counters import NO_WORK, Work, cost_of

K, PROMPTS, NEW = 5, 2, 32
CASES = {"prompt 512": 512, "prompt 32": 32}
BENCH = Bench(
    key="b7",
    title="K samples of a prompt",
    module="benchmarks.sampling",
    ours="one-request",
    other="passes",
    what=f"{K} samples of {NEW} tokens for each of {PROMPTS} prompts by `HFGenerator`, in one request, against {K} "
    "passes over the prompts. All ids and log-probabilities agree; prefilled tokens are 1/K.",
    cases={name: Expect(counter=("prefilled_tokens", K)) for name in CASES},
)


@contextmanager
def stream(k: int) -> Iterator[None]:
    """Inside, a request for one completion draws what completion k of a larger request draws."""
    from launch.generate import hf

    plain = hf.uniforms
    hf.uniforms = lambda seed, n, length: plain(seed, k + n, length)[k:]
    try:
        yield
    finally:
        hf.uniforms = plain


def pass_k(generator: Any, prompts: list[str], k: int, sampling: Sampling) -> list[Completion]:
    """Sample number k of every prompt, in a pass of its own."""
    with stream(k):
        return [row[0] for row in generator.generate(prompts, 1, sampling)]


def material(words: int) -> tuple[Any, list[str], Sampling]:
    from launch.generate import HFGenerator

    draw = random.Random(words)
    prompts = [text(draw, words) for _ in range(PROMPTS)]
    return HFGenerator(llama(), tokenizer()), prompts, Sampling(max_new_tokens=NEW, seed=1)


def oracle(found: list[list[Completion]]) -> list[float]:
    return [float(x) for row in found for c in row for x in (*c.token_ids, *c.logprobs)]


def counted(generator: Any, words: int, passes: int) -> dict[str, float]:
    """Prefill of every pass, and K continuations."""
    cost, total = cost_of(generator.model), NO_WORK
    for _ in range(passes):
        total += Work.needed(words, [NEW] * (K // passes))
    return {"prefilled_tokens": float(passes * words * PROMPTS), "flops": PROMPTS * cost.flops(total)}


def one_request(folder: Path) -> Iterator[Case]:
    for name, words in CASES.items():
        generator, prompts, sampling = material(words)
        yield Case(
            name, lambda g=generator, p=prompts, s=sampling: g.generate(p, K, s), oracle, counted(generator, words, 1)
        )


def passes(folder: Path) -> Iterator[Case]:
    for name, words in CASES.items():
        generator, prompts, sampling = material(words)

        def work(g: Any = generator, p: Any = prompts, s: Any = sampling) -> list[list[Completion]]:
            columns = [pass_k(g, p, k, s) for k in range(K)]
            return [list(row) for row in zip(*columns, strict=True)]

        yield Case(name, work, oracle, counted(generator, words, K))


SIDES = {"one-request": one_request, "passes": passes}

if __name__ == "__main__":
    torch.set_num_threads(1)
    main(SIDES, BENCH.module)
