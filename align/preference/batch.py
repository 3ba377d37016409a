"""From (prompt, answers) groups to token sequences: each different answer once, however many pairs it is in.

A causal backbone reads the gate from the last prompt token of any one sequence, since that state is the same in all.
A bidirectional one sees the answer there, so the prompt is one more sequence of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch

from align.preference.config import Pooling
from launch.contracts import Prompt
from launch.errors import DataError
from launch.rendering import Renderer, pad


@dataclass
class Sequences:
    """Token sequences of several groups, with where each group's answers and gate are found in them."""

    ids: list[list[int]] = field(default_factory=list)
    answers: list[list[int]] = field(default_factory=list)
    """Per group, the sequence of each of its K answers; equal answers share one."""
    gate_rows: list[int] = field(default_factory=list)
    """Per group, the sequence that its gate is read from."""
    gate_positions: list[int] = field(default_factory=list)
    """Per group, which real token of that sequence is read, from 0 (unused by mean pooling)."""
    cut: int = 0
    """Sequences that lost tokens to the length limit."""
    cut_groups: list[int] = field(default_factory=list)
    """Groups with such a sequence."""


def sequences(renderer: Renderer, groups: Sequence[tuple[Prompt, Sequence[str]]], pooling: Pooling) -> Sequences:
    """Render `groups`, each a prompt and its answers.

    Raises:
        DataError: a group without answers, or an answer that is not text.
    """
    out = Sequences()
    for number, (prompt, responses) in enumerate(groups):
        if isinstance(responses, str) or not len(responses):
            raise DataError(f"group {number}: {responses!r} is no list of answers; give at least one answer")
        known: dict[str, int] = {}
        for k, response in enumerate(responses):
            if not isinstance(response, str):
                raise DataError(
                    f"group {number}: answer {k} is {type(response).__name__} {response!r}; it must be text"
                )
            if response in known:
                continue
            encoded = renderer.encode(prompt, response)
            if not known and pooling == "last":
                out.gate_rows.append(len(out.ids))
                # A prompt that fills the whole sequence is read one token early: its last was overwritten by EOS.
                out.gate_positions.append(max(min(encoded.prompt_length, len(encoded.ids) - 1) - 1, 0))
            known[response] = len(out.ids)
            out.ids.append(encoded.ids)
            out.cut += encoded.cut > 0
            if encoded.cut and out.cut_groups[-1:] != [number]:
                out.cut_groups.append(number)
        out.answers.append([known[response] for response in responses])
        if pooling == "mean":
            out.gate_rows.append(len(out.ids))
            out.gate_positions.append(0)
            out.ids.append(prompt_only(renderer, prompt))
    return out


def prompt_only(renderer: Renderer, prompt: Prompt) -> list[int]:
    """Ids of a prompt by itself, cut as it is in front of an answer: always the token the gate is read from last."""
    return renderer.prompt_ids(prompt)[: renderer.max_length - 1]


def padded(
    ids: Sequence[list[int]], pad_id: int, side: Literal["left", "right"] = "right"
) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows to int64 ids and bool mask, both [N, T]. `side` changes no score."""
    return pad(ids, pad_id, side)
