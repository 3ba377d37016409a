"""The pair loss over groups: equal to a plain double loop, with gradients; each answer encoded once."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch

from align.preference import PreferenceModel
from align.preference.objective import PreferenceObjective, preference_loss
from launch.counters import Work, watch, work_metrics
from launch.errors import DataError
from tests.align.preference.conftest import lively

ROWS: list[dict[str, Any]] = [
    {"prompt": "Best?", "responses": ["a", "bb bb", "ccc"], "winners": [0, 1, 2, 0], "losers": [1, 2, 0, 2],
     "weights": [1.0, 2.0, 0.5, 1.0], "ties": [], "source": "x:1"},
    {"prompt": "And now?", "responses": ["yes", "no, never"], "winners": [1], "losers": [0], "weights": [3.0],
     "ties": [], "source": "x:2"},
]  # fmt: skip


def made(folder: Path, **options: Any) -> tuple[PreferenceModel, PreferenceObjective]:
    model = lively(PreferenceModel.from_backbone(folder, **{"seed": 1, "tau": 0.5, **options}))
    return model, PreferenceObjective(model.renderer, model.config)


def gradients(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}


def test_loss_by_hand() -> None:
    """-log sigmoid(0) = log 2; -log sigmoid(log 3) = log 4/3. Weights 2 and 1 at tau 1/2 with s = 0 and log(3)/2."""
    s, w = torch.tensor([0.0, math.log(3) / 2]), torch.tensor([2.0, 1.0])
    assert preference_loss(s, w, 0.5).item() == pytest.approx(2 * math.log(2) + math.log(4 / 3))


@pytest.mark.parametrize("kind", ["bt", "gpm", "hrc"])
def test_equals_the_naive_loop_with_gradients(backbone: Path, kind: str) -> None:
    """Every pair by itself: two forwards of one unpadded sequence each, and the prompt's gate."""
    model, objective = made(backbone, kind=kind)
    batch = objective.collate(ROWS)
    total, count, metrics = objective.loss(model, batch)
    assert count == batch["count"] == 7.5
    total.backward()
    mine = gradients(model)
    model.zero_grad()
    naive = torch.zeros(())
    right = 0.0
    for row in ROWS:
        for w, b, weight in zip(row["winners"], row["losers"], row["weights"], strict=True):
            pair = {**row, "responses": [row["responses"][w], row["responses"][b]], "winners": [0], "losers": [1],
                    "weights": [1.0]}  # fmt: skip
            alone = objective.loss(model, objective.collate([pair]))
            naive = naive + weight * alone.total
            right += weight * float(alone.metrics["accuracy"])
    naive.backward()
    assert total.item() == pytest.approx(naive.item(), rel=1e-5)
    assert float(metrics["accuracy"]) == pytest.approx(right)
    for name, gradient in gradients(model).items():
        assert torch.allclose(mine[name], gradient, atol=1e-4, rtol=1e-3), name


@pytest.mark.parametrize("packing", ["shared", "packed", "padded"])
def test_each_answer_is_encoded_once(tiny_llama: Path, packing: Any) -> None:
    """28 pairs among K = 8 answers: 8 sequences, or their tokens with the prompt once: <s> and 19 more."""
    model, _ = made(tiny_llama)
    objective = PreferenceObjective(model.renderer, model.config, packing)
    pairs = [(i, j) for i in range(8) for j in range(i)]
    row = {"prompt": "?" * 19, "responses": [f"{k} is my answer" for k in range(8)], "winners": [i for i, _ in pairs],
           "losers": [j for _, j in pairs], "weights": [1.0] * 28, "source": "x:1"}  # fmt: skip
    seen: list[torch.Size] = []
    model.backbone.register_forward_pre_hook(
        lambda _, args, kwargs: seen.append(kwargs["input_ids"].shape), with_kwargs=True
    )
    assert objective.loss(model, objective.collate([row])).count == 28
    answer = len("0 is my answer") + 1  # a token a byte, and EOS
    assert seen == [
        {"shared": (1, 20 + 8 * answer), "packed": (1, 8 * (20 + answer)), "padded": (8, 20 + answer)}[packing]
    ]


def work(objective: PreferenceObjective, rows: list[dict[str, Any]]) -> Work:
    batch = objective.collate(rows)
    assert batch["tokens"] == batch["work_repeated"]
    return Work(*(int(batch[f"work_{name}"]) for name in Work.__dataclass_fields__))


