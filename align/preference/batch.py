"""From (prompt, answers) groups to token sequences: each different one once, however many answers and pairs it is in.

A causal backbone reads the gate from the last prompt token of any one sequence, since that state is the same in all.
A bidirectional one sees the answer there, so the prompt is one more sequence of its own.

Sequences travel in one of three layouts, equal in every number they lead to: *shared*, packed with the prompt once for
all its answers (`launch.packing`); *packed*, each sequence whole but none padded; *padded*, one row each, the readable
twin and the only one for bidirectional backbones.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Literal, NamedTuple

import torch

from align.preference.config import Pooling, PreferenceConfig
from launch import packing
from launch.contracts import Prompt
from launch.errors import DataError
from launch.packing import Layout, Packed, Tree, pack, tree_of
from launch.rendering import Renderer, pad

logger = logging.getLogger(__name__)


def layout_for(config: PreferenceConfig, asked: Layout = "shared") -> Layout:
    """The layout nearest to `asked` that a model's backbone can be run in; says once why, if it is another one."""
    if asked == "padded":
        return asked
    backbone: Any = config.backbone_config
    if config.pooling == "mean":
        _say(logging.INFO, f"{backbone.model_type} looks both ways: prompts are not shared, rows are padded")
        return "padded"
    found, reason = packing.layout_for(backbone, asked)
    if reason is not None:
        _say(logging.WARNING, f"{reason}; rows are {found} instead, at the same scores")
    return found


@lru_cache
def _say(level: int, line: str) -> None:
    """Log a line once a process, however many models are made."""
    logger.log(level, line)


@dataclass
class Sequences:
    """Token sequences of several groups, with where each group's answers and gate are found in them."""

    ids: list[list[int]] = field(default_factory=list)
    answers: list[list[int]] = field(default_factory=list)
    """Per group, the sequence of each of its K answers; answers that are read alike share one, and so tie exactly."""
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
        for k, response in enumerate(responses):
            if not isinstance(response, str):
                raise DataError(
                    f"group {number}: answer {k} is {type(response).__name__} {response!r}; it must be text"
                )
        known: dict[str, int] = {}
        read: dict[tuple[int, ...], int] = {}
        different = list(dict.fromkeys(responses))
        for response, encoded in zip(different, renderer.encode_answers(prompt, different), strict=True):
            if tuple(encoded.ids) in read:  # another text of which only what is alike is within the length limit
                known[response] = read[tuple(encoded.ids)]
                continue
            if not known and pooling == "last":
                out.gate_rows.append(len(out.ids))
                # A prompt that fills the whole sequence is read one token early: its last was overwritten by EOS.
                out.gate_positions.append(max(min(encoded.prompt_length, len(encoded.ids) - 1) - 1, 0))
            known[response] = read[tuple(encoded.ids)] = len(out.ids)
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


# ---------------------------------------------------------------- packed


@dataclass(frozen=True)
class Part:
    """Sequences of one group that are encoded together, as a tree."""

    tree: Tree
    members: list[int]
    """Per branch, the sequence."""
    gate: tuple[int, int, int] | None
    """(group, branch, position) of the token its gate is read from; None in the further parts of a group."""


def parts(plan: Sequences, shared: bool = True, most: int = 0) -> Iterator[Part]:
    """Trees of all groups, in their order.

    Args:
        plan: sequences with `pooling` "last".
        shared: False makes a tree of each sequence by itself.
        most: tokens of a tree; a group with more becomes several, each with the prompt again. 0: no limit.
    """
    for group, answers in enumerate(plan.answers):
        members = sorted(set(answers))
        while members:
            take = 1
            while shared and take < len(members) and not 0 < most < _tokens(plan, members[: take + 1]):
                take += 1
            now, members = members[:take], members[take:]
            gate = None
            if plan.gate_rows[group] in now:
                gate = (group, now.index(plan.gate_rows[group]), plan.gate_positions[group])
            yield Part(tree_of([plan.ids[n] for n in now]), now, gate)


def _tokens(plan: Sequences, members: list[int]) -> int:
    return len(tree_of([plan.ids[n] for n in members]))


class Rows(NamedTuple):
    """Parts in packed rows."""

    inputs: dict[str, torch.Tensor]
    """What `PreferenceModel.forward` takes: input_ids, position_ids, tree, branch [B, N] (see `launch.packing.Packed`),
    ends and gates int64, places in the flattened rows."""
    members: list[int]
    """The sequences that `ends` belong to."""
    groups: list[int]
    """The groups that `gates` belong to."""
    packed: Packed


def rows_of(parts: Sequence[Part], pad_id: int) -> Rows:
    """Lay `parts` side by side in rows, and say where their ends and gates came to lie."""
    packed = pack([part.tree for part in parts], pad_id)
    columns = packed.input_ids.shape[1]
    ends, gates, members, groups = [], [], [], []
    for number, part in enumerate(parts):
        first = packed.rows[number] * columns
        ends += [first + end - 1 for _, end in packed.branch_spans[number]]
        members += part.members
        if part.gate is not None:
            group, branch, position = part.gate
            gates.append(first + packed.column(number, branch, position))
            groups.append(group)
    where = {"ends": torch.tensor(ends), "gates": torch.tensor(gates, dtype=torch.long)}
    return Rows({**packed.tensors(), **where}, members, groups, packed)
