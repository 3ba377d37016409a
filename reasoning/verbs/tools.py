"""What a model may ask about verbs: what can do this, to what can it be done."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any, Literal

from launch.tools import data_path, tool

if TYPE_CHECKING:
    from reasoning.verbs.lexicon import Lexicon

IMPORTS = ("reasoning.verbs.lexicon", "scipy.sparse")


@tool(imports=IMPORTS, seconds=120, megabytes=2048)
def argument_concepts(
    verb: str, role: Literal["subject", "object"], k: int = 5, text: str | None = None
) -> dict[str, Any]:
    """Say in a few general concepts what can be the subject or the object of a verb.

    Args:
        verb: An English verb in its base form, such as "wear".
        role: Whether to describe who does it or to what it is done.
        k: How many concepts, 1 to 20; more are finer.
        text: CoNLL-U file or folder of parsed text, below the data folder; without it WordNet's examples.

    Returns:
        concepts, each with its weight (a sum of entropies in nats), heaviest first; fewer than k where no k of them
        overlap by at most 0.2, and none where no concept has a positive weight; proven, whether none
        is better; arguments, how many the verb had in the text; source, which text that was.
    """
    from launch.errors import DataError

    if not 1 <= k <= 20:
        raise DataError(f"k is {k}; give 1 to 20")
    lexicon = _lexicon(text)
    verb = _base(verb, lexicon)
    _, found = lexicon.finest(verb, role, k)
    return {
        "concepts": [{"concept": name, "weight": round(weight, 6)} for name, weight in found.chosen],
        "proven": found.proven,
        "arguments": lexicon.statistics[role].verbs[verb],
        "source": lexicon.source,
    }


@tool(imports=IMPORTS, seconds=120, megabytes=2048)
def check_argument(
    verb: str, role: Literal["subject", "object"], term: str, k: int = 5, text: str | None = None
) -> dict[str, Any]:
    """Check whether something is a plausible subject or object of a verb.

    Args:
        verb: An English verb in its base form, such as "wear".
        role: Whether the term does it or has it done to it.
        term: A noun or noun phrase, such as "scarf".
        k: How many concepts of the verb to compare with, 1 to 20.
        text: CoNLL-U file or folder of parsed text, below the data folder; without it WordNet's examples.

    Returns:
        covered, whether the term falls under a concept of the verb's arguments; by, these concepts, heaviest first;
        score in 0 to 1, how typical the heaviest of them is; known, whether the taxonomy has the term at all: a term it
        lacks is never covered. Sparse text covers little: false says "not seen to fit", not "impossible".
    """
    from launch.errors import DataError

    if not 1 <= k <= 20:
        raise DataError(f"k is {k}; give 1 to 20")
    # All ancestors: they tell true from false arguments better than direct pairs (docs/results/verb_identification.md).
    lexicon = _lexicon(text, closure=True)
    return {**lexicon.check(_base(verb, lexicon), role, term, k), "known": lexicon.known(term) in lexicon.taxonomy}


def _base(verb: str, lexicon: Lexicon) -> str:
    """The verb as the lexicon has it: "to Sing", "sang" are sing."""
    from reasoning.verbs.shallow import lemma

    written = " ".join(verb.casefold().removeprefix("to ").split())
    seen = any(written in statistics.counts for statistics in lexicon.statistics.values())
    return written if seen else lemma(written, "verb")


def _lexicon(text: str | None, closure: bool = False) -> Lexicon:
    from reasoning.verbs.lexicon import wordnet_lexicon

    return _from_file(str(data_path(text)), closure) if text else wordnet_lexicon(closure)


@lru_cache(2)
def _from_file(path: str, closure: bool) -> Lexicon:
    from reasoning.verbs.lexicon import Lexicon
    from reasoning.verbs.taxonomy import wordnet

    return Lexicon.from_conllu(path, wordnet(closure))
