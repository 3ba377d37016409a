"""The protocols every part of Arbiter shares: Recipe, Objective, Generator, Scorer, Tool, Encoder, World.

They are structural (``typing.Protocol``): a class fulfils one by having its methods, never by inheriting.
This file imports nothing heavy, so that every layer may import it at no cost.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol, TypedDict, runtime_checkable

if TYPE_CHECKING:
    import numpy as np
    import torch


class Message(TypedDict):
    """One chat turn."""

    role: str
    content: str


Prompt = str | list[Message]
"""A prompt is plain text, or chat messages that end with a user turn."""


# ---------------------------------------------------------------- recipes


@dataclass
class Result:
    """What a recipe returns: where its run folder is, and its headline numbers."""

    folder: Path
    metrics: dict[str, float] = field(default_factory=dict)


class Recipe(Protocol):
    """A module with a ``Config`` dataclass and ``main(config) -> Result``."""

    Config: type
    main: Callable[[Any], Result]


# ---------------------------------------------------------------- objectives


class Loss(NamedTuple):
    """The loss of one micro-batch on one rank, not yet divided."""

    total: torch.Tensor
    """Scalar, fp32: the SUM of the loss over the batch's units."""
    count: torch.Tensor | float  # type: ignore[assignment]  # hides tuple.count, which nobody needs here
    """How many units `total` sums over; equals the batch's own ``"count"``."""
    metrics: dict[str, torch.Tensor | float]
    """Sums over the same units (the trainer divides them by `count`), detached."""


class Objective(Protocol):
    """What a model learns: examples to batch, batch to loss.

    The trainer divides by the count summed over accumulation steps and ranks, so one batch of eight equals
    eight batches of one, however uneven the groups are.
    """

    def collate(self, examples: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """Build a batch of tensors. Must hold ``"count"``: a float, the units its loss will sum over."""
        ...

    def loss(self, model: torch.nn.Module, batch: dict[str, Any]) -> Loss:
        """Run `model` on `batch`. Called inside the distributed wrapper's forward: any submodule may be used."""
        ...


# ---------------------------------------------------------------- generators


@dataclass(frozen=True)
class Sampling:
    """How to sample. The same fields mean the same thing on every backend."""

    max_new_tokens: int = 256
    temperature: float = 1.0
    """0 is greedy."""
    top_p: float = 1.0
    top_k: int = 0
    """0 keeps the whole vocabulary."""
    stop: tuple[str, ...] = ()
    """Strings that end a completion (kept out of its text)."""
    seed: int = 0
    """Derive it from (round, batch index): a resumed round then samples the same text."""
    repetition_penalty: float = 1.0
    """Divides the positive logits of tokens that stand in prompt or answer, and multiplies the negative ones (CTRL,
    arXiv 1909.05858); 1 is off."""


@dataclass(frozen=True)
class Completion:
    """One sampled answer, with the tokens that were sampled, so that training never tokenises it again."""

    text: str
    token_ids: tuple[int, ...]
    """Sampled ids, the end-of-sequence token included when it was sampled."""
    logprobs: tuple[float, ...]
    """Natural log-probability of each sampled token under the untempered model, same length as `token_ids`."""
    finish: Literal["stop", "length"]
    """`stop`: an end token or stop string was met. `length`: cut, so no end token may be appended in training."""
    prompt_ids: tuple[int, ...] = ()


class Generator(Protocol):
    """Samples text. One request carries ``n``: a prompt is prefilled once, never n times."""

    def generate(self, prompts: Sequence[Prompt], n: int, sampling: Sampling) -> list[list[Completion]]:
        """Return, in the order of `prompts`, `n` completions each."""
        ...


# ---------------------------------------------------------------- scorers


@runtime_checkable
class Scorer(Protocol):
    """Judges K answers to one prompt: anything with ``score(prompt, responses)``.

    The result has at least ``S`` (float [K, K], logit that row beats column, skew-symmetric), ``S_T`` and ``S_C``
    (its ranking and cyclic parts, S = S_T + S_C) and ``P`` = sigmoid(S). A preference model and an embedded world's
    true game both are Scorers.
    """

    def score(self, prompt: Prompt, responses: Sequence[str]) -> Any: ...


# ---------------------------------------------------------------- tools and encoders


class Tool(Protocol):
    """What a model may call: a typed function with a Google-style docstring."""

    __name__: str
    __doc__: str | None

    def __call__(self, *args: Any, **kwargs: Any) -> Any: ...


class Encoder(Protocol):
    """What turns graphs, places, sets … into vectors a language model can read."""

    def fit(self, data: Any) -> Encoder: ...

    def encode(self, items: Sequence[Any]) -> np.ndarray:
        """Return float32 [n, d]."""
        ...

    def save_pretrained(self, folder: str | Path) -> None: ...


# ---------------------------------------------------------------- worlds


class World(Protocol):
    """A small environment whose truth is known exactly (see ``tasks.worlds``)."""

    name: str

    def tokenizer(self) -> Any:
        """A `transformers` fast tokenizer made in code; nothing is downloaded."""
        ...

    def prompts(self, split: Literal["train", "test"]) -> list[str]: ...

    def demonstrations(self, count: int, seed: int) -> list[dict[str, str]]:
        """Rows ``{"prompt", "response"}`` for the first supervised policy, drawn from the training prompts."""
        ...

    def game(self) -> Any:
        """The whole true game over types of answers: S, S_T, S_C and P, float64 [n, n]."""
        ...

    def score(self, prompt: Prompt, responses: Sequence[str]) -> Any:
        """The true game among these answers (a Scorer)."""
        ...

    def vote(self, prompt: str, responses: Sequence[str], seed: int, annotators: int = 1) -> list[dict[str, Any]]:
        """Rows ``{"annotator", "winner", "loser"}`` drawn from the true game."""
        ...

    def examples(self, prompt: str) -> list[str]:
        """One answer of each type of the game, in its order."""
        ...

    def describe(self, prompt: str, response: str) -> dict[str, Any]:
        """What is true of an answer, e.g. ``{"right": True, "style": "warm", "malformed": False}``."""
        ...
