"""Export of a legal model under LoRA: the encoding of chains comes along, or it is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from launch import checkpoint
from launch.errors import CheckpointError
from launch.export import export
from launch.models import apply_lora, merge_lora
from launch.options import LoraOptions, TrainOptions
from launch.runfolder import RunFolder
from launch.trainer import fit
from reasoning.legal import encoder
from reasoning.legal.encoder import ChainModel
from reasoning.legal.objective import OpinionObjective, encode_opinions
from tasks.encoder import SoftTokens, soft
from tests.reasoning.test_legal_encoder import PROVISIONS, VARIANTS, chain_model
from tests.reasoning.test_legal_objective import row
from tests.tiny import make_tokenizer


def logits(model: Any, ids: list[int]) -> torch.Tensor:
    with torch.no_grad():
        return model.eval()(input_ids=torch.tensor([ids])).logits


@VARIANTS
def test_a_lora_checkpoint_is_exported_with_its_chains(tmp_path: Path, graph: bool) -> None:
    """Encoding and names of charges kept, adapters folded in: the logits, soft tokens among the words, are those of the
    trained model folded in memory.
    """
    encoder.register()
    model = chain_model(graph)
    renderer = model.renderer(make_tokenizer())
    rows = [{**row(), "prompt": f"{soft(charge)}{row()['prompt']}"} for charge in PROVISIONS]
    examples = encode_opinions(rows, renderer)
    learner: Any = apply_lora(model, LoraOptions(rank=2), model.train_whole, 0)
    options = TrainOptions(learning_rate=1e-2, batch_size=3, max_steps=2, log_steps=1)
    run = RunFolder(tmp_path / "run").open({}, 0)
    before = logits(model, examples[0]["ids"])
    result = fit(learner, OpinionObjective(), examples, options=options, run=run, name="legal", seed=0,
                 tokenizer=make_tokenizer())  # fmt: skip
    loaded = ChainModel.from_pretrained(export(result.folder, tmp_path / "out"))
    assert loaded.spans == model.spans and not any("lora" in name for name, _ in loaded.named_parameters())
    folded = merge_lora(learner)
    for example in examples:
        torch.testing.assert_close(logits(loaded, example["ids"]), logits(folded, example["ids"]), atol=1e-5, rtol=0)
    assert float((logits(loaded, examples[0]["ids"]) - before).abs().max()) > 1e-3
    assert (tmp_path / "out" / "tokenizer.json").is_file()


def test_plain_soft_tokens_do_not_leave_an_encoding_out(tmp_path: Path) -> None:
    with checkpoint.writing(tmp_path / "m") as out:
        chain_model().save_pretrained(out)
    with pytest.raises(CheckpointError, match="has an encoder that SoftTokens would leave out; load it by ChainModel"):
        SoftTokens.from_pretrained(tmp_path / "m")
