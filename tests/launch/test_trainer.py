"""The trainer's laws: the loss scale, the order of examples, the guard, and what it logs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from launch.callbacks import Clock, averages
from launch.contracts import Loss
from launch.errors import ConfigError, DataError, LaunchError
from launch.guard import NonFiniteError, overflowed
from launch.options import LoraOptions, TrainOptions
from launch.order import Deal, EpochBatches, permutation
from launch.runfolder import RunFolder
from tests.launch.toy import NextToken, fit_toy, flat, llama, losses, rows

ONE_STEP = {"optimizer": "sgd", "schedule": "constant", "warmup_ratio": 0.0, "max_steps": 1}

# ---------------------------------------------------------------- order


@pytest.mark.parametrize("examples", [1, 7, 16, 22])
@pytest.mark.parametrize("processes", [1, 2, 3])
def test_every_example_once_an_epoch(examples: int, processes: int) -> None:
    """Over all ranks, real indices are a permutation; all ranks make equally many micro-steps."""
    ranks = [list(EpochBatches(examples, Deal(2, 2, processes, r), seed=5)) for r in range(processes)]
    real = sorted(i for rank in ranks for batch in rank for i in batch if i >= 0)
    assert real == list(range(examples))
    assert len({len(rank) for rank in ranks}) == 1 == len({len(EpochBatches(examples, Deal(2, 2, processes), 5))})


def test_a_step_sees_the_same_examples_however_it_is_dealt() -> None:
    """8 x 1 x 1, 1 x 8 x 1 and 2 x 2 x 2 (batch x accumulation x processes) make the same windows of eight."""

    def windows(batch: int, accumulation: int, processes: int) -> list[set[int]]:
        order = permutation(22, 3, epoch=1)
        dealt = [list(Deal(batch, accumulation, processes, r).batches(order)) for r in range(processes)]
        steps = range(0, len(dealt[0]), accumulation)
        return [{i for rank in dealt for b in rank[s : s + accumulation] for i in b if i >= 0} for s in steps]

    assert windows(8, 1, 1) == windows(1, 8, 1) == windows(2, 2, 2) == windows(4, 1, 2)


def test_order_depends_on_seed_and_epoch_alone() -> None:
    torch.manual_seed(1)
    first = permutation(50, 0, 0)
    torch.manual_seed(2)
    assert permutation(50, 0, 0) == first
    assert permutation(50, 0, 1) != first != permutation(50, 1, 0)


# ---------------------------------------------------------------- loss scale


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[torch.Tensor, list[float]]:
    """Eight examples at once."""
    folder = tmp_path_factory.mktemp("whole")
    model, _ = fit_toy(folder)
    return flat(model), losses(folder)


@pytest.mark.parametrize(("batch", "accumulation"), [(1, 8), (2, 4), (3, 3)])
def test_accumulation_changes_nothing(
    tmp_path: Path, whole: tuple[torch.Tensor, list[float]], batch: int, accumulation: int
) -> None:
    """1 x 8 = 2 x 4 = 8 x 1 with rows of 3 to 9 tokens and a last step of 6 rows; 3 x 3 = 9 rows must differ."""
    model, _ = fit_toy(tmp_path, batch_size=batch, accumulation=accumulation)
    same = max(abs(a - b) for a, b in zip(whole[1], losses(tmp_path), strict=True)) < 1e-5
    assert same == (batch * accumulation == 8)
    if same:
        assert float((flat(model) - whole[0]).abs().max()) < 1e-4


def test_one_sgd_step_is_the_naive_one(tmp_path: Path) -> None:
    """w - lr * d/dw (summed loss / summed count), computed here by hand over the first window of the order."""
    model, _ = fit_toy(tmp_path, **{**ONE_STEP, "max_grad_norm": 0.0, "learning_rate": 0.5})
    naive, objective = llama(), NextToken()
    batch = objective.collate([rows()[i] for i in permutation(22, 0, 0)[:8]])
    total, count, _ = objective.loss(naive, batch)
    (total / count).backward()
    with torch.no_grad():
        expected = torch.cat([(p - 0.5 * p.grad).flatten() for p in naive.parameters()])
    assert torch.allclose(flat(model), expected, atol=1e-6)


def test_clipping_bounds_the_step(tmp_path: Path) -> None:
    """With plain SGD at rate 1 the step's length is the clipped norm, 0.01."""
    model, _ = fit_toy(tmp_path, **{**ONE_STEP, "max_grad_norm": 0.01, "learning_rate": 1.0})
    assert float((flat(model) - flat(llama())).norm()) == pytest.approx(0.01, rel=1e-3)


