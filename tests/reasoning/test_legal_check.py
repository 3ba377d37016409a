"""Reasons against sentence: what is consistent, what is not, what it rests on, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from launch.errors import DataError
from launch.jsonlines import rows
from reasoning.legal import check_opinion, consistency, legal_chains
from reasoning.legal.chains import DEATH, LIFE
from reasoning.legal.check import find_charge
from reasoning.legal.circumstances import allowed, find, granted

HUGE = "本院认为，被告人以非法占有为目的，骗取他人财物，数额特别巨大，其行为已构成诈骗罪。"


def test_legal_acceptance_8_flags_a_term_below_its_tier() -> None:
    found = check_opinion("", HUGE, 24)
    assert not found["consistent"] and found["range"] == "120-180 months, life"
    assert found["tier_from"] == "opinion" and found["citations"] == ["266"]
    assert check_opinion("", HUGE, 132)["consistent"] and check_opinion("", HUGE, LIFE)["consistent"]
    assert not check_opinion("", HUGE, DEATH)["consistent"]


@pytest.mark.data
def test_legal_acceptance_8_gold_fraud_cases(data_dir: Path) -> None:
    """Gold cases pass; the same reasons with the term of another case often do not."""
    cases = [row for _, row in rows(data_dir / "legal/court_opinions/laic_test.jsonl.gz")]
    fraud = [row for row in cases if row["caseCause"] == "诈骗罪" and row["opinion"] != "未知"]
    terms = [int(row["judge"]) for row in fraud]

    def rate(shift: int) -> float:
        shifted = terms[shift:] + terms[:shift]
        checks = [consistency(r["justice"], r["opinion"], m) for r, m in zip(fraud, shifted, strict=True)]
        return sum(checks) / len(checks)

    assert rate(0) >= 0.9
    assert max(rate(shift) for shift in (7, 20, 41, 63)) < 0.75


def test_mitigation_reaches_the_next_lower_tier() -> None:
    """Article 63: one tier down, not to the bottom; an exemption goes to 0; a lighter sentence stays inside."""
    reduced = check_opinion("", HUGE + "被告人系从犯，依法减轻处罚。", 48)
    assert reduced["consistent"] and reduced["range"] == "36-180 months, life"
    assert reduced["circumstances"] == ["accessory"] and reduced["citations"] == ["266", "27", "63"]
    assert not check_opinion("", HUGE + "被告人系从犯，依法减轻处罚。", 24)["consistent"]
    assert not check_opinion("", HUGE + "被告人如实供述，依法从轻处罚。", 100)["consistent"]
    assert check_opinion("", HUGE + "系从犯，可免除处罚。", 0)["consistent"]


def test_where_the_tier_comes_from() -> None:
    plain = "本院认为，被告人的行为构成诈骗罪。"
    by_amount = check_opinion("骗取人民币五万元", plain, 48)
    assert by_amount["tier_from"] == "amount" and by_amount["range"] == "36-120 months"
    assert check_opinion("骗取人民币五万元", plain + "数额较大。", 48)["tier_from"] == "opinion"
    nothing = check_opinion("He cheated people.", plain, 48)
    assert nothing["tier_from"] == "unstated" and nothing["consistent"]
    base = check_opinion("", "其行为已构成抢劫罪。", 60)
    assert base["tier_from"] == "base" and base["range"] == "36-120 months"
    assert not check_opinion("", "入户抢劫，其行为已构成抢劫罪。", 60)["consistent"]
    assert check_opinion("", "不属于入户抢劫，其行为已构成抢劫罪。", 60)["consistent"]


def test_the_chain_that_was_matched() -> None:
    found = check_opinion("被告人持刀威胁，以暴力抢走财物", "被告人以暴力入户抢劫，构成抢劫罪", 130)["matched_chains"]
    assert [(c["premise"], c["situation"], c["article"]) for c in found] == [("以暴力抢劫公私财物", "入户抢劫", "263")]
    assert legal_chains("诈骗")[0] == {
        "premise": "诈骗公私财物",
        "situation": "数额较大",
        "conclusion": "处三年以下有期徒刑、拘役或者管制，并处或者单处罚金",
        "article": "266",
        "months": "0-36 months",
    }


def test_several_crimes_reach_above_fifteen_years() -> None:
    assert not check_opinion("", HUGE, 200)["consistent"]
    assert check_opinion("", HUGE + "依法数罪并罚。", 200)["consistent"]


@pytest.mark.parametrize(
    ("opinion", "charge"),
    [
        ("其行为构成非法买卖枪支、弹药罪。", "非法制造、买卖、运输、邮寄、储存枪支、弹药、爆炸物罪"),
        ("其行为构成贩卖、运输毒品罪。", "走私、贩卖、运输、制造毒品罪"),
        ("其行为已构成虚开增值税专用发票罪。", "虚开增值税专用发票、用于骗取出口退税、抵扣税款发票罪"),
        ("犯合同诈骗罪；犯盗窃罪。", "盗窃罪"),
    ],
)
def test_charges_named_in_part(opinion: str, charge: str) -> None:
    assert find_charge(opinion) == charge


def test_circumstances_denied_are_none() -> None:
    assert [c.name for c in find("系自首，且有立功表现")] == ["surrender", "meritorious service"]
    assert find("不构成自首") == [] and find("辩称自首的意见不予采纳") == []
    assert granted("依法从轻或者减轻处罚") == {"lighter", "reduced"}
    assert granted("不予减轻处罚") == set()
    assert allowed("系从犯") == {"lighter", "reduced", "exempt"} and allowed("系从犯，从轻处罚") == {"lighter"}


def test_what_cannot_be_checked_is_refused() -> None:
    with pytest.raises(DataError, match="no legal chains for the charge '放火罪'"):
        check_opinion("", "", 12, "放火罪")
    with pytest.raises(DataError, match="names no charge with chains"):
        check_opinion("", "The defendant is guilty.", 12)
    with pytest.raises(DataError, match="a term of 301 months"):
        check_opinion("", HUGE, 301)
    assert consistency("", "no charge here", 12) == 0 == consistency("", HUGE, None)


def test_very_long_facts() -> None:
    found = check_opinion("骗取人民币五万元。" * 12_000, "其行为构成诈骗罪。", 48)
    assert found["range"] == "36-120 months"
