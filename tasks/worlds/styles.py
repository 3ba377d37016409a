"""The styles world: sums answered in three styles, judged by annotators whose true preference game is known.

Every answer is one of seven types: right or wrong, in one of three styles, or malformed. The true game is a logit
table over types, S = S_T + S_C:

- transitive: right beats wrong by ``right`` logits, and any well-formed answer beats a malformed one;
- cyclic: formal > concise > warm > formal, each step by ``cycle`` logits, whatever the answer says.

As the game is over seven types, a policy is judged by its distribution over them, and its exploitability (the
duality gap) is a number and not an opinion. S_T and S_C are what `align.preference.game.decompose` gives back when
types are uniform over the six well-formed ones.

Questions add a digit to a two-digit number, without a carry (``34+5=``). A held-out question is a number and an addend
that never meet in training, while its two units were added beside other tens: what is tested is that tens are carried
over and units are added whatever they stand beside, not that an unseen pair of digits can be added. Wrong answers are
off by one or two.

    python -c "from tasks.worlds.styles import StylesWorld as W; w = W(); print(w.demonstrations(3, seed=0))"
"""

from __future__ import annotations

import hashlib
import random
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from launch.errors import DataError
from tasks.worlds.typed import TrueScores, TypedWorld, word_tokenizer

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

STYLES = ("formal", "concise", "warm")
"""In cyclic order: each beats the next, and the last beats the first."""
TYPES = (*(f"{value} {style}" for value in ("right", "wrong") for style in STYLES), "malformed")
"""The strategies of the true game, in the order of the rows of `StylesWorld.game`."""
MALFORMED = len(TYPES) - 1

_FORMS = {"formal": "It equals {}.", "concise": "{}", "warm": "Sure! {} :)"}
_PATTERNS = {style: re.compile(re.escape(form).replace(r"\{\}", r"(\d+)")) for style, form in _FORMS.items()}
_QUESTION = re.compile(r"(\d+)\+(\d+)=")
_PIECES = ("<pad>", "<bos>", "<eos>", "<unk>", *"0123456789", "+", "=", "It", " equals", " ", ".", "Sure", "!", " :)")
_SPLIT = r"\d|\+|=| :\)| [a-z]+| |[A-Z][a-z]+|[.!]"


@dataclass(frozen=True)
class StylesWorld(TypedWorld):
    """The world and its constants. Frozen and made of plain numbers, so it can key a cache.

    The starting mix of styles decides how far the methods part: from .70/.20/.10 a ranking and a cycle-aware model
    behave alike for three rounds, so .45/.45/.10 was chosen to tell them apart.
    """

    right: float = 2.0
    """Logits by which a right answer beats a wrong one, and a wrong one a malformed one."""
    cycle: float = 1.5
    """Logits by which a style beats the next."""
    start_right: float = 0.6
    """Share of demonstrations that are right."""
    start_styles: tuple[float, float, float] = (0.45, 0.45, 0.10)
    """Shares of formal, concise and warm among the demonstrations."""
    test_share: float = 0.2
    """Share of questions that are held out."""
    name: str = "styles"

    # ------------------------------------------------------------ text

    def tokenizer(self) -> PreTrainedTokenizerFast:
        """Word-level tokenizer over some twenty pieces; ``decode(encode(x)) == x`` for every text of this world."""
        return word_tokenizer(_PIECES, _SPLIT, 64)

    def prompts(self, split: Literal["train", "test"]) -> list[str]:
        """All questions of a split, in a fixed order; 495 in all."""
        if split not in ("train", "test"):
            raise DataError(f"the styles world has no split {split!r}: ask for 'train' or 'test'")
        units = [(a, b) for a in range(10) for b in range(10) if a + b <= 9]
        questions = [f"{tens}{a}+{b}=" for tens in range(1, 10) for a, b in units]
        return [q for q in questions if (_position(q) < self.test_share) == (split == "test")]

    @staticmethod
    def answer(prompt: str) -> int:
        """The true sum. Raises DataError for anything that is not a question of this world."""
        match = _QUESTION.fullmatch(prompt)
        if match is None:
            raise DataError(f"{prompt!r} is not a question of the styles world: write it like '34+5='")
        return int(match[1]) + int(match[2])

    @staticmethod
    def render(value: int, style: str) -> str:
        """The text that answers `value` in `style`; `describe` reads it back."""
        if style not in _FORMS:
            raise DataError(f"unknown style {style!r}: one of {', '.join(STYLES)}")
        return _FORMS[style].format(value)

    def wrong(self, prompt: str, rng: random.Random) -> int:
        """A plausible error: the units of the true sum off by one or two."""
        true = self.answer(prompt)
        near = [d for d in (-2, -1, 1, 2) if 0 <= true % 10 + d <= 9]
        return true + rng.choice(near)

    def demonstrations(self, count: int, seed: int) -> list[dict[str, str]]:
        """`count` rows {"prompt", "response"} over the training questions, right with probability `start_right`."""
        rng = random.Random(f"demonstrations-{seed}")
        questions = self.prompts("train")
        rows = []
        for _ in range(count):
            prompt = rng.choice(questions)
            value = self.answer(prompt) if rng.random() < self.start_right else self.wrong(prompt, rng)
            style = rng.choices(STYLES, weights=self.start_styles)[0]
            rows.append({"prompt": prompt, "response": self.render(value, style)})
        return rows

    # ------------------------------------------------------------ truth

    def describe(self, prompt: str, response: str) -> dict[str, Any]:
        """What is true of an answer: "right" (bool), "style" (or None), "malformed" (bool), "type" (index in TYPES)."""
        true = str(self.answer(prompt))
        for k, style in enumerate(STYLES):
            match = _PATTERNS[style].fullmatch(response.strip())
            if match:
                right = match[1] == true
                return {"right": right, "style": style, "malformed": False, "type": k if right else k + len(STYLES)}
        return {"right": False, "style": None, "malformed": True, "type": MALFORMED}

    def game(self) -> TrueScores:
        """The whole true game over `TYPES`, float64 [7, 7]."""
        strength = np.array([self.right] * 3 + [0.0] * 3 + [-self.right])
        S_T = strength[:, None] - strength[None, :]
        S_C = np.zeros_like(S_T)
        for i in range(MALFORMED):
            for j in range(MALFORMED):
                step = (j - i) % len(STYLES)  # 1: j is the style that i beats
                S_C[i, j] = self.cycle * (0.0, 1.0, -1.0)[step]
        S = S_T + S_C
        return TrueScores(S, S_T, S_C, 1 / (1 + np.exp(-S)))

    def examples(self, prompt: str, seed: int = 0) -> list[str]:
        """One answer of each type, in the order of `TYPES`; the malformed one lacks the end of its form."""
        values = (self.answer(prompt), self.wrong(prompt, random.Random(f"examples-{seed}-{prompt}")))
        return [self.render(v, style) for v in values for style in STYLES] + [f"Sure! {values[0]}"]


def _position(question: str) -> float:
    """A number in [0, 1) for a question, the same on every machine and in every process."""
    return int.from_bytes(hashlib.sha256(question.encode()).digest()[:4], "big") / 2**32
