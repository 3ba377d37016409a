"""B5: the step of SPPO and DSPPO, its head alone and whole.

- *head*: hidden states to log-probabilities and back, V = 151,936 and width 128, 4 x 384 tokens of which a third are
  completion. Against a twin of the SPPO trainer's arithmetic (arXiv 2405.00675), written anew: log_softmax of all
  logits, gather, mask. Sums and gradient norms agree; peak memory is compared beside time.
- *step*: loss and backward of hard SPPO (TRL's ``sppo_hard``) with cached reference values, by `SelfPlayObjective`,
  against `trl.DPOTrainer.compute_loss` with precomputed reference values. Loss and all gradients agree. TRL 1.16 tiles
  its head too, so memory is not the difference there.

    python -m benchmarks.run b5
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch

from benchmarks.bench import Bench, Expect
from benchmarks.material import gradient_norms, ids, llama, read_flops, save_llama, tokenizer
from benchmarks.measure import Case, main
from launch.counters import NO_WORK, Work, cost_of

HEAD_VOCABULARY, HEAD_WIDTH, ROWS, LENGTH, PROMPT_SHARE = 151936, 128, 4, 384, 2 / 3
PAIRS = 4
STEPS = {"step, prompt 256": (256, (64, 128)), "step, prompt 4": (4, (16, 16))}
BETA = 0.1
HEAD = Bench(
    key="b5",
    title="The head of an SPPO step",
    module="benchmarks.heads",
    ours="arbiter-head",
    other="sppo-head",
    what="Log-probabilities of completions and their backward at vocabulary 151,936, against a twin of SPPO's "
    "arithmetic over all positions. Sums and gradient norms agree.",
    cases={"head": Expect(goal=1 / 0.6, memory=5.0)},
)
STEP = Bench(
    key="b5-step",
    title="A whole SPPO step",
    module="benchmarks.heads",
    ours="arbiter-step",
    other="trl-step",
    what="Loss and backward of hard SPPO with cached reference values, against `trl.DPOTrainer` with "
    "`loss_type='sppo_hard'` and precomputed reference values. Loss and all gradients agree.",
    cases={"step, prompt 256": Expect(), "step, prompt 4": Expect(loses=True, note="next to nothing to share")},
)


def head_material() -> tuple[Any, torch.Tensor, torch.Tensor, torch.Tensor]:
    """A causal LM without layers to speak of, states [4, 384, 128], tokens, and the completion mask."""
    model = llama(layers=1, hidden=HEAD_WIDTH, vocabulary=HEAD_VOCABULARY)
    draw = torch.Generator().manual_seed(0)
    states = torch.randn(ROWS, LENGTH, HEAD_WIDTH, generator=draw)
    tokens = torch.randint(0, HEAD_VOCABULARY, (ROWS, LENGTH), generator=draw)
    completion = torch.zeros(ROWS, LENGTH, dtype=torch.bool)
    completion[:, int(PROMPT_SHARE * LENGTH) :] = True
    return model, states, tokens, completion


def head_oracle(found: tuple[torch.Tensor, torch.Tensor, torch.Tensor]) -> list[float]:
    sums, of_states, of_head = found
    return [*sums.tolist(), float(of_states.norm()), float(of_head.norm())]


def head_flops(rows: int, products: int) -> dict[str, float]:
    return {"head_rows": float(rows), "flops": 2.0 * products * rows * HEAD_WIDTH * HEAD_VOCABULARY}


def arbiter_head(folder: Path) -> Iterator[Case]:
    from launch.head import token_logprobs

    model, states, tokens, completion = head_material()
    rows, columns = completion[:, 1:].nonzero(as_tuple=True)

    def work() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        model.zero_grad()
        inputs = states.clone().requires_grad_()
        logp, _ = token_logprobs(model, inputs[rows, columns], tokens[rows, columns + 1])
        sums = torch.zeros(ROWS).index_add(0, rows, logp)
        sums.sum().backward()
        return sums.detach(), inputs.grad, model.lm_head.weight.grad  # type: ignore[return-value]

    # Forward, the logits again, and two products of the backward.
    yield Case("head", work, head_oracle, head_flops(int(completion.sum()), 4))


def sppo_head(folder: Path) -> Iterator[Case]:
    model, states, tokens, completion = head_material()

    def work() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        model.zero_grad()
        inputs = states.clone().requires_grad_()
        logits = model.lm_head(inputs)[:, :-1]
        logp = torch.gather(logits.log_softmax(-1), 2, tokens[:, 1:, None]).squeeze(2)
        sums = (logp * completion[:, 1:]).sum(-1)
        sums.sum().backward()
        return sums.detach(), inputs.grad, model.lm_head.weight.grad  # type: ignore[return-value]

    yield Case("head", work, head_oracle, head_flops(ROWS * LENGTH, 3), repeats=1)


# ---------------------------------------------------------------- the whole step


def pairs_of(case: str) -> list[dict[str, list[int]]]:
    prompt, answer = STEPS[case]
    draw = random.Random(0)
    return [
        {
            "prompt_ids": ids(draw, prompt),
            "chosen_ids": ids(draw, draw.randint(*answer)),
            "rejected_ids": ids(draw, draw.randint(*answer)),
        }
        for _ in range(PAIRS)
    ]


REFERENCE = (-600.0, -650.0)
"""Reference log-probabilities of every chosen and rejected answer: any numbers, the same on both sides."""


def arbiter_step(folder: Path) -> Iterator[Case]:
    from align.selfplay.objective import SelfPlayObjective

    model = llama()
    learner = SelfPlayObjective(scale=1.0)
    for case in STEPS:
        rows = [
            {
                "ids": [row["prompt_ids"] + row["chosen_ids"], row["prompt_ids"] + row["rejected_ids"]],
                "prompt_lengths": [len(row["prompt_ids"])] * 2,
                "targets": [0.5 / BETA, -0.5 / BETA],
                "reference": list(REFERENCE),
            }
            for row in pairs_of(case)
        ]

        def work(rows: Any) -> list[float]:
            model.zero_grad()
            loss = learner.loss(model, learner.collate(rows))
            mean = loss.total / loss.count
            mean.backward()
            return [float(mean.detach()), *gradient_norms(model, "")]

        total = NO_WORK
        for row in pairs_of(case):
            total += Work.needed(len(row["prompt_ids"]), [len(row["chosen_ids"]), len(row["rejected_ids"])])
        # The head makes its logits twice: four products in place of three.
        flops = read_flops(model, total, total.head, 3.0) + 2.0 * cost_of(model).head * total.head
        yield Case(case, partial(work, rows), list, {"tokens": float(total.tokens), "flops": flops}, repeats=3)


def trl_step(folder: Path) -> Iterator[Case]:
    from datasets import Dataset
    from trl import DPOConfig, DPOTrainer

    from launch.models import load_causal_lm

    save_llama(folder / "policy")
    model = load_causal_lm(folder / "policy")
    options = DPOConfig(
        output_dir=str(folder / "trl"), per_device_train_batch_size=PAIRS, loss_type="sppo_hard", beta=BETA, bf16=False,
        use_cpu=True, report_to=[], gradient_checkpointing=False, precompute_ref_log_probs=True, disable_tqdm=True,
        max_length=None,
    )  # fmt: skip
    words = Dataset.from_list([{"prompt": "w1", "chosen": " w2", "rejected": " w3"}])
    trainer = DPOTrainer(model=model, args=options, train_dataset=words, processing_class=tokenizer())
    for case in STEPS:
        rows = [{**row, "ref_chosen_logps": REFERENCE[0], "ref_rejected_logps": REFERENCE[1]} for row in pairs_of(case)]

        def work(rows: Any) -> list[float]:
            model.zero_grad()
            loss = trainer.compute_loss(model, trainer.data_collator(rows))
            loss.backward()
            return [float(loss.detach()), *gradient_norms(model, "")]

        columns = trainer.data_collator(rows)["input_ids"].numel()
        width = columns // (2 * PAIRS)
        padded = Work(columns, columns, columns, columns * width, columns)
        flops = cost_of(model).flops(padded, 3.0) + 2.0 * cost_of(model).head * columns
        yield Case(case, partial(work, rows), list, {"tokens": float(columns), "flops": flops}, repeats=3)


SIDES = {"arbiter-head": arbiter_head, "sppo-head": sppo_head, "arbiter-step": arbiter_step, "trl-step": trl_step}

if __name__ == "__main__":
    torch.set_num_threads(1)
    main(SIDES, HEAD.module)