def test_gradient_checkpointing_changes_nothing(tmp_path: Path, whole: tuple[torch.Tensor, list[float]]) -> None:
    model, _ = fit_toy(tmp_path, gradient_checkpointing=True)
    assert float((flat(model) - whole[0]).abs().max()) < 1e-6
    assert not model.is_gradient_checkpointing and model.config.use_cache and not model.training


@pytest.mark.parametrize("changes", [{"optimizer": "rmsprop"}, {"schedule": "linear"}, {"precision": "bf16"}])
def test_other_options_learn(tmp_path: Path, whole: tuple[torch.Tensor, list[float]], changes: dict[str, Any]) -> None:
    """Each is in force (another trajectory than the default's) and the loss falls."""
    model, _ = fit_toy(tmp_path / "a", **changes)
    seen = losses(tmp_path / "a")
    assert seen[-1] < seen[0] and all(math.isfinite(loss) for loss in seen)
    assert seen[1:] != whole[1][1:] and not torch.equal(flat(model), whole[0])


def test_lora_trains_adapters_alone(tmp_path: Path) -> None:
    """A model that comes with adapters keeps them, and its base does not move."""
    from launch.models import apply_lora

    base = llama()
    model = apply_lora(base, LoraOptions(rank=2))
    before = {n: p.detach().clone() for n, p in model.named_parameters()}
    fit_toy(tmp_path, model=model, epochs=1, lora={"rank": 2})
    moved = {n for n, p in model.named_parameters() if not torch.equal(p, before[n])}
    assert moved and all("lora_" in name for name in moved)


# ---------------------------------------------------------------- what is refused


