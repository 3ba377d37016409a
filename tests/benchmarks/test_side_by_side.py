"""The benchmarks' own rules: no ratio without agreement, goals told as met or missed, counters fixed by hand.

Seconds are not tested; they belong to a machine. What is guarded is how much work each side does.
"""

from __future__ import annotations

import math
from dataclasses import asdict
from pathlib import Path

import pytest

from benchmarks import heads, page, run, sampling, scoring
from benchmarks.bench import Bench, Expect
from benchmarks.material import llama, read_flops
from benchmarks.measure import Case, Measured, compare, measure
from launch.counters import Work, cost_of


def measured(cpu: float, oracle: list[float], **counters: float) -> Measured:
    return Measured([cpu + 1.0, cpu], [2.0], 1000, oracle, counters)


# ---------------------------------------------------------------- honesty


def test_a_ratio_is_of_the_smallest_times_of_sides_that_agree() -> None:
    row = compare(measured(2.0, [1.0, 100.0]), measured(6.0, [1.0, 100.001]))
    assert row["cpu_ratio"] == 3.0 and row["memory_ratio"] == 1.0
    assert row["oracle_difference"] == pytest.approx(1e-5, rel=1e-3)  # relative to the size of the number


@pytest.mark.parametrize("wrong", [[1.0, 2.1], [1.0], [1.0, math.nan], []], ids=["differs", "shorter", "nan", "none"])
def test_no_ratio_where_outputs_differ(wrong: list[float]) -> None:
    row = compare(measured(1.0, [1.0, 2.0] if wrong else []), measured(9.0, wrong))
    assert "cpu_ratio" not in row and "no ratio" in row["refused"]


