"""Rates by module, halving on a plateau and the early end: by hand, against torch's own, and through SIGKILL."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from launch import checkpoint, config
from launch.errors import ConfigError
from launch.models import apply_lora
from launch.options import LoraOptions, TrainOptions
from launch.runfolder import RunFolder
from launch.trainer import fit
from reasoning.legal.objective import OpinionObjective, encode_opinions
from reasoning.legal.plateau import Plateau, halvings, without_gain
from reasoning.legal.train import RateOptions
from tasks.encoder import soft
from tests.launch.toy import launched
from tests.reasoning import killed_legal
from tests.reasoning.test_legal_encoder import chain_model
from tests.reasoning.test_legal_objective import row
from tests.tiny import make_tokenizer


def test_halvings_by_hand() -> None:
    """Patience 1: the second evaluation in a row without gain halves and counting begins anew."""
    seen = [5.0, 4, 4, 4, 3, 3, 3, 3]  # bad: 4, 4 (halved), 3, 3 (halved), 3
    assert [halvings(seen[:n], 1) for n in range(len(seen) + 1)] == [0, 0, 0, 0, 1, 1, 1, 2, 2]
    assert halvings(seen, 0) == 5 and halvings(seen, 5) == 0
    assert [without_gain(seen[:n]) for n in range(len(seen) + 1)] == [0, 0, 0, 1, 2, 0, 1, 2, 3]


def test_halvings_are_those_of_torchs_plateau() -> None:
    rng = np.random.default_rng(0)
    for patience in (0, 1, 3):
        for _ in range(20):
            seen = rng.integers(0, 12, 40).astype(float).tolist()
            optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
            plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, factor=0.5, patience=patience, threshold=0)
            for n, value in enumerate(seen, 1):
                plateau.step(value)
                if halvings(seen[:n], patience) < 25:  # torch lets rates alone once they are below 1e-8
                    assert optimizer.param_groups[0]["lr"] == 0.5 ** halvings(seen[:n], patience)


# ---------------------------------------------------------------- through a fit


def learner(graph: bool = False) -> tuple[Any, list[dict[str, Any]]]:
    """A small `ChainModel` under LoRA, whose adapters do not start at zero, and two cases."""
    model = chain_model(graph)
    renderer = model.renderer(make_tokenizer())
    rows = [{**row(), "prompt": f"{soft(charge)}{row()['prompt']}"} for charge in ("theft", "arson")]
    adapted: Any = apply_lora(model, LoraOptions(rank=2), model.train_whole, 0)
    torch.manual_seed(0)
    for name, parameter in adapted.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    return adapted, encode_opinions(rows, renderer)


def one_step(folder: Path, rates: dict[str, float], graph: bool) -> dict[str, torch.Tensor]:
    """What one step of plain gradient descent adds to each trained parameter."""
    model, rows = learner(graph)
    before = {n: p.detach().clone() for n, p in model.named_parameters() if p.requires_grad}
    options = TrainOptions(learning_rate=1.0, optimizer="sgd", schedule="constant", warmup_ratio=0.0, max_grad_norm=0,
                           batch_size=2, max_steps=1, log_steps=1)  # fmt: skip
    fit(model, OpinionObjective(), rows, options=options, run=RunFolder(folder).open({}, 0), name="legal", seed=0,
        rates=rates)  # fmt: skip
    return {n: p.detach() - before[n] for n, p in model.named_parameters() if n in before}


@pytest.mark.parametrize("graph", [False, True], ids=["attention", "graph"])
def test_every_module_moves_at_its_own_rate(tmp_path: Path, graph: bool) -> None:
    """Gradient descent: a parameter's step is its rate times what it is at rate 1."""
    rates = RateOptions(decoder=1e-2, attention=3e-2, transform=4e-2, logic=2e-2)
    plain = one_step(tmp_path / "plain", {}, graph)
    parted = one_step(tmp_path / "parted", rates.by_name(graph), graph)
    seen = set()
    for name, step in plain.items():
        module = "decoder" if "lora" in name else name.partition("default.")[2].partition(".")[0]
        rate = {"decoder": 1e-2, "attention": 3e-2, "graph": 2e-2}.get(module, 4e-2)
        torch.testing.assert_close(parted[name], rate * step, rtol=1e-3, atol=1e-6)
        if float(step.abs().max()) > 1e-4:
            seen.add(module)
    assert {"decoder", "graph" if graph else "attention", "first", "gate", "fusion"} <= seen


def test_rates_stay_with_their_checkpoint_and_must_mean_something(tmp_path: Path) -> None:
    model, rows = learner()
    options = TrainOptions(batch_size=2, max_steps=1)
    run = RunFolder(tmp_path).open({}, 0)
    with pytest.raises(ConfigError, match="learning rate for 'graph': no trained parameter is called so"):
        fit(model, OpinionObjective(), rows, options=options, run=run, name="a", seed=0, rates={"graph": 1e-5})
    fit(model, OpinionObjective(), rows, options=options, run=run, name="b", seed=0, rates={"lora": 1e-5})
    assert checkpoint.read_facts(run.checkpoints("b") / checkpoint.FINAL)["rates"] == {"lora": 1e-5}


