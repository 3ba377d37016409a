"""Rewards and tools for opinions: what each part pays, what is refused, what is stated where a rule decided."""

from __future__ import annotations

from pathlib import Path

import pytest

from launch.errors import ConfigError, DataError
from launch.tools import ToolSpec, available
from reasoning.legal.chains import DEATH, LIFE
from reasoning.legal.opinion import COURT, response_of
from reasoning.legal.reward import VERDICTS, Weights, form_of, legal_reward, legal_rewards, world_reward
from reasoning.legal.tools import check_opinion, legal_chains
from tasks.worlds.cases import CasesWorld

HUGE = "骗取他人财物，数额巨大，其行为已构成诈骗罪。"


def completion(opinion: str, months: int, chain: int | None = None) -> str:
    return response_of(opinion, months, chain=chain)[0]


def test_rewards_by_hand() -> None:
    """数额巨大 is 36 to 120 months. Right: .1 + 1 + .5. 48 for 36: ln(49/37) = .281, term .8. 24: outside, ln(37/25) =
    .392, term .8. Chain 2 of fraud has the tier's penalty: .25 more; chain 1 has not.
    """
    cases = {
        completion(HUGE, 36): (1.6, "ok"),
        completion(HUGE, 36, 2): (1.85, "ok"),
        completion(HUGE, 36, 1): (1.6, "ok"),
        completion(HUGE, 36, 99): (1.6, "ok"),
        completion(HUGE, 48): (1.4, "ok"),
        completion(HUGE, 24): (0.9, "inconsistent"),
        completion("其行为已构成诈骗罪。", 36): (1.1, "unstated"),
        HUGE: (0, "no_marker"),
        "判决如下：判处有期徒刑36个月。": (0, "no_marker"),
        HUGE + "判决如下：判处有期徒刑三年。": (0, "no_clause"),
        HUGE + "判决如下：判处有期徒刑301个月。": (0, "no_clause"),
        completion(HUGE, 36) + "罚金。": (0, "outside"),
        completion(HUGE, 36) + "判处有期徒刑24个月。": (0, "outside"),
        "": (0, "no_marker"),
    }
    for text, (total, verdict) in cases.items():
        found = legal_reward(text, "", "诈骗罪", 36)
        assert (round(found["total"], 6), found["verdict"]) == (total, verdict), text
        assert verdict in VERDICTS


def test_the_tier_may_come_from_a_sum_in_the_facts() -> None:
    plain = completion("其行为已构成诈骗罪。", 36)
    assert legal_reward(plain, "骗取人民币五万元。", "诈骗", 36)["verdict"] == "ok"
    assert legal_reward(plain, "骗取人民币五千元。", "诈骗", 36)["verdict"] == "ok"  # 0-36 months
    assert legal_reward(completion("构成诈骗罪。", 40), "骗取人民币五千元。", "诈骗", 36)["verdict"] == "inconsistent"


def test_a_life_sentence_is_met_by_no_number_of_months() -> None:
    assert legal_reward(completion(HUGE, 180), "", "诈骗罪", LIFE)["term"] == 0
    assert legal_reward(completion(HUGE, 180), "", "诈骗罪", DEATH)["term"] == 0


def test_chat_turns_and_nonsense_are_read() -> None:
    text = completion(HUGE, 36)
    assert legal_reward([{"role": "assistant", "content": text}], "", "诈骗罪", 36)["total"] == 1.6
    for odd in (None, 7, [], [{}], [{"content": None}], "\x00" * 50, "判决如下：" * 1000):
        assert legal_reward(odd, "", "诈骗罪", 36)["total"] == 0


