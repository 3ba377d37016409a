"""Encoders on disk, and vectors under names."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Self

import numpy as np
import pytest

from launch.errors import CheckpointError, DataError
from tasks.encoder import SavedEncoder, VectorTable


class Means(SavedEncoder):
    """Each item is a column of what it was fitted on, less the mean of its row."""

    def __init__(self, scale: float, table: np.ndarray) -> None:
        self.scale, self.table = scale, table

    def fit(self, data: np.ndarray) -> Means:
        self.table = data - data.mean(1, keepdims=True)
        return self

    def encode(self, items: Any) -> np.ndarray:
        return (self.scale * self.table[:, list(items)].T).astype(np.float32)

    def settings(self) -> dict[str, Any]:
        return {"scale": self.scale}

    def tensors(self) -> dict[str, np.ndarray]:
        return {"table": self.table}

    @classmethod
    def restore(cls, settings: dict[str, Any], tensors: dict[str, np.ndarray]) -> Self:
        return cls(settings["scale"], tensors["table"])


class Other(Means):
    """The same under another name."""


@pytest.fixture
def fitted() -> Means:
    return Means(0.3, np.zeros((0, 0))).fit(np.random.default_rng(0).normal(size=(4, 6)))


def test_saved_encoders_come_back_to_the_bit(fitted: Means, tmp_path: Path) -> None:
    fitted.save_pretrained(tmp_path / "e")
    fitted.save_pretrained(tmp_path / "e")  # over itself
    again = Means.from_pretrained(tmp_path / "e")
    np.testing.assert_array_equal(again.encode([5, 0]), fitted.encode([5, 0]))


def test_what_is_no_such_encoder_is_refused(fitted: Means, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="holds no encoder"):
        Means.from_pretrained(tmp_path)
    fitted.save_pretrained(tmp_path / "e")
    with pytest.raises(CheckpointError, match="holds a Means, not a Other"):
        Other.from_pretrained(tmp_path / "e")
    tensors = tmp_path / "e" / "encoder.safetensors"
    tensors.write_bytes(tensors.read_bytes()[:-1] + b"\xff")
    with pytest.raises(CheckpointError, match=r"is spoilt: encoder\.safetensors does not have the content"):
        Means.from_pretrained(tmp_path / "e")


def test_saving_never_replaces_what_is_no_encoder(fitted: Means, tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("precious")
    with pytest.raises(CheckpointError, match="is in the way"):
        fitted.save_pretrained(tmp_path)
    assert (tmp_path / "thesis.txt").read_text() == "precious"
    with pytest.raises(CheckpointError, match=r"thesis\.txt is in the way: it is a file"):
        fitted.save_pretrained(tmp_path / "thesis.txt")


def test_saving_replaces_only_what_an_encoder_is_made_of(fitted: Means, tmp_path: Path) -> None:
    """Neither another program's encoder.json nor notes beside our own encoder."""
    (tmp_path / "encoder.json").write_text("{}")
    with pytest.raises(CheckpointError, match=r"it holds encoder\.json and is no encoder"):
        fitted.save_pretrained(tmp_path)
    fitted.save_pretrained(tmp_path / "e")
    (tmp_path / "e" / "notes.md").write_text("precious")
    with pytest.raises(CheckpointError, match=r"it holds notes\.md and is no encoder"):
        fitted.save_pretrained(tmp_path / "e")
    assert (tmp_path / "e" / "notes.md").read_text() == "precious"


def test_a_table_keeps_each_items_own_vectors(fitted: Means) -> None:
    """Three items with 2, 1 and 3 of up to 3 vectors: rows 0-1, 2, 3-5, in that order."""
    one = VectorTable.of(fitted, [2, 4])
    assert one.spans == {"2": (0, 1), "4": (1, 2)}
    np.testing.assert_array_equal(one.vectors, fitted.encode([2, 4]))
    every = np.arange(18, dtype=np.float32).reshape(3, 3, 2)
    mask = np.array([[1, 0, 1], [0, 1, 0], [1, 1, 1]], dtype=bool)
    many = VectorTable.make("abc", every, mask)
    assert many.spans == {"a": (0, 2), "b": (2, 3), "c": (3, 6)}
    assert many.vectors[:, 0].tolist() == [0, 4, 8, 12, 14, 16]


@pytest.mark.parametrize(
    ("names", "vectors", "mask", "told"),
    [
        ("aa", np.zeros((2, 3)), None, "item 'a' is there twice"),
        ("ab", np.zeros((3, 3)), None, r"shape \(3, 3\) for 2 items"),
        ("", np.zeros((0, 3)), None, "for 0 items"),
        ("ab", np.zeros((2, 2, 3)), np.array([[1, 0], [0, 0]]), "one true an item"),
        ("ab", np.array([[0.0], [np.nan]]), None, "item 'b' has a vector that is not finite"),
    ],
)
def test_bad_tables_are_named(names: str, vectors: np.ndarray, mask: Any, told: str) -> None:
    with pytest.raises(DataError, match=told):
        VectorTable.make(names, vectors, mask)


def test_padding_vectors_may_hold_anything() -> None:
    every = np.array([[[1.0], [np.nan]]])
    assert VectorTable.make("a", every, np.array([[1, 0]])).vectors.tolist() == [[1.0]]
