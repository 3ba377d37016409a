"""How a statute's sentence is cut: conduct from condition, conduct into alternatives, condition into OR and AND.

Every rule is a form of Chinese statutory drafting, with its example. What fits no rule stays whole, so that nothing is
said that the statute does not say.

    python -c "from reasoning.legal.phrases import premises_of; print(premises_of('走私、贩卖、运输、制造毒品'))"
"""

from __future__ import annotations

import re

from reasoning.legal.chains import AND, BASE, OR

_DEGREE = "(?:较|巨大|特别|严重|恶劣|大$|累计)"
_TIER = re.compile(
    rf"^(?:但|虽)?(?:[^，]{{0,8}}?(?:数额|数量|情节|金额|后果){_DEGREE}"
    r"|致人|致使|造成|使公私|尚未造成|严重|多次|超过|扰乱|破坏|危害公共|危及|进行(?!信用卡)|因逃逸|虽未)"
)
_EMBEDDED = re.compile(r"^(.{4,}?)(致人重伤、死亡.*)$")
_MEANS = re.compile(r"^以(?P<means>[^，]+?)或者(?P<other>其他(?:方法|手段))(?P<rest>.+)$")
_BODILY = re.compile(r"^(.*?致(?:人|使被害人))重伤、死亡(.*)$")
_WITH_AMOUNT = re.compile(r"^(.*数额较大)、(.+)$")
_KEPT_WHOLE = {
    "海洛因或者甲基苯丙胺": "海洛因/甲基苯丙胺",  # two names of one quantity
    "强奸妇女、奸淫幼女": "强奸妇女/奸淫幼女",  # one conduct, repeated in the items of article 236
}
"""Phrases in which no alternative begins."""
_TAKING = re.compile(r"^(.*(?:骗取|盗窃|出售|购买|收受))(.+)$")
_PREFIXES = ("非法", "擅自", "")


def split_conduct(condition: str, first: bool = False) -> tuple[str, str]:
    """Conduct and condition: ("诈骗公私财物", "数额较大") of 诈骗公私财物，数额较大的.

    Args:
        first: the condition may begin at once, with no conduct before it.
    """
    parts = condition.removesuffix("的").split("，")
    for k, part in enumerate(parts):
        if (k or first) and _TIER.match(part):
            return "，".join(parts[:k]).removesuffix("的"), "，".join(parts[k:])
    if len(parts) == 1 and (found := _EMBEDDED.match(parts[0])):
        return found[1], found[2]
    return condition.removesuffix("的"), ""


def premises_of(conduct: str) -> list[str]:
    """The alternatives of a conduct, each a phrase of its own."""
    first, *others = re.split("的，或者", conduct)
    if others:  # 国家工作人员利用职务上的便利，索取他人财物的，或者非法收受他人财物，为他人谋取利益
        shared = "".join(f"{part}，" for part in first.split("，")[:-1])
        return [first, *(shared + other for other in others)]
    *before, last = conduct.split("，")
    shared = "".join(f"{part}，" for part in before)
    return [shared + alternative for alternative in _alternatives(last)]


def _alternatives(text: str) -> list[str]:
    if found := _MEANS.match(text):  # 以暴力、胁迫或者其他方法抢劫公私财物
        return [f"以{means}{found['rest']}" for means in (*found["means"].split("、"), found["other"])]
    if "以及" in text and "或者以其他" in text:  # 放火、决水、爆炸以及投放…等物质或者以其他危险方法
        listed, rest = text.split("以及", 1)
        thrown, other = rest.split("或者", 1)
        return [*listed.split("、"), thrown, other]
    if verbs := _verbs(text):
        return verbs
    if text.count("或者") == 1:
        left, right = text.split("或者")
        if right[:2] == left[:2] or (right.startswith("以") and right.endswith("为业")):
            return [left, right]  # 虚开增值税专用发票或者虚开…; 聚众赌博或者以赌博为业
        if left[-2:] == right[-2:] and (taken := _TAKING.match(left)):
            return [left, taken[1] + right]  # 骗取增值税专用发票或者可以用于…的其他发票
    return [text]


def _verbs(text: str) -> list[str]:
    """非法制造、买卖、运输枪支、弹药 has three verbs of two characters, and the rest is their object."""
    prefix = next(p for p in _PREFIXES if text.startswith(p))
    items = text[len(prefix) :].split("、")
    count = next((k for k, item in enumerate(items) if len(item) != 2), len(items))
    if count == 0 or count == len(items):
        return []
    last, rest = items[count][:2], items[count][2:]
    if rest.startswith(("以及", "或者", "和", "他人")) or last.startswith("为"):
        return []
    target = "、".join([rest, *items[count + 1 :]])
    return [prefix + verb + target for verb in (*items[:count], last)]


def situation_of(condition: str, conduct: str) -> str:
    """A condition as alternatives of parts, joined by " OR " and " AND "; BASE for an empty one.

    Args:
        conduct: words that the condition may repeat at its beginning and that are taken off.
    """
    text = condition.removesuffix("的").removeprefix(conduct).lstrip("，")
    if not text:
        return BASE
    for phrase, kept in _KEPT_WHOLE.items():
        text = text.replace(phrase, kept)
    alternatives = []
    for full in re.split("的，或者", text):  # each a condition of its own
        first, *others = full.split("，或者")
        parts = first.split("，")
        alternatives += _joined(parts)
        for other in others:  # shares what stands before the last comma
            alternatives += _joined([*parts[:-1], *other.split("，")] if len(parts) > 1 else other.split("，"))
    joined = OR.join(dict.fromkeys(alternatives))
    for phrase, kept in _KEPT_WHOLE.items():
        joined = joined.replace(kept, phrase)
    return joined


def _joined(parts: list[str]) -> list[str]:
    """Alternatives of one conjunction: a lone part is split at 或者 and 、, several are joined by AND."""
    parts = [re.sub("^(?:但|并(?=使))", "", part.removesuffix("的")) for part in parts]
    parts = [piece for part in parts for piece in _conjuncts(part)]
    if len(parts) > 1:
        return [AND.join(parts)]
    found = []
    for piece in parts[0].split("或者"):
        piece = re.sub("^有(?=其他)", "", piece)
        if bodily := _BODILY.match(piece):  # 致人重伤、死亡
            found += [f"{bodily[1]}重伤", f"{bodily[1]}死亡{bodily[2]}"]
        elif len({item[-1:] for item in piece.split("、")}) == 1:  # 多次盗窃、入户盗窃、扒窃
            found += piece.split("、")
        else:
            found.append(piece)
    return found


def _conjuncts(part: str) -> list[str]:
    """数额较大、超过三个月未还 must hold together."""
    found = _WITH_AMOUNT.match(part)
    return [found[1], found[2]] if found else [part]
