"""Loading, tiny twins and adapters."""

import pytest
import torch
from transformers import AutoConfig, Gemma2Config, GemmaConfig, LlamaConfig, MistralConfig, Qwen2Config, Qwen3Config

from launch.errors import CheckpointError, ConfigError, LaunchError
from launch.models import apply_lora, attention_for, load_causal_lm, load_tokenizer, merge_lora, tiny_like
from launch.options import LoraOptions

FAMILIES = [LlamaConfig, GemmaConfig, Gemma2Config, MistralConfig, Qwen2Config, Qwen3Config]


@pytest.mark.parametrize("family", FAMILIES)
def test_a_tiny_twin_is_small_runs_and_is_drawn_by_its_seed(family):
    config = family(vocab_size=64)
    one, same, other = (tiny_like(config, seed=s) for s in (0, 0, 1))
    assert one.num_parameters() < 500_000 and type(one.config) is family
    ids = torch.arange(6)[None]
    assert torch.equal(one(ids).logits, same(ids).logits)
    assert not torch.equal(one(ids).logits, other(ids).logits)


def test_a_tiny_twin_leaves_the_global_generator_alone():
    before = torch.random.get_rng_state()
    tiny_like(LlamaConfig(vocab_size=64))
    apply_lora(tiny_like(LlamaConfig(vocab_size=64)), LoraOptions(rank=2))
    assert torch.equal(before, torch.random.get_rng_state())


def test_width_that_no_head_fits_is_refused():
    with pytest.raises(ConfigError, match="multiple of the head size"):
        tiny_like(LlamaConfig(vocab_size=64), hidden=48)


def test_gemma2_is_never_run_under_plain_sdpa(tmp_path):
    """Plain SDPA drops Gemma-2's soft-capping in silence."""
    assert attention_for(Gemma2Config()) == "eager" and attention_for(LlamaConfig()) is None
    tiny_like(Gemma2Config(vocab_size=64)).save_pretrained(tmp_path)
    assert load_causal_lm(tmp_path).config._attn_implementation == "eager"


def test_merged_adapters_equal_the_adapted_model():
    model = apply_lora(tiny_like(LlamaConfig(vocab_size=64)), LoraOptions(rank=4))
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1, generator=torch.Generator().manual_seed(0))
    ids = torch.arange(6)[None]
    adapted = model(ids).logits.detach()
    torch.testing.assert_close(merge_lora(model)(ids).logits, adapted, rtol=1e-4, atol=1e-5)


def test_four_bit_without_cuda_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    tiny_like(LlamaConfig(vocab_size=64)).save_pretrained(tmp_path)
    with pytest.raises(LaunchError, match="needs a CUDA device"):
        load_causal_lm(tmp_path, quantization="4bit")


def test_what_is_not_there_is_named(tmp_path):
    with pytest.raises(CheckpointError, match="cannot load the model at"):
        load_causal_lm(tmp_path / "nothing")
    with pytest.raises(CheckpointError, match="cannot load the tokenizer at"):
        load_tokenizer(tmp_path / "nothing")


def test_a_truncated_weight_file_is_named(tmp_path):
    tiny_like(LlamaConfig(vocab_size=64)).save_pretrained(tmp_path)
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(CheckpointError, match="cannot load the model"):
        load_causal_lm(tmp_path)
    assert AutoConfig.from_pretrained(tmp_path).vocab_size == 64


def test_weights_that_are_missing_are_never_drawn_at_random(tmp_path):
    from safetensors.torch import load_file, save_file

    tiny_like(LlamaConfig(vocab_size=64, tie_word_embeddings=False)).save_pretrained(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    del weights["model.layers.1.mlp.up_proj.weight"]
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match="lacks 1 weights, such as model"):
        load_causal_lm(tmp_path)
