"""Laws of the Hugging Face generator: what its completions depend on, and what they do not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from launch.contracts import Completion, Message, Prompt, Sampling
from launch.errors import CheckpointError, ConfigError, DataError
from launch.generate import HFGenerator
from launch.models import load_tokenizer

PROMPTS: list[Prompt] = ["Hi", "A prompt of middling length", "The longest of the prompts, with its 50 characters!"]
SAMPLED = Sampling(max_new_tokens=40, temperature=0.9, top_p=0.95, top_k=60, seed=3)


@pytest.fixture(scope="module")
def model(served_model: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(served_model)


@pytest.fixture(scope="module")
def generator(model: Any, served_model: Path) -> HFGenerator:
    return HFGenerator(model, load_tokenizer(served_model))


def ids(answers: Sequence[Sequence[Completion]]) -> list[list[tuple[int, ...]]]:
    return [[answer.token_ids for answer in row] for row in answers]


def flat(answers: Sequence[Sequence[Completion]]) -> list[Completion]:
    return [answer for row in answers for answer in row]


def visible(token_ids: Sequence[int]) -> int:
    """How many characters the tokens show: one each, none for the four special ones."""
    return sum(token > 3 for token in token_ids)


def library_greedy(model: Any, prompt: tuple[int, ...], length: int, **more: Any) -> tuple[int, ...]:
    """The library's own greedy decoding of one prompt alone."""
    out = model.generate(torch.tensor([prompt]), do_sample=False, max_new_tokens=length, pad_token_id=0, **more)
    return tuple(out[0, len(prompt) :].tolist())


def plain_logprobs(model: Any, answer: Completion) -> torch.Tensor:
    """Log-probabilities of the sampled tokens by one plain forward pass, without cache or padding."""
    whole = torch.tensor([answer.prompt_ids + answer.token_ids])
    with torch.no_grad():
        logprobs = model(whole).logits.float().log_softmax(-1)[0, len(answer.prompt_ids) - 1 : -1]
    return logprobs.gather(-1, torch.tensor(answer.token_ids)[:, None])[:, 0]


def test_greedy_is_the_librarys_greedy(generator: HFGenerator, model: Any) -> None:
    for answer in flat(generator.generate(PROMPTS, 2, Sampling(max_new_tokens=30, temperature=0))):
        assert answer.token_ids == library_greedy(model, answer.prompt_ids, 30)


def test_the_repetition_penalty_is_the_librarys(generator: HFGenerator, model: Any) -> None:
    sampling = Sampling(max_new_tokens=30, temperature=0, repetition_penalty=1.176)
    answers = flat(generator.generate(PROMPTS, 1, sampling))
    for answer in answers:
        assert answer.token_ids == library_greedy(model, answer.prompt_ids, 30, repetition_penalty=1.176)
    assert ids([answers]) != ids([flat(generator.generate(PROMPTS, 1, replace(sampling, repetition_penalty=1.0)))])


def test_logprobs_are_those_of_a_plain_forward_pass(generator: HFGenerator, model: Any) -> None:
    for answer in flat(generator.generate(PROMPTS, 2, SAMPLED)):
        torch.testing.assert_close(torch.tensor(answer.logprobs), plain_logprobs(model, answer), atol=1e-5, rtol=0)


def test_each_prompt_is_prefilled_once_whatever_n_is(model: Any, served_model: Path) -> None:
    generator = HFGenerator(model, load_tokenizer(served_model), batch_size=2)
    answers = generator.generate(PROMPTS, 8, SAMPLED)
    assert generator.prefilled_tokens == sum(len(row[0].prompt_ids) for row in answers)
    assert generator.decoded_tokens == sum(len(answer.token_ids) for answer in flat(answers))


def test_the_same_call_gives_the_same_bits(generator: HFGenerator) -> None:
    assert generator.generate(PROMPTS, 3, SAMPLED) == generator.generate(PROMPTS, 3, SAMPLED)


def test_seeds_and_samples_differ(generator: HFGenerator) -> None:
    one = ids(generator.generate(PROMPTS, 3, SAMPLED))
    two = ids(generator.generate(PROMPTS, 3, replace(SAMPLED, seed=4)))
    assert all(len({*a, *b}) == 6 for a, b in zip(one, two, strict=True))


