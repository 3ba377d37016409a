"""How far a run is from what its work must cost: counts of tokens, products and bytes, and the machine's own limit.

A batch tells its `Work` in numbers that do not depend on the machine; an objective hands them on as metrics
(`work_metrics`), `fit` writes what a token costs in its model (`record_fit`), and the report divides:

    padding        1 - tokens / columns                       columns that hold nothing
    duplication    repeated / tokens                          how often one row per answer would send a token
    head           head / repeated                            1 where every position of every row is projected
    FLOPs          m (2 N tokens + 4 L a pairs + 2 D V head)   N of the body's matrices, a = heads x head size, L layers
    limit          FLOPs / matmul FLOP/s measured here        seconds that the needed work takes at least
    bytes          4 trained x 2 (W - 1) / W                  a step's gradients, sent by each of W processes
    wire           bytes / all-reduce bytes/s measured here   seconds of a step that sending them takes at least

with m = 1 for a forward, 3 with the backward, one less where the weights are frozen (LoRA), one more with gradient
checkpointing. Tokens and pairs are the needed ones: padding and masked-out attention count against the run. Left out:
norms, activations and the optimiser, which no product bounds; traffic of sharded weights.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

    from launch.options import TrainOptions
    from launch.packing import Packed
    from launch.runfolder import RunFolder

PREFIX = "work_"
DATASHEET = {"H100": 989e12, "H200": 989e12, "B200": 2250e12, "A100": 312e12, "L40S": 362e12, "A800": 312e12}
"""Dense bf16 FLOP/s by name of the GPU: what MFU is a share of."""


@dataclass(frozen=True)
class Work:
    """One batch, counted."""

    tokens: int
    """Real tokens through the body."""
    columns: int
    """Columns through the body, padding included."""
    repeated: int
    """Tokens of one row per answer, prompts repeated."""
    pairs: int
    """Pairs of a token and one that it may see (sliding windows not counted)."""
    head: int = 0
    """Positions through the vocabulary head."""

    @classmethod
    def packed(cls, packed: Packed, head: int = 0, kernel: str = "") -> Work:
        """Of `launch.packing.pack`, run under an attention kernel; "": one that takes a mask over whole rows."""
        from launch.packing import columns_run, counters

        n = counters(packed)
        return cls(n["tokens_real"], columns_run(packed, kernel), n["kfold_tokens_real"], n["pairs"], head)

    @classmethod
    def padded(cls, mask: torch.Tensor, completion: torch.Tensor | None = None, causal: bool = True) -> Work:
        """Of rows under a bool mask [B, T]; `completion` marks the tokens whose probability is asked."""
        lengths = mask.sum(-1).tolist()
        head = 0 if completion is None else int(completion[:, 1:].sum())
        pairs = sum(n * (n + 1) // 2 if causal else n * n for n in lengths)
        return cls(sum(lengths), mask.numel(), sum(lengths), pairs, head)

    @classmethod
    def needed(cls, prompt: int, answers: Sequence[int], head: bool = True) -> Work:
        """The least that K answers of so many tokens behind one prompt can cost: the prompt once, nothing padded."""
        total = sum(answers)
        pairs = prompt * (prompt + 1) // 2 + sum(n * prompt + n * (n + 1) // 2 for n in answers)
        return cls(prompt + total, prompt + total, len(answers) * prompt + total, pairs, total if head else 0)

    def __add__(self, other: Work) -> Work:
        return Work(*(a + b for a, b in zip(vars(self).values(), vars(other).values(), strict=True)))

    def facts(self) -> dict[str, float]:
        """For a batch: ``work_*``, and ``tokens`` (of the answers with their prompts, the same in every layout)."""
        return {"tokens": float(self.repeated), **{PREFIX + key: float(n) for key, n in asdict(self).items()}}


NO_WORK = Work(0, 0, 0, 0)


def work_metrics(batch: Mapping[str, Any]) -> dict[str, float]:
    """A batch's ``work_*`` numbers as metrics: sums over its units, which the trainer divides by their count."""
    return {key: value for key, value in batch.items() if key.startswith(PREFIX)}


