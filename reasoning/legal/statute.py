"""Legal chains from the text of a statute, without a model: conduct, tiers, enumerated items, references.

An article is read paragraph by paragraph. "X，T的，处P；U的，处Q" gives the conduct X with the tiers T → P and U → Q.
"有下列情形之一" makes the items tiers, "有下列…行为之一" makes them conduct. "犯前款罪" takes the conduct of the
paragraph before and "依照前款的规定处罚" its tiers; "依照本法第N条的规定定罪处罚" adds a premise to article N.
Conduct and tiers are then split into alternatives (`phrases`). Liability of units (单位犯…) is left out.

What comes out is checked by `faults`: every premise and every part of a situation is made of at most three runs of the
articles it is from, and every conclusion has a range of months. arXiv 2509.00783 lets a model propose triplets; that
prompt was not published, so this is a reconstruction from the shape of the chains that were.

    python -m reasoning.legal.statute criminal_law_articles.jsonl > chains.yaml
"""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from launch.errors import DataError
from launch.jsonlines import rows
from reasoning.legal.chains import BASE, Chain, month_range
from reasoning.legal.numerals import NUMERAL, articles, number
from reasoning.legal.phrases import premises_of, situation_of, split_conduct

Articles = Mapping[str, str]
"""Article number ("263", "133-1") to its text, a paragraph or item a line."""

RUNS = 3
_ITEM = re.compile(rf"^（{NUMERAL}）")
_PENALTY = re.compile(rf"(处(?:{NUMERAL}年|拘役|管制|死刑|无期徒刑).*)$", re.DOTALL)
_LISTED = re.compile(r"有下列([^，]*?)(情形|行为)之一")
_HERE = re.compile(rf"^(.+?)的?，依照(前款|第({NUMERAL})款)的规定(?:定罪)?处罚$")
_THERE = re.compile(r"^(.+?)的?，依照(本法第[^，]+条)的规定(?:定罪)?(?:从重)?处罚$")
_NAMED = re.compile(r"的，是[^，]{1,20}罪$")


class Tier(NamedTuple):
    """One rung: condition (BASE if none) and penalty."""

    situation: str
    conclusion: str


@dataclass(frozen=True)
class Provision:
    """A paragraph: what is punished, and how."""

    premises: tuple[str, ...]
    tiers: tuple[tuple[tuple[str, ...], Tier], ...] = ()
    """Each tier with the premises it holds for."""

    def chains(self, article: str) -> list[Chain]:
        return [Chain(p, t.situation, t.conclusion, article) for premises, t in self.tiers for p in premises]


def load_articles(path: str | Path) -> dict[str, str]:
    """Articles of a JSON-lines file with number, sub (0, or 1 for 之一 …) and text.

    Raises:
        DataError: no such file, or a row without these fields.
    """
    found = {}
    for row, raw in rows(path):
        try:
            key = f"{raw['number']}-{raw['sub']}" if raw["sub"] else str(raw["number"])
            found[key] = str(raw["text"])
        except KeyError as error:
            raise DataError(f"{path}, line {row}: not an object with number, sub and text ({error!r})") from error
    return found


def provisions(text: str) -> list[Provision]:
    """An article's paragraphs in order; one that punishes nothing has no tiers."""
    found: list[Provision] = []
    for main, items in _paragraphs(text):
        found.append(_provision(main, items, found))
    return found


def extract(article: str, statutes: Articles, paragraphs: Sequence[int] = (), references: bool = True) -> list[Chain]:
    """The chains of an article.

    Args:
        paragraphs: those to read, from 1; all if empty.
        references: add premises from other articles that send here.

    Raises:
        DataError: no such article, or no such paragraph.
    """
    if article not in statutes:
        raise DataError(f"article {article!r} is not among the {len(statutes)} given; write it like '263' or '133-1'")
    read = provisions(statutes[article])
    if paragraphs and not set(paragraphs) <= set(range(1, len(read) + 1)):
        raise DataError(f"article {article} has {len(read)} paragraphs, not {max(paragraphs)}")
    chosen = [read[k - 1] for k in paragraphs] if paragraphs else read
    chains = [chain for provision in chosen for chain in provision.chains(article)]
    if references and chains:
        rungs = list(dict.fromkeys(t for provision in chosen for _, t in provision.tiers))
        for source, premise in _referring(article, statutes):
            chains += [Chain(premise, t.situation, t.conclusion, article, source) for t in rungs]
    return by_premise(chains)


def by_premise(chains: Sequence[Chain]) -> list[Chain]:
    """Each chain once, those of one premise together, in the order of their first."""
    order = {premise: k for k, premise in enumerate(dict.fromkeys(c.premise for c in chains))}
    return sorted(dict.fromkeys(chains), key=lambda c: order[c.premise])


