"""The sentence that a text passes: months of imprisonment, life or death; and the fixed clause that models write.

python -c "from reasoning.legal.sentence import read_sentence; print(read_sentence('判处有期徒刑三年六个月'))"
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from launch.errors import DataError
from reasoning.legal.chains import DEATH, LIFE, MONTHS
from reasoning.legal.numerals import NUMERAL, number

REASONS, DECIDES = "判决理由：", "判决如下："
"""Markers of the text template: before the rationale, and before the sentence clause."""

_CLAUSE = re.compile(r"判处有期徒刑([0-9]{1,3})个月。")
_COUNT = rf"(?:[0-9０-９]+|{NUMERAL})"
_TERM = re.compile(
    rf"(?P<kind>有期徒刑|拘役|管制)(?=[^，。；]{{0,3}}{_COUNT}个?[年月])[^，。；]{{0,3}}?"
    rf"(?:(?P<years>{_COUNT})年)?零?(?:(?P<months>{_COUNT})个?月)?|(?P<other>无期徒刑|死刑|免[予于]刑事处罚)"
)
_EXECUTED = re.compile("(?:决定|合并|实际|共同)执行")
_IMPOSED = re.compile("判处|执行|判决")
_NOT_THE_TERM = re.compile(r"(?:剥夺|缓刑|考验期|法定|应当?判处|可以判处)[^，。；]{0,6}$")

Kind = Literal["imprisonment", "detention", "control", "life", "death", "exempt"]
_KINDS: dict[str, Kind] = {
    "有期徒刑": "imprisonment",
    "拘役": "detention",
    "管制": "control",
    "无期徒刑": "life",
    "死刑": "death",
}


@dataclass(frozen=True)
class Sentence:
    """What was imposed. `months` is LIFE or DEATH for these, 0 for an exemption."""

    kind: Kind
    months: int
    span: tuple[int, int]
    """Where the term stands in the text."""


def sentence_clause(months: int) -> str:
    """The fixed clause of LegalChainReasoner. Raises DataError for months outside 0 to 300."""
    return f"判处有期徒刑{valid_months(months)}个月。"


def valid_months(months: int, special: bool = False) -> int:
    """`months` if it is a term that may be imposed.

    Args:
        special: LIFE and DEATH are allowed too.

    Raises:
        DataError: it is not.
    """
    if special and months in (LIFE, DEATH):
        return months
    if not isinstance(months, int) or isinstance(months, bool) or months not in MONTHS:
        more = f", {LIFE} for life, {DEATH} for death" if special else ""
        raise DataError(f"a term of {months!r} months: give a whole number from 0 to {MONTHS[-1]}{more}")
    return months


def read_clause(text: str) -> int | None:
    """Months of the first fixed clause, as the published code reads it; None where there is none up to 300."""
    for found in _CLAUSE.finditer(text):
        if int(found[1]) in MONTHS:
            return int(found[1])
    return None


def read_sentence(text: str) -> Sentence | None:
    """The sentence of a judgment's first defendant, in digits or numerals; None if no term is imposed.

    The term executed (决定执行) goes before those of single crimes. Probation and deprivation of rights are no term.
    """
    starts = [m.end() for m in _EXECUTED.finditer(text)] or [m.end() for m in _IMPOSED.finditer(text)] or [0]
    for start in starts:
        for found in _TERM.finditer(text, start):
            if not _NOT_THE_TERM.search(text[max(0, found.start() - 12) : found.start()]):
                return _sentence(found)
    return None


def _sentence(found: re.Match[str]) -> Sentence:
    if found["other"]:
        kind = _KINDS.get(found["other"], "exempt")
        return Sentence(kind, {"life": LIFE, "death": DEATH}.get(kind, 0), found.span())
    months = 12 * number(found["years"] or "0") + number(found["months"] or "0")
    return Sentence(_KINDS[found["kind"]], months, found.span())


def split_completion(text: str) -> tuple[str, str]:
    """Rationale and decision of a model's text, parted at 判决如下 or at the sentence; the decision may be empty."""
    text = text.split(REASONS, 1)[-1]
    before, marker, after = text.partition("判决如下")
    if marker:
        return before.strip(), after.lstrip("：:，, ").strip()
    found = read_sentence(text)
    if found is None:
        return text.strip(), ""
    start = max(text.rfind("判处", 0, found.span[0]), 0) or found.span[0]
    return text[:start].strip(), text[start:].strip()