def test_copies_of_a_prompt_get_different_samples(generator: HFGenerator) -> None:
    first, second = ids(generator.generate([PROMPTS[0]] * 2, 2, SAMPLED))
    assert len({*first, *second}) == 4


@pytest.mark.parametrize("batch_size", [1, 2, 16])
def test_samples_do_not_depend_on_batch_mates_order_or_batch_size(
    generator: HFGenerator, model: Any, served_model: Path, batch_size: int
) -> None:
    alone = [generator.generate([prompt], 3, SAMPLED)[0] for prompt in PROMPTS]
    other = HFGenerator(model, load_tokenizer(served_model), batch_size=batch_size)
    together = other.generate(PROMPTS[::-1], 3, SAMPLED)[::-1]
    assert ids(together) == ids(alone)
    for a, b in zip(flat(together), flat(alone), strict=True):
        assert a.logprobs == pytest.approx(b.logprobs, abs=1e-5)
        assert (a.text, a.finish, a.prompt_ids) == (b.text, b.finish, b.prompt_ids)


def test_asking_for_more_samples_or_tokens_continues_the_same_ones(generator: HFGenerator) -> None:
    few = flat(generator.generate(PROMPTS, 2, replace(SAMPLED, max_new_tokens=10)))
    many = flat([row[:2] for row in generator.generate(PROMPTS, 5, SAMPLED)])
    for short, long in zip(few, many, strict=True):
        assert long.token_ids[: len(short.token_ids)] == short.token_ids


def test_finish_says_how_a_completion_ended(generator: HFGenerator) -> None:
    answers = flat(generator.generate(PROMPTS, 30, SAMPLED))
    assert {answer.finish for answer in answers} == {"stop", "length"}
    for answer in answers:
        assert len(answer.token_ids) == len(answer.logprobs)
        assert 2 not in answer.token_ids[:-1]
        assert len(answer.text) == visible(answer.token_ids)
        if answer.finish == "stop":
            assert answer.token_ids[-1] == 2
        else:
            assert len(answer.token_ids) == 40


def test_a_stop_string_ends_the_text_before_it(generator: HFGenerator) -> None:
    [[free]] = generator.generate(PROMPTS[:1], 1, Sampling(max_new_tokens=30, temperature=0))
    stop = free.text[12:15]
    [[cut]] = generator.generate(PROMPTS[:1], 1, Sampling(max_new_tokens=30, temperature=0, stop=("never\n", stop)))
    at = free.text.index(stop)
    assert cut.text == free.text[:at]
    assert cut.finish == "stop"
    assert free.token_ids[: len(cut.token_ids)] == cut.token_ids
    assert visible(cut.token_ids) == at + 3  # the tokens that spelt it were sampled and are carried
    assert cut.token_ids[-1] > 3  # and nothing behind it was


def test_the_context_cuts_and_an_overlong_prompt_is_refused(generator: HFGenerator) -> None:
    nearly = "x" * 505  # and BOS: 506 of 512
    [[answer]] = generator.generate([nearly], 1, Sampling(max_new_tokens=30, temperature=0))
    assert (len(answer.token_ids), answer.finish) == (6, "length")
    with pytest.raises(DataError, match="prompt 1 has 521 tokens but the model's context is 512"):
        generator.generate(["ok", "x" * 520], 1, SAMPLED)


def test_chat_prompts_use_the_template_with_one_bos(generator: HFGenerator) -> None:
    prompt: list[Message] = [{"role": "user", "content": "Hi"}]
    [[answer]] = generator.generate([prompt], 1, SAMPLED)
    assert answer.prompt_ids.count(1) == 1
    assert generator.tokenizer.decode(answer.prompt_ids) == "<s>[user]Hi\n[assistant]"


def test_modes_and_the_global_generator_are_left_alone(generator: HFGenerator, model: Any) -> None:
    model.train()
    model.model.layers[0].eval()
    modes = [module.training for module in model.modules()]
    before = torch.get_rng_state()
    generator.generate(PROMPTS, 2, SAMPLED)
    assert torch.equal(before, torch.get_rng_state())
    assert modes == [module.training for module in model.modules()]
    model.eval()


