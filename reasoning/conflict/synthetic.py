"""Planted chains among distractors, and conflicts whose false side breaks one link: where the truth is known exactly.

A chain of 2 to 4 links is told in sentences, shuffled among others about other people; some of those begin or end at a
link of the chain and lead nowhere. The false context of a conflict tells a chain of its own to another answer, with
one fault:

    drop         one link is not told
    contradict   one link is told a second time with another end
    rename       one end is called something else where the next link begins

    python -c "from reasoning.conflict.synthetic import conflict; print(conflict(2, 'drop', seed=0).contexts[0].text)"
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from reasoning.conflict.instance import Context, Instance, build_instance
from reasoning.conflict.lengthen import shuffled

Fault = Literal["drop", "contradict", "rename"]
FAULTS: tuple[Fault, ...] = ("drop", "contradict", "rename")

_RELATIONS = ("mentor", "neighbour", "rival", "partner", "editor", "tenant", "cousin", "guardian", "patron", "deputy")
_SENTENCES = ("The {r} of {h} is {t}.", "{h}'s {r} is {t}.", "It is known that the {r} of {h} was {t}.")
_ASIDES = ("{h} once wrote to {t}.", "{h} saw {t} in the market.", "{h} lent {t} a boat.", "{h} praised {t} at length.")
STARTS = (
    "Bal",
    "Dor",
    "Fen",
    "Gar",
    "Hul",
    "Jor",
    "Kel",
    "Lor",
    "Mun",
    "Nar",
    "Pel",
    "Rin",
    "Sol",
    "Tar",
    "Vel",
    "Zan",
)
ENDS = ("ana", "bert", "dan", "eth", "ic", "ina", "mir", "olf", "ona", "ric", "sa", "tor", "ul", "vin", "wen", "yas")


@dataclass(frozen=True)
class Planted:
    """A chain and the text that tells it."""

    question: str
    text: str
    answer: str
    chain: tuple[str, ...]
    """Names from the question's entity to the answer."""
    relations: tuple[str, ...]


def planted(hops: int, distractors: int, seed: int, shared: bool = False) -> Planted:
    """A chain of `hops` links told among `distractors` other sentences.

    `shared` lets asides about different people of the chain end at the same stranger: other short ways to the answer.
    """
    rng = random.Random(f"planted-{seed}")
    names = _names(rng)
    chain = tuple(next(names) for _ in range(hops + 1))
    relations = tuple(rng.sample(_RELATIONS, hops))
    told = [_tell(rng, r, h, t) for r, h, t in zip(relations, chain, chain[1:], strict=False)]
    text = _mix(rng, told, chain, distractors, names, shared)
    return Planted(_question(relations, chain[0]), text, chain[-1], chain, relations)


def conflict(hops: int, fault: Fault, seed: int, distractors: int = 8, shared: bool = False) -> Instance:
    """True chain against one with a fault, in shuffled order, as many sentences in both."""
    rng = random.Random(f"conflict-{fault}-{seed}")
    names = _names(rng)
    asked = next(names)
    relations = tuple(rng.sample(_RELATIONS, hops))
    true, false = ((asked, *(next(names) for _ in range(hops))) for _ in range(2))
    told = [_tell(rng, r, h, t) for r, h, t in zip(relations, true, true[1:], strict=False)]
    broken = [_tell(rng, r, h, t) for r, h, t in zip(relations, false, false[1:], strict=False)]
    at = rng.randrange(hops)
    if fault == "drop":
        del broken[at]
    elif fault == "contradict":
        broken.append(_tell(rng, relations[at], false[at], next(names)))
    else:
        at = max(1, at)
        broken[at] = _tell(rng, relations[at], next(names), false[at + 1])
    texts = [
        _mix(rng, sentences, chain, distractors + hops - len(sentences), names, shared)
        for sentences, chain in ((told, true), (broken, false))
    ]
    contexts = [Context(texts[0], true[-1], True, source="whole"), Context(texts[1], false[-1], False, source=fault)]
    made = build_instance(
        _question(relations, asked), contexts, [true[-1]], id=f"synthetic-{fault}-{seed}", source="synthetic"
    )
    return shuffled(made, seed)


def _question(relations: tuple[str, ...], asked: str) -> str:
    return "Who is " + " of ".join(f"the {r}" for r in reversed(relations)) + f" of {asked}?"


def _tell(rng: random.Random, relation: str, head: str, tail: str) -> str:
    return rng.choice(_SENTENCES).format(r=relation, h=head, t=tail)


def _mix(
    rng: random.Random,
    told: list[str],
    chain: tuple[str, ...],
    distractors: int,
    names: Iterator[str],
    shared: bool = False,
) -> str:
    """Shuffle the told links among asides; every third aside touches the chain at one end and leads nowhere."""
    others = [next(names) for _ in range(max(4, distractors // 2))]
    asides = []
    for k in range(distractors):
        head, tail = (
            rng.sample(others, 2) if k % 3 else (rng.choice(chain), rng.choice(others) if shared else next(names))
        )
        asides.append(rng.choice(_ASIDES).format(h=head, t=tail))
    sentences = [*told, *asides]
    rng.shuffle(sentences)
    return " ".join(sentences)


def _names(rng: random.Random) -> Iterator[str]:
    """Invented names, none twice."""
    pairs = [(a, b, c) for a in STARTS for b in ENDS for c in rng.sample(ENDS, 2)]
    rng.shuffle(pairs)
    seen: set[str] = set()
    for a, b, c in pairs:
        name = f"{a}{b} {rng.choice(STARTS)}{c}"
        if not set(name.split()) & seen:
            seen.update(name.split())
            yield name
