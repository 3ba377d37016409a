"""Supervised fine-tuning: equal to transformers' own loss, and a mean over tokens, not over rows."""

import pytest
import torch
from transformers import LlamaConfig

from launch.errors import DataError
from launch.models import tiny_like
from launch.rendering import Renderer
from launch.supervised import SupervisedObjective, encode_rows
from tests.launch.test_rendering import byte_tokenizer

ROWS = [{"ids": [1, 5, 6, 7, 2], "prompt_length": 2}, {"ids": [1, 8, 2], "prompt_length": 1}]


def test_loss_equals_transformers_with_masked_labels():
    model = tiny_like(LlamaConfig(vocab_size=32))
    objective = SupervisedObjective()
    batch = objective.collate(ROWS)
    total, count, _ = objective.loss(model, batch)
    labels = batch["input_ids"].masked_fill(~batch["completion_mask"], -100)
    theirs = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"].long(), labels=labels).loss
    assert count == 5
    torch.testing.assert_close(total / count, theirs)


def test_two_rows_together_equal_two_rows_apart():
    model, objective = tiny_like(LlamaConfig(vocab_size=32)), SupervisedObjective()
    together = objective.loss(model, objective.collate(ROWS))
    apart = [objective.loss(model, objective.collate([row])) for row in ROWS]
    torch.testing.assert_close(together.total, apart[0].total + apart[1].total)
    assert together.count == apart[0].count + apart[1].count


def test_encoding_keeps_the_prompt_out_of_the_loss():
    renderer = Renderer(byte_tokenizer())
    (row,) = encode_rows([{"prompt": "ab", "response": "cd"}], renderer)
    batch = SupervisedObjective().collate([row])
    assert row["prompt_length"] == 3 and batch["count"] == 3  # c, d and the end


@pytest.mark.parametrize(
    ("row", "told"), [({"prompt": "a", "answer": "b"}, "no response"), ({"prompt": "abcdef", "response": "g"}, "limit")]
)
def test_bad_rows_are_named(row, told):
    with pytest.raises(DataError, match=f"row 1: .*{told}"):
        encode_rows([row], Renderer(byte_tokenizer(), max_length=4, end="keep"))
