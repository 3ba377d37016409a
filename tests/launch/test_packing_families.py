"""Every packed family, under every kernel that runs here, with prompts longer than the sliding window: as run alone."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch

from launch import masks, segments
from launch.errors import LaunchError
from launch.packing import hidden_states, pack, tree_of, unservable
from tests.launch.packed import (
    WINDOW,
    assert_same_gradients,
    backbone_of,
    gradients,
    random_trees,
    states_alone,
    states_packed,
)

SDPA = ["llama", "qwen2", "qwen2_full", "qwen3", "gemma", "gemma3", "mistral", "mistral_window"]
TREES = random_trees(random.Random(3), 4, trunk=(2 * WINDOW, 4 * WINDOW))


@pytest.mark.parametrize(
    ("family", "attention", "by_segment"),
    [
        *((family, "sdpa", True) for family in SDPA),
        *((family, "sdpa", False) for family in SDPA),
        *((family, "eager", True) for family in ("llama", "qwen3", "gemma2", "gemma3", "mistral_window")),
    ],
)
def test_every_family_equals_one_sequence_at_a_time(family: str, attention: str, by_segment: bool) -> None:
    """States, loss and all gradients, fp32 1e-5; several trees in a row, so that columns are far from positions."""
    model = backbone_of(family, attention)
    assert unservable(model) is None
    expected, wanted = states_alone(model, TREES)
    found, gradients_found = states_packed(model, TREES, 150, by_segment=by_segment)
    for mine, theirs in zip(found, expected, strict=True):
        assert torch.allclose(torch.cat(mine), torch.cat(theirs), atol=1e-5)
    assert_same_gradients(gradients_found, wanted)


@pytest.mark.parametrize("family", SDPA)
@pytest.mark.parametrize("checkpointing", [False, True])
def test_reading_few_states_changes_none_of_them(family: str, checkpointing: bool) -> None:
    """The last token of every branch and a token of a trunk, twice: states and gradients, with checkpoints too."""
    model = backbone_of(family).train()
    if checkpointing:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    packed = pack(TREES, row_tokens=150)
    columns = packed.input_ids.shape[1]
    read = [row * columns + end - 1 for row, s in zip(packed.rows, packed.branch_spans, strict=True) for _, end in s]
    read += [packed.rows[2] * columns + packed.starts[2] + 5] * 2

    def at(**how: Any) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        hidden = hidden_states(model, **packed.tensors(), **how).flatten(0, 1)[read]
        return hidden, gradients(model, [[hidden]])

    whole, some = at(by_segment=False), at(read=torch.tensor(read), by_segment=True)
    assert torch.allclose(whole[0], some[0], atol=1e-5)
    assert_same_gradients(some[1], whole[1])
    again = at(by_segment=True)  # the hooks of the trimmed layer are gone
    assert torch.allclose(whole[0], again[0], atol=1e-5)


def test_a_window_by_columns_would_be_another_model() -> None:
    """What the windows of these tests guard against: counted in columns, late branches lose their prompt."""
    model = backbone_of("mistral_window", "eager").eval()
    trees = [tree_of([[5, *range(3, 30), last, last + 1] for last in (40, 45, 50, 55, 60)], shared=28)]
    packed = pack(trees)
    with torch.no_grad():
        right = hidden_states(model, **packed.tensors())
        see = masks.allowed(packed.position_ids, packed.tree, packed.branch)
        column = torch.arange(see.shape[-1])
        wrong = see & (column[:, None] - column < WINDOW)
        other = model(packed.input_ids, masks.additive(wrong, torch.float32), packed.position_ids).last_hidden_state
    assert (right - other)[0, -1].abs().max() > 1e-2
    assert (right - other)[0, 29].abs().max() < 1e-5


# ---------------------------------------------------------------- FlexAttention


@contextmanager
def uncompiled() -> Iterator[None]:
    """FlexAttention's own reference arithmetic; compiling takes half a minute a shape on a CPU."""
    from torch.nn.attention import flex_attention

    before = flex_attention._FLEX_ATTENTION_DISABLE_COMPILE_DEBUG
    flex_attention._FLEX_ATTENTION_DISABLE_COMPILE_DEBUG = True
    try:
        with torch.compiler.set_stance("force_eager"):
            yield
    finally:
        flex_attention._FLEX_ATTENTION_DISABLE_COMPILE_DEBUG = before


@pytest.mark.parametrize("family", ["llama", "qwen3", "gemma2", "gemma3", "mistral_window"])
def test_flex_attention_takes_the_rule(family: str) -> None:
    """States as under eager attention, Gemma-2's soft-capping included. Forward only: torch has no backward on CPU."""
    packed = pack(TREES, row_tokens=150)
    with torch.no_grad(), uncompiled():
        found = hidden_states(backbone_of(family, "flex_attention").eval(), **packed.tensors())
        expected = hidden_states(backbone_of(family, "eager").eval(), **packed.tensors())
    real = packed.tree >= 0
    assert torch.allclose(found[real], expected[real], atol=1e-5)


# ---------------------------------------------------------------- what is refused


def test_soft_capping_under_sdpa_is_refused() -> None:
    model = backbone_of("gemma2", "sdpa")
    assert "soft-capping" in str(unservable(model))
    with pytest.raises(LaunchError, match="soft-capping of gemma2; use eager or flex_attention"):
        hidden_states(model, **pack(TREES).tensors())
    assert unservable(backbone_of("gemma2", "eager")) is None


def test_flash_attention_packs_but_does_not_share() -> None:
    config = backbone_of("llama").config
    config._attn_implementation = "flash_attention_2"
    assert "cannot be shared" in str(unservable(config))
    assert unservable(config, shared=False) is None


def test_what_looks_both_ways_or_is_unknown_is_refused() -> None:
    from transformers import BertConfig, Gemma3TextConfig, LlamaConfig, MambaConfig

    assert "bert is not among" in str(unservable(BertConfig()))
    assert "mamba is not among" in str(unservable(MambaConfig()))
    assert "both ways" in str(unservable(Gemma3TextConfig(use_bidirectional_attention=True)))
    rope = {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 10000.0}
    assert "dynamic" in str(unservable(LlamaConfig(rope_parameters=rope)))
    assert unservable(LlamaConfig()) is None
    odd = LlamaConfig(attn_implementation="paged|sdpa")
    assert "takes no packing mask" in str(unservable(odd))


def test_a_backbone_that_has_packed_still_runs_padded() -> None:
    """It was switched to the segments' kernel, which is plain sdpa where there are none."""
    model = backbone_of("qwen3").eval()
    ids = torch.tensor([[5, 6, 7, 8], [9, 10, 0, 0]])
    mask = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0]])
    with torch.no_grad():
        before = model(input_ids=ids, attention_mask=mask, use_cache=False).last_hidden_state
        hidden_states(model, **pack(TREES).tensors(), by_segment=True)
        assert model.config._attn_implementation == segments.KERNEL
        after = model(input_ids=ids, attention_mask=mask, use_cache=False).last_hidden_state
    assert torch.equal(before, after)
    assert "sdpa_by_segment" not in str(model.config.to_dict())
