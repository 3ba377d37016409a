"""What the preference recipe says about its rows before training, and about held-out games after it.

Held-out games are dealt over the processes of a run, each on its own GPU where there is one. What is written for the
report: the most telling games as artifacts (score matrices), and a few prompts with their answers, best first.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from align.preference.accuracy import PairAccuracy, pair_accuracy
from align.preference.batch import sequences
from align.preference.model import PreferenceModel
from align.preference.score import Scores
from launch import runtime
from launch.errors import ArbiterError

logger = logging.getLogger(__name__)

SHOWN = 6
"""Held-out games that are written for the report."""

Group = dict[str, Any]


def count_unreadable(model: PreferenceModel, groups: Sequence[Group], side: str) -> dict[str, float]:
    """Say in the log which rows the model cannot read as they are, the first with its file and row.

    Returns:
        cut_rows: rows with a sequence over the length limit, of which the right end is not read.
        alike_rows: rows with an answer that is empty, or that to the model is another one's equal (the same text, or
        the same up to where both are cut): their score is exactly 0, or says nothing.
    """
    cut = alike = 0
    first_cut = first_alike = ""
    for group in groups:
        plan = sequences(model.renderer, [(group["prompt"], group["responses"])], model.config.pooling)  # type: ignore[arg-type]
        if plan.cut:
            cut, first_cut = cut + 1, first_cut or source(group)
        if len(set(plan.answers[0])) < len(group["responses"]) or not all(t.strip() for t in group["responses"]):
            alike, first_alike = alike + 1, first_alike or source(group)
    if cut:
        logger.warning(
            "%s: %d of %d rows exceed %d tokens and are cut on the right, the first: %s; raise model.max_length",
            side, cut, len(groups), model.renderer.max_length, first_cut,
        )  # fmt: skip
    if alike:
        logger.warning(
            "%s: %d of %d rows have an answer that is empty, or the same as another as the model reads it, the first: "
            "%s; their scores say nothing",
            side, alike, len(groups), first_alike,
        )  # fmt: skip
    return {"cut_rows": cut, "alike_rows": alike}


def source(group: Group) -> str:
    """ "file:row" of a group."""
    return group.get("source", "a row without source")


@dataclass
class HeldOut:
    """What a model says of held-out games; of the games themselves a few are kept."""

    accuracy: PairAccuracy
    cyclicity: float
    """Mean over games."""
    leak: float
    """Mean over games."""
    telling: list[tuple[Group, Scores]]
    """The games with most answers, and among those the most cyclic: at most SHOWN."""
    first: list[tuple[Group, Scores]]
    """The first SHOWN of the data."""

    def metrics(self) -> dict[str, float]:
        return {**self.accuracy.metrics(), "cyclicity": self.cyclicity, "leak": self.leak}


def evaluate(model: PreferenceModel, groups: Sequence[Group], batch_size: int, at_once: int = 512) -> HeldOut:
    """Score all of `groups`, at least one, over the processes of the run, `at_once` groups a process in memory.

    Every process must call it, and gets the same. Raises on all of them if one of them fails.
    """
    accuracy = PairAccuracy()
    cyclicity = leak = 0.0
    telling: list[tuple[Group, Scores]] = []
    first: list[tuple[Group, Scores]] = []
    step = at_once * runtime.world_size()
    for start in range(0, len(groups), step):
        some = groups[start : start + step]
        scores = score_over_ranks(model, some, batch_size)
        accuracy += pair_accuracy(some, scores)
        cyclicity += sum(s.cyclicity for s in scores)
        leak += sum(s.leak for s in scores)
        games = list(zip(some, scores, strict=True))
        telling = sorted([*telling, *games], key=lambda game: (-min(len(game[1].S), 4), -game[1].cyclicity))[:SHOWN]
        first += games[: SHOWN - len(first)]
    return HeldOut(accuracy, cyclicity / len(groups), leak / len(groups), telling, first)


def score_over_ranks(model: PreferenceModel, groups: Sequence[Group], batch_size: int) -> list[Scores]:
    """Scores of all groups, in their order and on every rank; each rank has scored its share of them.

    Every process must call it. Raises on all of them if one of them fails.
    """
    device = runtime.own_device()
    if device is not None and model.device != device:  # 4-bit weights are there, and may not be moved
        model.to(device)
    rank, ranks = runtime.rank(), runtime.world_size()
    mine: list[Scores] = []
    error: ArbiterError | None = None
    try:
        mine = model.score_many([(g["prompt"], g["responses"]) for g in groups[rank::ranks]], batch_size)
    except ArbiterError as failed:
        error = failed
    runtime.raise_together(error)
    shares = runtime.gather(mine)
    return [shares[n % ranks][n // ranks] for n in range(len(groups))]


def game_artifact(group: Group, scores: Scores, model: str) -> dict[str, Any]:
    """One game as ``align.report`` reads it."""
    return {"prompt": group["prompt"], "responses": list(group["responses"]), "model": model, **scores.to_dict()}


def sample_row(group: Group, scores: Scores) -> dict[str, Any]:
    """A prompt with its answers, best first: with their rank values, and their places in the data."""
    order = [int(k) for k in scores.rank_value.argsort(kind="stable")[::-1]]
    return {
        "prompt": group["prompt"],
        "responses": [group["responses"][k] for k in order],
        "rank_values": [float(scores.rank_value[k]) for k in order],
        "places": order,
        "source": source(group),
    }
