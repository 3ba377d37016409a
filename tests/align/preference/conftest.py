"""Tiny backbones of both kinds, as folders, and models on them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from align.preference import PreferenceModel
from tests.tiny import make_tokenizer


@pytest.fixture(scope="session")
def tiny_bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a random 2-layer BERT with its tokenizer (CLS and SEP, no BOS or EOS)."""
    from tokenizers import processors
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    folder = tmp_path_factory.mktemp("tiny") / "bert"
    core = make_tokenizer().backend_tokenizer
    core.post_processor = processors.TemplateProcessing(single="<s> $A </s>", special_tokens=[("<s>", 1), ("</s>", 2)])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core, pad_token="<pad>", cls_token="<s>", sep_token="</s>", model_max_length=128
    )
    config = BertConfig(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2,
        max_position_embeddings=128, pad_token_id=0, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0,
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(0)
        BertModel(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(params=["llama", "bert"])
def backbone(request: pytest.FixtureRequest) -> Path:
    return request.getfixturevalue(f"tiny_{request.param}")


@pytest.fixture
def hrc(tiny_llama: Path) -> PreferenceModel:
    """HRC 4+1 on the tiny Llama, its gate opened differently for every prompt."""
    return lively(PreferenceModel.from_backbone(tiny_llama, kind="hrc", dims=4, seed=1))


def lively(model: PreferenceModel) -> PreferenceModel:
    """Give the gate weights, which start at 0, so that it depends on the prompt."""
    if model.config.kind != "bt" and model.config.gate == "softplus":
        g = torch.Generator().manual_seed(7)
        with torch.no_grad():
            model.gate_head.weight.copy_(torch.randn(model.gate_head.weight.shape, generator=g))
    return model
