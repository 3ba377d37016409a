"""Tiny decoders of every packed family, and the one-sequence-at-a-time twin that packing must equal."""

from __future__ import annotations

import random
from typing import Any

import torch

from launch.packing import Tree, hidden_states, pack

VOCABULARY = 64
WINDOW = 8
"""Tokens a sliding layer looks back, far shorter than the trunks of `random_trees`."""


def backbone_of(name: str, attention: str = "sdpa", vocabulary: int = VOCABULARY) -> Any:
    """A random decoder without head: 3 layers, 2 query heads on 1 key head. `mistral_window` slides, `mistral` not.

    Qwen slides in its upper layers, Gemma-2 in every other one, Gemma-3 in two of three.
    """
    import transformers as t

    sizes: dict[str, Any] = {
        "vocab_size": vocabulary, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3,
        "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 16, "max_position_embeddings": 256,
        "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "attn_implementation": attention,
    }  # fmt: skip
    sliding: dict[str, Any] = {"use_sliding_window": True, "sliding_window": WINDOW, "max_window_layers": 1}
    mixed = ["sliding_attention", "full_attention", "sliding_attention"]
    config: Any = {
        "llama": lambda: t.LlamaConfig(**sizes),
        "qwen2": lambda: t.Qwen2Config(**sizes, **sliding),
        "qwen2_full": lambda: t.Qwen2Config(**sizes),
        "qwen3": lambda: t.Qwen3Config(**sizes, **sliding),
        "gemma": lambda: t.GemmaConfig(**sizes),
        "gemma2": lambda: t.Gemma2Config(**sizes, sliding_window=WINDOW, layer_types=mixed, query_pre_attn_scalar=16),
        "gemma3": lambda: t.Gemma3TextConfig(
            **sizes, sliding_window=WINDOW, layer_types=mixed, query_pre_attn_scalar=16
        ),
        "mistral": lambda: t.MistralConfig(**sizes, sliding_window=None),
        "mistral_window": lambda: t.MistralConfig(**sizes, sliding_window=WINDOW),
    }[name]()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = t.AutoModel.from_config(config, attn_implementation=attention)
        for parameter in model.parameters():  # large enough that attention is far from uniform
            if parameter.dim() > 1:
                torch.nn.init.normal_(parameter, std=0.2)
    return model.float()


def random_trees(draw: random.Random, count: int, trunk: tuple[int, int] = (0, 30), most: int = 5) -> list[Tree]:
    """Trees of 1 to `most` branches of 1 to 12 tokens; no branch begins as another does only by chance."""

    def ids(n: int) -> list[int]:
        return [draw.randrange(3, VOCABULARY) for _ in range(n)]

    return [
        Tree(ids(draw.randint(*trunk)), [ids(draw.randint(1, 12)) for _ in range(draw.randint(1, most))])
        for _ in range(count)
    ]


def states_alone(model: Any, trees: list[Tree]) -> tuple[list[list[torch.Tensor]], dict[str, torch.Tensor]]:
    """Per tree and branch the states [R, H] of the branch's tokens, each sequence in a forward of its own, unpadded.

    The gradients are those of `loss` of all of them.
    """
    states = []
    for tree in trees:
        states.append([])
        for branch in tree.branches:
            ids = torch.tensor([tree.trunk + branch])
            states[-1].append(model(input_ids=ids, use_cache=False).last_hidden_state[0, len(tree.trunk) :])
    return states, gradients(model, states)


def states_packed(
    model: Any, trees: list[Tree], row_tokens: int = 0, **how: Any
) -> tuple[list[list[torch.Tensor]], dict[str, torch.Tensor]]:
    """The same from packed rows."""
    packed = pack(trees, row_tokens=row_tokens)
    hidden = hidden_states(model, **packed.tensors(), **how)
    states = [
        [hidden[row, start:end] for start, end in spans]
        for row, spans in zip(packed.rows, packed.branch_spans, strict=True)
    ]
    return states, gradients(model, states)


def gradients(model: Any, states: list[list[torch.Tensor]]) -> dict[str, torch.Tensor]:
    """Gradients of a loss that weighs every state differently, but each tree alike wherever it stands.

    The loss is a sum of both signs that nearly cancels, so it is told as a share of what its terms weigh together:
    its last digits are the rounding of its terms, and differ between processors.
    """
    model.zero_grad()
    total, mass = torch.zeros(()), 0.0
    for tree in states:
        for k, branch in enumerate(tree):
            weight = torch.linspace(-1, 1, branch.numel()).reshape(branch.shape)
            terms = torch.tanh(branch) * weight * (k + 1) / branch.shape[0]
            total, mass = total + terms.sum(), mass + float(terms.detach().abs().sum())
    total.backward()
    return {
        "loss": total.detach() / mass,
        **{n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None},
    }


def assert_same_gradients(found: dict[str, torch.Tensor], wanted: dict[str, torch.Tensor]) -> None:
    """Equal to 1e-5 of the largest entry of each tensor (fp32)."""
    assert found.keys() == wanted.keys()
    for name, gradient in wanted.items():
        scale = max(1.0, float(gradient.abs().max()))
        assert float((found[name] - gradient).abs().max()) < 1e-5 * scale, name
