"""B10: the update of GRPO on a long prompt with G completions, TRL's own trainer against ours over it.

Both sides call `compute_loss` of a real `trl.GRPOTrainer` on the same inputs and run its backward; ours is
`launch.grpo.grpo_trainer()`, which overrides how per-token log-probabilities are made. Loss and all gradients agree.

    python -m benchmarks.run b10
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch

from benchmarks.bench import Bench, Expect
from benchmarks.material import VOCABULARY, gradient_norms, read_flops, save_llama, tokenizer
from benchmarks.measure import Case, main
from launch.counters import Work, cost_of

CASES = {"prompt 1024, G 8": (1024, 64, 8), "prompt 256, G 8": (256, 64, 8), "prompt 4, G 2": (4, 16, 2)}
"""Tokens of the prompt, tokens of a completion, completions."""
BENCH = Bench(
    key="b10",
    title="The update of GRPO",
    module="benchmarks.grpo_update",
    ours="arbiter",
    other="trl",
    what="`compute_loss` and backward of `trl.GRPOTrainer` on one prompt with G completions, against the same trainer "
    "with shared prompts (`launch.grpo`). Loss and all gradients agree.",
    cases={
        "prompt 1024, G 8": Expect(share=0.7),
        "prompt 256, G 8": Expect(share=0.7),
        "prompt 4, G 2": Expect(loses=True, note="next to nothing to share"),
    },
)


def inputs(prompt: int, answer: int, count: int) -> dict[str, torch.Tensor]:
    draw = torch.Generator().manual_seed(prompt)
    one = torch.randint(3, VOCABULARY, (1, prompt), generator=draw).expand(count, prompt)
    return {
        "prompt_ids": one.contiguous(),
        "prompt_mask": torch.ones(count, prompt, dtype=torch.long),
        "completion_ids": torch.randint(3, VOCABULARY, (count, answer), generator=draw),
        "completion_mask": torch.ones(count, answer, dtype=torch.long),
        "advantages": torch.randn(count, generator=draw),
        "num_items_in_batch": torch.tensor(float(count * answer)),
    }


def cases(folder: Path, cls: type, shared: bool) -> Iterator[Case]:
    from datasets import Dataset
    from trl import GRPOConfig

    from launch.models import load_causal_lm

    save_llama(folder / "policy")
    model = load_causal_lm(folder / "policy").train()
    options = GRPOConfig(
        output_dir=str(folder / "trl"), per_device_train_batch_size=8, num_generations=8, bf16=False, use_cpu=True,
        report_to=[], gradient_checkpointing=False, disable_tqdm=True,
    )  # fmt: skip
    trainer: Any = cls(
        model=model, reward_funcs=lambda completions, **_: [0.0] * len(completions), args=options,
        train_dataset=Dataset.from_list([{"prompt": "w1"}]), processing_class=tokenizer(),
    )  # fmt: skip
    trainer.current_gradient_accumulation_steps = 1
    for case, (prompt, answer, count) in CASES.items():
        batch = inputs(prompt, answer, count)

        def work(batch: Any) -> list[float]:
            model.zero_grad()
            loss = trainer.compute_loss(model, batch)
            loss.backward()
            return [float(loss.detach()), *gradient_norms(model, "")]

        if shared:
            needed = Work.needed(prompt, [answer] * count)
            flops = read_flops(model, needed, needed.head, 3.0) + 2.0 * cost_of(model).head * needed.head
            tokens = needed.tokens
        else:
            # On a CPU its head projects every column, and its attention mask is dense.
            tokens, width = count * (prompt + answer), prompt + answer
            padded = Work(tokens, tokens, tokens, tokens * width, tokens)
            flops = cost_of(model).flops(padded, 3.0) + 2.0 * cost_of(model).head * tokens
        yield Case(
            case, partial(work, batch), list, {"tokens": float(tokens), "flops": flops}, 2 if tokens < 4096 else 1
        )


def arbiter(folder: Path) -> Iterator[Case]:
    from launch.grpo import grpo_trainer

    return cases(folder, grpo_trainer(), True)


def trl(folder: Path) -> Iterator[Case]:
    from trl import GRPOTrainer

    return cases(folder, GRPOTrainer, False)


SIDES = {"arbiter": arbiter, "trl": trl}

if __name__ == "__main__":
    torch.set_num_threads(1)
    main(SIDES, BENCH.module)