def test_work_of_a_batch_by_hand(tiny_llama: Path, tiny_bert: Path) -> None:
    """A token a byte, <s> in front, </s> behind. "p" x 19 and answers of 19 and 24 bytes: 20 and 20 + 25 tokens, so 65
    shared and 85 apart; pairs 20*21/2 + (20*20 + 20*21/2) + (25*20 + 25*26/2) = 210 + 610 + 825 = 1645 shared,
    40*41/2 + 45*46/2 = 820 + 1035 = 1855 apart. Padded: 2 rows of 45 columns. "?" with "a" and "b" is 2 + 2 + 2, too
    short for segments: beside the first one a row of 65 columns with 59 of padding under a mask. BERT reads the prompt
    once more for the gate, as [CLS] and 19; it sees both ways: 40, 45 and 20 tokens, 1600 + 2025 + 400 pairs."""
    long = {"prompt": "p" * 19, "responses": ["a" * 19, "b" * 24], "winners": [0], "losers": [1], "weights": [1.0]}
    short = {**long, "prompt": "?", "responses": ["a", "b"]}
    model, shared = made(tiny_llama)
    packed, padded = (PreferenceObjective(model.renderer, model.config, how) for how in ("packed", "padded"))
    assert work(shared, [long]) == Work(tokens=65, columns=65, repeated=85, pairs=1645)
    assert work(packed, [long]) == Work(85, 85, 85, 1855)
    assert work(padded, [long]) == Work(85, 90, 85, 1855)
    assert work(shared, [short]) == Work(6, 6, 8, 3 + 2 * (2 * 2 + 3))
    assert work(shared, [long, {**short, "responses": [f"{k}" for k in range(10)]}]).columns == 2 * 65
    _, both_ways = made(tiny_bert)
    assert work(both_ways, [long]) == Work(105, 3 * 45, 105, 4025)
    batch = shared.collate([long])
    told = shared.loss(model, batch).metrics
    assert {key: told[key] for key in batch if key.startswith("work_")} == work_metrics(batch) != {}
    with torch.no_grad():
        assert not any(key.startswith("work_") for key in shared.loss(model, batch).metrics)


def test_the_columns_told_are_those_that_the_backbone_sees(tiny_llama: Path) -> None:
    for how in ("shared", "packed", "padded"):
        model, _ = made(tiny_llama)
        objective = PreferenceObjective(model.renderer, model.config, how)
        for rows in (ROWS, ROWS[:1], [{**ROWS[0], "prompt": "x" * 40, "responses": ["y" * 30, "z" * 50, "w" * 9]}]):
            batch = objective.collate(rows)
            with watch(model.backbone) as columns:
                objective.loss(model, batch)
            assert columns == [batch["work_columns"]]


def test_a_weight_is_so_many_equal_pairs(tiny_llama: Path) -> None:
    model, objective = made(tiny_llama)
    repeated = {**ROWS[1], "winners": [1] * 3, "losers": [0] * 3, "weights": [1.0] * 3}
    a, b = (objective.loss(model, objective.collate([row])) for row in (ROWS[1], repeated))
    assert a.count == b.count
    assert a.total.item() == pytest.approx(b.total.item(), rel=1e-6)


def test_one_batch_of_two_is_two_batches_of_one(backbone: Path) -> None:
    model, objective = made(backbone)
    whole = objective.loss(model, objective.collate(ROWS))
    parts = [objective.loss(model, objective.collate([row])) for row in ROWS]
    assert whole.total.item() == pytest.approx(sum(p.total.item() for p in parts), rel=1e-5)
    assert whole.count == sum(p.count for p in parts)  # type: ignore[misc]
    for name, value in whole.metrics.items():
        if name == "work_columns":  # two rows of one length make padding that one alone does not
            continue
        assert float(value) == pytest.approx(sum(float(p.metrics[name]) for p in parts), rel=1e-4, abs=1e-5)


def test_loss_is_of_the_scores(tiny_llama: Path) -> None:
    """Training and scoring see the same numbers: sum of -w log sigmoid(S[w, l]) from `score`."""
    model, objective = made(tiny_llama)
    expected = 0.0
    for row in ROWS:
        S = model.score(row["prompt"], row["responses"]).S
        for w, b, weight in zip(row["winners"], row["losers"], row["weights"], strict=True):
            expected += weight * math.log1p(math.exp(-S[w, b]))
    assert objective.loss(model, objective.collate(ROWS)).total.item() == pytest.approx(expected, rel=1e-4)


def test_hrc_acceptance_7_c2_zero_is_bt(tiny_llama: Path) -> None:
    """C2 = 0 trains BT's weights bit for bit (both clipped)."""
    trained = []
    for kind in ("bt", "hrc"):
        model, objective = made(tiny_llama, kind=kind, c2=0.0)
        with torch.no_grad():
            model.rank_head.weight.copy_(torch.linspace(-0.2, 0.2, 64)[None])
        shared = [p for n, p in model.named_parameters() if not n.startswith(("cyclic", "gate"))]
        optimizer = torch.optim.Adam(shared, lr=1e-3)
        for _ in range(3):
            optimizer.zero_grad()
            objective.loss(model, objective.collate(ROWS)).total.backward()
            optimizer.step()
        trained.append([p.detach() for p in shared])
    assert all(torch.equal(a, b) for a, b in zip(*trained, strict=True))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"winners": [7]}, r"pair \(7, 0\)"),
        ({"winners": [0]}, r"pair \(0, 0\)"),
        ({"weights": [float("nan")]}, "weight nan"),
        ({"weights": [0.0]}, "weight 0"),
        ({"losers": []}, "differ in length"),
        ({"responses": []}, "of 0 answers"),
    ],
)
def test_rows_that_mean_nothing_are_named(tiny_llama: Path, change: dict[str, Any], words: str) -> None:
    _, objective = made(tiny_llama)
    with pytest.raises(DataError, match=f"x:2.*{words}"):
        objective.collate([{**ROWS[1], **change}])
