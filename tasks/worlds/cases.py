"""The cases world: laws with premises, conditions and ranges, and cases whose sentence follows; English and Chinese.

    Law: taking boats: 0 to 12 months; from 20 crowns: 12 to 36 months; from 50 crowns or at night: 36 to 60 months.
    Case: taking boats, 31 crowns, by day, confessed.
    <think> 12 to 36 months, the least. </think> <answer> 12 months </answer>

A case's sum and hour choose the tier; its circumstance the place in it: the middle, the least for who confessed, the
most for who did it before, and the middle of the next lower tier for a helper (as reduction works in Chinese law).
Every charge has a law of its own, and the charges of the test split never occur in training: whoever learnt the charges
by heart and not how to read a law is wrong there. With ``told=False`` the law is left out of the prompt, for models
that get it in another way (as soft tokens); without it held-out charges can only be guessed.

    python -c "from tasks.worlds.cases import CasesWorld as W; w = W(); print(w.demonstrations(2, seed=0))"
"""

from __future__ import annotations

import hashlib
import random
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np

from launch.errors import ConfigError, DataError
from tasks.worlds.typed import TrueScores, TypedWorld, word_tokenizer

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

TYPES = ("right", "lawful", "unlawful", "contradictory", "malformed")
"""Answers: the right term; another of its range; one outside it; one that its own reasons do not allow; no form."""
PLACES = ("middle", "least", "most")
CIRCUMSTANCES = ("plain", "confessed", "repeated", "helper")
_PLACE_OF = {"plain": "middle", "confessed": "least", "repeated": "most", "helper": "middle"}
_STEP = 12
"""Months: ranges begin and end on multiples, so that middles are whole."""
_NUMBERS = 120
"""Numbers that are tokens; no sum or term is larger."""


class Words(NamedTuple):
    """A language: how laws, cases and answers are written. Templates are read back by patterns made of themselves."""

    acts: tuple[str, ...]
    objects: tuple[str, ...]
    charge: str
    law: str
    tier: str
    """Situation (of the first tier: the charge) and conclusion."""
    between: str
    """What parts tiers."""
    situations: tuple[str, str, str]
    conclusion: str
    case: str
    hours: tuple[str, str]
    circumstances: dict[str, str]
    answer: str
    places: dict[str, str]
    split: str


_ENGLISH = Words(
    acts=("taking", "hiding", "selling", "breaking", "forging", "burning", "lending", "moving", "painting", "sinking"),
    objects=("boats", "bells", "maps", "seals", "lamps", "gates", "coins", "books", "carts", "wells", "ropes", "keys"),
    charge="{act} {object}",
    law="Law: {tiers}.",
    tier="{situation}: {conclusion}",
    between="; ",
    situations=("plain", "from {low} crowns", "from {high} crowns or at night"),
    conclusion="{low} to {high} months",
    case="Case: {charge}, {sum} crowns, {hour}, {circumstance}.",
    hours=("by day", "at night"),
    circumstances={
        "plain": "nothing else",
        "confessed": "confessed",
        "repeated": "not the first time",
        "helper": "helped",
    },
    answer="<think> {low} to {high} months, the {place}. </think> <answer> {months} months </answer>",
    places={"middle": "middle", "least": "least", "most": "most"},
    split=r" ?</?(?:think|answer)>| ?\d+| ?[A-Za-z]+|\n|[.,:;]",
)
_CHINESE = Words(
    acts=("偷取", "藏匿", "贩卖", "毁坏", "伪造", "焚烧", "出借", "搬走", "涂画", "沉没"),
    objects=("船只", "铜钟", "地图", "印章", "灯具", "门窗", "钱币", "书籍", "车辆", "水井", "绳索", "钥匙"),
    charge="{act}{object}",
    law="法条：{tiers}。",
    tier="{situation}的，{conclusion}",
    between="；",
    situations=("无", "{low}元以上", "{high}元以上或者夜间"),
    conclusion="处{low}至{high}个月",
    case="案情：{charge}，{sum}元，{hour}，{circumstance}。",
    hours=("白天", "夜间"),
    circumstances={"plain": "无其他情节", "confessed": "如实供述", "repeated": "再犯", "helper": "从犯"},
    answer="<think>处{low}至{high}个月，取{place}。</think><answer>{months}个月</answer>",
    places={"middle": "中间", "least": "下限", "most": "上限"},
    split=r"</?(?:think|answer)>|\d+|[\u4e00-\u9fff]|\n|[。，：；]",
)
LANGUAGES = {"en": _ENGLISH, "zh": _CHINESE}


