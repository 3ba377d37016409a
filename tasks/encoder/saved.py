"""One way to disk for all encoders: settings as JSON, arrays as safetensors, a folder that is whole or absent."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, Self

import numpy as np
from safetensors.numpy import load_file, save_file

from launch import checkpoint
from launch.errors import CheckpointError, ConfigError
from launch.runfolder import write_json

_SETTINGS, _TENSORS = "encoder.json", "encoder.safetensors"
_FILES = {_SETTINGS, _TENSORS, checkpoint.MANIFEST}


class SavedEncoder(ABC):
    """Save and load for encoders: ``encoder.json`` (settings) and ``encoder.safetensors`` (arrays), whole or absent.

    A subclass adds ``fit`` and ``encode`` (the Encoder contract) and says what it is made of.
    """

    @abstractmethod
    def settings(self) -> dict[str, Any]:
        """What JSON holds: sizes, names, hyper-parameters."""

    @abstractmethod
    def tensors(self) -> dict[str, np.ndarray]:
        """Everything fitted, by name."""

    @classmethod
    @abstractmethod
    def restore(cls, settings: dict[str, Any], tensors: dict[str, np.ndarray]) -> Self:
        """The encoder that has these `settings` and `tensors`."""

    def save_pretrained(self, folder: str | Path) -> None:
        """Write the encoder into `folder`, replacing one that was saved there before.

        Raises:
            CheckpointError: the folder holds anything else, is a file, or cannot be written.
        """
        target = Path(folder)
        if target.is_file():
            raise CheckpointError(f"{target} is in the way: it is a file; save into a new folder")
        held = {entry.name for entry in target.iterdir()} if target.exists() else set()
        if held not in (set(), _FILES):
            other = min(held - _FILES or held)
            raise CheckpointError(f"{target} is in the way: it holds {other} and is no encoder; save into a new folder")
        arrays = {name: np.ascontiguousarray(array) for name, array in self.tensors().items()}
        with checkpoint.writing(target, sum(array.nbytes for array in arrays.values())) as out:
            write_json(out / _SETTINGS, {"encoder": type(self).__name__, "settings": self.settings()})
            save_file(arrays, str(out / _TENSORS))

    @classmethod
    def from_pretrained(cls, folder: str | Path) -> Self:
        """The encoder that was saved in `folder`.

        Raises:
            CheckpointError: no encoder, a spoilt one, one of another class, or of options that are refused now.
        """
        source = Path(folder)
        if not (source / _SETTINGS).is_file():
            raise CheckpointError(
                f"{source} holds no encoder ({_SETTINGS} is missing); give a folder of save_pretrained"
            )
        wrong = checkpoint.problem(source)
        if wrong is not None:
            raise CheckpointError(f"{source} is spoilt: {wrong}; save or copy it again")
        told = json.loads((source / _SETTINGS).read_text(encoding="utf-8"))
        if told["encoder"] != cls.__name__:
            raise CheckpointError(f"{source} holds a {told['encoder']}, not a {cls.__name__}; load it with that class")
        try:
            return cls.restore(told["settings"], load_file(str(source / _TENSORS)))
        except ConfigError as error:
            raise CheckpointError(f"{source} was made with options that are refused now: {error}; fit anew") from error
