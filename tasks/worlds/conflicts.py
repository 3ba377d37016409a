"""The conflicts world: two sources tell a chain of two facts, and all but one of them break it.

    Question: Where does the mentor of Ann live?
    [Context 1] (archive) The mentor of Ann is Cleo. Ivan lives in Rome. The mentor of Mia is Karl.
    [Context 2] (letter) Bob lives in Oslo. The mentor of Ann is Bob. The mentor of Tom is Lena.

One context holds together: Ann's mentor is Bob, who lives in Oslo. The others have a gap (Cleo's home is not told) or
contradict themselves (they name two mentors of Ann, and the home of one). Names, cities, numbers and order of
sentences, and the place of the true context say nothing; whether the links join does.

One context is marked (archive), the others (letter). In training the mark is on the true context with probability
``cue``, in the test split with 1 - ``cue``: whoever learnt the mark instead of the logic is wrong there. Held-out
questions use pairs of person and city that never meet in training, in true and in broken contexts alike.

Instances are JSON in the form that `reasoning.conflict.Instance.from_json` reads, with the chains told exactly.

    python -c "from tasks.worlds.conflicts import ConflictsWorld as W; w = W(); print(w.demonstrations(2, seed=0))"
"""

from __future__ import annotations

import hashlib
import json
import random
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np

from launch.errors import ConfigError, DataError
from tasks.worlds.typed import TrueScores, TypedWorld, word_tokenizer

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

_PEOPLE = """
Ann Bob Cleo Dora Emil Finn Gus Hana Ivan Jana Karl Lena Mia Nils Olga Pia Rosa Sven Tom Uma Vera Wim Yara Zoe
Abel Bea Cyr Dina Egon Fay Gerd Hugo Ines Joel Kaya Levi Mona Noah Otto Paul
"""
_CITIES = "Oslo Rome Lima Bern Cairo Delhi Paris Quito Sofia Tokyo Vienna Warsaw Lagos Milan Porto Seoul"
PEOPLE, CITIES = tuple(_PEOPLE.split()), tuple(_CITIES.split())
CUE, PLAIN = "archive", "letter"
TYPES = ("right", "other", "wrong", "malformed")
"""Answers: the right city; no candidate; a city that a broken context gives; not in the form asked for."""

_QUESTION = re.compile(r"Question: Where does the mentor of (\w+) live\?")
_CONTEXT = re.compile(rf"\[Context (\d)\] \(({CUE}|{PLAIN})\) (.+)")
_FACT = re.compile(r"The mentor of (\w+) is (\w+)\.|(\w+) lives in (\w+)\.")
_ANSWER = re.compile(r"<think>(.+)</think>\s*<answer>\s*(\w+)\s*</answer>", re.DOTALL)
_CITED = re.compile(r"\[Context (\d)\]")
_SPLIT = r" ?\[Context \d\]| ?</?(?:think|answer)>| ?\(\w+\)| ?\w+|\n|[.,?:]"
_WORDS_TEXT = """
Where does the mentor of live The is lives in So answer and not join which it contradicts
"""
_WORDS = tuple(_WORDS_TEXT.split())


class Told(NamedTuple):
    """A context read back from a prompt."""

    cue: str
    text: str
    chain: tuple[tuple[str, str, str], ...]
    """Its two links as (head, relation, tail): the mentor, the home."""
    city: str
    """What it answers."""
    fault: Literal["", "gap", "clash"]


