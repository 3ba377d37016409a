"""Rows that training and measuring read: the embedded cases, or real ones from a file.

A row is ``{"prompt", "response", "clause", "charge", "fact", "months", "id"}``; `clause` says where in the response
the sentence stands. Which charge's chains a prompt names depends on `Law`: under "shuffled" every case gets those of
another charge, drawn by its id, so that the chains are as many and as long and say nothing.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from launch.errors import DataError
from reasoning.legal.cases import CourtCase, Kind, read_cases
from reasoning.legal.chains import Chain
from reasoning.legal.charges import CHARGES, chains_of
from reasoning.legal.check import check_opinion
from reasoning.legal.encoder import Provisions
from reasoning.legal.opinion import COURT, FACT, OPINION, WORLD, Form, Law, prompt_of, read_opinion, response_of
from reasoning.legal.statute import load_articles
from tasks.worlds.cases import CasesWorld

Row = dict[str, Any]


@dataclass
class DataOptions:
    """Where cases come from and what is kept of them."""

    path: str = ""
    """JSON lines, plain or gzipped; "" for the embedded world."""
    kind: Kind = "judge"
    statutes: str = ""
    """criminal_law_articles.jsonl: the law of charges without chains, and what a small decoder reads first."""
    fact_chars: int = FACT
    """Facts are cut here; at 512, 316 of LAIC's 1,200 lose something."""
    opinion_chars: int = OPINION
    """Reasons are cut at the last punctuation before: cut anywhere, nothing would tell a model where they end."""
    reasons: bool = True
    """False: the sentence clause alone is written."""
    test: int = 101
    """Cases held out of a file; JuDGE's 501 are parted 400 and 101."""
    validation_share: float = 0.1
    """Of the training cases: those on which the weights are selected."""


class Feed(NamedTuple):
    """What a run learns from, selects on and is measured on."""

    train: list[Row]
    validation: list[Row]
    test: list[Row]
    provisions: Provisions
    """Charges that prompts may name."""
    form: Form
    consistent: Callable[[Row, str], bool | None]
    """Whether a completion's reasons and sentence agree; None where nothing is known of the charge."""
    odd: dict[str, int]
    """Cases left out, and oddities, by why."""


def of_world(world: CasesWorld, law: Law, options: DataOptions, held_out: int = 0) -> Feed:
    """The embedded cases; those held out are of charges that training has not seen."""
    world = replace(world, told=law == "text")
    form = WORLD[world.language]
    provisions = {c: [Chain(*t) for t in world.chains(c)] for s in ("train", "test") for c in world.charges(s)}

    def row(number: int, prompt: str) -> Row:
        case = world.read(prompt)
        reasons = world.examples(prompt)[0].partition(form.decides)[0] if options.reasons else ""
        response, clause = response_of(reasons, case.months, form=form)
        item = _item(case.law.charge, str(number), provisions, law)
        asked = prompt if law == "text" else prompt_of(prompt, law, item=item, form=form)
        facts = {"charge": case.law.charge, "fact": prompt, "months": case.months, "id": str(number)}
        return {"prompt": asked, "response": response, "clause": clause, **facts}

    def consistent(row: Row, text: str) -> bool | None:
        return bool(world.describe(row["fact"], text)["consistent"]) if options.reasons else None

    every = [row(k, p) for k, p in enumerate(world.prompts("train"))]
    test = [row(k, p) for k, p in enumerate(world.prompts("test")[: held_out or None])]
    charges = world.charges("train")
    unseen = set(charges[_kept(len(charges), options.validation_share) :])  # as in the test: new charges
    train = [r for r in every if r["charge"] not in unseen]
    validation = [r for r in every if r["charge"] in unseen]
    return Feed(train, validation, test, provisions, form, consistent, {})


def of_file(law: Law, options: DataOptions, held_out: int = 0) -> Feed:
    """Real cases, parted by their ids, the same way for every law and seed.

    Raises:
        DataError: see `read_cases`; more cases held out than there are; a charge that has neither chains nor a statute.
    """
    skipped: Counter[str] = Counter()
    cases = sorted(read_cases(options.path, options.kind, skipped), key=lambda c: _digest(c.id))
    if len(cases) <= options.test:
        raise DataError(f"{options.path}: {len(cases)} usable cases, of which {options.test} held out; lower data.test")
    statutes = load_articles(options.statutes) if options.statutes else {}
    provisions: dict[str, Sequence[Chain] | str] = {}
    for case in cases:
        provisions.setdefault(case.charge, _law_of(case, statutes))
    if law == "none":
        provisions = {c: told for c, told in provisions.items() if told}
    made = [court_row(case, law, options, provisions) for case in cases]
    train, test = made[: -options.test], made[-options.test :][: held_out or None]
    kept = _kept(len(train), options.validation_share)
    odd = dict(skipped)
    odd["charge without chains"] = sum(c.charge not in CHARGES for c in cases)
    odd["facts cut"] = sum(len(c.fact) > options.fact_chars for c in cases)
    return Feed(train[:kept], train[kept:], test, provisions, COURT, court_consistent, odd)


