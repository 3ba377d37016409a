"""The regression guard: tokens, products and bytes that the fast paths really spend, beside numbers derived by hand.

Nothing here is timed. PyTorch counts the FLOPs of every matrix product that runs (its counter knows no attention kernel
of the CPU, so that attention is guarded by pairs, in `tests/launch/test_counters.py`), a hook counts the columns that a
backbone sees, and a dispatch mode the bytes of every tensor that an operation makes. A change that lets padding, prompt
copies, whole last layers, logits of prompts or loops over pairs back in moves these numbers on any machine.

Width 32, 2 layers: a layer has q, k, v, o of 32 x 32 and an MLP of 3 x 32 x 64, 10,240 weights, 2,048 of them for keys
and values. One prompt of 20 tokens, 3 answers of 16 with EOS 17: 71 tokens shared, 111 apart.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from align.preference import PreferenceModel
from align.preference.objective import PreferenceObjective
from align.preference.score import scores_of
from align.selfplay.objective import SelfPlayObjective
from benchmarks.material import groups, llama, save_llama
from launch.counters import watch

LAYER, KEPT, WIDTH, VOCABULARY = 10_240, 2_048, 32, 2_000
PROMPT, ANSWERS, ANSWER = 20, 3, 17
SHARED, APART = PROMPT + ANSWERS * ANSWER, ANSWERS * (PROMPT + ANSWER)
READ_LAST = SHARED * (LAYER + KEPT) + (ANSWERS + 1) * (LAYER - KEPT)
"""Weights times tokens of a pass whose last layer works where it is read."""
ROWS = groups(1, ANSWERS, (PROMPT, PROMPT), (ANSWER - 1, ANSWER - 1))


class Made(TorchDispatchMode):
    """How often operations are called, and bytes of every tensor that one makes; views make none."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes = 0
        self.calls: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        self.calls[func.overloadpacket.__name__] += 1
        known = {x.untyped_storage().data_ptr() for x in args if isinstance(x, torch.Tensor)}
        for x in found if isinstance(found, tuple | list) else (found,):
            if isinstance(x, torch.Tensor) and x.untyped_storage().data_ptr() not in known:
                self.bytes += x.untyped_storage().nbytes()
        return found


def in_place(total: Any, left: Any, right: Any, **_: Any) -> int:
    """FLOPs of total += left right, which PyTorch's counter leaves out; from shapes."""
    return 2 * left[0] * left[1] * right[1]


def spent(backbone: Any, work: Callable[[], Any]) -> tuple[int, int, int]:
    """(columns, FLOPs of matrix products, bytes made) of one piece of work."""
    counter = FlopCounterMode(display=False, custom_mapping={torch.ops.aten.addmm_: in_place})
    with watch(backbone) as columns, counter as products:
        work()
    with Made() as made:
        work()
    return sum(columns), products.get_total_flops(), made.bytes


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> PreferenceModel:
    folder = save_llama(tmp_path_factory.mktemp("guard"), layers=2, hidden=WIDTH)
    return PreferenceModel.from_backbone(folder, kind="bt", tau=1.0, max_length=4096)


def training(model: PreferenceModel, layout: Any) -> tuple[int, int, int]:
    objective = PreferenceObjective(model.renderer, model.config, layout)

    def step() -> None:
        model.zero_grad()
        objective.loss(model, objective.collate(ROWS)).total.backward()

    return spent(model.backbone, step)


def test_guard_a_training_step(model: PreferenceModel) -> None:
    """Three passes (a forward, and two products of the backward) over the first layer at 71 tokens, keys and values of
    the second at 71, the rest of it at the 4 states that are read (3 ends and the gate's), and the rank head at 3.
    Padded: both layers at 111."""
    padded, shared = training(model, "padded"), training(model, "shared")
    assert padded[:2] == (APART, 3 * 2 * (APART * 2 * LAYER + ANSWERS * WIDTH))
    assert shared[:2] == (SHARED, 3 * 2 * (READ_LAST + ANSWERS * WIDTH))
    assert shared[2] < padded[2]


def test_guard_scoring(model: PreferenceModel) -> None:
    """One pass, without gradients. Bytes would follow the tokens, 71 of 111, but for the prompt's keys and values: they
    are copied in front of each answer's, and it was 0.72 of the padded ones when this was written."""
    asked = [(row["prompt"], row["responses"]) for row in ROWS]
    shared = spent(model.backbone, lambda: model.score_many(asked))
    padded = spent(model.backbone, lambda: model.score_many(asked, packing="padded"))
    assert shared[:2] == (SHARED, 2 * (READ_LAST + ANSWERS * WIDTH))
    assert padded[:2] == (APART, 2 * (APART * 2 * LAYER + ANSWERS * WIDTH))
    assert shared[2] < 0.75 * padded[2]


def test_guard_scores_of_many_groups_are_no_loop() -> None:
    """200 groups of 4 answers and 100 of 3: two products."""
    g = np.random.default_rng(0)
    r, v, lambda_sq = (g.normal(size=shape).astype(np.float32) for shape in ((1100,), (1100, 4), (300, 2)))
    answers = [range(4 * n, 4 * n + 4) for n in range(200)] + [range(800 + 3 * n, 803 + 3 * n) for n in range(100)]
    with Made() as made:
        assert len(scores_of(r, v, lambda_sq, answers)) == 300
    assert made.calls["bmm"] == 2 and not made.calls["mm"]


def test_guard_a_session(model: PreferenceModel) -> None:
    """The prompt once, then each answer's own tokens alone, with both layers whole."""

    def one_by_one() -> None:
        session = model.session(ROWS[0]["prompt"])
        for answer in ROWS[0]["responses"]:
            session.add(answer)

    columns, flops, _ = spent(model.backbone, one_by_one)
    assert (columns, flops) == (SHARED, 2 * (SHARED * 2 * LAYER + ANSWERS * WIDTH))


def test_guard_a_self_play_step() -> None:
    """Logits of the 51 tokens of answers alone, made again in the backward, which takes two products more: 4 x 51 x 32
    x 2,000 in either layout. The body reads 71 tokens, or 111."""
    policy = llama(layers=2, hidden=WIDTH)
    ids = list(range(3, 3 + PROMPT))
    answers = [[100 * (k + 1) + n for n in range(ANSWER)] for k in range(ANSWERS)]
    example = {
        "ids": [ids + answer for answer in answers],
        "prompt_lengths": [PROMPT] * ANSWERS,
        "targets": [0.0] * ANSWERS,
        "reference": [0.0] * ANSWERS,
    }

    def step(layout: Any) -> tuple[int, int, int]:
        objective = SelfPlayObjective(1.0, layout=layout)

        def work() -> None:
            policy.zero_grad()
            objective.loss(policy, objective.collate([example])).total.backward()

        return spent(policy.base_model, work)

    head = 2 * 4 * ANSWERS * ANSWER * WIDTH * VOCABULARY
    padded, shared = step("padded"), step("shared")
    assert padded[:2] == (APART, 3 * 2 * APART * 2 * LAYER + head)
    read = 1 + ANSWERS * (ANSWER - 1)  # the prompt's last state, which predicts all first tokens, and what follows
    body = SHARED * (LAYER + KEPT) + read * (LAYER - KEPT)
    assert shared[:2] == (SHARED, 3 * 2 * body + head)
    assert shared[2] < padded[2]