@dataclass(frozen=True)
class ConflictsWorld(TypedWorld):
    """The world and its constants. Frozen and made of plain numbers, so it can key a cache."""

    contexts: int = 2
    """Per question, 2 to 5; one of them is true."""
    clash: float = 0.25
    """Share of broken contexts that contradict themselves; the others have a gap."""
    spare: int = 1
    """Facts about other people in each context, 0 or 1; a contradiction takes this place, so 0 needs a clash of 0."""
    people: int = len(PEOPLE)
    """Names that occur, 2 + 4 per context or more; fewer are learnt faster."""
    cue: float = 0.95
    """Probability that the marked context is the true one in training; 1 - cue in testing. 0.5: no cue for two."""
    brief: float = 0.0
    """Share of demonstrations that look at no first link: they take the home in a context for the answer."""
    train: int = 4000
    test: int = 400
    """Prompts per split."""
    test_share: float = 0.3125
    """Share of (person, city) pairs that are held out: 5 of 16 cities for every person."""
    name: str = "conflicts"

    def __post_init__(self) -> None:
        if not 2 <= self.contexts <= 5:
            raise ConfigError(f"contexts {self.contexts}: the conflicts world tells 2 to 5", "contexts")
        held = round(self.test_share * len(CITIES))
        if not self.contexts <= held <= len(CITIES) - self.contexts:
            raise ConfigError(f"test_share {self.test_share} leaves a split too few cities; try 0.3125", "test_share")
        if not 2 + 4 * self.contexts <= self.people <= len(PEOPLE):
            raise ConfigError(f"people {self.people}: give {2 + 4 * self.contexts} to {len(PEOPLE)}", "people")
        if self.spare not in (0, 1) or (self.clash and not self.spare):
            raise ConfigError(f"spare {self.spare} with clash {self.clash}: give spare 1, or both 0", "spare")
        if not 0 <= self.brief <= 1:
            raise ConfigError(f"brief {self.brief}: give a share, 0 to 1", "brief")

    # ------------------------------------------------------------ text

    def tokenizer(self) -> PreTrainedTokenizerFast:
        """Word-level tokenizer; ``decode(encode(x)) == x`` for every text of this world."""
        tags = [f"[Context {k}]" for k in range(1, 6)]
        pieces = ["<pad>", "<bos>", "<eos>", "<unk>", "Question", "\n", ".", ",", "?", ":", "<think>"]
        pieces += [*tags, *(f" {w}" for w in (*tags, f"({CUE})", f"({PLAIN})", *_WORDS, *PEOPLE, *CITIES))]
        pieces += [" </think>", " <answer>", " </answer>"]
        return word_tokenizer(pieces, _SPLIT, 256)

    def prompts(self, split: Literal["train", "test"]) -> list[str]:
        """All questions of a split, in a fixed order."""
        if split not in ("train", "test"):
            raise DataError(f"the conflicts world has no split {split!r}: ask for 'train' or 'test'")
        count = self.train if split == "train" else self.test
        return [self._prompt(random.Random(f"conflicts-{split}-{i}"), split) for i in range(count)]

    def rows(self, split: Literal["train", "test"]) -> Iterator[dict[str, str]]:
        """Rows {"prompt", "instance"} for reinforcement learning; the instance is JSON."""
        return ({"prompt": prompt, "instance": self.instance(prompt)} for prompt in self.prompts(split))

    def _prompt(self, rng: random.Random, split: str) -> str:
        people = iter(rng.sample(PEOPLE[: self.people], 2 + 4 * self.contexts))
        asked = next(people)
        cities: list[str] = []
        told = []
        for k in range(self.contexts):
            mentor, stranger, pupil, other = (next(people) for _ in range(4))
            fault = "" if k == 0 else "clash" if rng.random() < self.clash else "gap"
            owner = stranger if fault == "gap" else mentor
            cities.append(rng.choice([c for c in self._cities(owner, split) if c not in cities]))
            # As many sentences of each form in every context; only who stands in them differs.
            spare = (asked, stranger) if fault == "clash" else (pupil, other)
            facts = [_mentor(asked, mentor), _home(owner, cities[k])] + [_mentor(*spare)] * self.spare
            rng.shuffle(facts)
            told.append(" ".join(facts))
        order = list(range(self.contexts))
        rng.shuffle(order)
        chance = self.cue if split == "train" else 1 - self.cue  # drawn last: other cues give the same questions
        marked = 0 if rng.random() < chance else rng.randrange(1, self.contexts)
        lines = [f"[Context {number}] ({CUE if k == marked else PLAIN}) {told[k]}" for number, k in enumerate(order, 1)]
        return "\n".join([f"Question: Where does the mentor of {asked} live?", *lines, ""])

    def _cities(self, person: str, split: str) -> list[str]:
        """Where a person may live in a split; every person has as many cities held out as any other."""
        ranked = sorted(CITIES, key=lambda city: hashlib.sha256(f"{person} {city}".encode()).digest())
        held = round(self.test_share * len(CITIES))
        return ranked[:held] if split == "test" else ranked[held:]

    @staticmethod
    def render(told: Told, number: int, rejected: Sequence[tuple[Told, int]] = ()) -> str:
        """The completion that follows one context, joining its two links, and answers with its city.

        Of broken contexts `rejected` before it the first link is told, and whoever does not join it. Every step names
        the mark of its context first, so that whoever learns to follow a mark need learn but one word. Names are
        copies, and whether links join shows in two of them that stand close together.
        """
        steps = [f"{_source(c, k)} {_rejection(c)}" for c, k in rejected if c.fault]
        home = _home(told.chain[1][0], told.chain[1][2])
        steps.append(f"{_source(told, number)} {_mentor(*_ends(told))[:-1]} and {home}")
        return _completion(steps, told.city)

    @staticmethod
    def render_brief(told: Told, number: int) -> str:
        """The completion that takes a context's city without asking who lives there."""
        return _completion([f"{_source(told, number)} {_home(told.chain[1][0], told.city)}"], told.city)

    def demonstrations(self, count: int, seed: int) -> list[dict[str, str]]:
        """`count` rows {"prompt", "response"} on questions of their own, whatever their marks.

        A share `brief` looks at no first link, and is right by chance. The others look at contexts in random order,
        reject what is broken and follow what is true.
        """
        rows = []
        for i in range(count):
            rng = random.Random(f"demonstrations-{seed}-{i}")
            prompt = self._prompt(rng, "train")
            _, contexts = read(prompt)
            order = rng.sample(range(len(contexts)), len(contexts))
            if rng.random() < self.brief:
                response = self.render_brief(contexts[order[0]], order[0] + 1)
            else:
                right = _true(contexts)
                rejected = [(contexts[k], k + 1) for k in order[: order.index(right)]]
                response = self.render(contexts[right], right + 1, rejected)
            rows.append({"prompt": prompt, "response": response})
        return rows

    # ------------------------------------------------------------ truth

    def instance(self, prompt: str) -> str:
        """The conflict in a prompt as JSON, its chains told exactly."""
        _, contexts = read(prompt)
        right = _true(contexts)
        told = []
        for k, c in enumerate(contexts):
            said = [_mentor(c.chain[0][0], c.chain[0][2]), _home(c.chain[1][0], c.chain[1][2])]
            triples = [[*link, i, False] for i, link in enumerate(c.chain)]
            paths = {"kind": "graph", "confidence": 1.0, "paths": [{"triples": triples, "sentences": said}]}
            told.append({"text": c.text, "answer": c.city, "true": k == right, "paths": paths, "source": c.cue})
        wrong = [c.city for k, c in enumerate(contexts) if k != right]
        meta = {"faults": [c.fault for c in contexts], "cue_on_truth": contexts[right].cue == CUE}
        question = prompt.split("\n", 1)[0].removeprefix("Question: ")
        row = {"question": question, "contexts": told, "gold": [contexts[right].city], "wrong": wrong}
        return json.dumps(row | {"source": self.name, "meta": meta})

    def describe(self, prompt: str, response: str) -> dict[str, Any]:
        """What is true of an answer.

        "right", "wrong" (a broken context's city), "malformed": bools; "followed": the context cited last, from 0, or
        None; "true": the context to follow; "type": index in TYPES.
        """
        _, contexts = read(prompt)
        right = _true(contexts)
        match = _ANSWER.fullmatch(response.strip())
        found: dict[str, Any] = {"right": False, "wrong": False, "malformed": match is None, "followed": None}
        if match:
            found["right"] = match[2] == contexts[right].city
            found["wrong"] = any(match[2] == c.city for k, c in enumerate(contexts) if k != right)
            cited = [int(n) - 1 for n in _CITED.findall(match[1]) if 0 < int(n) <= len(contexts)]
            found["followed"] = cited[-1] if cited else None
        kind = "malformed" if match is None else "right" if found["right"] else "wrong" if found["wrong"] else "other"
        return found | {"true": right, "type": TYPES.index(kind)}

    def examples(self, prompt: str) -> list[str]:
        """One answer of each of `TYPES`; the third type follows the first broken context to its end."""
        _, contexts = read(prompt)
        right = _true(contexts)
        wrong = next(k for k in range(len(contexts)) if k != right)
        other = next(city for city in CITIES if city not in {c.city for c in contexts})
        answers = [self.render(contexts[k], k + 1) for k in (right, wrong)]
        lost = answers[0].replace(contexts[right].city, other)
        return [answers[0], lost, answers[1], answers[0].replace("</think> ", "")]

    def game(self) -> TrueScores:
        """The true game over `TYPES`, a plain ranking: each beats the next by 2 logits. float64 [4, 4]."""
        strength = -2.0 * np.arange(len(TYPES))
        S = strength[:, None] - strength[None, :]
        return TrueScores(S, S.copy(), np.zeros_like(S), 1 / (1 + np.exp(-S)))


