"""`fit_grpo`: TRL's GRPO over the runtime of every other fit: run folder, guard, atomic checkpoints, exact resume.

    result = fit_grpo(model, tokenizer, reward, rows, options=TrainOptions(), grpo=GRPOOptions(), run=run, name="grpo",
                      seed=0)

A prompt with its G completions is one example of `launch.options.TrainOptions`: a step sees batch_size x accumulation x
processes prompts. Every step samples anew, so the ratio of old to new probability is 1 and the clip only binds where
vLLM samples with other roundings than the trainer computes with.

What replaces TRL's own: the order of prompts (its RepeatSampler draws from a generator that no checkpoint keeps; here
it is a function of (seed, epoch)), sampling on CPU (`HFGenerator`, seeded by (seed, step, prompt), prompts read once),
rendering of prompts (`Renderer`, as in supervised training), savers and telemetry. Sampling, rewards, advantages and
loss are TRL's. An epoch's last prompts are left out where they do not fill a step.

With ``tools`` a completion is a chat: TRL's loop reads the calls, runs them, puts the results behind them and samples
on; tokens that a tool wrote carry no loss. Every turn's prompt is read anew.

Left out: FSDP2 and ZeRO-3 (TRL samples from whole weights), several updates per sample, evaluation while training.
With vLLM the order of prompts is resumed exactly, the engine's own random numbers are not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, replace
from functools import cache
from typing import TYPE_CHECKING, Any

import torch
from torch.utils.data import DataLoader, Sampler

from launch import runtime
from launch.base_trainer import BaseTrainer
from launch.callbacks import StopSignals
from launch.contracts import Sampling
from launch.errors import DataError, LaunchError, RenderingError
from launch.generate import HFGenerator
from launch.grpo import SharedPrompts, trl_grpo_trainer
from launch.guard import NonFiniteError
from launch.models import lora_config
from launch.options import GRPOOptions, TrainOptions
from launch.order import Deal, permutation, stable_seed
from launch.rendering import Renderer
from launch.runfolder import RunFolder
from launch.trainer import FitResult, check_examples, facts_of, found_in, result_of, run_to_end, training_arguments
from launch.weights import keep_trained_in_fp32, load_weights

if TYPE_CHECKING:
    from transformers import PreTrainedModel

REWARD_GRID = 2.0**16

Reward = Callable[..., list[float]]
"""TRL's form: ``(prompts, completions, **columns) -> list[float]``."""


def fit_grpo(
    model: PreTrainedModel,
    tokenizer: Any,
    reward: Reward,
    rows: Sequence[dict[str, Any]],
    *,
    options: TrainOptions,
    grpo: GRPOOptions,
    run: RunFolder,
    name: str,
    seed: int,
    report_to: Sequence[str] = (),
    tools: Sequence[Callable[..., Any]] = (),
    tool_turns: int = 4,
) -> FitResult:
    """Reinforce what `reward` likes. The model given is used up; the result's folder holds weights or adapters.

    Args:
        model: loaded from a folder or hub name, from which TRL takes the frozen reference too if ``grpo.beta`` > 0.
        tokenizer: its fast tokenizer.
        reward: its columns are those of `rows`.
        rows: "prompt" (text or chat messages), and what the reward needs.
        options: see the module's header; ``eval_steps`` is not used.
        tools: what the model may call (`launch.tools_pool.Pool.functions`); prompts are then chats, and the tokenizer's
            chat template must show calls and results. ``grpo.max_new_tokens`` counts results too.
        tool_turns: how often a completion may call before it must answer.

    Raises:
        LaunchError, CheckpointError, NonFiniteError, Interrupted: as `launch.trainer.fit`.
        DataError: fewer prompts than one step needs, one that leaves no room for an answer, or text where tools need a
            chat.
        RenderingError: the chat template does not show calls, or nobody knows how to read calls out of it.
    """
    from datasets import Dataset

    runtime.prepare_environment()
    runtime.check_possible(options)
    if options.sharding not in ("none", "zero2"):
        raise LaunchError(f"train.sharding={options.sharding}: GRPO samples from whole weights; use none or zero2")
    folder = run.checkpoints(name)
    args = _arguments(options, grpo, run, name, seed, report_to)
    runtime.check_processes(options)
    check_examples(name, rows, None)
    facts = {**facts_of(options, rows, seed, args.world_size), "grpo": asdict(grpo)}
    if tools:
        check_tools(tokenizer, rows)
        args.max_tool_calling_iterations = tool_turns
        facts["tools"] = {"names": [tool.__name__ for tool in tools], "turns": tool_turns}
    needed = facts["examples_per_step"]
    if len(rows) < needed:
        raise DataError(f"{name}: a step takes {needed} prompts, here are {len(rows)}; lower train.batch_size")
    runtime.require_same(name, facts)
    done, start = found_in(folder, facts)
    if done is not None:
        return result_of(done)
    if options.precision != "fp32":
        keep_trained_in_fp32(model)
    with StopSignals() as signals, run.timing(name):
        trainer = grpo_fit_trainer()(
            args,
            options,
            model=model,
            tokenizer=tokenizer,
            reward=reward,
            rows=Dataset.from_list(list(rows)),
            peft_config=lora_config(options.lora) if options.lora is not None else None,
            tools=tools,
            run=run,
            name=name,
            seed=seed,
            facts=facts,
            signals=signals,
        )
        if start is not None:  # after TRL has taken its reference from the first weights
            load_weights(trainer.pupil, start)
        final = run_to_end(trainer, run, trainer.pupil, start)
    return result_of(final)


