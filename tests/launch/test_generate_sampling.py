"""What all backends agree on: which token a uniform number draws, seeds, where a text ends."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from launch.contracts import Sampling
from launch.errors import ConfigError
from launch.generate.sampling import check, cut_at_stop, decode, draw, prompt_seeds, stable_hash, uniforms

HALVES = torch.log(torch.tensor([0.5, 0.25, 0.125, 0.125]))


def shares(sampling: Sampling, count: int = 8000) -> list[float]:
    """How often each token is drawn by `count` evenly spaced uniform numbers."""
    even = (torch.arange(count, dtype=torch.float64) + 0.5) / count
    ids, _ = draw(HALVES.expand(count, -1), even, sampling)
    return (torch.bincount(ids, minlength=4) / count).tolist()


def test_evenly_spaced_numbers_draw_each_token_in_its_share() -> None:
    assert shares(Sampling()) == pytest.approx([0.5, 0.25, 0.125, 0.125], abs=2e-4)


def test_temperature_two_takes_square_roots() -> None:
    """Square roots of 1/2, 1/4, 1/8, 1/8 are .7071, .5, .3536, .3536 and sum to 1.9142."""
    want = [math.sqrt(p) / 1.914214 for p in (0.5, 0.25, 0.125, 0.125)]
    assert shares(Sampling(temperature=2.0)) == pytest.approx(want, abs=2e-4)


def test_top_k_keeps_the_k_most_probable() -> None:
    """1/2 and 1/4 renormalised are 2/3 and 1/3; with k = 3 the two that tie for third both stay."""
    assert shares(Sampling(top_k=2)) == pytest.approx([2 / 3, 1 / 3, 0, 0], abs=2e-4)
    assert shares(Sampling(top_k=3)) == pytest.approx([0.5, 0.25, 0.125, 0.125], abs=2e-4)


def test_top_p_keeps_the_token_that_reaches_p() -> None:
    """1/2 does not reach .6, so 1/4 stays too: 2/3 and 1/3. p = .4 leaves the first alone."""
    assert shares(Sampling(top_p=0.6)) == pytest.approx([2 / 3, 1 / 3, 0, 0], abs=2e-4)
    assert shares(Sampling(top_p=0.4)) == [1, 0, 0, 0]


def test_top_p_looks_at_what_temperature_and_top_k_left() -> None:
    """After top_k = 2 the shares are 2/3 and 1/3, so p = .6 is reached by the first."""
    assert shares(Sampling(top_k=2, top_p=0.6)) == [1, 0, 0, 0]


def test_the_penalty_divides_positive_logits_and_multiplies_negative_ones() -> None:
    """Logits 2, 1, -1 with all but the second seen, penalty 4: 1/2, 1, -4; so the second is greedy, and its share of
    draws 1 / (1 + e^-1/2 + e^-5) = .6196. What is told of it is the plain model's: 1 - ln(e^2 + e^1 + e^-1).
    """
    logits, seen = torch.tensor([[2.0, 1.0, -1.0]]), torch.tensor([[True, False, True]])
    ids, logprobs = draw(logits, torch.zeros(1), Sampling(temperature=0, repetition_penalty=4), seen)
    assert ids.tolist() == [1]
    assert logprobs.item() == pytest.approx(1 - math.log(math.exp(2) + math.exp(1) + math.exp(-1)), abs=1e-6)
    even = (torch.arange(8000, dtype=torch.float64) + 0.5) / 8000
    drawn, _ = draw(logits.expand(8000, -1), even, Sampling(repetition_penalty=4), seen.expand(8000, -1))
    assert float((drawn == 1).double().mean()) == pytest.approx(1 / (1 + math.exp(-0.5) + math.exp(-5)), abs=2e-4)


def test_logprobs_are_of_the_untempered_model() -> None:
    ids, logprobs = draw(HALVES[None], torch.tensor([0.9], dtype=torch.float64), Sampling(temperature=0.1, top_k=2))
    assert ids.tolist() == [0]  # 1/2 against 1/4 at a tenth of the temperature: 1024 to 1
    assert logprobs.item() == pytest.approx(math.log(0.5), abs=1e-6)


def test_impossible_tokens_are_never_drawn_at_the_edges() -> None:
    logits = torch.tensor([[-torch.inf, 0.0, 0.0, -torch.inf]] * 2)
    ids, _ = draw(logits, torch.tensor([0.0, 1 - 2**-53], dtype=torch.float64), Sampling())
    assert ids.tolist() == [1, 2]


def test_a_longer_stream_continues_a_shorter_one_and_touches_no_global_generator() -> None:
    before = torch.get_rng_state()
    short, long = uniforms(7, 3, 5), uniforms(7, 4, 50)
    assert torch.equal(short, long[:3, :5])
    assert torch.equal(before, torch.get_rng_state())
    assert len(set(long.flatten().tolist())) == 200


def test_seeds_follow_the_prompt_and_not_its_place() -> None:
    a, b, again = prompt_seeds([[1, 2], [3], [1, 2]], seed=5)
    assert prompt_seeds([[3], [1, 2]], seed=5) == [b, a]
    assert len({a, b, again}) == 3
    assert prompt_seeds([[3]], seed=6) != [b]


def test_stable_hash_is_the_same_in_every_process() -> None:
    """The first eight bytes of SHA-256 of "1<0x1f>2", without their two lowest bits."""
    import hashlib

    assert stable_hash(1, 2) == int(hashlib.sha256(b"1\x1f2").hexdigest()[:16], 16) // 4


def test_cut_at_the_earliest_stop_string() -> None:
    assert cut_at_stop("one two three", ("three", "two")) == "one "
    assert cut_at_stop("one", ("two",)) is None


@pytest.mark.parametrize(
    ("sampling", "n", "field"),
    [
        (Sampling(temperature=-1), 1, "temperature"),
        (Sampling(temperature=math.nan), 1, "temperature"),
        (Sampling(top_p=0), 1, "top_p"),
        (Sampling(top_p=1.1), 1, "top_p"),
        (Sampling(top_k=-1), 1, "top_k"),
        (Sampling(max_new_tokens=0), 1, "max_new_tokens"),
        (Sampling(repetition_penalty=0), 1, "repetition_penalty"),
        (Sampling(stop=("",)), 1, "stop"),
        (Sampling(), 0, "n"),
    ],
)
def test_settings_that_mean_nothing_are_refused(sampling: Sampling, n: int, field: str) -> None:
    with pytest.raises(ConfigError) as caught:
        check(sampling, n)
    assert caught.value.field == field


def test_text_joins_the_prompt_and_leaves_out_half_a_character(data_dir: Path) -> None:
    """In stories260K the byte b has id b + 3; é is the bytes C3 A9. " was" keeps its space behind "there"."""
    from launch.models import load_tokenizer

    tokenizer = load_tokenizer(data_dir / "lm" / "stories260K")
    prompt = tokenizer("Once upon a time there")["input_ids"]
    was = tokenizer(" was", add_special_tokens=False)["input_ids"][-1:]
    assert decode(tokenizer, prompt, was) == " was"
    assert decode(tokenizer, prompt, [0xC3 + 3, 0xA9 + 3]) == "é"
    assert decode(tokenizer, prompt, [*was, 0xC3 + 3]) == " was"
