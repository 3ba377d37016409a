"""Preference heads on the states of a frozen backbone: the heads and loss of align.preference, nothing else trained.

States are standardised (mean 0, spread 1 on the training side) and scaled to length about 1, which the heads' tau and
clip are meant for. AdamW; of two learning rates and twenty epochs, the state with the lowest loss on a tenth of the
training prompts is kept, for each kind and seed apart (one rate for all would favour some kinds).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from align.preference.heads import CyclicHead, GateHead, RankHead, score_pairs
from align.preference.objective import preference_loss
from benchmarks.features import States

TAU, DELTA = 0.1, 5.0
RATES = (1e-3, 1e-2)
KINDS: dict[str, tuple[str, int]] = {
    "BT": ("bt", 0),
    "GPM 2": ("gpm", 2),
    "GPM 4": ("gpm", 4),
    "HRC 2+1": ("hrc", 2),
    "HRC 4+1": ("hrc", 4),
}


@dataclass
class Pairs:
    """Judged pairs as rows of a state table."""

    winner: np.ndarray
    loser: np.ndarray
    prompt: np.ndarray
    weight: np.ndarray


class Heads(torch.nn.Module):
    """r, v and gate of one kind over H-dimensional states."""

    def __init__(self, kind: str, dims: int, hidden: int) -> None:
        super().__init__()
        self.rank = RankHead(hidden, DELTA) if kind != "gpm" else None
        self.cyclic = CyclicHead(hidden, dims) if kind != "bt" else None
        self.gate = GateHead(hidden, dims // 2, "softmax" if kind == "gpm" else "softplus") if kind != "bt" else None

    def forward(self, i: torch.Tensor, j: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        """States of two answers and of the prompt, [Q, H] each -> raw scores [Q] (not divided by tau)."""
        none = i.new_zeros(len(i), 0)
        r_i, r_j = (self.rank(i), self.rank(j)) if self.rank is not None else (i.new_zeros(len(i)),) * 2
        v_i, v_j = (self.cyclic(i), self.cyclic(j)) if self.cyclic is not None else (none, none)
        return sum(score_pairs(r_i, r_j, v_i, v_j, self.gate(x) if self.gate is not None else none))  # type: ignore[return-value]


@dataclass
class Scale:
    """Standardisation learnt on the training side."""

    mean: np.ndarray
    spread: np.ndarray

    @classmethod
    def of(cls, states: np.ndarray) -> Scale:
        return cls(states.mean(0), states.std(0) * np.sqrt(states.shape[1]) + 1e-6)

    def apply(self, states: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(((states - self.mean) / self.spread).astype(np.float32))


@dataclass
class Fitted:
    """Trained heads with the scale of their inputs."""

    heads: Heads
    answers: Scale
    prompts: Scale
    epochs: int
    rate: float
    loss: float
    """On the validation pairs."""

    def scores(self, states: States, winner: np.ndarray, loser: np.ndarray, prompt: np.ndarray) -> np.ndarray:
        """Raw scores [Q] of answer rows `winner` over `loser` under prompt rows `prompt`."""
        y, x = self.answers.apply(states.answers), self.prompts.apply(states.prompts)
        with torch.no_grad():
            return self.heads(y[winner], y[loser], x[prompt]).numpy()


def fit(
    kind: str, states: States, train: Pairs, valid: Pairs, seed: int, rate: float = 1e-2, epochs: int = 20,
    batch: int = 512,
) -> Fitted:  # fmt: skip
    """Train the heads of one kind; `seed` draws their first weights and the order of the pairs."""
    scales = Scale.of(states.answers[np.unique([train.winner, train.loser])]), Scale.of(states.prompts[train.prompt])
    y, x = scales[0].apply(states.answers), scales[1].apply(states.prompts)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        heads = Heads(*KINDS[kind], y.shape[1])
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(heads.parameters(), lr=rate, weight_decay=0.01)
    t, v = (_tensors(pairs) for pairs in (train, valid))
    best: tuple[float, int, Any] = (float("inf"), 0, None)
    for epoch in range(epochs):
        for rows in torch.randperm(len(train.winner), generator=generator).split(batch):
            w, b, p, weight = (column[rows] for column in t)
            loss = preference_loss(heads(y[w], y[b], x[p]), weight, TAU) / weight.sum()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        with torch.no_grad():
            held = float(preference_loss(heads(y[v[0]], y[v[1]], x[v[2]]), v[3], TAU) / v[3].sum())
        if held < best[0]:
            best = (held, epoch + 1, {name: value.clone() for name, value in heads.state_dict().items()})
    heads.load_state_dict(best[2])
    return Fitted(heads, *scales, best[1], rate, best[0])


def fit_best(kind: str, states: States, train: Pairs, valid: Pairs, seed: int) -> Fitted:
    """`fit` at each of RATES; the lowest validation loss wins."""
    return min((fit(kind, states, train, valid, seed, rate) for rate in RATES), key=lambda fitted: fitted.loss)


def _tensors(pairs: Pairs) -> Sequence[torch.Tensor]:
    index = (torch.from_numpy(column.astype(np.int64)) for column in (pairs.winner, pairs.loser, pairs.prompt))
    return [*index, torch.from_numpy(pairs.weight.astype(np.float32))]