def defined(crime: str, penalty: str, statutes: Articles) -> list[Chain]:
    """Chains of a crime that one article defines ("…的，是受贿罪", "以受贿论处") and another punishes (383 for 386).

    Args:
        crime: its name without 罪, e.g. 受贿.
        penalty: the article whose tiers apply; its own crime's name is taken off them.
    """
    pattern = re.compile(rf"^(.+?)的，(?:是{crime}罪|以{crime}论处)$")
    main = provisions(statutes[penalty])[0]
    own = re.compile(r"^贪污(?=数额)")
    rungs = [Tier(own.sub("", t.situation), t.conclusion) for _, t in main.tiers]
    chains = []
    for source, text in statutes.items():
        for sentence in re.split("[。\n]", text):
            if found := pattern.match(sentence):
                for premise in premises_of(found[1]):
                    chains += [Chain(premise, t.situation, t.conclusion, penalty, source) for t in rungs]
    return chains


def faults(chains: Sequence[Chain], statutes: Articles) -> list[str]:
    """What a chain says that its articles do not, one line each; [] if all is well."""
    found = []
    for chain in chains:
        text = "\n".join(statutes.get(a, "") for a in {chain.article, chain.source} if a)
        for part in (chain.premise, *(p for parts in chain.alternatives for p in parts if p != BASE)):
            if runs(part, text) > RUNS:
                found.append(f"article {chain.article}: {part!r} does not stand there")
        if runs(chain.conclusion, text) > 1:
            found.append(f"article {chain.article}: penalty {chain.conclusion!r} does not stand there")
        try:
            month_range(chain.conclusion)
        except DataError as error:
            found.append(f"article {chain.article}: {error}")
    return found


def runs(part: str, text: str) -> int:
    """Fewest pieces of `text` that make `part` when set one after another; more than any limit if none do."""
    best = [0] + [len(part) + RUNS + 1] * len(part)
    for end in range(1, len(part) + 1):
        for start in range(end):
            if part[start:end] in text:
                best[end] = min(best[end], best[start] + 1)
    return best[-1]


# ---------------------------------------------------------------- reading


def _paragraphs(text: str) -> list[tuple[str, list[str]]]:
    """Paragraphs, each with the items that stand under it."""
    found: list[tuple[str, list[str]]] = []
    for line in text.split("\n"):
        line = line.strip()
        if _ITEM.match(line) and found:
            found[-1][1].append(_ITEM.sub("", line))
        elif line:
            found.append((line, []))
    return found


def _clauses(text: str) -> list[str]:
    """What stands between full stops and semicolons, without closing punctuation."""
    return [c.strip().rstrip("：:") for c in re.split("[。；]", text) if c.strip()]


def _provision(main: str, items: Sequence[str], before: Sequence[Provision]) -> Provision:
    if main.startswith("单位犯") or main.startswith("单位有"):
        return Provision(())
    if items and not any(_PENALTY.search(c) for c in _clauses(main)):
        graded = [c for item in items for c in _clauses(item)]  # 分别依照下列规定处罚
        return _punished(graded, (), before, conduct=_conduct_of_grades(main))
    return _punished(_clauses(main), items, before)


def _conduct_of_grades(main: str) -> tuple[str, ...]:
    found = re.match(r"对?犯(.+?)罪的", main)
    return (found[1],) if found else ()


def _punished(
    clauses: Sequence[str], items: Sequence[str], before: Sequence[Provision], conduct: tuple[str, ...] = ()
) -> Provision:
    """Read clauses in order; the first that punishes names the conduct, later ones its tiers."""
    tiers: list[tuple[tuple[str, ...], Tier]] = []
    for clause in clauses:
        if found := _HERE.match(clause):
            target = before[number(found[3]) - 1] if found[3] and number(found[3]) <= len(before) else before[-1:]
            earlier = target if isinstance(target, Provision) else target[0] if target else Provision(())
            tiers += _as_there(found[1], earlier, before)
            continue
        penalty = _PENALTY.search(clause)
        if penalty is None:
            tiers += _equated(clause, tiers, before)
            continue
        condition = _NAMED.sub("", clause[: penalty.start()].rstrip("，"))
        listed = _LISTED.search(condition)
        if listed and items:
            rungs = _itemised(condition, listed, items, conduct, before)
        elif conduct:
            rungs = [(conduct, situation_of(condition, conduct[0]))]
        else:
            rungs = _opening(condition, before)
        if not listed or not conduct:
            conduct = conduct or tuple(dict.fromkeys(p for premises, _ in rungs for p in premises))
        tiers += [(premises, Tier(situation, penalty[1])) for premises, situation in rungs]
    return Provision(conduct or tuple(dict.fromkeys(p for ps, _ in tiers for p in ps)), tuple(tiers))


