"""Criminal cases with facts, reasons and term, from the two published files: JuDGE and LegalChainReasoner's.

    judge       JuDGE: the reasons run from 本院认为 to 判决如下, the term is the one the operative part imposes
    opinions    LegalChainReasoner: caseCause, justice, opinion, judge

Names of persons are masked at once (`names`). Life, death and cases without a term are left out and counted; cases
whose charge has no chains keep it, with the text of the article they cite as their law.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from launch.errors import DataError
from launch.jsonlines import rows
from reasoning.legal.chains import MONTHS
from reasoning.legal.charges import charge_name
from reasoning.legal.check import find_charge
from reasoning.legal.names import mask_names
from reasoning.legal.official import read_judgment
from reasoning.legal.sentence import read_sentence

Kind = Literal["judge", "opinions"]
SPECIAL_PART = 102
"""Articles from here on say what a crime is and how it is punished."""


@dataclass(frozen=True)
class CourtCase:
    """One case; personal names masked."""

    id: str
    charge: str
    fact: str
    opinion: str
    months: int
    article: str = ""
    """The special-part article that it cites first."""


def read_cases(path: str | Path, kind: Kind, skipped: Counter[str] | None = None) -> list[CourtCase]:
    """The usable cases of a file.

    Args:
        skipped: counts those left out, by why.

    Raises:
        DataError: no such file, a row without the columns of its kind, or no usable case.
    """
    read = {"judge": _judge, "opinions": _opinion}[kind]
    counted: Counter[str] = Counter() if skipped is None else skipped
    found = []
    for number, row in rows(path):
        try:
            found += list(read(row, counted))
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(f"{path}, line {number}: not a case of kind {kind} ({error!r}); set data.kind") from error
    if not found:
        raise DataError(f"{path}: no usable case ({dict(counted)}); give a file of cases with fixed terms")
    return found


def _judge(row: Mapping[str, Any], skipped: Counter[str]) -> Iterator[CourtCase]:
    judgment = read_judgment(row["document"])
    sentence = read_sentence(judgment.decision)
    if sentence is None or sentence.months not in MONTHS:
        skipped["no fixed term"] += 1
        return
    articles = [int(a) for a in row["articles"]]
    article = next((str(a) for a in articles if a >= SPECIAL_PART), "")
    charge = _charge(judgment.reasoning) or next(iter(sorted(judgment.charges)), "") or f"第{article}条"
    yield _case(row["text_id"], charge, row["fact"], judgment.reasoning, sentence.months, article)


def _opinion(row: Mapping[str, Any], skipped: Counter[str]) -> Iterator[CourtCase]:
    if row["opinion"] in ("", "未知"):
        skipped["no opinion"] += 1
    elif int(row["judge"]) not in MONTHS:
        skipped["no fixed term"] += 1
    else:
        charge = charge_name(row["caseCause"])
        yield _case(row["filename"], charge, row["justice"], row["opinion"], int(row["judge"]))


def _case(id: Any, charge: str, fact: str, opinion: str, months: int, article: str = "") -> CourtCase:
    both = mask_names(f"{fact}\f{opinion}")  # a name may follow its role in one of them only
    fact, _, opinion = both.partition("\f")
    return CourtCase(str(id), charge, fact.strip(), opinion.strip(), months, article)


def _charge(reasoning: str) -> str:
    try:
        return find_charge(reasoning)
    except DataError:
        return ""