def test_first_tokens_come_in_the_models_proportions(generator: HFGenerator, model: Any) -> None:
    """Of 4,000 samples, the shares of the ten likeliest tokens are within 4 standard errors of their probabilities."""
    answers = generator.generate(PROMPTS[:1], 4000, Sampling(max_new_tokens=1, seed=9))[0]
    with torch.no_grad():
        probs = model(torch.tensor([answers[0].prompt_ids])).logits[0, -1].softmax(-1)
    for p, token in zip(*[x.tolist() for x in probs.topk(10)], strict=True):
        share = sum(answer.token_ids[0] == token for answer in answers) / 4000
        assert abs(share - p) < 4 * (p * (1 - p) / 4000) ** 0.5


def test_progress_counts_completions(model: Any, served_model: Path) -> None:
    seen: list[tuple[int, int]] = []
    generator = HFGenerator(
        model, load_tokenizer(served_model), batch_size=2, progress=lambda done, of: seen.append((done, of))
    )
    generator.generate(PROMPTS, 2, Sampling(max_new_tokens=2))
    assert seen == [(4, 6), (6, 6)]


def test_no_prompts_give_no_answers(generator: HFGenerator) -> None:
    assert generator.generate([], 2, SAMPLED) == []


def test_broken_weights_are_named(served_model: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(served_model)
    with torch.no_grad():
        model.lm_head.weight[5] = torch.nan
    with pytest.raises(CheckpointError, match="NaN or infinite logits"):
        HFGenerator(model, load_tokenizer(served_model)).generate(PROMPTS, 1, SAMPLED)


def test_a_batch_of_nothing_is_refused(model: Any, served_model: Path) -> None:
    with pytest.raises(ConfigError, match="batch_size 0"):
        HFGenerator(model, load_tokenizer(served_model), batch_size=0)


@pytest.mark.parametrize("kind", ["mistral", "gemma2"])
def test_sliding_windows_shorter_than_the_text(served_model: Path, kind: str) -> None:
    """Left padding and a repeated cache meet a window of 8: greedy and logprobs still equal the library's."""
    from transformers import Gemma2Config, Gemma2ForCausalLM, MistralConfig, MistralForCausalLM

    tokenizer = load_tokenizer(served_model)
    sizes: dict[str, Any] = {
        "vocab_size": len(tokenizer),
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "head_dim": 16,
        "sliding_window": 8,
        "initializer_range": 0.3,
        "pad_token_id": 0,
        "bos_token_id": 1,
        "eos_token_id": 2,
    }
    with torch.random.fork_rng():
        torch.manual_seed(0)
        built: Any = (
            MistralForCausalLM(MistralConfig(**sizes))
            if kind == "mistral"
            else Gemma2ForCausalLM(Gemma2Config(**sizes, attn_implementation="eager"))
        )
    generator = HFGenerator(built.eval(), tokenizer)
    for answer in flat(generator.generate(PROMPTS, 1, Sampling(max_new_tokens=20, temperature=0))):
        assert answer.token_ids == library_greedy(built, answer.prompt_ids, 20)
    for answer in flat(generator.generate(PROMPTS, 2, replace(SAMPLED, max_new_tokens=20))):
        torch.testing.assert_close(torch.tensor(answer.logprobs), plain_logprobs(built, answer), atol=2e-5, rtol=0)


def test_stories260k_greedy_and_its_two_end_tokens(data_dir: Path) -> None:
    """The published greedy continuation, and a story that ends with id 1, as generation_config.json allows."""
    folder = data_dir / "lm" / "stories260K"
    model = AutoModelForCausalLM.from_pretrained(folder)
    generator = HFGenerator(model, load_tokenizer(folder))
    assert generator.end_ids == {1, 2}
    [[answer]] = generator.generate(["Once upon a time"], 1, Sampling(max_new_tokens=400, temperature=0))
    assert answer.text.startswith(", there was a little girl named Lily. She loved to play outside in the park.")
    assert (answer.finish, answer.token_ids[-1]) == ("stop", 1)
    assert answer.token_ids == library_greedy(model, answer.prompt_ids, 400)
