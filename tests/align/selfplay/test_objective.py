"""The Objective and the reference pass on a real model: equal to the naive loop, whatever the batch looks like."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from align.selfplay import measure, objective, pairs
from launch.contracts import Completion
from launch.errors import ConfigError, DataError
from launch.generate.chunks import completion_from_json, completion_to_json
from launch.jsonlines import Lines
from launch.models import load_causal_lm, load_tokenizer
from launch.rendering import Renderer
from launch.runfolder import write_rows

EOS = 2


@pytest.fixture(scope="module")
def model(tiny_llama: Path) -> torch.nn.Module:
    return load_causal_lm(tiny_llama).eval()


@pytest.fixture(scope="module")
def renderer(tiny_llama: Path) -> Renderer:
    return Renderer(load_tokenizer(tiny_llama), max_length=24, cut="prompt_left", end="keep")


@pytest.fixture(scope="module")
def rows() -> list[pairs.Row]:
    """Prompts and answers of many lengths; every other answer was cut while sampling (no EOS)."""
    rng = np.random.default_rng(0)
    samples = []
    for i in range(5):
        prompt = (1, *rng.integers(6, 200, size=2 + 3 * i).tolist())
        row = []
        for k in range(3):
            ids = rng.integers(6, 200, size=1 + 2 * k + i).tolist() + ([EOS] if k % 2 else [])
            row.append(Completion(f"{i}/{k}", tuple(ids), (0.0,) * len(ids), "stop" if k % 2 else "length", prompt))
        samples.append(row)
    S = rng.normal(size=(5, 3, 3))
    return pairs.build_pairs([f"p{i}" for i in range(5)], samples, list(S - S.swapaxes(1, 2))).rows


def naive_logprob(model: torch.nn.Module, prompt: list[int], answer: list[int]) -> torch.Tensor:
    """One forward, one sequence, a loop over tokens."""
    logits = model(input_ids=torch.tensor([prompt + answer])).logits[0].float()
    total = logits.new_zeros(())
    for i, token in enumerate(answer):
        total = total + logits[len(prompt) + i - 1].log_softmax(-1)[token]
    return total


def cut(prompt: list[int], answer: list[int], limit: int = 24) -> tuple[list[int], list[int]]:
    over = max(0, len(prompt) + len(answer) - limit)
    prompt = prompt[min(over, len(prompt) - 1) :]
    return prompt, answer[: limit - len(prompt)]


def test_reference_equals_the_naive_loop_at_any_batch_size(model, renderer, rows) -> None:
    expected = [
        [naive_logprob(model, *cut(row["prompt_ids"], ids)).item() for ids in row["response_ids"]] for row in rows
    ]
    for batch_size in (1, 2, 8):
        found = objective.reference_logprobs(model, rows, renderer, batch_size, chunk=7)
        for a, b in zip(found, expected, strict=True):
            assert a == pytest.approx(b, abs=2e-4)


def test_loss_equals_the_pure_loss_and_its_naive_gradient(model, renderer, rows) -> None:
    """Pairs at beta .5 against a shifted reference: sum over prompts of SPPO's loss, and the same gradient."""
    reference = [
        [value - 0.3 * k for k, value in enumerate(row)] for row in objective.reference_logprobs(model, rows, renderer)
    ]
    batch_rows = objective.examples(rows, reference, renderer, beta=0.5)
    learner = objective.SelfPlayObjective(objective.objective_scale("sppo", "pair", 3))
    loss = learner.loss(model, learner.collate(batch_rows))
    model.zero_grad()
    loss.total.backward()
    weight = model.get_output_embeddings().weight  # type: ignore[operator]
    gradient = weight.grad.clone()

    model.zero_grad()
    total = torch.zeros(())
    for row, ref in zip(rows, reference, strict=True):
        a = [naive_logprob(model, *cut(row["prompt_ids"], row["response_ids"][k])) - ref[k] for k in row["index"]]
        p = [torch.tensor(row[key]) for key in ("chosen_probs_win", "chosen_probs_lose")]
        total = total + objective.sppo_loss(a[0], a[1], p[0], p[1], 0.5)
    total.backward()
    assert loss.count == 5
    assert loss.total.item() == pytest.approx(total.item(), rel=1e-4)
    assert torch.allclose(gradient, weight.grad, atol=1e-4)