def _arguments(
    options: TrainOptions, grpo: GRPOOptions, run: RunFolder, name: str, seed: int, report_to: Sequence[str]
) -> Any:
    from trl import GRPOConfig

    completions = replace(options, batch_size=options.batch_size * grpo.generations)
    return training_arguments(
        completions, run.checkpoints(name), seed, report_to, run, GRPOConfig,
        num_generations=grpo.generations, max_completion_length=grpo.max_new_tokens, temperature=grpo.temperature,
        beta=grpo.beta, epsilon=grpo.clip, loss_type="dapo", scale_rewards="group", shuffle_dataset=False,
        gradient_checkpointing=options.gradient_checkpointing, use_vllm=grpo.rollouts == "vllm",
        vllm_mode="colocate", vllm_gpu_memory_utilization=grpo.vllm_memory,
    )  # fmt: skip


def check_tools(tokenizer: Any, rows: Sequence[dict[str, Any]]) -> None:
    """Refuse what TRL could not train on with tools: prompts that are no chats, templates that it cannot read."""
    from trl.chat_template_utils import add_response_schema, supports_tool_calling

    texts = [number for number, row in enumerate(rows) if isinstance(row["prompt"], str)]
    if texts:
        raise DataError(f"prompt {texts[0]} is text; with tools give chat messages, a list of role and content")
    if not supports_tool_calling(tokenizer):
        raise RenderingError("the chat template does not show tool calls and their results; use one that does")
    if getattr(tokenizer, "response_template", None) is None:
        try:
            add_response_schema(tokenizer)
        except ValueError as error:
            raise RenderingError(
                "TRL does not know this chat template, so calls cannot be read; set tokenizer.response_template"
            ) from error


@cache
def grpo_fit_trainer() -> type:
    """The trainer class, made from the installed TRL."""
    return type("GRPOFitTrainer", (_OverRuntime, SharedPrompts, trl_grpo_trainer()), {})