def court_row(case: CourtCase, law: Law, options: DataOptions, provisions: Provisions) -> Row:
    """One real case as a row."""
    fact, opinion = case.fact[: options.fact_chars], ""
    if options.reasons:
        opinion = shortened(case.opinion, options.opinion_chars)
    told = provisions.get(case.charge, "")
    lines = ([told] if told else []) if isinstance(told, str) else [chain.line for chain in told]
    chain = None
    if law == "text" and options.reasons and case.charge in CHARGES:
        chain = chain_number(case.charge, case.fact, case.opinion, case.months)
    item = _item(case.charge, case.id, provisions, law)
    response, clause = response_of(opinion, case.months, chain=chain)
    facts = {"charge": case.charge, "fact": fact, "months": case.months, "id": case.id}
    return {
        "prompt": prompt_of(fact, law, item=item, lines=lines),
        "response": response,
        "clause": clause,
        **facts,
    }


def shortened(text: str, most: int) -> str:
    """`text` cut behind the last punctuation within `most` characters; within a phrase if there is none."""
    if len(text) <= most:
        return text
    return text[: max(text.rfind(mark, 0, most) for mark in "。；，") + 1] or text[:most]


def chain_number(charge: str, fact: str, opinion: str, months: int) -> int:
    """Number, from 1, of the chain that a court's own opinion rests on (`check_opinion`)."""
    matched = check_opinion(fact, opinion, months, charge)["matched_chains"][0]
    keys = ("premise", "situation", "conclusion", "article")
    lines = [tuple(getattr(chain, key) for key in keys) for chain in chains_of(charge)]
    return lines.index(tuple(matched[key] for key in keys)) + 1  # type: ignore[literal-required]


def court_consistent(row: Row, text: str) -> bool | None:
    """The verdict of `check_opinion` on what a completion says; False where no sentence can be read."""
    if row["charge"] not in CHARGES:
        return None
    said = read_opinion(text)
    if said.months is None:
        return False
    return check_opinion(row["fact"], said.rationale, said.months, row["charge"])["consistent"]


def rests_on(charge: str, fact: str, text: str, provisions: Provisions) -> dict[str, list[str]]:
    """What stands beside every opinion that is kept or shown: {"chains": lines, "articles": numbers}.

    Chains and articles are those of `check_opinion`; where nothing was sentenced or the charge is not among `CHARGES`,
    all that `provisions` tell of it.
    """
    said = read_opinion(text)
    if charge in CHARGES and said.months is not None:
        check = check_opinion(fact, said.rationale, said.months, charge)
        lines = [f"{c['premise']} -> {c['situation']} -> {c['conclusion']}" for c in check["matched_chains"]]
        return {"chains": lines, "articles": check["citations"]}
    told = chains_of(charge) if charge in CHARGES else provisions.get(charge, [])
    if isinstance(told, str):
        return {"chains": [told], "articles": []}
    return {"chains": [c.line for c in told], "articles": list(dict.fromkeys(c.article for c in told if c.article))}


def _law_of(case: CourtCase, statutes: Mapping[str, str]) -> Sequence[Chain] | str:
    if case.charge in CHARGES:
        return chains_of(case.charge)
    return statutes.get(case.article, "")


def _item(charge: str, id: str, provisions: Provisions, law: Law) -> str:
    """The charge whose chains a prompt names."""
    if law == "shuffled":
        others = [c for c in sorted(provisions) if c != charge]
        return others[int.from_bytes(_digest(f"shuffled-{id}")[:8], "big") % len(others)]
    return charge


def _kept(count: int, validation_share: float) -> int:
    return count - max(1, round(validation_share * count))


def _digest(text: str) -> bytes:
    """An order of cases, the same on every machine."""
    return hashlib.sha256(json.dumps(text).encode()).digest()