@pytest.mark.parametrize("mode", ["pair", "all_k"])
def test_one_batch_of_five_is_five_batches_of_one_in_any_order(model, renderer, rows, mode: str) -> None:
    reference = objective.reference_logprobs(model, rows, renderer)
    examples = objective.examples(rows, reference, renderer, mode=mode, beta=0.1)
    learner = objective.SelfPlayObjective(objective.objective_scale("sppo", mode, 3), pad_id=EOS)
    with torch.no_grad():
        whole = learner.loss(model, learner.collate(examples))
        turned = learner.loss(model, learner.collate(examples[::-1]))
        single = [learner.loss(model, learner.collate([example])) for example in examples]
    assert whole.total.item() == pytest.approx(sum(part.total.item() for part in single), rel=1e-5)
    assert whole.total.item() == pytest.approx(turned.total.item(), rel=1e-5)
    assert float(whole.metrics["log_ratio_abs"]) < 1e-3  # the reference is the model itself
    for key, value in whole.metrics.items():
        if key == "work_columns":
            continue  # how much padding a packed batch needs is a matter of what is in it
        assert float(value) == pytest.approx(sum(float(part.metrics[key]) for part in single), rel=1e-4, abs=1e-3)


def test_padding_counts_where_the_kernel_runs_it(tiny_llama: Path) -> None:
    """Prompts of 400 and 100 tokens, two answers of 100: by segments sdpa runs the 900 tokens alone, a mask whole
    rows. What the backbone is given says the same."""
    from launch.counters import watch
    from launch.masks import kernel_of

    rows = [([3] * n, [[k + 4] * 100 for k in range(2)]) for n in (400, 100)]
    sequences = [prompt + answer for prompt, answers in rows for answer in answers]
    lengths = [len(prompt) for prompt, answers in rows for _ in answers]
    columns = {}
    for kernel in ("sdpa", "eager"):
        model = AutoModelForCausalLM.from_pretrained(tiny_llama, attn_implementation=kernel).eval()
        learner = objective.SelfPlayObjective(1.0, kernel=kernel_of(model))
        batch = learner.encode(sequences, lengths)
        with watch(model.base_model) as seen, torch.no_grad():
            learner.logprobs(model, batch, len(sequences))
        columns[kernel] = (batch["work_columns"], sum(seen))
    assert columns["sdpa"][0] == 900 and columns["eager"][0] == columns["eager"][1] > 900


def test_a_round_is_on_disk_and_not_in_memory(renderer, tmp_path: Path) -> None:
    """Samples of five answers of 200 tokens to rows, data set and examples, for 50 prompts and for 250: below 2 kB a
    prompt (its table, its reference values and places). As lists the tokens and their log-probabilities take 70 kB."""

    def peak(prompts: int) -> int:
        folder = tmp_path / str(prompts)
        answers = (
            [Completion(f"{i} {k}", tuple(range(300, 500)), (-1.5,) * 200, "stop", (1, 5)) for k in range(5)]
            for i in range(prompts)
        )
        write_rows(folder / "samples.jsonl", ({"k": [completion_to_json(c) for c in row]} for row in answers))
        tables = np.random.default_rng(0).normal(size=(prompts, 5, 5))
        tracemalloc.start()
        samples = Lines(folder / "samples.jsonl", lambda row: [completion_from_json(c) for c in row["k"]])
        found = pairs.pair_rows([f"p{i}" for i in range(prompts)], samples, tables - tables.swapaxes(1, 2))
        pairs.write_pairs(folder / "pairs", found)
        dataset = pairs.PairDataset.load(folder / "pairs")
        examples = objective.examples(dataset.rows, [[0.0] * 5] * prompts, renderer, beta=0.1)
        assert sum(len(example["ids"]) for example in examples) == 2 * prompts
        assert measure.sample_metrics(samples)["answer_tokens"] == 200
        high = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return high

    peak(2)
    assert peak(250) - peak(50) < 200 * 2_000