def read(prompt: str) -> tuple[str, list[Told]]:
    """The person asked about and the contexts of a prompt. Raises DataError for text that is none of this world."""
    lines = prompt.strip().split("\n")
    question = _QUESTION.fullmatch(lines[0])
    matches = [_CONTEXT.fullmatch(line) for line in lines[1:]]
    if question is None or not matches or not all(matches):
        raise DataError(f"{prompt[:60]!r} is not a question of the conflicts world: take one from `prompts`")
    contexts = [_told(question[1], m[2], m[3]) for m in matches if m]
    if sum(not c.fault for c in contexts) != 1:
        raise DataError(f"{prompt[:60]!r}: not exactly one context holds together")
    return question[1], contexts


def _told(asked: str, cue: str, text: str) -> Told:
    facts = _FACT.findall(text)
    mentors = [(pupil, mentor) for pupil, mentor, *_ in facts if pupil == asked]
    homes = [(person, city) for *_, person, city in facts if person]
    if not mentors or len(homes) != 1:
        raise DataError(f"{text!r} does not name a mentor of {asked} and one home")
    person, city = homes[0]
    mentor = next((m for _, m in mentors if m == person), mentors[0][1])
    fault: Literal["", "gap", "clash"] = "clash" if len(mentors) > 1 else "" if mentor == person else "gap"
    return Told(cue, text, ((asked, "mentor", mentor), (person, "lives in", city)), city, fault)


def _true(contexts: Sequence[Told]) -> int:
    return next(k for k, c in enumerate(contexts) if not c.fault)


def _ends(told: Told) -> tuple[str, str]:
    """Pupil and mentor of a context's first link."""
    return told.chain[0][0], told.chain[0][2]


def _mentor(pupil: str, mentor: str) -> str:
    return f"The mentor of {pupil} is {mentor}."


def _home(person: str, city: str) -> str:
    return f"{person} lives in {city}."


def _source(told: Told, number: int) -> str:
    return f"({told.cue}) [Context {number}]"


def _rejection(told: Told) -> str:
    """How a trace turns down a broken context. The reward knows both phrases for refutations."""
    first = _mentor(*_ends(told))[:-1]
    return (
        f"{first}, which it contradicts." if told.fault == "clash" else f"{first} and {told.chain[1][0]} does not join."
    )


def _completion(steps: Sequence[str], city: str) -> str:
    return f"<think> {' '.join(steps)} So the answer is {city}. </think> <answer> {city} </answer>"
