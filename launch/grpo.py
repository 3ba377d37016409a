"""TRL's GRPO trainer with each prompt encoded once for its G completions, and a head that sees completions alone.

A subclass of two methods, no copy of the trainer: `_get_per_token_logps_and_entropies` gives the same numbers from
packed trees (`launch.packing`), `_prepare_inputs` keeps completions of one prompt in one micro-batch where that changes
no step. Everything else (sampling, rewards, advantages, every loss type) is TRL's.

    from launch.grpo import grpo_trainer
    trainer = grpo_trainer()(model=model, reward_funcs=reward, args=GRPOConfig(...), train_dataset=prompts)

TRL 1.16 already tiles its head; on GPUs it leaves prompt positions out of it, on CPUs it projects them all. What it
does repeat everywhere is the prompt: G (P + R) tokens a group in place of P + G R. Where a batch cannot be packed
(images, the load-balancing loss of mixtures of experts, an architecture `layout_for` pads), TRL's own method runs.

Left out: sharing across micro-batches. A prompt is read once for each micro-batch that holds completions of it, so
`per_device_train_batch_size` should be a multiple of `num_generations` where memory allows.
"""

from __future__ import annotations

import functools
import logging
import types
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING, Any

from launch.head import causal_lm
from launch.logprob import Targets, layout_for, pack_answers, packed_token_logprobs

if TYPE_CHECKING:
    import torch

log = logging.getLogger(__name__)


def trl_grpo_trainer() -> type:
    """TRL's own trainer class; the import takes seconds.

    Imported in a thread of its own: vLLM, which comes along, keeps the error of an optional import that failed, its
    traceback, and so every frame below it. Those would be a fit's, with its trainer, for the life of the process.
    """
    with ThreadPoolExecutor(1) as thread:
        trainer: type = thread.submit(lambda: import_module("trl").GRPOTrainer).result()
    return trainer


@cache
def grpo_trainer() -> type:
    """The trainer class, made from the installed TRL."""
    return type("SharedPromptGRPOTrainer", (SharedPrompts, trl_grpo_trainer()), {})


class SharedPrompts:
    """What `grpo_trainer` puts before `trl.GRPOTrainer`."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        trainer: Any = self
        self._layout, reason = layout_for(trainer.accelerator.unwrap_model(trainer.model))
        if reason is not None:
            log.warning("prompts are read once per completion: %s", reason)
        for model in (trainer.model, trainer.ref_model):
            if model is not None:
                add_packed_forward(causal_lm(trainer.accelerator.unwrap_model(model)))

    def _get_per_token_logps_and_entropies(
        self,
        model: Any,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor,
        logits_to_keep: int,
        batch_size: int | None = None,
        compute_entropy: bool = False,
        compute_aux_loss: bool = False,
        **images: Any,
    ) -> tuple[torch.Tensor, torch.Tensor | None, torch.Tensor | None]:
        """log p [B, `logits_to_keep`] of the completions, their entropies if asked, None; zero where masked."""
        import torch

        prompts = input_ids.shape[1] - logits_to_keep
        cannot = self._layout == "padded" or compute_aux_loss or any(value is not None for value in images.values())
        if cannot or not bool(attention_mask[:, prompts:].any()):
            return super()._get_per_token_logps_and_entropies(  # type: ignore[misc]
                model,
                input_ids,
                attention_mask,
                logits_to_keep,
                batch_size,
                compute_entropy,
                compute_aux_loss,
                **images,
            )
        trainer: Any = self
        logps: list[torch.Tensor] = []
        entropies: list[torch.Tensor] = []
        size = batch_size or len(input_ids)
        for ids, mask in zip(input_ids.split(size), attention_mask.split(size), strict=True):
            packed, answer, column = pack_completions(ids, mask.bool(), prompts, self._layout == "shared")
            how = {"temperature": trainer.temperature, "entropy": compute_entropy}
            with trainer.accelerator.autocast():
                logp, entropy = model(packed={**packed, **how})
            for values, found in ((logps, logp), (entropies, entropy)):
                if found is not None:
                    blank = found.new_zeros(len(ids), logits_to_keep)
                    values.append(blank.index_put((answer, column), found))
        return torch.cat(logps), torch.cat(entropies) if compute_entropy else None, None

    def _prepare_inputs(self, generation_batch: Any) -> Any:
        """TRL's inputs; fresh ones are put in the order of their prompts first, if all belong to one optimiser step."""
        trainer: Any = self
        before = trainer._buffered_inputs
        inputs = super()._prepare_inputs(generation_batch)  # type: ignore[misc]
        buffered = trainer._buffered_inputs
        steps = trainer.args.steps_per_generation
        # bnpo divides by the tokens of a micro-batch: there the shuffled order is part of the loss.
        if buffered is before or buffered is None or steps == 1 or trainer.loss_type == "bnpo":
            return inputs
        if steps != trainer.args.gradient_accumulation_steps or not trainer.model.training:
            return inputs
        trainer._buffered_inputs = by_prompt(buffered)
        return trainer._buffered_inputs[trainer._step % steps]


def add_packed_forward(model: Any) -> None:
    """Give a causal LM `forward(packed=…)`: log p and entropy of packed targets, through whatever wraps the model."""
    plain = model.forward

    @functools.wraps(type(model).forward)  # `generate` checks its arguments against the signature
    def forward(self: Any, *args: Any, packed: Mapping[str, Any] | None = None, **kwargs: Any) -> Any:
        if packed is None:
            return plain(*args, **kwargs)
        rows = {key: packed[key] for key in ("input_ids", "position_ids", "tree", "branch")}
        targets = Targets(packed["source"], packed["token"], packed["answer"])
        how = {key: packed[key] for key in ("temperature", "entropy")}
        return packed_token_logprobs(self, **rows, targets=targets, **how)

    model.forward = types.MethodType(forward, model)


def pack_completions(
    input_ids: torch.Tensor, mask: torch.Tensor, prompts: int, shared: bool = True
) -> tuple[dict[str, torch.Tensor], torch.Tensor, torch.Tensor]:
    """Padded rows to packed trees.

    Args:
        input_ids: int64 [B, T], prompts left-padded to `prompts` columns, completions right-padded behind them.
        mask: bool [B, T], true at real tokens; a row may lack completion tokens, no row lacks a prompt.

    Returns:
        Tensors of the packed rows and of their M completion tokens (`launch.logprob.Targets`); row and column int64
        [M] of each in [B, T - prompts].
    """
    import torch

    real, ids = mask.cpu(), input_ids.cpu()
    with_answer = [b for b in range(len(ids)) if bool(real[b, prompts:].any())]
    rows = [ids[b][real[b]].tolist() for b in with_answer]
    lengths = [int(real[b, :prompts].sum()) for b in with_answer]
    packed, targets = pack_answers(rows, lengths, shared=shared)
    order = targets.answer.unique_consecutive().tolist()  # each answer's tokens lie together
    column = torch.cat([real[with_answer[n], prompts:].nonzero()[:, 0] for n in order])
    row = torch.tensor(with_answer)[targets.answer]
    device = input_ids.device
    tensors = {key: value.to(device) for key, value in {**packed.tensors(), **targets._asdict()}.items()}
    return tensors, row.to(device), column.to(device)


def by_prompt(batches: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The same rows in as many batches, those of one prompt beside each other; other entries stay where they are."""
    import torch

    sizes = [len(batch["prompt_ids"]) for batch in batches]
    masked = [
        row[mask.bool()].tolist() for b in batches for row, mask in zip(b["prompt_ids"], b["prompt_mask"], strict=True)
    ]
    first = {tuple(prompt): i for i, prompt in reversed(list(enumerate(masked)))}
    order = torch.tensor(sorted(range(len(masked)), key=lambda i: (first[tuple(masked[i])], i)))
    out: list[dict[str, Any]] = [dict(batch) for batch in batches]
    for key, value in batches[0].items():
        if isinstance(value, torch.Tensor) and value.dim() > 0 and len(value) == sizes[0]:
            whole = torch.cat([batch[key] for batch in batches])
            for batch, part in zip(out, whole[order.to(whole.device)].split(sizes), strict=True):
                batch[key] = part
    return out
