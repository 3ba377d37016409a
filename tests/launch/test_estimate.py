"""Cost predictions: parameter counts equal the real architectures', and the formulas give numbers worked by hand."""

from __future__ import annotations

import pytest

from launch.errors import CheckpointError
from launch.estimate import (
    HUB_SHAPES,
    Estimate,
    ModelShape,
    forward_flops,
    model_shape,
    training_flops,
    training_memory,
)
from launch.options import LoraOptions, TrainOptions

TOY = ModelShape(layers=2, width=8, heads=2, kv_heads=1, head_size=4, mlp=16, vocabulary=100)


@pytest.mark.parametrize(
    ("name", "billions"),
    [
        ("google/gemma-2b-it", 2.51),
        ("meta-llama/Llama-3.1-8B-Instruct", 8.03),
        ("google/gemma-2-9b-it", 9.24),
        ("Qwen/Qwen2.5-7B-Instruct", 7.62),
    ],
)
def test_known_models_have_their_published_size(name, billions):
    assert round(HUB_SHAPES[name].parameters / 1e9, 2) == billions


def test_shapes_equal_the_architectures_parameter_by_parameter():
    """The library's own models, made without memory from the table's numbers, have exactly as many parameters."""
    import torch
    from transformers import AutoModelForCausalLM, Gemma2Config, GemmaConfig, LlamaConfig, Qwen2Config

    kinds = [GemmaConfig, Gemma2Config, LlamaConfig, Qwen2Config]
    for kind, shape in zip(kinds, HUB_SHAPES.values(), strict=True):
        config = kind(
            vocab_size=shape.vocabulary,
            hidden_size=shape.width,
            num_hidden_layers=shape.layers,
            num_attention_heads=shape.heads,
            num_key_value_heads=shape.kv_heads,
            head_dim=shape.head_size,
            intermediate_size=shape.mlp,
            tie_word_embeddings=shape.tied,
        )
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(config)
        assert sum(p.numel() for p in model.parameters()) == shape.parameters


def test_a_local_folder_is_counted(tiny_llama):
    """From its config.json: the same count as the loaded model, and the formula agrees."""
    import dataclasses

    from transformers import AutoModelForCausalLM

    shape = model_shape(tiny_llama)
    real = sum(p.numel() for p in AutoModelForCausalLM.from_pretrained(tiny_llama).parameters())
    assert shape.parameters == real == dataclasses.replace(shape, counted=None).parameters
    with pytest.raises(CheckpointError, match="no shape for 'who/knows'"):
        model_shape("who/knows")


def test_lora_parameters_equal_pefts(tiny_llama):
    from launch.models import apply_lora, load_causal_lm

    adapted = apply_lora(load_causal_lm(tiny_llama), LoraOptions(rank=3), (), 0)
    trained = sum(p.numel() for p in adapted.parameters() if p.requires_grad)
    assert model_shape(tiny_llama).lora_parameters(3) == trained


def test_memory_by_hand():
    """A layer has 2*8*(8+4) + 3*8*16 + 2*8 = 592 parameters; body 100*8 + 2*592 + 8 = 1992, with head 2792.

    fp32 AdamW: 4 + 4 + 8 bytes each. Activations of 10 tokens: 4 bytes x 2 layers x (32 + 16 + 8 + 64) = 960 a token;
    with checkpointing 4 x (2*8 + 120) = 544. Logits: 3 copies x 4 bytes x 10 tokens x 100.
    """
    full = training_memory(TOY, TrainOptions(), sequences=2, length=5)
    assert (full.weights, full.gradients, full.optimizer) == (4 * 2792, 4 * 2792, 8 * 2792)
    assert full.activations == 9600 and full.logits == 12000
    assert full.total == 16 * 2792 + 9600 + 12000
    light = training_memory(TOY, TrainOptions(gradient_checkpointing=True), 2, 5, head=False)
    assert light.activations == 5440 and light.logits == 0 and light.weights == 4 * 1992


def test_memory_of_sharding_lora_and_low_precision():
    """ZeRO-2 divides gradients and state, ZeRO-3 and FSDP2 weights too; bf16 adds a copy; LoRA trains its few."""
    one = training_memory(TOY, TrainOptions(), 1, 5)
    zero2 = training_memory(TOY, TrainOptions(sharding="zero2"), 1, 5, processes=4)
    fsdp2 = training_memory(TOY, TrainOptions(sharding="fsdp2"), 1, 5, processes=4)
    assert (
        zero2.weights == one.weights and zero2.optimizer == one.optimizer / 4 and zero2.gradients == one.gradients / 4
    )
    assert fsdp2.weights == one.weights / 4 and fsdp2.activations == one.activations
    assert training_memory(TOY, TrainOptions(precision="bf16"), 1, 5).weights == 6 * 2792
    lora = training_memory(TOY, TrainOptions(precision="bf16", lora=LoraOptions(rank=2)), 1, 5)
    assert lora.optimizer == 8 * TOY.lora_parameters(2) and lora.weights == 6 * TOY.lora_parameters(2) + 2 * 2792


def test_flops_by_hand():
    """Forward of 10 tokens in fives: 2*(2*592 + 800) = 3968 and attention 4*2*8*5/2 = 160 a token; training thrice."""
    assert forward_flops(TOY, 10, 5) == 10 * (3968 + 160)
    assert training_flops(TOY, TrainOptions(), 10, 5) == 3 * 10 * (3968 + 160)
    assert training_flops(TOY, TrainOptions(gradient_checkpointing=True), 10, 5) == 4 * 10 * (3968 + 160)
    assert training_flops(TOY, TrainOptions(lora=LoraOptions()), 10, 5) == 10 * (2 * 3968 + 3 * 160)


def test_an_estimate_counts_steps_and_tokens():
    """100 examples of 2 sequences of at most 50 tokens, 2 epochs, 4 x 2 a step: 25 steps, 20,000 tokens."""
    estimate = Estimate()
    options = TrainOptions(batch_size=4, accumulation=2, epochs=2, processes=1)
    estimate.training("fit", "google/gemma-2b-it", options, 50, sequences=2, examples=100, head=False)
    lines = {what: amount for what, amount, _ in estimate.lines}
    assert lines["fit: steps"] == "25" and lines["fit: tokens"] == "20 k"
    before = estimate.flops
    estimate.forward("score", "google/gemma-2b-it", 1000, 50)
    assert estimate.flops - before == forward_flops(HUB_SHAPES["google/gemma-2b-it"], 1000, 50)
    estimate.add_time()
    assert "time on one H100" in estimate.text()
