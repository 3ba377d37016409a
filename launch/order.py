"""Which examples an optimiser step sees: a function of (seed, epoch, step) alone.

One step takes the next window of ``batch_size x accumulation x processes`` examples of the epoch's permutation and
deals it out to ranks and micro-steps. The permutation comes from a generator of its own, so neither sampling, nor
dropout, nor a resume can shift it. The last window of an epoch may be short: some ranks then run a stand-in batch
that counts nothing, so that every rank takes part in every collective call and no example is seen twice.
"""

from __future__ import annotations

import hashlib
import random
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Sampler


def stable_seed(*parts: int | str) -> int:
    """A 63-bit seed from numbers and words, the same in every process and on every machine."""
    text = "/".join(str(part) for part in parts)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def seed_everything(seed: int) -> None:
    """Seed torch (all devices), numpy and random: dropout and a collator's draws become a function of the step."""
    torch.manual_seed(seed)
    np.random.seed(seed % 2**32)
    random.seed(seed)


def permutation(examples: int, seed: int, epoch: int) -> array[int]:
    """The order of an epoch's examples; 8 bytes each."""
    generator = torch.Generator().manual_seed(stable_seed(seed, "order", epoch))
    return array("q", torch.randperm(examples, generator=generator).numpy().tobytes())


@dataclass(frozen=True)
class Deal:
    """How windows are dealt out."""

    batch_size: int
    """Examples per micro-step and rank."""
    accumulation: int = 1
    processes: int = 1
    rank: int = 0

    @property
    def window(self) -> int:
        """Examples per optimiser step."""
        return self.batch_size * self.accumulation * self.processes

    def micro_steps(self, examples: int) -> int:
        """Micro-steps per epoch, on every rank the same."""
        across = self.batch_size * self.processes
        return -(-examples // across)

    def batches(self, order: Sequence[int]) -> Iterator[list[int]]:
        """This rank's micro-batches; an empty share becomes ``[-1 - i]``: example i as a stand-in that counts 0."""
        across = self.batch_size * self.processes
        for start in range(0, len(order), across):
            first = start + self.rank * self.batch_size
            share = list(order[first : min(first + self.batch_size, start + across)])
            yield share or [-1 - order[start]]


class EpochBatches(Sampler[list[int]]):
    """Micro-batches of indices, epoch by epoch; `shuffle=False` keeps the order of the data."""

    def __init__(self, examples: int, deal: Deal, seed: int, shuffle: bool = True) -> None:
        self.examples, self.deal, self.seed, self.shuffle = examples, deal, seed, shuffle
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    @property
    def batch_sampler(self) -> EpochBatches:
        """transformers.Trainer looks for the sampler that has `set_epoch` one level down."""
        return self

    def __len__(self) -> int:
        return self.deal.micro_steps(self.examples)

    def __iter__(self) -> Iterator[list[int]]:
        order = permutation(self.examples, self.seed, self.epoch) if self.shuffle else range(self.examples)
        return self.deal.batches(order)


class Indexed(Dataset[tuple[Any, bool]]):
    """Any sequence of examples; a negative index marks a stand-in."""

    def __init__(self, rows: Sequence[Any]) -> None:
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> tuple[Any, bool]:
        return (self.rows[-1 - index], True) if index < 0 else (self.rows[index], False)


def loader(rows: Sequence[Any], objective: Any, deal: Deal, seed: int, shuffle: bool) -> DataLoader[Any]:
    """A data loader of collated micro-batches; a stand-in carries ``"stand_in": True`` and counts 0."""

    def collate(items: list[tuple[Any, bool]]) -> dict[str, Any]:
        batch = objective.collate([row for row, _ in items])
        if items[0][1]:
            batch["stand_in"] = True
        return batch

    return DataLoader(
        Indexed(rows),
        batch_sampler=EpochBatches(len(rows), deal, seed, shuffle),
        collate_fn=collate,
        # Its own generator: the loader would otherwise draw from the global one at the start of every epoch.
        generator=torch.Generator().manual_seed(stable_seed(seed, "loader")),
    )