class Law(NamedTuple):
    """A charge's law: three tiers between four bounds in months, entered at two sums or at night."""

    charge: str
    bounds: tuple[int, int, int, int]
    sums: tuple[int, int]

    def tier(self, sum: int, night: bool) -> int:
        return 2 if night or sum >= self.sums[1] else 1 if sum >= self.sums[0] else 0


class Case(NamedTuple):
    """A case, its law, and what follows."""

    law: Law
    sum: int
    night: bool
    circumstance: str

    @property
    def range(self) -> tuple[int, int]:
        """Months allowed: the tier's, or for a helper those of the next lower one."""
        tier = self.law.tier(self.sum, self.night)
        tier = max(tier - 1, 0) if self.circumstance == "helper" else tier
        return self.law.bounds[tier], self.law.bounds[tier + 1]

    @property
    def months(self) -> int:
        """The right term."""
        return _at(*self.range, _PLACE_OF[self.circumstance])


@dataclass(frozen=True)
class CasesWorld(TypedWorld):
    """The world and its constants. Frozen and made of plain values, so it can key a cache."""

    language: str = "en"
    """"en" or "zh"."""
    told: bool = True
    """Whether the law stands in the prompt."""
    start_right: float = 0.6
    """Share of demonstrations that are right; the others take another tier or place."""
    train: int = 4000
    test: int = 400
    """Prompts per split."""
    test_share: float = 0.25
    """Share of charges that are held out."""
    name: str = "cases"

    def __post_init__(self) -> None:
        if self.language not in LANGUAGES:
            raise ConfigError(
                f"language {self.language!r}: the cases world speaks {' and '.join(LANGUAGES)}", "language"
            )
        if not 0 < self.test_share < 1:
            raise ConfigError(f"test_share {self.test_share} leaves a split no charge; try 0.25", "test_share")

    @property
    def words(self) -> Words:
        return LANGUAGES[self.language]

    # ------------------------------------------------------------ laws

    def charges(self, split: Literal["train", "test"]) -> list[str]:
        """The charges of a split, the same pairs of act and object in both languages."""
        if split not in ("train", "test"):
            raise DataError(f"the cases world has no split {split!r}: ask for 'train' or 'test'")
        pairs = _pairs(self.language)
        held = set(sorted(pairs.values(), key=_position)[: round(self.test_share * len(pairs))])
        return [charge for charge, pair in pairs.items() if (pair in held) == (split == "test")]

    def law(self, charge: str) -> Law:
        """The law of a charge. Raises DataError for one that this world does not know."""
        pair = _pairs(self.language).get(charge)
        if pair is None:
            raise DataError(f"no law for {charge!r} in the cases world; take a charge of `charges`")
        rng = random.Random(f"law-{pair[0]}-{pair[1]}")
        steps = [rng.randint(1, 3) for _ in range(3)]
        bounds = (0, _STEP * steps[0], _STEP * sum(steps[:2]), _STEP * sum(steps))
        low = 10 * rng.randint(1, 5)
        return Law(charge, bounds, (low, low + 10 * rng.randint(1, 4)))

    def chains(self, charge: str) -> list[tuple[str, str, str]]:
        """The law as chains (premise, situation, conclusion), one a tier, in the words of the prompts."""
        words, law = self.words, self.law(charge)
        situations = [text.format(low=law.sums[0], high=law.sums[1]) for text in words.situations]
        conclusions = [words.conclusion.format(low=law.bounds[k], high=law.bounds[k + 1]) for k in range(3)]
        return [(charge, *tier) for tier in zip(situations, conclusions, strict=True)]

    def told_law(self, law: Law) -> str:
        """The law as a line of a prompt."""
        tiers = [
            self.words.tier.format(situation=situation if k else charge, conclusion=conclusion)
            for k, (charge, situation, conclusion) in enumerate(self.chains(law.charge))
        ]
        return self.words.law.format(tiers=self.words.between.join(tiers))

    # ------------------------------------------------------------ text

    def tokenizer(self) -> PreTrainedTokenizerFast:
        """Word-level (Chinese: character-level) tokenizer; ``decode(encode(x)) == x`` for every text of this world."""
        charges = [*self.charges("train"), *self.charges("test")]
        some = Law(charges[0], (0, 0, 0, 0), (0, 0))
        texts = [text for charge in charges for text in (charge, self.told_law(self.law(charge)))]
        texts += [self._case_text(Case(some, 0, night, c)) for night in (False, True) for c in CIRCUMSTANCES]
        texts += [self.render(0, 0, place, 0) for place in PLACES] + ["\n", *self.words.situations]
        texts += [f"{space}{n}" for space in ("", " ") for n in range(_NUMBERS)]
        pieces = dict.fromkeys(piece for text in texts for piece in re.findall(self.words.split, text))
        return word_tokenizer(["<pad>", "<bos>", "<eos>", "<unk>", *pieces], self.words.split, 192)

    def prompts(self, split: Literal["train", "test"]) -> list[str]:
        """All questions of a split, in a fixed order."""
        charges, count = self.charges(split), self.train if split == "train" else self.test
        return [self._prompt(random.Random(f"cases-{split}-{i}"), charges) for i in range(count)]

    def rows(self, split: Literal["train", "test"]) -> Iterator[dict[str, Any]]:
        """Rows {"prompt", "charge", "months", "low", "high"} for training and rewards."""
        for prompt in self.prompts(split):
            case = self.read(prompt)
            low, high = case.range
            yield {"prompt": prompt, "charge": case.law.charge, "months": case.months, "low": low, "high": high}

    def _prompt(self, rng: random.Random, charges: Sequence[str]) -> str:
        law = self.law(rng.choice(charges))
        night = rng.random() < 0.2
        case = Case(law, rng.randint(1, law.sums[1] + 20), night, rng.choice(CIRCUMSTANCES))
        return "\n".join([*[self.told_law(law)] * self.told, self._case_text(case), ""])

    def _case_text(self, case: Case) -> str:
        return self.words.case.format(
            charge=case.law.charge,
            sum=case.sum,
            hour=self.words.hours[case.night],
            circumstance=self.words.circumstances[case.circumstance],
        )

    def render(self, low: int, high: int, place: str, months: int) -> str:
        """The text of an answer; `describe` reads it back."""
        return self.words.answer.format(low=low, high=high, place=self.words.places[place], months=months)

    def demonstrations(self, count: int, seed: int) -> list[dict[str, str]]:
        """`count` rows {"prompt", "response"}; a wrong one takes another tier or place, and is true to its reasons."""
        rng = random.Random(f"demonstrations-{seed}")
        prompts = self.prompts("train")
        rows = []
        for _ in range(count):
            prompt = rng.choice(prompts)
            case = self.read(prompt)
            (low, high), place = case.range, _PLACE_OF[case.circumstance]
            if rng.random() >= self.start_right:
                bounds = case.law.bounds
                others = [(bounds[k], bounds[k + 1], p) for k in range(3) for p in PLACES]
                low, high, place = rng.choice([o for o in others if _at(*o) != case.months])
            rows.append({"prompt": prompt, "response": self.render(low, high, place, _at(low, high, place))})
        return rows

    # ------------------------------------------------------------ truth

    def read(self, prompt: str) -> Case:
        """The case in a prompt. Raises DataError for text that is none of this world in this language."""
        said = _pattern(self.words.case).fullmatch(prompt.strip().split("\n")[-1])
        states = {text: name for name, text in self.words.circumstances.items()}
        if said is None or said["circumstance"] not in states or said["hour"] not in self.words.hours:
            raise DataError(f"{prompt[:60]!r} is no case of the cases world ({self.language}): take one from `prompts`")
        law = self.law(said["charge"])
        return Case(law, int(said["sum"]), said["hour"] == self.words.hours[1], states[said["circumstance"]])

    def describe(self, prompt: str, response: str) -> dict[str, Any]:
        """What is true of an answer.

        "right", "lawful" (inside the true range), "consistent" (its reasons give its term), "malformed": bools;
        "months": the term or None; "true": the right one; "type": index in TYPES.
        """
        case = self.read(prompt)
        match = _pattern(self.words.answer).fullmatch(response.strip())
        named = {text: place for place, text in self.words.places.items()}
        found: dict[str, Any] = {
            "malformed": True,
            "right": False,
            "lawful": False,
            "consistent": False,
            "months": None,
        }
        kind = "malformed"
        if match and match["place"] in named:
            low, high, months = (int(match[key]) for key in ("low", "high", "months"))
            consistent = low <= high and months == _at(low, high, named[match["place"]])
            lawful = case.range[0] <= months <= case.range[1]
            right = months == case.months
            kind = "contradictory" if not consistent else "right" if right else "lawful" if lawful else "unlawful"
            found = {"malformed": False, "right": right, "lawful": lawful, "consistent": consistent, "months": months}
        return found | {"true": case.months, "type": TYPES.index(kind)}

    def examples(self, prompt: str) -> list[str]:
        """One answer of each of `TYPES`."""
        case = self.read(prompt)
        low, high = case.range
        place = _PLACE_OF[case.circumstance]
        other = next(p for p in PLACES if p != place)
        bounds = case.law.bounds
        away = (bounds[2], bounds[3], "most") if high < bounds[3] else (bounds[0], bounds[1], "least")
        right = self.render(low, high, place, case.months)
        return [
            right,
            self.render(low, high, other, _at(low, high, other)),
            self.render(*away, _at(*away)),
            self.render(low, high, place, case.months + 1),
            re.sub("</think> ?", "", right),
        ]

    def game(self) -> TrueScores:
        """The true game over `TYPES`, a plain ranking: each beats the next by 2 logits. float64 [5, 5]."""
        strength = -2.0 * np.arange(len(TYPES))
        S = strength[:, None] - strength[None, :]
        return TrueScores(S, S.copy(), np.zeros_like(S), 1 / (1 + np.exp(-S)))


def _at(low: int, high: int, place: str) -> int:
    return {"middle": (low + high) // 2, "least": low, "most": high}[place]


@cache
def _pattern(template: str) -> re.Pattern[str]:
    """The pattern that reads back what a template wrote: numbers, and words for the rest."""
    parts = re.split(r"\{(\w+)\}", template)
    numbers = {"sum", "low", "high", "months"}
    names = [rf"(?P<{n}>\d{{1,6}})" if n in numbers else rf"(?P<{n}>[^,，.。\n]+)" for n in parts[1::2]]
    return re.compile("".join(re.escape(text) + name for text, name in zip(parts[::2], [*names, ""], strict=True)))


@cache
def _pairs(language: str) -> dict[str, tuple[int, int]]:
    """Act and object of each charge, by its name."""
    words = LANGUAGES[language]
    return {
        words.charge.format(act=act, object=thing): (a, o)
        for a, act in enumerate(words.acts)
        for o, thing in enumerate(words.objects)
    }


def _position(pair: tuple[int, int]) -> bytes:
    """An order of charges, the same on every machine."""
    return hashlib.sha256(f"cases-{pair[0]}-{pair[1]}".encode()).digest()
