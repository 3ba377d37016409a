"""B1: one epoch of Bradley-Terry training, this project's `fit` beside TRL's RewardTrainer.

Same weights, ids, pairs per step and optimiser; the learning rate is 0, so that every step does its whole work and the
mean loss does not depend on the order of batches. The oracle is that mean loss, and loss and gradient norm of every
parameter on one batch. TRL pads a [2 pairs, longest] batch and repeats the prompt; sorted by length is its best case.

    python -m benchmarks.run b1
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch

from benchmarks.bench import Bench, Expect
from benchmarks.material import gradient_norms, groups, preference_model, read_flops, tokenizer
from benchmarks.measure import Case, main
from launch.counters import Work, cost_of

PROMPT, ANSWER = (128, 384), (32, 160)
SEQUENCES = 8
"""Per micro-step, on both sides: 4 pairs, or one group of 8 answers."""
CASES: dict[str, dict[str, Any]] = {
    "prompt 256, K 2": {"count": 8, "answers": 2, "prompt": PROMPT, "answer": ANSWER},
    "prompt 256, K 2, sorted": {"count": 8, "answers": 2, "prompt": PROMPT, "answer": ANSWER},
    "prompt 256, K 8": {"count": 3, "answers": 8, "prompt": PROMPT, "answer": ANSWER},
    "prompt 4, K 2, uniform": {"count": 48, "answers": 2, "prompt": (4, 4), "answer": (16, 16)},
}
BENCH = Bench(
    key="b1",
    title="Training a reward model",
    module="benchmarks.reward_training",
    ours="arbiter",
    other="trl",
    what="One epoch of Bradley-Terry training by `launch.trainer.fit`, against `trl.RewardTrainer`; 8 sequences a "
    "step. Loss and all gradients agree.",
    cases={
        "prompt 256, K 2": Expect(goal=2.0),
        "prompt 256, K 2, sorted": Expect(note="rows sorted by length, TRL's best case: hardly any padding"),
        "prompt 256, K 8": Expect(goal=2.3),
        "prompt 4, K 2, uniform": Expect(loses=True, note="next to nothing to share or to pad, and many small calls"),
    },
)


def rows_of(case: str) -> list[dict[str, Any]]:
    rows = groups(**CASES[case])
    longest = {id(row): len(row["prompt"].split()) + max(len(r.split()) for r in row["responses"]) for row in rows}
    return sorted(rows, key=lambda row: -longest[id(row)]) if case.endswith("sorted") else rows


def counted(rows: list[dict[str, Any]], size: int, shared: bool, model: Any) -> dict[str, float]:
    """Tokens and FLOPs of an epoch in steps of `size` rows: padded rows under a mask, or prompts once."""
    total = Work(0, 0, 0, 0)
    for start in range(0, len(rows), size):
        lengths: list[int] = []
        for row in rows[start : start + size]:
            prompt, answers = len(row["prompt"].split()), [len(r.split()) + 1 for r in row["responses"]]
            lengths += [prompt + n for n in answers]
            if shared:
                total += Work.needed(prompt, answers, head=False)
        if not shared:
            columns = len(lengths) * max(lengths)
            total += Work(columns, columns, sum(lengths), columns * max(lengths))
    read = sum(len(row["responses"]) for row in rows)
    flops = read_flops(model, total, read, 3.0) if shared else cost_of(model).flops(total, 3.0)
    return {"tokens": float(total.tokens), "flops": flops}


def arbiter(folder: Path) -> Iterator[Case]:
    from align.preference.objective import PreferenceObjective
    from launch.options import TrainOptions
    from launch.runfolder import RunFolder
    from launch.trainer import fit

    model = preference_model(folder / "backbone", "bt")
    objective = PreferenceObjective(model.renderer, model.config)
    for number, case in enumerate(CASES):
        rows, size = rows_of(case), SEQUENCES // CASES[case]["answers"]
        run = RunFolder(folder / f"run-{number}").open({}, seed=0)
        options = TrainOptions(
            learning_rate=0.0, batch_size=size, schedule="constant", log_steps=1, save_steps=10**6, max_grad_norm=1.0
        )

        def work(run: Any, rows: Any, options: Any, times: list[int]) -> float:
            name = f"fit-{len(times)}"
            times.append(1)
            fit(model, objective, rows, options=options, run=run, name=name, seed=0)
            losses = [row["loss"] for row in run.metrics() if row["stage"] == name and "loss" in row]
            return sum(losses) / len(losses)

        def oracle(mean: float, rows: Any, size: int) -> list[float]:
            model.zero_grad()
            loss = objective.loss(model, objective.collate(rows[:size]))
            (loss.total / loss.count).backward()
            norms = gradient_norms(model, "backbone.")
            return [mean, float(loss.total / loss.count), *norms]

        yield Case(
            case,
            partial(work, run, rows, options, []),
            partial(oracle, rows=rows, size=size),
            counted(rows, size, True, model),
        )


def trl(folder: Path) -> Iterator[Case]:
    from datasets import Dataset
    from transformers import AutoModelForSequenceClassification
    from trl import RewardConfig, RewardTrainer

    ours = preference_model(folder / "backbone", "bt")
    model = AutoModelForSequenceClassification.from_pretrained(folder / "backbone", num_labels=1)
    model.score.weight.data.copy_(ours.rank_head.weight)
    model.config.pad_token_id = 0
    encode = ours.renderer.encode
    for case in CASES:
        rows = rows_of(case)
        pairs = [
            {key: encode(row["prompt"], row["responses"][n]).ids for key, n in (("chosen_ids", w), ("rejected_ids", b))}
            for row in rows
            for w, b in zip(row["winners"], row["losers"], strict=True)
        ]
        options = RewardConfig(
            output_dir=str(folder / "trl"), per_device_train_batch_size=SEQUENCES // 2, learning_rate=0.0,
            num_train_epochs=1, lr_scheduler_type="constant", logging_steps=1, save_strategy="no", report_to=[],
            bf16=False, use_cpu=True, gradient_checkpointing=False, max_grad_norm=1.0, disable_tqdm=True,
            train_sampling_strategy="sequential",
        )  # fmt: skip
        trainer = RewardTrainer(
            model=model, args=options, train_dataset=Dataset.from_list(pairs), processing_class=tokenizer()
        )

        def work(trainer: Any) -> float:
            trainer.state.log_history = []
            trainer.train()
            losses = [row["loss"] for row in trainer.state.log_history if "loss" in row]
            return sum(losses) / len(losses)

        def oracle(mean: float, trainer: Any, pairs: Any) -> list[float]:
            model.zero_grad()
            loss = trainer.compute_loss(model, trainer.data_collator(pairs[: SEQUENCES // 2]))
            loss.backward()
            return [mean, float(loss.detach()), *gradient_norms(model, "model.")]

        size = SEQUENCES // CASES[case]["answers"]
        yield Case(
            case,
            partial(work, trainer),
            partial(oracle, trainer=trainer, pairs=pairs),
            counted(rows, size, False, model),
        )


SIDES = {"arbiter": arbiter, "trl": trl}

if __name__ == "__main__":
    torch.set_num_threads(1)
    main(SIDES, BENCH.module)