# ---------------------------------------------------------------- what a token costs


@dataclass(frozen=True)
class Cost:
    """What a model multiplies a token with."""

    body: int
    """Weights of the body's matrices (N)."""
    attention: int
    """Layers x heads x head size (L a)."""
    head: int = 0
    """Weights of the vocabulary head (D V); 0 without one."""

    def flops(self, work: Work, passes: float = 1.0) -> float:
        """FLOPs of the needed work; `passes` is m of the module's header."""
        return passes * (
            2.0 * self.body * work.tokens + 4.0 * self.attention * work.pairs + 2.0 * self.head * work.head
        )


def cost_of(model: Any) -> Cost:
    """Count a model's linear layers; adapters are counted with them, embeddings are not."""
    import torch

    from launch.head import causal_lm

    inner = causal_lm(model)
    head = inner.get_output_embeddings() if hasattr(inner, "get_output_embeddings") else None
    size = {id(m): m.in_features * m.out_features for m in model.modules() if isinstance(m, torch.nn.Linear)}
    of_head = size.pop(id(head), 0)
    configs: list[Any] = [
        m.config for m in model.modules() if hasattr(getattr(m, "config", None), "num_attention_heads")
    ]
    attention = 0
    if configs:
        text = configs[0].get_text_config()
        heads = text.num_attention_heads
        attention = text.num_hidden_layers * heads * (getattr(text, "head_dim", None) or text.hidden_size // heads)
    return Cost(sum(size.values()), attention, of_head)


def passes_of(options: TrainOptions) -> float:
    """Forwards' worth of products in a training step."""
    return 3.0 - (options.lora is not None) + options.gradient_checkpointing


@contextmanager
def watch(module: Any) -> Iterator[list[int]]:
    """Inside, collect how many columns each forward of `module` (a backbone, called by keyword) sees."""
    seen: list[int] = []

    def note(_: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        ids = kwargs.get("input_ids", args[0] if args else None)
        seen.append(0 if ids is None else ids.numel())

    handle = module.register_forward_pre_hook(note, with_kwargs=True)
    try:
        yield seen
    finally:
        handle.remove()


def wire_bytes(trained: int, processes: int) -> int:
    """Bytes that each of `processes` sends a step to average fp32 gradients (ring all-reduce)."""
    return int(4 * trained * 2 * (processes - 1) / processes)


@cache
def wire_speed() -> float:
    """Bytes a second that this process sends in an all-reduce of 16 MB, the best of three; 0 if there is one process.

    Every process of the group must call it.
    """
    import torch
    import torch.distributed as dist

    if not (dist.is_available() and dist.is_initialized()) or dist.get_world_size() == 1:
        return 0.0
    numbers = torch.ones(4 * 2**20, device="cuda" if "nccl" in dist.get_backend() else "cpu")
    best = float("inf")
    for _ in range(4):  # the first one opens connections
        dist.barrier()
        start = time.perf_counter()
        dist.all_reduce(numbers, op=dist.ReduceOp.MAX)
        numbers[0].item()
        best = min(best, time.perf_counter() - start)
    return wire_bytes(len(numbers), dist.get_world_size()) / best


@cache
def matmul_speed() -> tuple[float, str]:
    """(FLOP/s, device) of the best of five large matrix products here: fp32 with a CPU's threads, bf16 on a GPU."""
    import torch

    cuda = torch.cuda.is_available()
    n, dtype = (8192, torch.bfloat16) if cuda else (1024, torch.float32)
    a = torch.ones((n, n), device="cuda" if cuda else "cpu", dtype=dtype)
    best = float("inf")
    (a @ a)[0, 0].item()
    for _ in range(5):
        start = time.perf_counter()
        (a @ a)[0, 0].item()
        best = min(best, time.perf_counter() - start)
    name = torch.cuda.get_device_name() if cuda else f"CPU, {torch.get_num_threads()} thread(s)"
    return 2 * n**3 / best, name


def record_machine(run: RunFolder) -> None:
    """Write artifacts/machine.json, the limit that stages of this run are measured by, unless it is there."""
    if run.writes and not (run.path / "artifacts" / "machine.json").exists():
        speed, device = matmul_speed()
        datasheet = next((peak for name, peak in DATASHEET.items() if name in device), None)
        run.artifact("machine", {"matmul_flops": speed, "device": device, "datasheet_flops": datasheet})


def record_fit(run: RunFolder, name: str, model: Any, options: TrainOptions, processes: int) -> None:
    """Write artifacts/work-NAME.json: what a token costs in this fit, what a step sends and how fast.

    Every process must call it.
    """
    speed = wire_speed()
    if not run.writes:
        return
    record_machine(run)
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    facts = {
        "cost": asdict(cost_of(model)),
        "passes": passes_of(options),
        "processes": processes,
        "trained": trained,
        "wire_bytes": wire_bytes(trained, processes),
        "wire_speed": speed,
    }
    run.artifact(f"work-{name}", facts)


# ---------------------------------------------------------------- tables for the report

FIT_HEADER = (
    "fit", "padding %", "duplication avoided", "head on %", "tokens/s", "GFLOP/s", "% of the limit", "MFU %",
    "MB sent a step", "wire, % of a step",
)  # fmt: skip
STAGE_HEADER = ("stage", "seconds", "tokens", "GFLOP", "limit s", "% of the limit")


def fit_rows(
    rows: Sequence[Mapping[str, Any]], fits: Mapping[str, Mapping[str, Any]], machine: Mapping[str, Any]
) -> list[list[Any]]:
    """One row of `FIT_HEADER` for each fit whose batches told their work.

    Args:
        rows: of metrics.jsonl.
        fits: artifacts/work-*.json by name of the fit.
        machine: artifacts/machine.json, or {}.
    """
    out = []
    for name, facts in fits.items():
        mine = [row for row in rows if row.get("stage") == name and PREFIX + "tokens" in row]
        if not mine:
            continue
        # Per unit of the loss, averaged over logging periods.
        per = {key: statistics.fmean(row[PREFIX + key] for row in mine) for key in Work.__dataclass_fields__}
        speed = statistics.median(row["tokens_per_second"] for row in mine)
        cost = Cost(**facts["cost"])
        counted = cost.flops(Work(**per), facts["passes"])  # type: ignore[arg-type]
        achieved = counted * speed / per["repeated"] / facts["processes"]
        peak, sheet = machine.get("matmul_flops"), machine.get("datasheet_flops")
        step, wire = seconds_a_step(mine), facts.get("wire_speed")
        out.append(
            [
                name,
                100 * (1 - per["tokens"] / per["columns"]),
                per["repeated"] / per["tokens"],
                100 * per["head"] / per["repeated"] if cost.head else None,
                speed,
                achieved / 1e9,
                100 * achieved / peak if peak else None,
                100 * achieved / sheet if sheet else None,
                facts["wire_bytes"] / 1e6,
                100 * facts["wire_bytes"] / wire / step if wire and step else None,
            ]
        )
    return out


def seconds_a_step(rows: Sequence[Mapping[str, Any]]) -> float | None:
    """From the first of a fit's logged rows to its last; None if that is no time, or one row."""
    first, last = rows[0], rows[-1]
    steps = last["step"] - first["step"]
    seconds = last.get("time", 0.0) - first.get("time", 0.0)
    return seconds / steps if steps > 0 and seconds > 0 else None


def stage_rows(timings: Sequence[Mapping[str, Any]], machine: Mapping[str, Any]) -> list[list[Any]]:
    """One row of `STAGE_HEADER` for each timed stage that told its FLOPs; stages made in parts are summed."""
    stages: dict[str, list[Mapping[str, Any]]] = {}
    for row in timings:
        if "flops" in row:
            stages.setdefault(str(row["stage"]), []).append(row)
    peak = machine.get("matmul_flops")
    out = []
    for stage, parts in stages.items():
        seconds, tokens, flops = (sum(float(p[key]) for p in parts) for key in ("seconds", "tokens", "flops"))
        limit = flops / peak if peak else None
        share = None if limit is None or not seconds else 100 * limit / seconds
        out.append([stage, seconds, tokens, flops / 1e9, limit, share])
    return out