def _opening(condition: str, before: Sequence[Provision]) -> list[tuple[tuple[str, ...], str]]:
    """The first condition of a paragraph: conduct, and a tier if it names one."""
    known = next((p.premises for p in reversed(before) if p.premises), ())
    if found := re.match(r"^(过失)?犯前款罪(?:的?，)?(.*)$", condition.removesuffix("的")):
        conduct = tuple((found[1] or "") + p for p in known)
        return [(conduct, situation_of(found[2], "") if found[2] else BASE)]
    verbs = _shared_verbs(known)
    if verbs and condition.startswith(verbs):
        return [(known, situation_of(condition, verbs))]
    conduct_text, tier = split_conduct(condition)
    return [(tuple(premises_of(conduct_text)), situation_of(tier, "") if tier else BASE)]


def _shared_verbs(known: Sequence[str]) -> str:
    """ "走私、贩卖、运输、制造" for four premises that end in the same object."""
    if len(known) < 2 or len({p[2:] for p in known}) > 1:
        return ""
    return "、".join(p[:2] for p in known)


def _itemised(
    condition: str, listed: re.Match[str], items: Sequence[str], conduct: tuple[str, ...], before: Sequence[Provision]
) -> list[tuple[tuple[str, ...], str]]:
    """A condition with "有下列…之一": items are tiers of a conduct that stands before, else conduct themselves."""
    head = condition[: listed.start()].rstrip("，")
    tail = condition[listed.end() :].lstrip("，").removesuffix("的").lstrip("，")
    texts = [item.rstrip("。；") for item in items]
    if listed[2] == "情形" and (head or conduct):
        known = next((p.premises for p in reversed(before) if p.premises), ())
        verbs = _shared_verbs(known)
        premises = conduct or (known if verbs and head.startswith(verbs) else tuple(premises_of(head)))
        return [(premises, situation_of(text, _shared_verbs(premises))) for text in texts]
    rungs = []
    own, tier = split_conduct(tail, first=True) if tail else ("", "")
    for text in texts:
        said, condition_of_item = split_conduct(text)
        whole = tuple(premises_of("，".join(filter(None, (head, own, said)))))
        rung = "，".join(filter(None, (condition_of_item, tier)))
        rungs.append((whole, situation_of(rung, "") if rung else BASE))
    return rungs


def _as_there(condition: str, earlier: Provision, before: Sequence[Provision]) -> list[tuple[tuple[str, ...], Tier]]:
    """ "…的，依照前款的规定处罚": the tiers of an earlier paragraph, the first under this paragraph's own condition."""
    if condition.startswith("单位犯") or not earlier.tiers:
        return []
    (premises, situation), *_ = _opening(condition, before)
    rungs = list(dict.fromkeys(t for _, t in earlier.tiers))
    if situation != BASE:
        rungs[0] = Tier(situation, rungs[0].conclusion)
    return [(premises, rung) for rung in rungs]


def _equated(
    clause: str, tiers: Sequence[tuple[tuple[str, ...], Tier]], before: Sequence[Provision]
) -> list[tuple[tuple[str, ...], Tier]]:
    """ "…的，以强奸论，从重处罚": the first tier of the paragraph before."""
    found = re.match(r"^(.+?)的，以[^，]{2,8}论，从重处罚$", clause)
    if not found or tiers or not before or not before[-1].tiers:
        return []
    return [((found[1],), before[-1].tiers[0][1])]


def _referring(article: str, statutes: Articles) -> list[tuple[str, str]]:
    """(source, premise) of every sentence elsewhere that sends to this article alone."""
    found = []
    for source, text in statutes.items():
        if source == article:
            continue
        for sentence in re.split("[。\n]", text):  # what follows a semicolon depends on what stands before it
            match = _THERE.match(sentence.split("；")[0])
            if not match or articles(match[2]) != [article]:
                continue
            if not match[1].startswith("对犯") and "，对" not in match[1]:  # 对首要分子: not whoever acts, but some
                found += [(source, premise) for premise in premises_of(match[1])]
    return found


# ---------------------------------------------------------------- shipping


def main(path: str) -> None:
    """Print the chains of all charges as YAML."""
    import yaml

    from reasoning.legal.charges import build

    yaml.safe_dump(build(load_articles(path)), sys.stdout, allow_unicode=True, sort_keys=False, width=1000)


if __name__ == "__main__":
    main(sys.argv[1])
