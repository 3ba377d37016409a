"""Sampling in process on a Hugging Face causal language model: the reference backend.

Each prompt is prefilled once, whatever n is; its key-value cache is then repeated n times. (`model.generate` with
num_return_sequences repeats the prompt first and prefills it n times.) Rows that have ended leave the batch.

Left out: beam search, and models without a key-value cache or position ids. Speed on GPUs is vLLM's job.

    generator = HFGenerator(model, tokenizer)
    [[answer]] = generator.generate(["Once upon a time"], n=1, sampling=Sampling(temperature=0))
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from launch.contracts import Completion, Prompt, Sampling
from launch.errors import CheckpointError, ConfigError, DataError
from launch.generate.sampling import TAIL, check, cut_at_stop, decode, draw, end_ids, prompt_seeds, uniforms
from launch.rendering import Renderer, pad


class HFGenerator:
    """Samples from a model that is already in this process (not wrapped by DDP).

    Completions are a function of (weights, prompt, sampling, n's index): batch mates, order and batch size leave them
    unchanged up to the rounding of the forward pass, and the same call on the same CPU is bit-identical.

    Args:
        model: a causal language model; read on whatever device it is on, and left in the mode it was in.
        tokenizer: its fast tokenizer.
        renderer: how prompts become ids; by default `Renderer(tokenizer)`.
        batch_size: prompts per prefill; n times as many rows decode together.
        progress: called after every batch with (completions done, completions asked).

    Attributes:
        prefilled_tokens: prompt tokens sent through the model so far, padding not counted.
        decoded_tokens: tokens sampled so far.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        renderer: Renderer | None = None,
        batch_size: int = 16,
        progress: Callable[[int, int], None] | None = None,
    ) -> None:
        if batch_size < 1:
            raise ConfigError(f"batch_size {batch_size}: use 1 or more prompts", field="batch_size")
        self.model = model
        self.tokenizer = tokenizer
        self.renderer = renderer or Renderer(tokenizer)
        self.batch_size = batch_size
        self.progress = progress
        self.end_ids = end_ids(tokenizer, getattr(model, "generation_config", None), model.config)
        self.context = getattr(model.config.get_text_config(), "max_position_embeddings", None)
        self.prefilled_tokens = 0
        self.decoded_tokens = 0

    def generate(self, prompts: Sequence[Prompt], n: int, sampling: Sampling) -> list[list[Completion]]:
        """Return `n` completions for each prompt, in the order of `prompts`.

        Raises:
            ConfigError: settings that mean nothing (negative temperature …).
            DataError: a prompt that cannot be rendered or leaves no room in the model's context.
            CheckpointError: the model gives NaN or infinite logits.
        """
        check(sampling, n)
        ids = [self.renderer.prompt_ids(prompt) for prompt in prompts]
        for i, row in enumerate(ids):
            if self.context is not None and len(row) >= self.context:
                raise DataError(
                    f"prompt {i} has {len(row)} tokens but the model's context is {self.context}; shorten the prompt"
                )
        seeds = prompt_seeds(ids, sampling.seed)
        out: list[list[Completion]] = [[] for _ in prompts]
        done = 0
        by_length = sorted(range(len(ids)), key=lambda i: len(ids[i]))  # alike lengths together: little padding
        with torch.no_grad(), _eval_mode(self.model):
            for start in range(0, len(ids), self.batch_size):
                batch = by_length[start : start + self.batch_size]
                answers = self._batch([ids[i] for i in batch], [seeds[i] for i in batch], n, sampling)
                for i, answer in zip(batch, answers, strict=True):
                    out[i] = answer
                done += len(batch) * n
                if self.progress is not None:
                    self.progress(done, len(ids) * n)
        return out

    def close(self) -> None:
        """Nothing to close; here because the other generators have it."""

    def _batch(self, ids: list[list[int]], seeds: list[int], n: int, sampling: Sampling) -> list[list[Completion]]:
        # Greedy answers to one prompt are all the same: decode one of them.
        copies = 1 if sampling.temperature == 0 else n
        device = next(self.model.parameters()).device
        prompts = [row for row in ids for _ in range(copies)]  # R = B * copies rows
        rows = [_Row(row, self._limit(row, sampling)) for row in prompts]
        noise = torch.cat([uniforms(seed, copies, sampling.max_new_tokens) for seed in seeds])  # [R, max_new_tokens]

        pad_id = self.tokenizer.pad_token_id
        tokens, mask = pad(ids, self.tokenizer.eos_token_id if pad_id is None else pad_id, side="left")  # [B, T]
        tokens, mask = tokens.to(device), mask.long().to(device)
        positions = (mask.cumsum(-1) - 1).clamp(min=0)
        output = self.model(
            input_ids=tokens, attention_mask=mask, position_ids=positions, use_cache=True, logits_to_keep=1
        )
        self.prefilled_tokens += sum(map(len, ids))
        cache = output.past_key_values
        cache.batch_repeat_interleave(copies)
        logits = output.logits[:, -1].float().repeat_interleave(copies, 0)  # [R, V]
        mask = mask.repeat_interleave(copies, 0)
        position = positions[:, -1].repeat_interleave(copies, 0)  # [R]
        seen = None if sampling.repetition_penalty == 1 else _seen(prompts, logits.shape[-1]).to(device)

        alive = list(range(len(rows)))
        step = 0
        while True:
            penalised = None if seen is None else seen[alive]
            drawn, logprobs = draw(logits, noise[alive, step].to(device), sampling, penalised)
            if seen is not None:
                seen[alive, drawn] = True
            for r, token, logprob in zip(alive, drawn.tolist(), logprobs.tolist(), strict=True):
                if not math.isfinite(logprob):
                    raise CheckpointError("the model gives NaN or infinite logits; check its weights and precision")
                self._append(rows[r], token, logprob, sampling.stop)
            self.decoded_tokens += len(alive)
            kept = [a for a, r in enumerate(alive) if rows[r].finish is None]
            if not kept:
                break
            if len(kept) < len(alive):
                alive = [alive[a] for a in kept]
                index = torch.tensor(kept, device=device)
                cache.batch_select_indices(index)
                mask, position, drawn = mask[index], position[index], drawn[index]
            mask = torch.cat([mask, mask.new_ones(len(alive), 1)], dim=1)
            position = position + 1
            step += 1
            output = self.model(
                input_ids=drawn[:, None],
                attention_mask=mask,
                position_ids=position[:, None],
                past_key_values=cache,
                use_cache=True,
            )
            cache = output.past_key_values
            logits = output.logits[:, -1].float()
        answers = [row.completion(self.tokenizer) for row in rows]
        return [answers[b * copies : (b + 1) * copies] * (n // copies) for b in range(len(ids))]

    def _limit(self, prompt: list[int], sampling: Sampling) -> int:
        """Tokens this prompt may get: what was asked, or what is left of the context."""
        if self.context is None:
            return sampling.max_new_tokens
        return min(sampling.max_new_tokens, self.context - len(prompt))

    def _append(self, row: _Row, token: int, logprob: float, stop: tuple[str, ...]) -> None:
        row.tokens.append(token)
        row.logprobs.append(logprob)
        if token in self.end_ids:
            row.ended_by_token = True
        elif stop and self._may_stop(row, stop):
            row.stopped_text = cut_at_stop(decode(self.tokenizer, row.prompt, row.tokens), stop)
        if row.ended_by_token or row.stopped_text is not None:
            row.finish = "stop"
        elif len(row.tokens) == row.limit:
            row.finish = "length"

    def _may_stop(self, row: _Row, stop: tuple[str, ...]) -> bool:
        """Whether a stop string ends among the newest tokens: spares decoding the whole answer at every step."""
        window = max(len(s.encode()) for s in stop) + TAIL  # a token that shows at all is at least one byte
        newest = decode(
            self.tokenizer, (row.prompt + row.tokens)[: -min(window, len(row.tokens))], row.tokens[-window:]
        )
        return cut_at_stop(newest, stop) is not None


def _seen(prompts: Sequence[Sequence[int]], vocabulary: int) -> torch.Tensor:
    """Which tokens stand in each prompt: bool [R, V]. Soft tokens, whose ids lie beyond, are no words."""
    out = torch.zeros(len(prompts), vocabulary, dtype=torch.bool)
    for row, ids in zip(out, prompts, strict=True):
        row[[token for token in ids if token < vocabulary]] = True
    return out


class _Row:
    """One completion while it grows."""

    def __init__(self, prompt: list[int], limit: int) -> None:
        self.prompt = prompt
        self.limit = limit
        self.tokens: list[int] = []
        self.logprobs: list[float] = []
        self.ended_by_token = False
        self.stopped_text: str | None = None
        self.finish: Any = None

    def completion(self, tokenizer: Any) -> Completion:
        text = self.stopped_text
        if text is None:
            # An end token need not be marked special, so it is left out here and not by the tokenizer.
            text = decode(tokenizer, self.prompt, self.tokens[:-1] if self.ended_by_token else self.tokens)
        return Completion(text, tuple(self.tokens), tuple(self.logprobs), self.finish, tuple(self.prompt))


@contextmanager
def _eval_mode(model: torch.nn.Module) -> Iterator[None]:
    """Dropout off inside; afterwards every submodule is back in its own mode."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode
