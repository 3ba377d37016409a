"""B6: reference log-probabilities made once and kept by content, against a frozen policy that runs in every step.

Both sides run the same objective on the same packed batches; only where the reference values come from differs.

- *3 epochs*: ours makes them in one pass before the first epoch.
- *second method*: one epoch of another loss on samples whose values an earlier run left in a shared cache: no pass.

The losses of all epochs agree. With F for a forward, the bound is E (3F + F) / (E 3F + F) in the first case, 4F / 3F in
the second (a little less, since the head's logits are made twice).

    python -m benchmarks.run b6
"""

from __future__ import annotations

import copy
import random
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks.bench import Bench, Expect
from benchmarks.material import ids, llama, read_flops, tokenizer
from benchmarks.measure import Case, main
from launch.counters import NO_WORK, Work, cost_of

PROMPTS, PROMPT, ANSWER, BATCH, EPOCHS = 8, 160, (32, 64), 4, 3
Values = list[list[float]]
BENCH = Bench(
    key="b6",
    title="Reference values kept",
    module="benchmarks.reference_values",
    ours="kept",
    other="each-step",
    what="Epochs of an SPPO objective with reference values made once, or found, against a frozen copy of the policy "
    "that runs in every step. The losses of all epochs agree.",
    cases={"3 epochs": Expect(share=0.9), "second method": Expect(share=0.9)},
)


def rows() -> list[dict[str, Any]]:
    """Rows of a `PairDataset` as far as training and the cache read them."""
    draw = random.Random(0)
    return [
        {
            "prompt_ids": ids(draw, PROMPT),
            "response_ids": [ids(draw, draw.randint(*ANSWER)) for _ in range(2)],
            "index": [0, 1],
            "win_rates": [0.7, 0.3],
            "scores": [0.4, -0.4],
        }
        for _ in range(PROMPTS)
    ]


def epochs(model: Any, count: int, loss: Any, values_of: Callable[[list[int]], Values]) -> list[float]:
    """Mean loss of each of `count` epochs; `values_of` gives a step's reference values."""
    from align.selfplay.objective import SelfPlayObjective, examples, objective_scale

    data, renderer = rows(), _renderer()
    learner = SelfPlayObjective(objective_scale(loss, "pair", 2))
    means = []
    for _ in range(count):
        total = 0.0
        for start in range(0, PROMPTS, BATCH):
            numbers = list(range(start, start + BATCH))
            part = [data[n] for n in numbers]
            batch = learner.collate(examples(part, values_of(numbers), renderer, loss=loss, beta=0.1))
            model.zero_grad()
            found = learner.loss(model, batch)
            found.total.backward()
            total += float(found.total.detach())
        means.append(total / PROMPTS)
    return means


def _renderer() -> Any:
    from launch.rendering import Renderer

    return Renderer(tokenizer(), max_length=1024, cut="prompt_left", end="keep")


def reference(model: Any, part: Sequence[Any]) -> Values:
    from align.selfplay.objective import reference_logprobs

    return reference_logprobs(model, part, _renderer(), batch_size=BATCH)


def flops(model: Any, trained: int, passes: int) -> dict[str, float]:
    """Of `trained` epochs and `passes` reference passes over the rows."""
    total = NO_WORK
    for row in rows():
        total += Work.needed(PROMPT, [len(a) for a in row["response_ids"]])
    forward = read_flops(model, total, total.head)
    train = 3 * forward + 2.0 * cost_of(model).head * total.head
    return {"reference_passes": float(passes), "flops": trained * train + passes * forward}


def kept(folder: Path) -> Iterator[Case]:
    from align.selfplay.reference import ReferenceCache

    model = llama()

    def first() -> list[float]:
        values = reference(model, rows())
        return epochs(model, EPOCHS, "sppo", lambda numbers: [values[n] for n in numbers])

    cache = ReferenceCache(folder, {"policy": "random"})
    cache.keep(rows(), reference(model, rows()))

    def second() -> list[float]:
        values = cache.find(rows())
        return epochs(model, 1, "gpo", lambda numbers: [values[n] or [] for n in numbers])

    yield Case("3 epochs", first, list, flops(model, EPOCHS, 1))
    yield Case("second method", second, list, flops(model, 1, 0))


def each_step(folder: Path) -> Iterator[Case]:
    model = llama()
    frozen = copy.deepcopy(model).requires_grad_(False)
    data = rows()

    def work(count: int, loss: str) -> list[float]:
        return epochs(model, count, loss, lambda numbers: reference(frozen, [data[n] for n in numbers]))

    yield Case("3 epochs", lambda: work(EPOCHS, "sppo"), list, flops(model, EPOCHS, EPOCHS))
    yield Case("second method", lambda: work(1, "gpo"), list, flops(model, 1, 1))


SIDES = {"kept": kept, "each-step": each_step}

if __name__ == "__main__":
    torch.set_num_threads(1)
    main(SIDES, BENCH.module)
