"""Opinions written by a model: greedy, and with a sentence clause that always parses if that is asked.

Constrained, the reasons are sampled as ever, up to the marker; marker and clause are then chosen token by token among
the tokenised clauses of 0 to 300 months, by the model's own probabilities. Where the model would have written a clause
itself, greedily, the constrained one is the same. A model that never comes to the marker gets it after its last token.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, TypedDict

import torch

from launch.contracts import Sampling
from launch.generate import HFGenerator
from launch.logprob import positions
from launch.rendering import Renderer, pad
from reasoning.legal.chains import MONTHS
from reasoning.legal.charges import chains_of, charge_name
from reasoning.legal.check import Check, check_opinion
from reasoning.legal.names import mask_names
from reasoning.legal.opinion import COURT, FACT, Form, Law, prompt_of, read_opinion

GREEDY = Sampling(max_new_tokens=400, temperature=0.0)
PUBLISHED = Sampling(max_new_tokens=400, temperature=0.6, top_p=0.1, top_k=5, repetition_penalty=1.176)
"""LegalChainReasoner's: greedy in nearly all but the penalty, which strikes digits and words of law alike."""
SAMPLINGS = {"greedy": GREEDY, "published": PUBLISHED}


def write_opinions(
    model: Any,
    renderer: Renderer,
    prompts: Sequence[str],
    *,
    form: Form = COURT,
    sampling: Sampling = GREEDY,
    constrained: bool = False,
    batch: int = 32,
) -> list[str]:
    """One completion for each prompt.

    Args:
        model: a causal language model, `ChainModel` included.
        renderer: its renderer.
        sampling: `GREEDY`, `PUBLISHED`, or another one. Constrained clauses are greedy always.
        constrained: whether every completion ends in a clause of `form`.
    """
    generator = HFGenerator(model, renderer.tokenizer, renderer, batch_size=batch)
    if not constrained:
        return [row[0].text for row in generator.generate(prompts, 1, sampling)]
    until = replace(sampling, stop=(form.decides,))
    reasons = [row[0].text for row in generator.generate(prompts, 1, until)]
    tails = clauses(renderer.tokenizer, form)
    written = []
    for start in range(0, len(prompts), batch):
        part = slice(start, start + batch)
        before = [
            [*renderer.prompt_ids(prompt), *renderer.tokenizer(text, add_special_tokens=False)["input_ids"]]
            for prompt, text in zip(prompts[part], reasons[part], strict=True)
        ]
        chosen = choose(model, before, tails)
        written += [
            text + form.decides + form.sentence(months) for text, months in zip(reasons[part], chosen, strict=True)
        ]
    return written


class Written(TypedDict):
    """An opinion and what it rests on."""

    rationale: str
    months: int | None
    check: Check | None
    """Chains matched, the range they allow, articles, and whether reasons and sentence agree; None without a clause."""
    notice: str


NOTICE = "Written by a language model for research. Not for deciding, preparing or advising in a person's case."


def generate_opinion(
    model: Any,
    renderer: Renderer,
    fact: str,
    charge: str,
    *,
    law: Law = "soft",
    constrained: bool = True,
    sampling: Sampling = GREEDY,
) -> Written:
    """Write reasons and a sentence, and check them against the charge's chains.

    Args:
        model: a `ChainModel` for law "soft", any causal language model for "none" and "text".
        fact: the facts; names behind a role are masked, and what is over 512 characters is cut.
        charge: its name; must be one with chains (`reasoning.legal.charges`), so that the check has a law.
        sampling: of the reasons, as in `write_opinions`.

    Raises:
        DataError: no facts, or a charge without chains or that the model does not know.
    """
    name = charge_name(charge)
    shown = mask_names(fact)[:FACT]
    prompt = prompt_of(shown, law, item=name, lines=[chain.line for chain in chains_of(name)])
    [text] = write_opinions(model, renderer, [prompt], constrained=constrained, sampling=sampling)
    said = read_opinion(text)
    check = None if said.months is None else check_opinion(shown, said.rationale, said.months, name)
    return Written(rationale=said.rationale, months=said.months, check=check, notice=NOTICE)


def clauses(tokenizer: Any, form: Form = COURT) -> list[list[int]]:
    """Marker and clause of every term, as token ids; the index is the months."""
    texts = [form.decides + form.sentence(months) for months in MONTHS]
    return [list(ids) for ids in tokenizer(texts, add_special_tokens=False)["input_ids"]]


@torch.no_grad()
def choose(model: Any, before: Sequence[Sequence[int]], tails: Sequence[Sequence[int]]) -> list[int]:
    """For each row of ids the tail that the model, going greedily from token to token, would write.

    The model is asked only where tails part. A tail that begins another one is closed by what follows it there, which
    is why tails end in the same token.
    """
    device = next(model.parameters()).device
    rows = [list(row) for row in before]
    left = [list(range(len(tails))) for _ in rows]
    depth = [0] * len(rows)
    model.eval()
    while True:
        for k in range(len(rows)):
            while (token := _agreed(tails, left[k], depth[k])) is not None:
                rows[k].append(token)
                depth[k] += 1
        open_rows = [k for k in range(len(rows)) if len(left[k]) > 1]
        if not open_rows:
            return [mine[0] for mine in left]
        ids, mask = pad([rows[k] for k in open_rows], 0, side="left")
        ids, mask = ids.to(device), mask.to(device)
        logits = model(
            input_ids=ids, attention_mask=mask, position_ids=positions(mask), use_cache=False, logits_to_keep=1
        ).logits[:, -1]
        for k, scores in zip(open_rows, logits.float().cpu(), strict=True):
            allowed = sorted({tails[n][depth[k]] for n in left[k] if depth[k] < len(tails[n])})
            best = allowed[int(scores[allowed].argmax())]
            left[k] = [n for n in left[k] if depth[k] < len(tails[n]) and tails[n][depth[k]] == best]


def _agreed(tails: Sequence[Sequence[int]], left: Sequence[int], depth: int) -> int | None:
    """The next token if all tails that are left have the same; None where they part, or one is left at its end."""
    found = {tails[n][depth] if depth < len(tails[n]) else None for n in left}
    return found.pop() if len(found) == 1 else None
