"""What a trained model writes on held-out cases, in numbers, beside the predictors that need no model.

Loss of the sentence clause (teacher-forced, given the court's own reasons), sentence metrics, parse rate, the share of
opinions whose reasons and sentence agree, and ROUGE of the reasons over characters.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from launch.contracts import Sampling
from launch.errors import LaunchError
from launch.rendering import Renderer
from reasoning.legal.decoding import GREEDY, write_opinions
from reasoning.legal.feed import Feed, Row, rests_on
from reasoning.legal.metrics import sentencing
from reasoning.legal.objective import OpinionObjective, encode_opinions
from reasoning.legal.opinion import read_opinion

LOSSES = ("generation", "sentence", "clause_nats")


def measured(
    model: Any,
    renderer: Renderer,
    feed: Feed,
    rows: Sequence[Row],
    *,
    tokens: int,
    constrained: bool = False,
    batch: int = 32,
    sampling: Sampling = GREEDY,
) -> tuple[dict[str, float], list[dict[str, Any]]]:
    """Numbers of a model on `rows`, and its opinions, of at most `tokens` tokens.

    Returns:
        `loss_generation` and `loss_sentence` (nats a token), `loss_clause` (nats a clause, reasons given),
        `parse_rate`, `mae`, `rmse`, `log_distance`, `cail`, `lawbench` with ``_low`` and ``_high``, `consistency` (of
        cases whose law is known), `right` (the term exactly), `rouge_l`; samples with the chains and articles they rest
        on.
    """
    objective = OpinionObjective(renderer.tokenizer.pad_token_id)
    losses = case_losses(model, objective, encode_opinions(rows, renderer)).mean(0).tolist()
    numbers = {f"loss_{name.removesuffix('_nats')}": value for name, value in zip(LOSSES, losses, strict=True)}
    texts = write_opinions(
        model, renderer, [row["prompt"] for row in rows], form=feed.form, constrained=constrained, batch=batch,
        sampling=replace(sampling, max_new_tokens=tokens),
    )  # fmt: skip
    said = [feed.form.read(text) for text in texts]
    true = [row["months"] for row in rows]
    for name, found in sentencing(true, said).items():
        numbers |= {name: found.value, f"{name}_low": found.low, f"{name}_high": found.high}
    numbers["right"] = float(np.mean([t == s for t, s in zip(true, said, strict=True)]))
    verdicts = [feed.consistent(row, text) for row, text in zip(rows, texts, strict=True)]
    known = [v for v in verdicts if v is not None]
    if known:
        numbers |= {"consistency": float(np.mean(known)), "consistency_of": len(known)}
    numbers |= _rouge(rows, texts, feed)
    samples = [
        {"charge": row["charge"], "response": text, "months": row["months"], "read": months, "consistent": verdict}
        | rests_on(row["charge"], row["fact"], text, feed.provisions)
        for row, text, months, verdict in zip(rows, texts, said, verdicts, strict=True)
    ]
    return numbers, samples


@torch.no_grad()
def case_losses(model: Any, objective: OpinionObjective, examples: Sequence[dict[str, Any]]) -> np.ndarray:
    """`LOSSES` of each case, float64 [n, 3]."""
    model.eval()
    device = next(model.parameters()).device
    each = []
    for example in examples:
        batch = {k: v.to(device) if hasattr(v, "to") else v for k, v in objective.collate([example]).items()}
        found = objective.loss(model, batch).metrics
        each.append([float(found[name]) for name in LOSSES])
    return np.array(each)


def trivial(feed: Feed) -> dict[str, dict[str, float]]:
    """Predictors that read no facts: the mean and the median of the charge's training terms.

    Both carry `loss_clause`: the nats of a term under the charge's training frequencies, mixed half and half with those
    of all charges and smoothed by one count spread over 0 to 300 months.
    """
    terms: dict[str, list[int]] = defaultdict(list)
    for row in feed.train:
        terms[row["charge"]].append(row["months"])
    every = [m for listed in terms.values() for m in listed]
    nothing: dict[str, list[int]] = {}
    predictors: dict[str, tuple[Any, dict[str, list[int]]]] = {
        "charge mean": (np.mean, terms),
        "charge median": (np.median, terms),
        "median of all": (np.median, nothing),
    }
    true = [row["months"] for row in feed.test]
    out = {}
    for name, (centre, known) in predictors.items():
        own = [known.get(row["charge"], []) for row in feed.test]
        guesses = [float(centre(listed or every)) for listed in own]
        nats = [_surprise(t, listed, every) for t, listed in zip(true, own, strict=True)]
        out[name] = {k: v.value for k, v in sentencing(true, guesses).items()} | {"loss_clause": float(np.mean(nats))}
    return out


def _surprise(months: int, own: Sequence[int], every: Sequence[int]) -> float:
    """-ln p(months) under smoothed frequencies."""

    def frequency(listed: Sequence[int]) -> float:
        return (Counter(listed)[months] + 1 / 301) / (len(listed) + 1)

    return -math.log((frequency(own) + frequency(every)) / 2 if own else frequency(every))


def _rouge(rows: Sequence[Row], texts: Sequence[str], feed: Feed) -> dict[str, float]:
    """ROUGE-L of reasons over characters; {} where none were asked for or the extra `legal` is not installed."""
    from reasoning.legal.text_scores import characters, rouge

    true = [row["response"][: row["clause"][0]].removesuffix(feed.form.decides) for row in rows]
    if not any(true):
        return {}
    try:
        found = rouge(true, [read_opinion(text, feed.form).rationale for text in texts], characters)
    except LaunchError:
        return {}
    return {"rouge_l": found["rouge_l"].value}