class Told(Plateau):
    """A plateau that is told held-out values instead of measuring them, and notes the rates of each step."""

    def __init__(self, values: list[float], **said: Any) -> None:
        super().__init__("eval_told", **said)
        self.values, self.rates = values, list[list[float]]()

    def on_step_begin(self, args: Any, state: Any, control: Any, optimizer: Any = None, **_: Any) -> None:
        self.rates.append(sorted({group["lr"] for group in optimizer.param_groups}))

    def on_evaluate(self, args: Any, state: Any, control: Any, **more: Any) -> None:
        state.log_history[-1]["eval_told"] = self.values[state.global_step - 1]
        super().on_evaluate(args, state, control, **more)


def test_a_plateau_halves_all_rates_under_their_schedule(tmp_path: Path) -> None:
    """No gain at steps 2 and 3 (patience 1): from step 4 on half of what a linear schedule over 8 steps gives."""
    model, rows = learner()
    options = TrainOptions(learning_rate=0.8, schedule="linear", warmup_ratio=0.0, batch_size=2, max_steps=8,
                           eval_steps=1)  # fmt: skip
    told = Told([3, 3, 3, 1, 2, 2, 2, 2], patience=1, factor=0.5, stop_after=3)
    done = fit(model, OpinionObjective(), rows, options=options, run=RunFolder(tmp_path).open({}, 0), name="legal",
               seed=0, evaluate=rows, callbacks=[told], rates={"lora": 0.08})  # fmt: skip
    shares = [1, 7 / 8, 6 / 8, 5 / 16, 4 / 16, 3 / 16, 2 / 32]
    assert done.steps == 7  # best at step 4, three without gain
    for found, share in zip(told.rates, shares, strict=True):
        assert found == pytest.approx([0.08 * share, 0.8 * share])


def test_a_killed_fit_halves_and_stops_where_it_would_have(tmp_path: Path) -> None:
    """SIGKILL before and after a halving, and when the fit had just been ended; SIGTERM in every step: rates, errors,
    end and weights chosen are those of a fit that nobody touched.
    """
    done = launched(["tests.reasoning.killed_legal", str(tmp_path)])
    assert done.returncode == 0, done.stderr
    codes = json.loads(done.stdout.splitlines()[-1])
    stops = codes.pop(killed_legal.STOPPED)
    assert codes == {case: [-9] * len(dies) + [0] for case, dies in killed_legal.CASES.items()}
    whole = told(tmp_path / "never")
    assert all(told(tmp_path / case.replace(" ", "_")) == whole for case in (*killed_legal.CASES, killed_legal.STOPPED))
    assert stops == [1] * whole[0] + [0]
    steps, rates, errors, _, _ = whole
    assert steps < 40 and without_gain(errors) == killed_legal.STOP_AFTER
    cut = halvings(errors[:-1], killed_legal.PATIENCE)
    assert cut >= 2 and rates[-1] == pytest.approx(1e-3 * (41 - steps) / 36 * 0.5**cut)


def told(folder: Path) -> tuple[int, list[float], list[float], Any, bytes]:
    """Steps, rates and errors of a fit, what was selected, and the selected weights."""
    rows = RunFolder(folder).metrics()
    facts = checkpoint.read_facts(folder / "checkpoints" / "legal" / checkpoint.FINAL)
    rates = [r["lr"] for r in rows if "lr" in r]
    errors = [r["eval_rmse"] for r in rows if r["stage"] == "legal-terms"]
    assert all(math.isfinite(e) for e in errors)
    chosen = folder / "selected"
    selected = json.loads((chosen / "selected.json").read_text())
    return facts["steps"], rates, errors, selected, (chosen / "selected.safetensors").read_bytes()


@pytest.mark.parametrize(
    ("said", "complaint"),
    [
        (["rates.transform=-1"], "transform -1.0: learning rates are 0 or more"),
        (["selection.factor=1"], "factor 1.0: give a number between 0 and 1"),
        (["selection.patience=-1"], "patience -1: give 0 or more evaluations"),
        (["selection.stop_after=-1"], "stop_after -1: give 1 or more evaluations"),
        (["selection.patience=2", "train.eval_steps=0"], "a plateau takes evaluations on the way"),
        (["selection.patience=2", "train.sharding=zero2"], "never run under ZeRO"),
        (["rates.decoder=1e-5", "train.sharding=zero2"], "never run under ZeRO"),
    ],
)
def test_settings_that_mean_nothing_are_refused(said: list[str], complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint):
        config.load("reasoning/legal_cases", said)
