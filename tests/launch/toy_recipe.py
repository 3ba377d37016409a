"""The smallest recipe that has every kind of field a Config may have. Its `main` writes a real run folder."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from launch.config import resolve
from launch.contracts import Result
from launch.errors import ConfigError, DataError, Interrupted
from launch.options import LoraOptions, RunOptions, TrainOptions
from launch.runfolder import RunFolder


@dataclass
class Part:
    """A nested dataclass."""

    name: str = "part"
    weight: float = 1.0
    """Share of this part, in kilograms
    per litre."""


@dataclass
class Inner:
    """A group whose defaults are not those of its types."""

    train: TrainOptions = field(default_factory=lambda: TrainOptions(batch_size=64, lora=LoraOptions(rank=3)))
    part: Part = field(default_factory=Part)


@dataclass
class Config:
    """Every kind of field."""

    model: str
    """Folder of the model."""
    kind: Literal["bt", "gpm", 3] = "bt"
    pair: tuple[int, float] = (1, 0.5)
    many: tuple[str, ...] = ()
    names: str | list[str] = "all"
    table: dict[str, float] = field(default_factory=dict)
    parts: list[Part] = field(default_factory=list)
    limit: int | None = None
    folder: Path | None = None
    anything: Any = None
    on: bool = False
    lora: LoraOptions | None = None
    train: TrainOptions = field(default_factory=TrainOptions)
    run: RunOptions = field(default_factory=RunOptions)
    warm: Inner = field(default_factory=lambda: Inner(part=Part(weight=7.0)))
    fail: Literal["", "data", "field", "interrupt", "stop", "full"] = ""

    def __post_init__(self) -> None:
        if self.train.quantization == "4bit" and self.train.lora is None:
            raise ConfigError("4bit needs train.lora", field="train.quantization")


def main(config: Config) -> Result:
    """Log three steps, or fail in the way that `fail` names."""
    if config.fail == "data":
        raise DataError("rows.jsonl:7: empty response; give it text\nor remove the row")
    if config.fail == "field":
        raise ConfigError("too long for this model", field="train.batch_size")
    if config.fail == "interrupt":
        raise KeyboardInterrupt
    if config.fail == "stop":
        raise Interrupted("toy was stopped at step 2", 15)
    if config.fail == "full":
        raise OSError(28, "No space left on device", "metrics.jsonl")
    run = RunFolder(config.run.folder).open(resolve(config), config.run.seed)
    for step in range(3):
        run.log({"stage": "toy", "step": step, "loss": 1 / (1 + step)})
    return Result(folder=run.path, metrics={"loss": 1 / 3})