def test_a_missed_goal_is_told_with_by_how_much(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ratio 3 against a goal of 4 misses by a quarter; 3 of a bound of 4 is a share of .75, of .7 asked; a case that
    should lose and won says so; a refused one has no ratio in the table."""
    monkeypatch.setattr(page, "PAGE", tmp_path / "bench.md")
    monkeypatch.setattr(page, "GUIDE", tmp_path / "guide.md")
    page.GUIDE.write_text(f"above\n{page.MARKS[0]}\nof last time\n{page.MARKS[1]}\nbelow\n")
    expects = {
        "slow": Expect(goal=4.0),
        "near": Expect(share=0.7, counter=("n", 2.0)),
        "loses": Expect(loses=True),
        "off": Expect(goal=1.0),
    }
    bench = Bench("bx", "A title", "m", "us", "them", "What.", expects)
    agreed = compare(measured(2.0, [1.0], flops=1.0, n=1.0), measured(6.0, [1.0], flops=4.0, n=2.0))
    refused = compare(measured(2.0, [1.0]), measured(6.0, [2.0]))
    machine = dict.fromkeys(("cpu", "cores", "torch", "transformers", "trl", "commit", "date", "load"), "x")
    cases = {"slow": agreed, "near": agreed, "loses": agreed, "off": refused}
    text = page.write_page({"bx": {"machine": machine, "cases": cases}}, {"bx": bench})
    assert "missed by 25%" in text and "share of the bound at least 0.70 | 0.75 | met" in text
    assert "ratio of n at least 2.00 | 2.00 | met" in text and "not lost after all" in text
    assert "| off | 2.00 | 6.00 | outputs differ by 0.5, more than 0.0001: no ratio |" in text
    assert "**3.00** | 4.00 | 75%" in text and "not measured" not in text
    assert "not measured" in page.verdicts({}, {"bx": bench})
    above, goals, below = page.GUIDE.read_text().partition(page.verdicts({"bx": {"cases": cases}}, {"bx": bench}))
    assert goals and above == f"above\n{page.MARKS[0]}\n" and below == f"\n{page.MARKS[1]}\nbelow\n"


def test_a_case_is_run_as_often_as_it_says_and_judged_after() -> None:
    runs: list[int] = []

    def work() -> int:
        runs.append(len(bytes(30_000_000)))
        return sum(runs)

    found = measure(Case("c", work, lambda total: [float(total)], {"tokens": 3.0}, repeats=3))
    assert len(runs) == len(found.cpu) == len(found.wall) == 3
    assert found.oracle == [9e7] and found.counters == {"tokens": 3.0}
    assert asdict(found).keys() == {"cpu", "wall", "peak_bytes", "oracle", "counters"}


def test_every_benchmark_names_its_cases_and_one_that_we_should_lose() -> None:
    assert {"b1", "b2", "b3", "b4", "b5", "b6", "b7", "b9", "b10"} <= run.BENCHES.keys()
    assert [key for key, bench in run.BENCHES.items() if any(e.loses for e in bench.cases.values())]
    assert all(bench.cases for bench in run.BENCHES.values())


# ---------------------------------------------------------------- the regression guard: work, not seconds


def test_guard_tokens_of_scoring() -> None:
    """A prompt of 256 and 5 answers of 256 tokens, EOS with them: 256 + 5 x 256 = 1,536 once; 5 x 512 = 2,560 apart; 20
    ordered pairs of 256 + 255 + 256 = 15,340 (the first answer of a pair has no EOS)."""
    model = llama(layers=1, hidden=32)
    row = {"prompt": " ".join("a" * 256), "responses": [" ".join("b" * 255)] * 5}
    tokens = {how: scoring.counted([row], how, model)["tokens"] for how in ("arbiter", "ranker", "pairwise")}
    assert tokens == {"arbiter": 1536, "ranker": 2560, "pairwise": 15340}


def test_guard_flops_of_a_last_layer_that_is_read_in_one_place() -> None:
    """Width 32: one layer has q, o 32 x 32, k, v 32 x 32, MLP 3 x 32 x 64: 4096 + 6144 = 10,240 weights, of which keys
    and values 2,048 are of all tokens. 10 tokens, 55 pairs, 1 read, 2 layers, no head:

    2 x 20480 x 10 + 4 x 2 x 32 x 55 = 409,600 + 14,080 = 423,680 with every layer whole;
    9 in 10 of the last layer's rest, 2 x 8192 x 10 + 4 x 32 x 55 = 170,880, is spared: 153,792.
    """
    model = llama(layers=2, hidden=32)
    assert cost_of(model).body == 20480
    work = Work.needed(4, [6], head=False)
    assert (work.tokens, work.pairs) == (10, 55)
    assert cost_of(model).flops(work) == 423_680
    assert read_flops(model, work, 1) == pytest.approx(423_680 - 153_792)
    assert read_flops(model, work, 10, 3.0) == 3 * 423_680


def test_guard_rows_of_the_head() -> None:
    """Of 4 x 384 positions the last third, 4 x 128, is completion: a third of the rows, at four products for three."""
    ours = heads.head_flops(4 * 128, 4)
    other = heads.head_flops(4 * 384, 3)
    assert other["head_rows"] / ours["head_rows"] == 3.0
    assert other["flops"] / ours["flops"] == 2.25


def test_guard_prefilled_tokens_and_equal_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two prompts of 6 words, 5 samples: 12 tokens prefilled in one request, 60 in five passes, as the generator itself
    counts them; the same ids either way."""
    monkeypatch.setattr(sampling, "llama", lambda: llama(layers=1, hidden=32))
    generator, prompts, settings = sampling.material(6)
    whole = generator.generate(prompts, sampling.K, settings)
    once = generator.prefilled_tokens
    columns = [sampling.pass_k(generator, prompts, k, settings) for k in range(sampling.K)]
    apart = [list(row) for row in zip(*columns, strict=True)]
    assert [[c.token_ids for c in row] for row in whole] == [[c.token_ids for c in row] for row in apart]
    assert (once, generator.prefilled_tokens - once) == (12, 60)
    assert sampling.counted(generator, 6, 1)["prefilled_tokens"] == 12
    assert sampling.counted(generator, 6, 5)["prefilled_tokens"] == 60