class _OverRuntime(BaseTrainer):
    """What stands before `SharedPrompts` and TRL's trainer."""

    def __init__(
        self,
        args: Any,
        options: TrainOptions,
        *,
        model: Any,
        tokenizer: Any,
        reward: Reward,
        rows: Any,
        peft_config: Any,
        tools: Sequence[Callable[..., Any]],
        run: RunFolder,
        name: str,
        seed: int,
        facts: dict[str, Any],
        signals: StopSignals,
    ) -> None:
        from transformers import PrinterCallback

        own: dict[str, Any] = {"callbacks": self.begin(options, run, name, seed, facts, signals)}
        self.tokenizer = tokenizer
        self._renderer = Renderer(tokenizer)
        own |= {"reward_funcs": reward, "processing_class": tokenizer, "peft_config": peft_config}
        own |= {"tools": list(tools) or None}
        super().__init__(model=model, args=args, train_dataset=rows, **own)
        self.pupil = self.module = self.accelerator.unwrap_model(self.model)
        self.remove_callback(PrinterCallback)

    def _send_telemetry(self) -> None:
        """Nothing leaves the machine."""

    # ---------------------------------------------------------------- prompts

    def get_train_dataloader(self) -> Any:
        trainer: Any = self
        rows = trainer.train_dataset
        groups = GroupBatches(len(rows), self._deal(), trainer.num_generations, self.seed)
        generator = torch.Generator().manual_seed(stable_seed(self.seed, "loader"))
        return DataLoader(rows, batch_sampler=groups, collate_fn=list, generator=generator)

    def get_batch_samples(self, epoch_iterator: Any, num_batches: int, device: Any) -> tuple[list[Any], Any]:
        found = super().get_batch_samples(epoch_iterator, num_batches, device)
        self.begin_step()
        return found

    def _tokenize_prompts(self, prompts: list[Any]) -> tuple[list[list[int]], None, dict[str, Any]]:
        """Token ids of each prompt, rendered once per group; with tools by TRL, whose template shows them."""
        trainer: Any = self
        G = trainer.num_generations
        if trainer.tools:
            ids = super()._tokenize_prompts(prompts[::G])[0]  # type: ignore[misc]
        else:
            ids = [self._renderer.prompt_ids(prompt) for prompt in prompts[::G]]
        return [row for row in ids for _ in range(G)], None, {}

    # ---------------------------------------------------------------- completions and their rewards

    def _generate_single_turn(
        self, prompt_ids: list[list[int]], images: Any, multimodal_fields: Any, num_generations: int, **tools: Any
    ) -> tuple[list[list[int]], Any]:
        """Ids of one completion per row, and their log-probabilities where TRL corrects for them (vLLM)."""
        trainer: Any = self
        with self.clock.stage("rollouts"):
            if trainer.use_vllm:
                return super()._generate_single_turn(  # type: ignore[misc]
                    prompt_ids, images, multimodal_fields, num_generations, **tools
                )
            from trl.models import unwrap_model_for_generation

            # 0 where the rank might stand: what is drawn for a prompt does not depend on how many processes there are.
            seed = stable_seed(self.seed, "rollout", self.state.global_step, 0)
            sampling = Sampling(trainer.max_completion_length, trainer.temperature, seed=seed)
            whole = unwrap_model_for_generation(self.model_wrapped, self.accelerator)
            with whole as model, self.accelerator.autocast():
                generator = HFGenerator(model, self.tokenizer, _Rendered(self.tokenizer), batch_size=len(prompt_ids))
                groups: list[Any] = prompt_ids[::num_generations]
                found = generator.generate(groups, num_generations, sampling)
        return [list(completion.token_ids) for row in found for completion in row], None

    def _calculate_rewards(self, *args: Any) -> torch.Tensor:
        """float32 [completions of all ranks, 1]. TRL itself would turn what is not finite into no advantage at all."""
        with self.clock.stage("rewards"):
            rewards: torch.Tensor = super()._calculate_rewards(*args)  # type: ignore[misc]
        if not bool(torch.isfinite(rewards).all()):
            bad = int((~torch.isfinite(rewards)).nonzero()[0, 0])
            raise NonFiniteError(
                f"step {self.state.global_step + 1}: the reward of completion {bad} is {float(rewards[bad, 0])}; "
                "the weights are kept as they were before it; make the reward function return numbers"
            )
        # Multiples of 2^-16 have exact sums and means, so equal rewards have a deviation of 0 and not of a rounding:
        # TRL counts constant groups by it.
        return torch.round(rewards * REWARD_GRID) / REWARD_GRID

    # ---------------------------------------------------------------- loss

    def training_step(self, model: Any, inputs: Any, num_items_in_batch: Any = None) -> torch.Tensor:
        with self.clock.stage("step"):
            return super().training_step(model, inputs, num_items_in_batch)

    def compute_loss(self, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        loss: Any = super().compute_loss(model, inputs, *args, **kwargs)
        self._losses.append(loss.detach())
        return loss

    def replay(self) -> None:
        trainer: Any = self
        for inputs in trainer._buffered_inputs:
            trainer._compute_loss(self.module, inputs)


class _Rendered(Renderer):
    """For prompts that are token ids already."""

    def prompt_ids(self, prompt: Any) -> list[int]:
        return list(prompt)


class GroupBatches(Sampler[list[int]]):
    """Per micro-step the prompts that this rank samples for in the whole optimiser step, each G times.

    TRL asks for all of them at every micro-step and uses them at the first. The order is a function of (seed, epoch).
    """

    def __init__(self, examples: int, deal: Deal, generations: int, seed: int) -> None:
        self.examples, self.deal, self.generations, self.seed = examples, deal, generations, seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    @property
    def batch_sampler(self) -> GroupBatches:
        """transformers.Trainer looks for the sampler that has `set_epoch` one level down."""
        return self

    def __len__(self) -> int:
        return self.examples // self.deal.window * self.deal.accumulation

    def __iter__(self) -> Iterator[list[int]]:
        order = list(permutation(self.examples, self.seed, self.epoch))
        window = self.deal.window
        for start in range(0, self.examples - window + 1, window):
            mine = [i for batch in self.deal.batches(order[start : start + window]) for i in batch]
            rows = [i for i in mine for _ in range(self.generations)]
            for _ in range(self.deal.accumulation):
                yield rows
