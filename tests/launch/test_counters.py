"""Counts that do not depend on the machine, against numbers derived by hand, and the report's table of them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from transformers import LlamaConfig

from launch import counters, report
from launch.counters import Cost, Work, cost_of, fit_rows, passes_of, stage_rows, wire_bytes
from launch.logprob import pack_answers
from launch.models import apply_lora, tiny_like
from launch.options import LoraOptions, TrainOptions
from launch.runfolder import RunFolder


def test_work_of_two_answers_in_every_form() -> None:
    """A prompt of 4 with answers of 2 and 3.

    Packed: 4 + 2 + 3 = 9 tokens; pairs 4*5/2 + (2*4 + 2*3/2) + (3*4 + 3*4/2) = 10 + 11 + 18 = 39; 5 tokens predicted.
    Padded: rows of 6 and 7 in 2 x 7 columns; 13 tokens; pairs 6*7/2 + 7*8/2 = 21 + 28 = 49.
    """
    packed, targets = pack_answers([[1, 2, 3, 4, 5, 6], [1, 2, 3, 4, 7, 8, 9]], [4, 4])
    assert Work.packed(packed, len(targets.token)) == Work(tokens=9, columns=9, repeated=13, pairs=39, head=5)
    assert Work.needed(4, [2, 3]) == Work(9, 9, 13, 39, 5)
    assert Work.needed(4, [2, 3], head=False).head == 0
    mask = torch.ones(2, 7, dtype=torch.bool)
    mask[0, 6] = False
    completion = mask & (torch.arange(7) >= 4)
    assert Work.padded(mask, completion) == Work(tokens=13, columns=14, repeated=13, pairs=49, head=5)
    assert Work(1, 2, 3, 4, 5) + Work(1, 1, 1, 1, 1) == Work(2, 3, 4, 5, 6)
    names = ("work_tokens", "work_columns", "work_repeated", "work_pairs", "work_head")
    assert Work(1, 2, 3, 4, 5).facts() == {"tokens": 3.0, **dict(zip(names, (1.0, 2.0, 3.0, 4.0, 5.0), strict=True))}


def test_cost_of_a_llama_and_of_its_adapters() -> None:
    """Width 64, two heads of 32, one key-value head, MLP 128, 2 layers, V = 96.

    A layer: q, o 64 x 64 each, k, v 64 x 32 each, MLP 3 x 64 x 128: 8192 + 4096 + 24576 = 36864. Two: 73728.
    Attention: 2 layers x 64 = 128. Head: 64 x 96 = 6144. A forward of 10 tokens, 55 pairs, 3 predicted:
    2*73728*10 + 4*128*55 + 2*6144*3 = 1474560 + 28160 + 36864 = 1539584.
    LoRA of rank 1 adds in + out a matrix: 2 layers x (2 x 128 + 2 x 96 + 3 x 192) = 2048 on every linear layer.
    """
    model = tiny_like(LlamaConfig(vocab_size=96))
    cost = cost_of(model)
    assert cost == Cost(body=73728, attention=128, head=6144)
    assert cost.flops(Work(10, 10, 10, 55, 3)) == 1539584
    assert cost.flops(Work(10, 10, 10, 55, 3), 3.0) == 3 * 1539584
    assert cost_of(apply_lora(model, LoraOptions(rank=1))) == Cost(73728 + 2048, 128, 6144)


def test_passes_and_bytes_on_the_wire() -> None:
    """A ring all-reduce of 1000 fp32 gradients: each of 2 sends 4000 bytes, each of 4 sends 6000, one alone none."""
    assert passes_of(TrainOptions()) == 3.0
    assert passes_of(TrainOptions(lora=LoraOptions(), gradient_checkpointing=True)) == 3.0
    assert [wire_bytes(1000, n) for n in (1, 2, 4)] == [0, 4000, 6000]


def test_rows_of_the_tables() -> None:
    """A unit has 9 tokens in 12 columns in place of 13: 2 x 1.5e8 x 9 = 2.7 GFLOP. 26 of the 13 a second are 2 units,
    5.4 GFLOP/s, a tenth of 54. Steps 1 to 5 took 8 s; of the 2 s of one, 30 MB at 150 MB/s are a tenth."""
    logged = {"work_tokens": 9.0, "work_columns": 12.0, "work_repeated": 13.0, "work_pairs": 0.0, "work_head": 0.0}
    rows = [
        {"stage": "a", "step": 1, "time": 100.0, "tokens_per_second": 26.0, **logged},
        {"stage": "b", "step": 1, "loss": 1.0},
        {"stage": "a", "step": 5, "time": 108.0, "tokens_per_second": 26.0, **logged},
    ]
    cost = {"body": 150_000_000, "attention": 0, "head": 0}
    facts = {"cost": cost, "passes": 1.0, "processes": 1, "wire_bytes": 30_000_000, "wire_speed": 150e6}
    machine = {"matmul_flops": 54e9, "device": "one", "datasheet_flops": None}
    [row] = fit_rows(rows, {"a": facts, "b": facts}, machine)
    assert row == [
        "a",
        pytest.approx(25.0),
        pytest.approx(13 / 9),
        None,
        26.0,
        pytest.approx(5.4),
        pytest.approx(10.0),
        None,
        30.0,
        pytest.approx(10.0),
    ]
    [alone] = fit_rows(rows, {"a": {**facts, "wire_bytes": 0, "wire_speed": 0.0}}, {**machine, "datasheet_flops": 27e9})
    assert alone[-3:] == [pytest.approx(20.0), 0.0, None]  # MFU; nothing is sent
    timings = [
        {"stage": "x", "seconds": 1.0, "tokens": 5, "flops": 2e9},
        {"stage": "y", "seconds": 9.0},
        {"stage": "x", "seconds": 3.0, "tokens": 7, "flops": 2e9},
    ]
    assert stage_rows(timings, {"matmul_flops": 1e10}) == [["x", 4.0, 12.0, 4.0, 0.4, 10.0]]
    assert stage_rows(timings, {}) == [["x", 4.0, 12.0, 4.0, None, None]]


def test_the_report_tells_the_distance_of_fits_and_stages(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    model = tiny_like(LlamaConfig(vocab_size=96))
    counters.record_fit(run, "round-1", model, TrainOptions(), 2)
    work = {key: value for key, value in Work.needed(4, [2, 3]).facts().items() if key != "tokens"}
    run.log({"stage": "round-1", "step": 1, "loss": 1.0, "tokens_per_second": 100.0, **work})
    with run.timing("round-1 train") as facts:
        facts |= {"tokens": 9, "flops": 1e6}
    page = report.build(tmp_path).read_text(encoding="utf-8")
    assert "Distance to the limit" in page and "duplication avoided" in page and "% of the limit" in page
    assert "work_tokens" not in page  # no curve of what the table says
    saved = json.loads((tmp_path / "artifacts" / "work-round-1.json").read_text())
    assert (
        saved["trained"] == sum(p.numel() for p in model.parameters()) and saved["wire_bytes"] == 4 * saved["trained"]
    )
    machine = json.loads((tmp_path / "artifacts" / "machine.json").read_text())
    assert machine["matmul_flops"] > 1e8 and machine["device"]


def test_watching_a_backbone_counts_its_columns_and_leaves_no_hook() -> None:
    model = tiny_like(LlamaConfig(vocab_size=96))
    with counters.watch(model.base_model) as seen, torch.no_grad():
        model(input_ids=torch.zeros(2, 5, dtype=torch.long))
        model.base_model(torch.zeros(1, 3, dtype=torch.long))
    assert seen == [10, 3] and not model.base_model._forward_pre_hooks
