"""A case as text: what a model is asked, what it shall write, and how that is read back.

    [law] facts 判决理由：   ->   reasons 判决如下： 判处有期徒刑36个月。

How the law is told (`Law`): "soft" puts a charge's chains in front as soft tokens, "shuffled" those of another charge,
"none" nothing, and "text" lists them as numbered lines and asks for the number of the chain relied on.

    python -c "from reasoning.legal.opinion import read_opinion; print(read_opinion('判决如下：判处有期徒刑9个月。'))"
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from launch.errors import DataError
from reasoning.legal.chains import MONTHS
from reasoning.legal.sentence import DECIDES, REASONS, valid_months
from tasks.encoder import soft

Law = Literal["soft", "shuffled", "none", "text"]
FACT, OPINION = 512, 400
"""Characters that LegalChainReasoner keeps of facts and reasons."""
_CITES = "（依据法律链{number}）"
_CITED = re.compile(r"法律链\s*[\[【]?(\d{1,3})")


@dataclass(frozen=True)
class Form:
    """The fixed text around reasons and sentence."""

    asks: str
    """Ends a prompt."""
    decides: str
    """Stands between reasons and sentence clause."""
    clause: str
    """The sentence clause, with {months}."""

    def sentence(self, months: int) -> str:
        """The clause. Raises DataError for months outside 0 to 300."""
        return self.clause.format(months=valid_months(months))

    def read(self, text: str) -> int | None:
        """Months of the first clause behind the marker, or anywhere if there is no marker; None without one."""
        before, marker, after = text.partition(self.decides)
        pattern = re.escape(self.clause.strip()).replace(re.escape("{months}"), r"(\d{1,3})")
        found = re.search(pattern, after if marker else before)
        return int(found[1]) if found and int(found[1]) in MONTHS else None


COURT = Form(REASONS, DECIDES, "判处有期徒刑{months}个月。")
"""LegalChainReasoner's template."""
WORLD = {
    "en": Form("", " </think>", " <answer> {months} months </answer>"),
    "zh": Form("", "</think>", "<answer>{months}个月</answer>"),
}
"""The cases world's, by language."""


class Opinion(NamedTuple):
    """What a completion says."""

    rationale: str
    months: int | None
    """None: no clause, or one outside 0 to 300."""
    chain: int | None
    """Number of the chain that it says it relies on, from 1."""


def read_opinion(text: str, form: Form = COURT) -> Opinion:
    """Read a completion back. Never raises: what a model wrote may be anything."""
    rationale = text.partition(form.decides)[0]
    cited = _CITED.search(rationale)
    return Opinion(rationale.strip(), form.read(text), int(cited[1]) if cited else None)


def prompt_of(fact: str, law: Law, *, item: str = "", lines: Sequence[str] = (), form: Form = COURT) -> str:
    """What a model is asked.

    Args:
        fact: the facts, cut already.
        law: how the law is told.
        item: the charge whose soft tokens stand in front, for "soft" and "shuffled".
        lines: what is listed, for "text": `Chain.line` of each chain.

    Raises:
        DataError: no facts, or nothing to list.
    """
    fact = fact.replace("<|soft", "")  # text from outside must not name items
    if not fact.strip():
        raise DataError("a case without facts; give the facts as text")
    if law in ("soft", "shuffled"):
        return f"{soft(item)}{fact}{form.asks}"
    if law == "none":
        return f"{fact}{form.asks}"
    if not lines:
        raise DataError("no chains to list; law: text needs a charge that has some (reasoning.legal.charges)")
    listed = "\n".join(f"{k}. {line}" for k, line in enumerate(lines, 1))
    return f"法律链：\n{listed}\n案情：{fact}\n写明依据的法律链编号。\n{form.asks}"


def response_of(opinion: str, months: int, *, chain: int | None = None, form: Form = COURT) -> tuple[str, list[int]]:
    """What a model shall write, and where in it the sentence clause stands: [first, end) in characters."""
    cites = _CITES.format(number=chain) if chain is not None else ""
    before = f"{opinion}{cites}{form.decides}"
    text = before + form.sentence(months)
    return text, [len(before), len(text)]
