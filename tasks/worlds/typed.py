"""What embedded worlds share: a true game over finitely many types of answers, votes drawn from it, a tokenizer.

A world tells what type an answer is of (`describe`) and the game over types (`game`); what K answers are worth against
each other, and how annotators vote on them, follows.
"""

from __future__ import annotations

import random
from abc import ABC, abstractmethod
from collections.abc import Sequence
from itertools import combinations
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from launch.contracts import Prompt
from launch.errors import DataError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast


class TrueScores(NamedTuple):
    """The true game among K answers to one prompt; all float64 [K, K], rows against columns."""

    S: np.ndarray
    S_T: np.ndarray
    S_C: np.ndarray
    P: np.ndarray


class TypedWorld(ABC):
    """A Scorer, and a source of votes, of a world that tells `game` and `describe`."""

    name: str

    @abstractmethod
    def game(self) -> TrueScores:
        """The whole true game over types."""

    @abstractmethod
    def describe(self, prompt: str, response: str) -> dict[str, Any]:
        """What is true of an answer, among it "type", its index in the game."""

    def score(self, prompt: Prompt, responses: Sequence[str]) -> TrueScores:
        """The true game among K answers (a Scorer)."""
        if not isinstance(prompt, str):
            raise DataError(f"questions of the {self.name} world are plain text, not chat messages")
        types = [self.describe(prompt, response)["type"] for response in responses]
        return TrueScores(*(table[types][:, types] for table in self.game()))

    def vote(self, prompt: str, responses: Sequence[str], seed: int, annotators: int = 1) -> list[dict[str, Any]]:
        """Each annotator votes once on every pair, drawn from the true game.

        Returns one row per prompt, annotator and pair order: {"annotator", "winner", "loser"} with indices into
        `responses`. The same (prompt, responses, seed) always gives the same votes.
        """
        P = self.score(prompt, responses).P.tolist()
        rng = random.Random(f"votes-{seed}-{prompt}-{responses}")
        rows = []
        for annotator in range(annotators):
            for i, j in combinations(range(len(responses)), 2):
                winner, loser = (i, j) if rng.random() < P[i][j] else (j, i)
                rows.append({"annotator": f"annotator-{annotator}", "winner": winner, "loser": loser})
        return rows


def word_tokenizer(pieces: Sequence[str], split: str, max_length: int) -> PreTrainedTokenizerFast:
    """Word-level tokenizer whose ``decode(encode(x)) == x`` for every text that `split` cuts into `pieces`.

    Args:
        pieces: the vocabulary in the order of ids; among them <pad>, <bos>, <eos> and <unk>.
        split: regular expression whose matches are the pieces of a text.
        max_length: tokens, the tokenizer's ``model_max_length``.
    """
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    inner = Tokenizer(models.WordLevel({piece: i for i, piece in enumerate(pieces)}, unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.Split(Regex(split), behavior="isolated")
    inner.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(
        tokenizer_object=inner,
        pad_token="<pad>",
        bos_token="<bos>",
        eos_token="<eos>",
        unk_token="<unk>",
        clean_up_tokenization_spaces=False,
        model_max_length=max_length,
    )
