"""Long contexts: supporting passages hidden among passages of other questions, with their offsets recorded.

Fillers mention no candidate answer. Every context of an instance is filled to about the same length, the evidence
stands at random places, and the order of contexts is shuffled, so that neither length nor place tells the truth.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace

from launch.errors import DataError
from reasoning.conflict.instance import Context, Instance
from reasoning.conflict.text import WORD, Span, normalise

SEPARATOR = "\n\n"
TOKENS_PER_WORD = 4 / 3


def approximate_tokens(text: str) -> int:
    """Tokens of a text without a tokenizer: four thirds of its words, as byte-pair codes of English need."""
    return round(TOKENS_PER_WORD * sum(1 for _ in WORD.finditer(text)))


def shuffled(instance: Instance, seed: int) -> Instance:
    """The instance with its contexts in an order drawn from (seed, id)."""
    order = list(range(len(instance.contexts)))
    random.Random(f"order-{seed}-{instance.id}").shuffle(order)
    return instance.reordered(order)


def choose(instance: Instance, count: int, seed: int, true: int = 1) -> Instance | None:
    """`count` of its contexts that give an answer, `true` of them true, in an order drawn from (seed, id).

    None where there are not enough of either.

    Raises:
        DataError: count outside 2 to 5, or no room for a false context.
    """
    if not 2 <= count <= 5 or not 0 < true < count:
        raise DataError(f"{true} true of {count} contexts; give 2 to 5 with at least one of each")
    rng = random.Random(f"choose-{seed}-{instance.id}")
    right = [c for c in instance.contexts if c.true and c.answer]
    wrong = [c for c in instance.contexts if not c.true and c.answer]
    if len(right) < true or len(wrong) < count - true:
        return None
    kept = rng.sample(right, true) + rng.sample(wrong, count - true)
    rng.shuffle(kept)
    return replace(instance, contexts=tuple(kept))


def lengthen(
    instance: Instance,
    fillers: Sequence[str],
    tokens: int,
    seed: int,
    count: Callable[[str], int] = approximate_tokens,
) -> Instance:
    """Every context filled with passages of other questions up to `tokens`, the evidence somewhere among them.

    Args:
        fillers: passages of other questions; those that mention a candidate or stand in the instance are left out.
        tokens: length to reach and not to pass, by `count`; contexts that are longer stay as they are.
        count: tokens of a text, e.g. ``lambda t: len(tokenizer(t).input_ids)``.

    Returns:
        The instance with shuffled contexts; ``text[span.start:span.end]`` for each span of `evidence` is a supporting
        passage as it was. Paths stored before are dropped.

    Raises:
        DataError: the fillers run out before any context is at nine tenths of `tokens`.
    """
    names = [f" {normalise(c)} " for c in (*instance.gold, *instance.wrong) if not instance.boolean]
    own = {p for c in instance.contexts for p in passages(c)}
    rng = random.Random(f"lengthen-{seed}-{instance.id}")
    order = list(range(len(fillers)))
    rng.shuffle(order)
    usable = (fillers[i] for i in order if fillers[i] not in own and not _mentions(fillers[i], names))
    filled = tuple(_fill(c, usable, tokens, rng, count, instance.id) for c in instance.contexts)
    return shuffled(replace(instance, contexts=filled), seed)


def passages(context: Context) -> list[str]:
    """The supporting passages of a context: its recorded spans, or all of it."""
    return [context.text[s.start : s.end] for s in context.evidence] or [context.text]


def _mentions(text: str, names: Iterable[str]) -> bool:
    said = f" {normalise(text)} "
    return any(name in said for name in names)


def _fill(
    context: Context,
    fillers: Iterator[str],
    tokens: int,
    rng: random.Random,
    count: Callable[[str], int],
    name: str,
) -> Context:
    evidence = passages(context)
    gap = count(SEPARATOR)
    size = sum(count(p) for p in evidence) + gap * (len(evidence) - 1)
    chosen: list[str] = []
    while size < tokens:
        filler = next(fillers, None)
        if filler is None:
            break
        more = count(filler) + gap
        if size + more <= tokens:
            chosen.append(filler)
            size += more
        elif tokens - size <= 0.1 * tokens:
            break
    if size < 0.9 * tokens:
        raise DataError(f"instance {name!r}: fillers reach {size} of {tokens} tokens; give more or shorter passages")
    # Evidence keeps its order; where each piece stands among the fillers is drawn.
    places = sorted(rng.randint(0, len(chosen)) for _ in evidence)
    pieces: list[tuple[str, bool]] = [(filler, False) for filler in chosen]
    for shift, (place, passage) in enumerate(zip(places, evidence, strict=True)):
        pieces.insert(place + shift, (passage, True))
    spans, parts, at = [], [], 0
    for passage, supporting in pieces:
        if supporting:
            spans.append(Span(at, at + len(passage)))
        parts.append(passage)
        at += len(passage) + len(SEPARATOR)
    return replace(context, text=SEPARATOR.join(parts), evidence=tuple(spans), paths=None)
