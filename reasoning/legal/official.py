"""How LawBench and JuDGE read a text, so that their published scores can be repeated.

LawBench takes the first number before 个月 or 月, else the first before 年 times 12 ("3年6个月" is 6 to it). JuDGE adds
up the distinct terms, and the distinct fines, that stand in a judgment's operative part. Both are written anew from
what the official scripts do; numerals are read by `numerals`, not by the packages that those use.

    python -c "from reasoning.legal.official import lawbench_term; print(lawbench_term('[刑期]十二个月<eoa>'))"
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from launch.errors import DataError
from reasoning.legal.chains import DEATH
from reasoning.legal.metrics import LIFE_MONTHS, judge_score, set_f1
from reasoning.legal.numerals import LARGE_NUMERAL, articles, number

# ---------------------------------------------------------------- LawBench


def lawbench_term(text: str) -> int | None:
    """Months that LawBench reads in an answer to 3-4 or 3-5; None is an abstention."""
    digits = _in_digits(text)
    months = re.findall(r"(\d+)个月", digits) + re.findall(r"(\d+)月", digits)
    if months:
        return int(months[0])
    years = re.findall(r"(\d+)年", digits)
    return 12 * int(years[0]) if years else None


def lawbench_articles(text: str) -> list[int]:
    """Articles that LawBench reads in an answer to 3-1: the first number of each piece between 、."""
    found = []
    for piece in text.split("、"):
        kept = re.sub("第(.*?)条", r"\1", re.sub("第(.*?)款", "", piece.replace("万元", "元")))
        if numbers := re.findall(r"\d+", _in_digits(kept)):
            found.append(int(numbers[0]))
    return found


def lawbench_f1(true: Sequence[int | str], predicted: Sequence[int | str]) -> float:
    """F1 of one answer to 3-1 or 3-3."""
    return set_f1(true, predicted)[2]


def named_charges(text: str, names: Sequence[str]) -> list[str]:
    """The charges whose name stands in a text, as LawBench 3-3 looks for them (盗窃 in 盗窃、侮辱尸体 too)."""
    return [name for name in names if name in text]


def _in_digits(text: str) -> str:
    return re.sub(LARGE_NUMERAL, lambda m: str(number(m[0])), text)


# ---------------------------------------------------------------- JuDGE


class Judgment(NamedTuple):
    """What JuDGE compares of a document. `term` and `fine` are None where the document has none."""

    reasoning: str
    """From 本院认为 to 判决如下."""
    decision: str
    """The operative part, to the notice of appeal."""
    charges: frozenset[str]
    articles: frozenset[str]
    """Of the Criminal Law, without their paragraphs: "133" for 133-1 too."""
    term: int | None
    """Months; life is 240, death is DEATH."""
    fine: int | None
    """Yuan."""


_DECIDED = re.compile("判决如下[：:，,\n]?|裁定如下[：:，,\n]?")
_APPEAL = re.compile(
    r"如[\u4e00-\u9fff]{0,3}不服本判决|本判决为终审判决|附[\u4e00-\u9fff]{0,10}法律|\n\s*(?:代理)?审\s*判"
)
_CHARGE = re.compile(r"犯(?:有)?([^，。；：（）\s]{2,30}?罪)(?!行)")
_CITED = re.compile(r"《(?:中华人民共和国)?刑法》[^。《]*?(?=[。《判附规]|$)")
_LIMITED = re.compile(
    "(?:有期徒刑|拘役|管制)[^,;，。！？、；：（以缓至]{1,7}?[年月](?:零?[^,;，。！？、；：（以缓至年月]{1,3}月)?"
)
_FINE = re.compile(r"罚金([^，。！？、；：以已至（]{1,15}?)元")


def read_judgment(document: str) -> Judgment:
    """Part a judgment and read charges, articles, term and fine from the parts."""
    after_facts = document.find("本院认为")
    body = document[after_facts:] if after_facts >= 0 else document
    parted = _DECIDED.search(body)
    reasoning, rest = (body[: parted.start()], body[parted.end() :]) if parted else (body, body)
    end = _APPEAL.search(rest)
    decision = rest[: end.start()] if end else rest
    cited = _CITED.findall(reasoning) or _CITED.findall(document)
    return Judgment(
        reasoning.strip(),
        decision.strip(),
        frozenset(_CHARGE.findall(decision) or _CHARGE.findall(reasoning)),
        frozenset(a.split("-")[0] for passage in cited for a in articles(passage)),
        _summed_term(decision) if _TERMS.search(decision) else _summed_term(document),
        _summed_fine(decision) if _FINE.search(decision) else _summed_fine(document),
    )


_TERMS = re.compile(f"{_LIMITED.pattern}|无期徒刑|死刑|无罪|免[予于]刑事处[罚分]")


def _summed_term(text: str) -> int | None:
    strings = set(_TERMS.findall(text))
    if not strings:
        return None
    if "死刑" in strings:
        return DEATH
    total = LIFE_MONTHS if "无期徒刑" in strings else 0
    for string in strings:
        digits = _in_digits(string)
        years, months = re.search(r"(\d+)年", digits), re.search(r"(\d+)个?月", digits)
        total += 12 * int(years[1]) if years else 0
        total += int(months[1]) if months else 0
    return total


def _summed_fine(text: str) -> int | None:
    fines = set(_FINE.findall(text))
    if not fines:
        return None
    total = 0
    for fine in fines:
        digits = re.search(rf"\d[\d,]*|{LARGE_NUMERAL}", fine)
        if digits:
            value = number(digits[0].replace(",", ""))
            total += value * (10_000 if digits[0][-1].isdigit() and "万" in fine else 1)
    return total


def judge_scores(true: Sequence[str], written: Sequence[str]) -> dict[str, float]:
    """JuDGE's scores of written documents against true ones: term and fine, charge and article P, R and F1.

    F1 is that of the mean precision and the mean recall, as the official script takes it.

    Raises:
        DataError: no document, or lists of unequal length.
    """
    if not true or len(true) != len(written):
        raise DataError(f"{len(true)} true and {len(written)} written documents: give one for each case")
    pairs = [(read_judgment(t), read_judgment(w)) for t, w in zip(true, written, strict=True)]
    scores: dict[str, float] = {}
    for name in ("term", "fine"):
        values = [judge_score(getattr(t, name), getattr(w, name)) for t, w in pairs]
        kept = [v for v in values if v is not None]
        scores[name] = float(np.mean(kept)) if kept else 0.0
    for name in ("charges", "articles"):
        sets = [set_f1(sorted(getattr(t, name)), sorted(getattr(w, name))) for t, w in pairs]
        precision, recall = (float(np.mean([s[k] for s in sets])) for k in (0, 1))
        scores |= {f"{name}_precision": precision, f"{name}_recall": recall}
        scores[f"{name}_f1"] = 2 * precision * recall / (precision + recall) if precision + recall else 0.0
    return scores
