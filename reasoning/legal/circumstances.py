"""Circumstances of the general part that move a sentence inside its range (从轻, 从重) or below it (减轻, 免除).

A reduced sentence falls into the next lower range of the charge (Criminal Law, article 63). Each circumstance carries
its article; a test reads the effects back from the statute.

    python -c "from reasoning.legal.circumstances import find; print(find('被告人系从犯，依法减轻处罚'))"
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

Effect = Literal["heavier", "lighter", "reduced", "exempt"]
WORDS: dict[Effect, re.Pattern[str]] = {
    "heavier": re.compile("从重处罚"),
    "lighter": re.compile("从轻(?:处罚|、减轻|或者?减轻|判处)"),
    "reduced": re.compile("减轻(?:处罚|或者?免除|、免除|判处|其处罚)"),
    "exempt": re.compile("免除(?:刑事)?处罚|免予刑事处罚"),
}
"""How a text says that an effect is granted."""
_DENIED = re.compile("不|未|非|无|没有|难以|缺乏")
_DENIED_AFTER = re.compile("[^，。；]{0,8}(?:不能|不予|不)(?:成立|采纳|认定|支持)")


@dataclass(frozen=True)
class Circumstance:
    """One ground, the article that gives it, its possible effects, and the words that state it."""

    name: str
    article: str
    effects: tuple[Effect, ...]
    words: str
    """Regular expression."""


CIRCUMSTANCES = (
    Circumstance(
        "under eighteen", "17", ("lighter", "reduced"), "[未不]满十八周岁的?(?:人|被告人)?犯罪|系未成年人|未成年人犯罪"
    ),
    Circumstance("seventy-five or older", "17-1", ("lighter", "reduced"), "已满七十五周岁"),
    Circumstance("limited capacity", "18", ("lighter", "reduced"), "限制(?:刑事)?责任能力|限定(?:刑事)?责任能力"),
    Circumstance("deaf-mute or blind", "19", ("lighter", "reduced", "exempt"), "又聋又哑|聋哑人|盲人"),
    Circumstance("excessive defence", "20", ("reduced", "exempt"), "防卫过当"),
    Circumstance("excess of necessity", "21", ("reduced", "exempt"), "避险过当"),
    Circumstance("preparation", "22", ("lighter", "reduced", "exempt"), "犯罪预备|预备犯"),
    Circumstance("attempt", "23", ("lighter", "reduced"), "未遂|未得逞"),
    Circumstance("abandonment", "24", ("reduced", "exempt"), "犯罪中止|中止犯"),
    Circumstance("accessory", "27", ("lighter", "reduced", "exempt"), "从犯|起次要作用|起辅助作用|次要或者辅助"),
    Circumstance("coerced", "28", ("reduced", "exempt"), "胁从犯|被胁迫参加犯罪"),
    Circumstance("instigating a minor", "29", ("heavier",), "教唆不满十八周岁"),
    Circumstance("recidivist", "65", ("heavier",), "累犯"),
    Circumstance("surrender", "67", ("lighter", "reduced", "exempt"), "自首|自动投案"),
    Circumstance("confession", "67", ("lighter", "reduced"), "坦白|如实供述"),
    Circumstance("meritorious service", "68", ("lighter", "reduced", "exempt"), "立功"),
    Circumstance("drug recidivist", "356", ("heavier",), "毒品再犯"),
    Circumstance("solicited bribe", "386", ("heavier",), "索贿"),
)


def find(text: str) -> list[Circumstance]:
    """Circumstances that a text states and does not deny."""
    return [c for c in CIRCUMSTANCES if any(_affirmed(text, m) for m in re.finditer(c.words, text))]


def granted(text: str) -> set[Effect]:
    """Effects that a text grants in words; 从轻或者减轻处罚 grants both."""
    return {name for name, words in WORDS.items() if any(_affirmed(text, m) for m in words.finditer(text))}


def allowed(text: str) -> set[Effect]:
    """Effects that a sentence after this text may show: those granted, else those its circumstances could give."""
    said = granted(text)
    if said & {"reduced", "exempt", "lighter"}:
        return said
    return said | {effect for c in find(text) for effect in c.effects}


def _affirmed(text: str, found: re.Match[str]) -> bool:
    before = text[max(0, found.start() - 4) : found.start()].split("，")[-1].split("。")[-1]
    return not _DENIED.search(before) and not _DENIED_AFTER.match(text, found.end())
