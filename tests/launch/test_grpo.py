"""TRL's GRPO with shared prompts: the loss and all gradients of TRL's own trainer, from far fewer tokens."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import Gemma2Config, GPT2Config, Qwen3Config

from launch.counters import watch
from launch.grpo import by_prompt, grpo_trainer, pack_completions
from launch.models import load_causal_lm, tiny_like
from tests.tiny import make_tokenizer

P, R, G = 12, 5, 4


def inputs() -> dict[str, torch.Tensor]:
    """Two prompts of 12 and 7 tokens, four completions each of 1 to 5 tokens; one has nothing to learn from."""
    draw = torch.Generator().manual_seed(0)
    prompts = [torch.randint(6, 200, (n,), generator=draw) for n in (P, 7)]
    prompt_ids, prompt_mask = torch.zeros(2 * G, P, dtype=torch.long), torch.zeros(2 * G, P, dtype=torch.long)
    completion_ids, completion_mask = torch.zeros(2 * G, R, dtype=torch.long), torch.zeros(2 * G, R, dtype=torch.long)
    for row in range(2 * G):
        prompt, length = prompts[row % 2], [5, 1, 3, 2, 4, 5, 0, 2][row]
        prompt_ids[row, P - len(prompt) :], prompt_mask[row, P - len(prompt) :] = prompt, 1
        completion_ids[row, :length] = torch.randint(6, 200, (length,), generator=draw)
        completion_mask[row, :length] = 1
    return {
        "prompt_ids": prompt_ids,
        "prompt_mask": prompt_mask,
        "completion_ids": completion_ids,
        "completion_mask": completion_mask,
        "advantages": torch.randn(2 * G, generator=draw),
        "old_per_token_logps": -5 + 0.3 * torch.randn(2 * G, R, generator=draw),
        "ref_per_token_logps": -5 + 0.3 * torch.randn(2 * G, R, generator=draw),
        "num_items_in_batch": torch.tensor(22.0),
    }


def trainer(cls: type, folder: Path, config: Any, **options: Any) -> Any:
    from datasets import Dataset
    from trl import GRPOConfig

    peft = options.pop("peft_config", None)
    args = GRPOConfig(
        output_dir=str(folder), per_device_train_batch_size=2 * G, num_generations=G, max_completion_length=R,
        bf16=False, use_cpu=True, report_to=[], gradient_checkpointing=False, temperature=0.8, **options,
    )  # fmt: skip
    tiny_like(config).save_pretrained(folder / "model")
    model = load_causal_lm(folder / "model")  # TRL loads its frozen reference from the same folder
    return cls(
        model=model, reward_funcs=lambda completions, **_: [float(len(c)) for c in completions], args=args,
        train_dataset=Dataset.from_list([{"prompt": "ab" + "c" * n} for n in range(4)]),
        processing_class=make_tokenizer(None), peft_config=peft,
    )  # fmt: skip


def loss_and_gradients(made: Any) -> tuple[float, dict[str, torch.Tensor], int, dict[str, Any]]:
    made.model.train()
    made.current_gradient_accumulation_steps = 1
    made.model.zero_grad()
    body = made.model.get_base_model().base_model if hasattr(made.model, "get_base_model") else made.model.base_model
    with watch(body) as columns:
        loss = made.compute_loss(made.model, inputs())
        loss.backward()
    found = {name: p.grad.clone() for name, p in made.model.named_parameters() if p.grad is not None}
    return loss.item(), found, sum(columns), {k: v[-1] for k, v in made._metrics["train"].items()}


FAMILIES = {
    "qwen3": Qwen3Config(vocab_size=262, eos_token_id=2),
    "gemma2": Gemma2Config(vocab_size=262, final_logit_softcapping=3.0, sliding_window=4),
}


@pytest.mark.parametrize(
    "options",
    [
        {"family": "qwen3", "beta": 0.1},
        {"family": "gemma2", "loss_type": "grpo", "entropy_coef": 0.01},
        {"family": "qwen3", "beta": 0.1, "lora": True, "importance_sampling_level": "sequence"},
    ],
    ids=["dapo and KL", "gemma2, entropy bonus", "LoRA, sequence level"],
)
def test_loss_gradients_and_metrics_are_trls_from_the_prompts_read_once(
    tmp_path: Path, options: dict[str, Any]
) -> None:
    """TRL: 8 rows of 12 + 5 columns, 136. Shared: trees of 12 + (5 + 3 + 4) and 7 + (1 + 2 + 5 + 2) = 24 and 17 tokens
    (the completion without tokens is not there): 41 columns end to end, 48 in two rows."""
    from trl import GRPOTrainer

    config = FAMILIES[options.pop("family")]
    if options.pop("lora", False):
        from peft import LoraConfig

        options["peft_config"] = LoraConfig(r=2, target_modules="all-linear", init_lora_weights=False)
    results = []
    for cls in (grpo_trainer(), GRPOTrainer):
        torch.manual_seed(0)  # adapters
        results.append(loss_and_gradients(trainer(cls, tmp_path, config, **dict(options))))
    (loss, mine, columns, metrics), (other_loss, theirs, other_columns, other_metrics) = results
    assert loss == pytest.approx(other_loss, rel=1e-5, abs=1e-6)
    assert mine.keys() == theirs.keys()
    for name in mine:
        torch.testing.assert_close(mine[name], theirs[name], rtol=1e-4, atol=1e-5)
    assert columns in (41, 48) and other_columns == 136
    assert metrics.keys() == other_metrics.keys()
    assert metrics["entropy"] == pytest.approx(other_metrics["entropy"], rel=1e-4)


def test_a_step_of_training_samples_scores_and_learns(tmp_path: Path) -> None:
    """The whole trainer, two micro-batches a step: TRL samples and shuffles, each micro-batch then has one prompt."""
    made = trainer(
        grpo_trainer(), tmp_path, FAMILIES["qwen3"], max_steps=1, gradient_accumulation_steps=2, save_strategy="no",
        learning_rate=1e-2, disable_tqdm=True,
    )  # fmt: skip
    before = made.model.get_input_embeddings().weight.detach().clone()
    made.train()
    assert not torch.equal(before, made.model.get_input_embeddings().weight)
    assert all(len({str(row.tolist()) for row in b["prompt_ids"]}) <= 2 for b in made._buffered_inputs)


def test_what_cannot_be_packed_runs_trls_own_method(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    made = trainer(grpo_trainer(), tmp_path, GPT2Config(vocab_size=262, n_embd=64, n_head=2, n_layer=2))
    assert "gpt2" in caplog.text and made._layout == "padded"
    _, found, columns, _ = loss_and_gradients(made)
    assert found and columns == 136


def test_batches_by_prompt_hold_the_same_rows() -> None:
    """Prompts a b | b a in two batches become a a | b b; what is not a row stays."""
    a, b, mask = [0, 1, 2], [3, 4, 5], {"a": [0, 1, 1], "b": [1, 1, 1]}

    def batch(order: str, x: list[float]) -> dict[str, torch.Tensor]:
        ids, masks = [{"a": a, "b": b}[p] for p in order], [mask[p] for p in order]
        tensors = {"prompt_ids": torch.tensor(ids), "prompt_mask": torch.tensor(masks)}
        return {**tensors, "x": torch.tensor(x), "n": torch.tensor(9)}

    batches = [batch("ab", [1.0, 2.0]), batch("ba", [3.0, 4.0])]
    one, two = by_prompt(batches)
    assert one["prompt_ids"].tolist() == [a, a] and two["prompt_ids"].tolist() == [b, b]
    assert one["x"].tolist() == [1.0, 4.0] and two["x"].tolist() == [2.0, 3.0]
    assert int(one["n"]) == int(two["n"]) == 9


def test_rows_and_columns_of_packed_completions() -> None:
    """Row 1's completion lost its first token to a mask, row 2 has none: 2 + 1 tokens, in the order of their trees."""
    ids = torch.tensor([[0, 7, 8, 9], [0, 7, 5, 6], [4, 7, 1, 1]])
    mask = torch.tensor([[0, 1, 1, 1], [0, 1, 0, 1], [1, 1, 0, 0]]).bool()
    packed, row, column = pack_completions(ids, mask, 2)
    assert row.tolist() == [0, 0, 1] and column.tolist() == [0, 1, 1]
    assert packed["token"].tolist() == [8, 9, 6] and packed["input_ids"].tolist() == [[7, 8, 9, 6]]
