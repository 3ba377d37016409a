"""Verifiable rewards for opinions: form, term, and whether reasons and sentence agree with each other and the statute.

    R = w_f + w_t cail(term) + w_c consistent + w_q cited          defaults 0.1, 1.0, 0.5, 0.25; R = 0 without the form

- form: one marker, one sentence clause behind it, nothing after the clause.
- cail: CAIL2018's score of the term against the court's (`metrics.cail_score`).
- consistent: the verdict of `check_opinion`. It counts only where the reasons, or a sum in the facts, name the tier:
  reasons that name nothing are consistent with everything, and would be learnt at once.
- cited: the number of a chain that the reasons cite is that of a matched tier; for prompts that list chains.

In the embedded world consistent and the term are those of `CasesWorld.describe`. No reward makes a sentence just: it says
that text agrees with text.

    python -c "from reasoning.legal.reward import legal_reward as r; print(r('数额巨大，构成诈骗罪。判决如下：判处有期徒刑48个月。', '', '诈骗罪', 36))"
"""  # noqa: E501

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypedDict

from launch.errors import ConfigError, DataError
from reasoning.legal.charges import chains_of
from reasoning.legal.check import Check, check_opinion
from reasoning.legal.metrics import cail_score
from reasoning.legal.opinion import COURT, WORLD, Form, Opinion, read_opinion
from tasks.worlds.cases import CasesWorld

VERDICTS = ("ok", "no_marker", "no_clause", "outside", "unstated", "inconsistent")
"""What `Parts` may say in `verdict`: the fault of form, or what became of consistency."""


@dataclass(frozen=True)
class Weights:
    """Of the parts. Keep `term` dominant, or a model learns to be vague and consistent."""

    form: float = 0.1
    term: float = 1.0
    consistent: float = 0.5
    cited: float = 0.25

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if value < 0:
                raise ConfigError(f"{name} {value}: weights are 0 or more", name)


DEFAULT = Weights()


class Parts(TypedDict):
    """What a reward is made of; the others are floats."""

    total: float
    form: float
    term: float
    consistent: float
    cited: float
    verdict: str


def legal_reward(completion: object, fact: str, charge: str, months: int, weights: Weights = DEFAULT) -> Parts:
    """The reward of one completion. Never raises for whatever a model wrote.

    Args:
        completion: text, or chat messages whose last turn is the opinion.
        fact: the facts.
        charge: its name; the chains must be known.
        months: the court's term; LIFE and DEATH are terms too.

    Raises:
        DataError: no chains are known for the charge.
    """
    chains = chains_of(charge)
    text = _text(completion)
    verdict = form_of(text)
    if verdict != "ok":
        return _parts(verdict)
    said = read_opinion(text)
    assert said.months is not None
    check = check_opinion(fact, said.rationale, said.months, charge)
    verdict = "unstated" if check["tier_from"] == "unstated" else "ok" if check["consistent"] else "inconsistent"
    term = cail_score(months, said.months)
    return _parts(verdict, term, float(verdict == "ok"), _cited(said, check, [c.conclusion for c in chains]), weights)


def world_reward(completion: object, prompt: str, world: CasesWorld, weights: Weights = DEFAULT) -> Parts:
    """The same of an answer in the embedded world."""
    text = _text(completion)
    found = world.describe(prompt, text)
    if found["malformed"]:
        return _parts(form_of(text, WORLD[world.language], whole=False))
    verdict = "ok" if found["consistent"] else "inconsistent"
    return _parts(verdict, cail_score(found["true"], found["months"]), float(found["consistent"]), 0.0, weights)


def form_of(text: str, form: Form = COURT, whole: bool = True) -> str:
    """ "ok", or the fault of form."""
    before, marker, after = text.partition(form.decides)
    if not marker or (whole and not before.strip()):
        return "no_marker"
    months = form.read(text)
    if months is None:
        return "no_clause"
    return "ok" if after.strip() == form.sentence(months).strip() else "outside"


def legal_rewards(
    prompts: Sequence[Any],
    completions: Sequence[Any],
    fact: Sequence[str],
    charge: Sequence[str],
    months: Sequence[int],
    *,
    world: CasesWorld | None = None,
    weights: Weights = DEFAULT,
    log_metric: Callable[[str, float], None] | None = None,
    log_extra: Callable[[str, list[Any]], None] | None = None,
    **columns: Any,
) -> list[float]:
    """`legal_reward` over a batch, as a reward function of TRL. With `world`, `world_reward` of `fact`, its prompt.

    Means of the parts and the share of each verdict go to TRL's metrics as ``legal/...``.

    Raises:
        DataError: columns of unequal length, or a charge without chains.
    """
    if not len(completions) == len(fact) == len(charge) == len(months):
        raise DataError(f"{len(completions)} completions, {len(fact)} facts; give facts, charge and months of each")
    if world is not None:
        rows = [world_reward(c, f, world, weights) for c, f in zip(completions, fact, strict=True)]
    else:
        cases = zip(completions, fact, charge, months, strict=True)
        rows = [legal_reward(c, f, named, m, weights) for c, f, named, m in cases]
    if log_metric and rows:
        for name in ("total", "form", "term", "consistent", "cited"):
            log_metric(f"legal/{name}", sum(row[name] for row in rows) / len(rows))
        counts = Counter(row["verdict"] for row in rows)
        for verdict in VERDICTS:
            log_metric(f"legal/verdict_{verdict}", counts[verdict] / len(rows))
    if log_extra:
        log_extra("verdict", [row["verdict"] for row in rows])
    return [row["total"] for row in rows]


def _cited(said: Opinion, check: Check, conclusions: Sequence[str]) -> float:
    """1 if the chain whose number is cited has the penalty of a matched tier."""
    if said.chain is None or not 1 <= said.chain <= len(conclusions):
        return 0.0
    return float(conclusions[said.chain - 1] in {row["conclusion"] for row in check["matched_chains"]})


def _parts(
    verdict: str, term: float = 0.0, consistent: float = 0.0, cited: float = 0.0, weights: Weights | None = None
) -> Parts:
    if weights is None:
        return Parts(total=0.0, form=0.0, term=0.0, consistent=0.0, cited=0.0, verdict=verdict)
    total = weights.form + weights.term * term + weights.consistent * consistent + weights.cited * cited
    return Parts(total=total, form=1.0, term=term, consistent=consistent, cited=cited, verdict=verdict)


def _text(completion: object) -> str:
    if isinstance(completion, list) and completion and isinstance(completion[-1], dict):
        completion = completion[-1].get("content")
    return completion if isinstance(completion, str) else ""