@pytest.mark.parametrize("mode", ["pair", "all_k"])
def test_every_layout_has_the_same_loss_gradients_and_token_count(model, renderer, rows, mode: str) -> None:
    """Rows 3 and 4 are longer than the limit of 24, so their answers lost different parts of the prompt."""
    reference = objective.reference_logprobs(model, rows, renderer, layout="padded")
    for layout in ("shared", "packed"):
        again = objective.reference_logprobs(model, rows, renderer, layout=layout)
        assert np.concatenate(again) == pytest.approx(np.concatenate(reference), rel=1e-5, abs=1e-5)
    shifted = [[value - 0.3 * k for k, value in enumerate(row)] for row in reference]
    batch_rows = objective.examples(rows, shifted, renderer, mode=mode, beta=0.5)
    found = {}
    for layout in ("padded", "packed", "shared"):
        learner = objective.SelfPlayObjective(objective.objective_scale("sppo", mode, 3), EOS, 7, layout)
        batch = learner.collate(batch_rows)
        model.zero_grad()
        loss = learner.loss(model, batch)
        loss.total.backward()
        found[layout] = (loss, {n: p.grad.clone() for n, p in model.named_parameters()}, batch)
    slow, slow_gradients, slow_batch = found["padded"]
    for layout in ("packed", "shared"):
        loss, gradients, batch = found[layout]
        assert loss.total.item() == pytest.approx(slow.total.item(), rel=1e-5)
        assert loss.count == slow.count and batch["tokens"] == slow_batch["tokens"]
        scale = max(float(g.abs().max()) for g in slow_gradients.values())
        for name, gradient in gradients.items():
            torch.testing.assert_close(gradient, slow_gradients[name], rtol=1e-5, atol=1e-5 * scale)
        assert float(loss.metrics["log_ratio"]) == pytest.approx(float(slow.metrics["log_ratio"]), rel=1e-4)
    assert found["shared"][2]["work_tokens"] < found["packed"][2]["work_tokens"] == slow_batch["work_tokens"]


def test_no_answer_is_given_an_end_it_did_not_sample(renderer, rows) -> None:
    for row in rows:
        ids, lengths = objective.encode_row(row, renderer)
        for whole, start, sampled in zip(ids, lengths, row["response_ids"], strict=True):
            assert whole[start:] == sampled[: len(whole) - start]
            assert len(whole) <= 24 and start >= 1
    with pytest.raises(ConfigError, match="end='keep'"):
        objective.encode_row(rows[0], Renderer(renderer.tokenizer, end="force"))


@pytest.mark.parametrize("change", [{"prompt_ids": []}, {"response_ids": [[7, EOS], []]}])
def test_rows_without_token_ids_are_refused(renderer, rows, change) -> None:
    with pytest.raises(DataError, match="no token ids"):
        objective.encode_row({**rows[0], **change}, renderer)


def test_long_prompts_lose_their_left_and_keep_the_whole_answer(renderer, rows) -> None:
    row = {**rows[0], "prompt_ids": list(range(10, 60)), "response_ids": [[7, 8, 9, EOS]]}
    ids, lengths = objective.encode_row(row, renderer)
    assert ids[0] == [*range(40, 60), 7, 8, 9, EOS] and lengths == [20]


def test_counted_as_cut_is_what_the_renderer_cuts(renderer, rows) -> None:
    """At every limit, the rows counted are those of which some sequence is shorter than prompt and answer."""
    whole = [len(row["prompt_ids"]) + len(ids) for row in rows for ids in row["response_ids"]]
    for limit in range(min(whole) - 1, max(whole) + 1):
        short = Renderer(renderer.tokenizer, limit, cut="prompt_left", end="keep")
        seen = [
            i
            for i, row in enumerate(rows)
            if sum(map(len, objective.encode_row(row, short)[0]))
            < sum(len(row["prompt_ids"]) + len(ids) for ids in row["response_ids"])
        ]
        assert measure.cut_rows(pairs.PairDataset(list(rows)), limit) == seen


def test_anchor_moves_the_targets_of_all_k(renderer, rows) -> None:
    """gamma .5, log pi_t = (0, 1, 2), log pi_0 = 0: centred log-ratios (-1, 0, 1), shifts (.5, 0, -.5)."""
    now, start = [[0.0, 1.0, 2.0]] * 5, [[0.0] * 3] * 5
    plain = objective.examples(rows, now, renderer, mode="all_k", beta=1.0)
    pulled = objective.examples(rows, now, renderer, mode="all_k", beta=1.0, gamma=0.5, start=start)
    for a, b in zip(plain, pulled, strict=True):
        assert np.array(b["targets"]) - np.array(a["targets"]) == pytest.approx([0.5, 0.0, -0.5])
        assert a["reference"] == b["reference"]
    with pytest.raises(ConfigError, match="starting policy"):
        objective.examples(rows, now, renderer, gamma=0.5)
    with pytest.raises(ConfigError, match="1/eta"):
        objective.examples(rows, now, renderer, beta=0.0)
    with pytest.raises(DataError, match="4 reference values for 5 rows"):
        objective.examples(rows, now[:4], renderer)
