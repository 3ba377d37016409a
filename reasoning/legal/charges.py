"""The charges whose chains travel with the package, and where in the Criminal Law they stand.

Chains are read from `chains.yaml`, which `build` makes from the statutes and a person has checked. A chain carries the
article it rests on. Amount thresholds are those of judicial interpretations, at their lower end where provinces choose.

    python -c "from reasoning.legal.charges import CHARGES; print(*CHARGES)"
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from launch.errors import DataError
from reasoning.legal.chains import Chain
from reasoning.legal.statute import Articles, defined, extract

CHAINS = Path(__file__).with_name("chains.yaml")


@dataclass(frozen=True)
class Charge:
    """Where a charge is punished."""

    article: str
    paragraphs: tuple[int, ...] = ()
    """From 1; all if empty."""
    conduct: str = ""
    """Only premises that hold these words."""
    defined_as: str = ""
    """Its conduct is defined where this name is ("是…罪", "以…论处"), and `article` only sets the penalty."""
    amounts: tuple[int, ...] = ()
    """Yuan from which an amount is 较大, 巨大, 特别巨大 today; older cases were judged by lower ones."""
    named: str = ""
    """Regular expression of the names under which a selective charge is imposed in part."""


CHARGES: dict[str, Charge] = {
    # the twelve of LegalChainReasoner
    "失火罪": Charge("115", (2,), conduct="过失放火"),
    "非法制造、买卖、运输、邮寄、储存枪支、弹药、爆炸物罪": Charge(
        "125", (1,), named="非法(?:制造|买卖|运输|邮寄|储存)[^，。]{0,16}?(?:枪支|弹药|爆炸物)罪"
    ),
    "虚开增值税专用发票、用于骗取出口退税、抵扣税款发票罪": Charge(
        "205", (1,), named="虚开[^，。]{0,24}?发票罪(?<!虚开发票罪)"
    ),
    "假冒注册商标罪": Charge("213"),
    "非法经营罪": Charge("225"),
    "过失致人死亡罪": Charge("233"),
    "抢劫罪": Charge("263"),
    "诈骗罪": Charge("266", amounts=(3_000, 30_000, 500_000)),
    "挪用资金罪": Charge("272", (1,)),
    "非法占用农用地罪": Charge("342"),
    "挪用公款罪": Charge("384"),
    "受贿罪": Charge("383", defined_as="受贿", amounts=(30_000, 200_000, 3_000_000)),
    # JuDGE's most frequent special-part articles
    "交通肇事罪": Charge("133"),
    "危险驾驶罪": Charge("133-1", (1,)),
    "故意伤害罪": Charge("234"),
    "强奸罪": Charge("236"),
    "盗窃罪": Charge("264", amounts=(1_000, 30_000, 300_000)),
    "寻衅滋事罪": Charge("293"),
    "赌博罪": Charge("303", (1,)),
    "开设赌场罪": Charge("303", (2,)),
    "组织参与国（境）外赌博罪": Charge("303", (3,)),
    "走私、贩卖、运输、制造毒品罪": Charge("347", named="(?:走私|贩卖|运输|制造)(?:、?(?:贩卖|运输|制造))*毒品罪"),
    "容留他人吸毒罪": Charge("354"),
}


def build(statutes: Articles) -> dict[str, list[dict[str, str]]]:
    """The chains of all charges from the statutes, as plain rows: what `chains.yaml` holds."""
    rows = {}
    for name, charge in CHARGES.items():
        if charge.defined_as:
            chains = defined(charge.defined_as, charge.article, statutes)
        else:
            chains = extract(charge.article, statutes, charge.paragraphs)
        kept = [c for c in chains if charge.conduct in c.premise]
        rows[name] = [_row(c) for c in kept]
    return rows


def _row(chain: Chain) -> dict[str, str]:
    fields = ("premise", "situation", "conclusion", "article", "source")
    return {field: getattr(chain, field) for field in fields if getattr(chain, field)}


@lru_cache(1)
def _shipped() -> dict[str, tuple[Chain, ...]]:
    import yaml

    rows: dict[str, list[dict[str, Any]]] = yaml.safe_load(CHAINS.read_text(encoding="utf-8"))
    return {name: tuple(Chain(**row) for row in listed) for name, listed in rows.items()}


def charge_name(charge: str) -> str:
    """The name in full: "诈骗" and "诈骗罪" are one.

    Raises:
        DataError: no chains are known for the charge; names the nearest that have some.
    """
    name = charge.strip().replace("(", "（").replace(")", "）")
    for candidate in (name, f"{name}罪"):
        if candidate in CHARGES:
            return candidate
    near = difflib.get_close_matches(f"{name}罪", CHARGES, n=3, cutoff=0.3) or list(CHARGES)[:3]
    raise DataError(f"no legal chains for the charge {charge[:40]!r}; did you mean {' or '.join(near)}?")


def chains_of(charge: str) -> tuple[Chain, ...]:
    """The shipped chains of a charge. Raises DataError for one that has none."""
    return _shipped()[charge_name(charge)]


def all_chains() -> Iterable[Chain]:
    """Every shipped chain."""
    return (chain for chains in _shipped().values() for chain in chains)
