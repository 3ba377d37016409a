"""Do a court's reasons and its sentence agree, and on which chain and article does that rest?

`check_opinion` reads the tier that the reasons name ("数额特别巨大"), takes the range of months that the charge's chain
gives it, widens it downwards where a reduced sentence or an exemption is granted (articles 63 and 37), and says whether
the months lie inside. Where the reasons name no tier, the largest sum in the facts chooses it if the charge has
thresholds; else the chain without a condition and milder ones; else every chain may be meant. `tier_from` says which.

As a tool it takes and gives plain values; as a reward it is `consistency` below. It reads words, not facts: whether the
tier is the right one is for a court to say.

    python -c "from reasoning.legal import check_opinion as c; print(c('', '诈骗数额特别巨大，构成诈骗罪', 24))"
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Literal, TypedDict

from launch.errors import DataError
from reasoning.legal.amounts import amount_tier, amounts
from reasoning.legal.chains import BASE, Chain, MonthRange
from reasoning.legal.charges import CHARGES, chains_of, charge_name
from reasoning.legal.circumstances import Effect, allowed, find
from reasoning.legal.numerals import articles
from reasoning.legal.sentence import valid_months

SINGLE_OFFENCE = 180
"""Months at which a fixed term for one offence ends (article 45); for several it may reach 300 (article 69)."""

_TIER_FORMS = ((re.compile("^其他(.*)情节$"), r"情节\1"), (re.compile("^.+?((?:数额|数量|情节).+)$"), r"\1"))
_DENIED = re.compile("(?:不属于?|未达到?|尚未|不构成|没有|非)[^，。；]{0,4}$")
_SEVERAL = re.compile("数罪并罚|决定执行|合并执行")
_CHARGED = re.compile(r"(?:构成了?|犯有?|以|应定)([^，。；：（）]{2,40}?罪)")


class ChainRow(TypedDict):
    """A chain in plain values."""

    premise: str
    situation: str
    conclusion: str
    article: str
    months: str


class Check(TypedDict):
    """What `check_opinion` found."""

    charge: str
    matched_chains: list[ChainRow]
    """One per tier that may apply; the premise is the one nearest to the facts."""
    range: str
    """Months allowed, circumstances included, e.g. "36-120 months"."""
    consistent: bool
    tier_from: Literal["opinion", "amount", "base", "unstated"]
    circumstances: list[str]
    citations: list[str]
    """Articles of the Criminal Law that the range rests on."""
    cited: list[str]
    """Articles that the opinion cites."""
    notes: list[str]
    """What a rule of thumb decided, one line each."""


def legal_chains(charge: str) -> list[ChainRow]:
    """List what the Criminal Law says of a charge: conduct, condition and penalty.

    Args:
        charge: name of the charge in Chinese, e.g. 诈骗罪.

    Returns:
        One row per chain: premise, situation, conclusion, article and the range of months.
    """
    return [_row(chain) for chain in chains_of(charge)]


def check_opinion(fact: str, opinion: str, months: int, charge: str = "") -> Check:
    """Check that the court's reasons and the sentence agree with the statute.

    Args:
        fact: the facts of the case; may be empty.
        opinion: the court's reasons, in Chinese.
        months: prison term from 0 to 300; -1 for life, -2 for death.
        charge: name of the charge; empty if the opinion names it (构成…罪).

    Returns:
        The chains matched, the range of months they allow, whether `months` lies in it, and the articles it rests on.

    Raises:
        DataError: no chains are known for the charge, the opinion names none, or `months` is no term.
    """
    valid_months(months, special=True)
    name = charge_name(charge) if charge else find_charge(opinion)
    rungs = tiers(chains_of(name))
    chosen, source = _choose(name, rungs, fact, opinion)
    effects = allowed(opinion)
    limits = [_widened(rungs, k, effects, bool(_SEVERAL.search(opinion))) for k in chosen]
    matched = [_nearest(rungs[k], fact + opinion) for k in chosen]
    stated = find(opinion)
    basis = [a for chain in matched for a in (chain.article, chain.source) if a]
    return Check(
        charge=name,
        matched_chains=[_row(chain) for chain in matched],
        range=" or ".join(dict.fromkeys(map(str, limits))),
        consistent=any(months in limit for limit in limits),
        tier_from=source,
        circumstances=[c.name for c in stated],
        citations=list(
            dict.fromkeys([*basis, *(c.article for c in stated), *(["63"] if "reduced" in effects else [])])
        ),
        cited=list(dict.fromkeys(articles(opinion))),
        notes=_notes(fact, opinion, source),
    )


def consistency(fact: str, opinion: str, months: int | None, charge: str = "") -> float:
    """A verifiable reward: 1 if reasons and sentence agree, 0 if not or if no sentence or charge can be read."""
    if months is None:
        return 0.0
    try:
        return float(check_opinion(fact, opinion, months, charge)["consistent"])
    except DataError:
        return 0.0


def find_charge(opinion: str) -> str:
    """The first charge that an opinion names and that has chains.

    Selective charges are named in part: 非法买卖枪支、弹药罪, 贩卖毒品罪.

    Raises:
        DataError: it names none.
    """
    for named in _CHARGED.findall(opinion):
        for name, charge in CHARGES.items():
            if named == name or (charge.named and re.fullmatch(charge.named, named)):
                return name
    raise DataError(f"{opinion[:40]!r} names no charge with chains (构成…罪); pass `charge`")


def tiers(chains: Sequence[Chain]) -> list[list[Chain]]:
    """A charge's chains by conclusion, from the mildest; those of one tier differ in premise or situation."""
    found: dict[str, list[Chain]] = {}
    for chain in chains:
        found.setdefault(chain.conclusion, []).append(chain)
    return sorted(found.values(), key=lambda rung: _severity(rung[0].months))