def test_a_batch_logs_parts_and_verdicts() -> None:
    logged: dict[str, float] = {}
    texts = [completion(HUGE, 36), HUGE]
    rewards = legal_rewards(
        ["p", "p"], texts, ["", ""], ["诈骗罪"] * 2, [36, 36], log_metric=lambda k, v: logged.update({k: v})
    )
    assert rewards == [1.6, 0.0]
    assert logged["legal/total"] == 0.8 and logged["legal/verdict_ok"] == logged["legal/verdict_no_marker"] == 0.5
    assert {k for k in logged if "verdict" in k} == {f"legal/verdict_{v}" for v in VERDICTS}
    with pytest.raises(DataError, match="2 completions, 1 facts"):
        legal_rewards(["p"] * 2, texts, [""], ["诈骗罪"] * 2, [36, 36])
    with pytest.raises(DataError, match="no legal chains for the charge '放火罪'"):
        legal_reward(texts[0], "", "放火罪", 36)
    with pytest.raises(ConfigError, match="term -1: weights are 0 or more"):
        Weights(term=-1)


@pytest.mark.parametrize("language", ["en", "zh"])
def test_the_worlds_reward_ranks_its_types(language: str) -> None:
    """Right answers get all; wrong terms that are true to their reasons more than contradictions; no form nothing."""
    world = CasesWorld(language, test=60)
    for prompt in world.prompts("test"):
        right, lawful, unlawful, contradictory, malformed = (
            world_reward(text, prompt, world)["total"] for text in world.examples(prompt)
        )
        assert right == pytest.approx(1.6) and malformed == 0
        assert min(lawful, unlawful) >= 0.6 - 1e-9 and contradictory < right
    rewards = legal_rewards([prompt], world.examples(prompt)[:1], [prompt], ["x"], [0], world=world)
    assert rewards == [pytest.approx(1.6)]


def test_forms() -> None:
    assert form_of(completion(HUGE, 0)) == form_of(completion(HUGE, 300)) == "ok"
    assert form_of(COURT.decides + COURT.sentence(3), whole=False) == "ok"


# ---------------------------------------------------------------- tools


def test_the_tools_are_installed_and_say_what_they_rest_on() -> None:
    known = available()
    for function in (check_opinion, legal_chains):
        assert known[function.__name__].target == f"reasoning.legal.tools:{function.__name__}"
        assert ToolSpec.of(function).unit
    rows = legal_chains("诈骗")
    assert len(rows) == 9 and {row["article"] for row in rows} == {"266"}
    found = check_opinion("", HUGE, 36)
    assert found["consistent"] and found["citations"] == ["266"] and found["notes"] == []


@pytest.mark.parametrize(
    ("fact", "opinion", "note"),
    [
        ("He took 50,000 yuan.", "其行为已构成诈骗罪。", "the facts hold no Chinese text"),
        ("没有数额。", "其行为已构成诈骗罪。", "neither reasons nor a sum in the facts name a tier"),
        ("骗取五千元，又称五万元。", "其行为已构成诈骗罪。", "2 different sums; the largest, 50,000 yuan, is taken"),
        ("抢走手机。", "其行为已构成抢劫罪。", "the reasons state no condition"),
        ("案情。" * 34_000, HUGE, None),
    ],
    ids=["other language", "no amount", "contradictory amounts", "no condition", "100,000 characters"],
)
def test_bad_facts_get_a_stated_fall_back(fact: str, opinion: str, note: str | None) -> None:
    notes = check_opinion(fact, opinion, 36)["notes"]
    assert notes == [] if note is None else any(note in line for line in notes)


@pytest.mark.parametrize("months", [-3, 301, 10**9])
def test_terms_outside_0_to_300_are_refused(months: int) -> None:
    with pytest.raises(DataError, match=rf"a term of {months} months: give a whole number from 0 to 300"):
        check_opinion("", HUGE, months)
    assert (
        check_opinion("", HUGE, LIFE)["consistent"] is False and check_opinion("", HUGE, DEATH)["consistent"] is False
    )


def test_a_charge_without_chains_names_the_nearest() -> None:
    with pytest.raises(DataError, match="no legal chains for the charge '合同诈骗罪'; did you mean 诈骗罪"):
        legal_chains("合同诈骗罪")
    with pytest.raises(DataError, match="no legal chains for the charge 'fraud'"):
        check_opinion("", HUGE, 36, "fraud")


def test_tools_work_on_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from launch import cli

    assert cli.main(["tools", "call", "legal_chains", "charge=诈骗", "--data", str(tmp_path)]) == 0
    assert "266" in capsys.readouterr().out