class Wrong(NextToken):
    """An objective with one fault."""

    def __init__(self, fault: str) -> None:
        self.fault = fault

    def collate(self, examples: Sequence[Sequence[int]]) -> dict[str, Any]:
        batch = super().collate(examples)
        if self.fault == "no count":
            del batch["count"]
        if self.fault == "zero":
            batch["count"] = 0.0
        return batch

    def loss(self, model: nn.Module, batch: dict[str, Any]) -> Loss:
        total, count, metrics = super().loss(model, batch)
        if self.fault == "other count":
            count = count + 1
        if self.fault == "log of zero":
            total = total + (total.detach() * 0).log()
        if self.fault == "vector":
            total = total[None]
        return Loss(total, count, metrics)


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("no count", 'no "count"'),
        ("zero", "counts sum to 0"),
        ("other count", r"Wrong.loss sums over \d+ units, Wrong.collate counted \d+"),
        ("vector", "must be a scalar sum"),
    ],
)
def test_faulty_objectives_are_told(tmp_path: Path, fault: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        fit_toy(tmp_path, objective=Wrong(fault))


def test_no_examples(tmp_path: Path) -> None:
    from launch.trainer import fit

    with pytest.raises(DataError, match="no training examples"):
        fit(llama(), NextToken(), [], options=TrainOptions(), run=RunFolder(tmp_path), name="toy", seed=0)


def test_trackers_are_checked_first(tmp_path: Path) -> None:
    from launch.trainer import fit

    def report(tracker: str) -> None:
        fit(
            llama(), NextToken(), rows(), options=TrainOptions(), run=RunFolder(tmp_path), name="toy", seed=0,
            report_to=(tracker,),
        )  # fmt: skip

    with pytest.raises(ConfigError, match="unknown tracker 'tensorbord'"):
        report("tensorbord")
    with pytest.raises(LaunchError, match="neptune is not installed; pip install neptune"):
        report("neptune")


# ---------------------------------------------------------------- guard


class Poison(nn.Module):
    """Gives NaN from its second call in training on."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner, self.calls = inner, 0

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        self.calls += 1
        out = self.inner(*args, **kwargs)
        return out * float("nan") if self.calls >= 2 and torch.is_tensor(out) else out


def test_guard_names_the_module_and_keeps_the_weights(tmp_path: Path) -> None:
    """The second layer's MLP gives NaN at step 2: the line names it, and the weights are those of step 1."""
    model = llama()
    model.model.layers[1].mlp = Poison(model.model.layers[1].mlp)
    with pytest.raises(NonFiniteError, match=r"step 2: the output of model.layers.1.mlp \(Poison\) is the first"):
        fit_toy(tmp_path, model=model)
    assert torch.isfinite(flat(model)).all() and len(losses(tmp_path)) == 1


def test_guard_names_a_bad_parameter(tmp_path: Path) -> None:
    model = llama()
    model.model.norm.weight.data[3] = float("inf")
    with pytest.raises(NonFiniteError, match=r"parameter model\.norm.weight is not finite"):
        fit_toy(tmp_path, model=model)


def test_guard_names_the_loss_itself(tmp_path: Path) -> None:
    """Every module's output is finite; the objective's own logarithm of zero is not."""
    with pytest.raises(NonFiniteError, match=r"step 1: .*objective's own arithmetic"):
        fit_toy(tmp_path, objective=Wrong("log of zero"))


def test_guard_names_a_bad_gradient(tmp_path: Path) -> None:
    """sqrt at zero: the value is fine, its slope is infinite (inf * 0 = NaN upstream)."""

    class Root(NextToken):
        def loss(self, model: nn.Module, batch: dict[str, Any]) -> Loss:
            total, count, metrics = super().loss(model, batch)
            weight = model.get_parameter("model.layers.0.self_attn.o_proj.weight")
            return Loss(total + (weight - weight.detach()).sum().abs().sqrt(), count, metrics)

    model = llama()
    with pytest.raises(NonFiniteError, match=r"the gradient of model.layers.0.self_attn.o_proj.weight is the first"):
        fit_toy(tmp_path, model=model, objective=Root())
    assert torch.equal(flat(model), flat(llama()))


# ---------------------------------------------------------------- ZeRO, as far as it needs no GPU


def test_a_norm_that_deepspeed_could_not_compute_is_seen() -> None:
    """DeepSpeed reports -1 for a gradient that is not finite, and nothing before its first step."""
    assert [overflowed(norm) for norm in (0.0, 3.5, None)] == [False] * 3
    assert [overflowed(norm) for norm in (-1.0, float("nan"), float("inf"))] == [True] * 3


def test_gathered_weights_are_saved_and_not_the_emptied_partitions(tmp_path: Path) -> None:
    """Under ZeRO-3 a parameter's own storage is empty; what was gathered carries the trainer's prefix."""
    from launch.loop import ObjectiveModule
    from launch.weights import load_weights, own_names, save_weights

    module = ObjectiveModule(llama(seed=4), NextToken())
    state = {name: value.clone() for name, value in module.state_dict().items()}
    for parameter in module.parameters():
        parameter.data = torch.empty(0)
    save_weights(module.model, tmp_path, own_names(state))
    again = llama(seed=5)
    load_weights(again, tmp_path)
    assert torch.equal(flat(again), flat(llama(seed=4)))
    assert own_names({"objective.scale": torch.ones(1)}) == {}


def test_models_are_loaded_whole_while_zero3_arguments_live() -> None:
    from transformers.integrations import deepspeed

    from launch.sharding import load_whole

    class Stage3:
        def is_zero3(self) -> bool:
            return True

    arguments = Stage3()
    deepspeed.set_hf_deepspeed_config(arguments)
    assert deepspeed.is_deepspeed_zero3_enabled()
    load_whole()
    assert not deepspeed.is_deepspeed_zero3_enabled()


# ---------------------------------------------------------------- logs


def test_rows_say_all_that_is_promised(tmp_path: Path) -> None:
    """Nine training rows, one evaluation, one closing row with the seconds of every stage."""
    model, result = fit_toy(tmp_path)
    found = RunFolder(tmp_path).metrics()
    training = [row for row in found if "loss" in row]
    assert [row["step"] for row in training] == list(range(1, 10))
    for key in ("stage", "epoch", "lr", "grad_norm", "tokens_per_second", "eta_seconds", "accuracy"):
        assert all(key in row for row in training), key
    assert training[-1]["eta_seconds"] == 0.0 and all(0 <= row["accuracy"] <= 1 for row in training)
    closing = next(row for row in found if "train_runtime" in row)
    for stage in ("data", "forward_backward", "optimizer", "checkpoint", "evaluate"):
        assert closing[f"seconds_{stage}"] >= 0
    held_out = [row for row in found if "eval_loss" in row]
    objective = NextToken()
    with torch.no_grad():
        total, count, _ = objective.loss(model, objective.collate(rows(5, seed=1)))
    assert len(held_out) == 1 and held_out[0]["eval_loss"] == pytest.approx(float(total / count), rel=1e-5)
    assert result.metrics["eval_loss"] == held_out[0]["eval_loss"]


def test_averages_weigh_by_count() -> None:
    """Ranks report 6 over 3 units and 2 over 1: (6 + 2) / (3 + 1) = 2; tokens add up, the slowest rank times."""
    facts = [
        {"sums": {"x": (6.0, 3.0)}, "tokens": 10.0, "seconds": 2.0},
        {"sums": {"x": (2.0, 1.0), "y": (5.0, 2.0)}, "tokens": 30.0, "seconds": 4.0},
    ]
    assert averages(facts) == {"x": 2.0, "y": 2.5, "tokens_per_second": 10.0}


def test_clock_adds_up() -> None:
    clock = Clock()
    for _ in range(2):
        with clock.stage("data"):
            pass
    assert list(clock.rows()) == ["seconds_data"]