def states(opinion: str, situation: Chain) -> bool:
    """Whether an opinion says that one alternative of a chain's situation holds, all its parts."""
    return situation.situation != BASE and any(
        all(_says(opinion, part) for part in parts) for parts in situation.alternatives
    )


# ---------------------------------------------------------------- parts


def _choose(
    name: str, rungs: Sequence[Sequence[Chain]], fact: str, opinion: str
) -> tuple[list[int], Literal["opinion", "amount", "base", "unstated"]]:
    """Indices of the tiers that may apply, and how they were found. Of several stated ones the gravest is meant."""
    stated = [k for k, rung in enumerate(rungs) if any(states(opinion, chain) for chain in rung)]
    if stated:
        return stated[-1:], "opinion"
    thresholds = CHARGES[name].amounts
    by_amount = amount_tier(fact, thresholds) if thresholds else None
    if by_amount is not None and by_amount < len(rungs):
        return [by_amount], "amount"
    base = [k for k, rung in enumerate(rungs) if any(chain.situation == BASE for chain in rung)]
    if base:
        return list(range(base[0] + 1)), "base"  # with the milder ones: 情节较轻 is often left unsaid
    return list(range(len(rungs))), "unstated"


def _notes(fact: str, opinion: str, source: str) -> list[str]:
    """What a reader of the verdict should know of how it came about."""
    found = [
        f"the {name} hold no Chinese text" for name, text in (("facts", fact), ("reasons", opinion)) if _foreign(text)
    ]
    if source == "amount":
        sums = amounts(fact)
        if len(set(sums)) > 1:
            found.append(
                f"the facts name {len(set(sums))} different sums; the largest, {max(sums):,.0f} yuan, is taken"
            )
    elif source == "base":
        found.append("the reasons state no condition; the chain without one and milder ones may be meant")
    elif source == "unstated":
        found.append("neither reasons nor a sum in the facts name a tier; every one may be meant")
    return found


def _foreign(text: str) -> bool:
    return bool(text.strip()) and not re.search("[\u4e00-\u9fff]", text)


def _widened(rungs: Sequence[Sequence[Chain]], k: int, effects: set[Effect], several: bool) -> MonthRange:
    """A tier's range after circumstances: down to 0 for an exemption, into the next lower tier for a reduction."""
    own = rungs[k][0].months
    low, high = own.low, own.high
    if low is not None and high is None and not several:
        high = SINGLE_OFFENCE
    if several:
        low, high = low or 0, None
    if "exempt" in effects:
        low, high = 0, high if high is not None or several else SINGLE_OFFENCE
    elif "reduced" in effects:
        below = rungs[k - 1][0].months if k else None
        low = (below.low or 0) if below else 0
        high = high if high is not None or several else SINGLE_OFFENCE
    return MonthRange(low, high, own.life, own.death)


def _nearest(rung: Sequence[Chain], text: str) -> Chain:
    """The chain of a tier whose premise and situation share most pairs of characters with a text."""
    pairs = {text[i : i + 2] for i in range(len(text) - 1)}

    def shared(chain: Chain) -> float:
        said = chain.premise + chain.situation * states(text, chain)
        own = {said[i : i + 2] for i in range(len(said) - 1)}
        return len(own & pairs) / max(len(own), 1) + states(text, chain)

    return max(rung, key=shared)


def _says(opinion: str, part: str) -> bool:
    forms = {part, *(pattern.sub(form, part) for pattern, form in _TIER_FORMS)}
    for form in forms:
        for found in re.finditer(re.escape(form), opinion):
            if not _DENIED.search(opinion[max(0, found.start() - 10) : found.start()]):
                return True
    return False


def _severity(months: MonthRange) -> tuple[int, int]:
    if months.low is None:
        return 1000, 0
    return months.low, months.high if months.high is not None else 1000


def _row(chain: Chain) -> ChainRow:
    return ChainRow(
        premise=chain.premise,
        situation=chain.situation,
        conclusion=chain.conclusion,
        article=chain.article,
        months=str(chain.months),
    )
