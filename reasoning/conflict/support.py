"""How far the steps of a trace support one side of a conflict: sup(trace, P) of `reward`, 0 to 1.

`chains` leaves out of each path what the other side has too; `support` compares what is left with cited steps. In graph
form: half for the chain's entities in order (LCS), half for its links, head before tail within one step. For paths
without links: half for ROUGE-L recall of their own content words, half for entity recall.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from reasoning.conflict.completion import Step
from reasoning.conflict.instance import Path
from reasoning.conflict.text import STOP_WORDS, lcs, negates, normalise, token_f1, words


@dataclass(frozen=True)
class Chain:
    """A path with what only its side has."""

    path: Path
    nodes: tuple[str, ...]
    links: tuple[tuple[str, str], ...]
    content: tuple[str, ...]
    """Content words of its sentences, for paths without links."""
    negated: bool
    """Its own sentences contain a negation, so that repeating it refutes nothing."""


def chains(mine: Sequence[Path], theirs: Sequence[Path]) -> tuple[Chain, ...]:
    """The paths of one side, without the nodes, links and words that the other side has too."""
    nodes = {n for path in theirs for n in path.entities}
    links = {link for path in theirs for link in _links(path)}
    content = {w for path in theirs for s in path.sentences for w in words(s)}
    chains = []
    for path in mine:
        said = [w for s in path.sentences for w in words(s)]
        chain = Chain(
            path,
            tuple(n for n in path.entities if n not in nodes),
            tuple(link for link in _links(path) if link not in links),
            tuple(w for w in said if w not in content and w not in STOP_WORDS),
            negates(said),
        )
        if chain.nodes or chain.links or (not path.triples and chain.content):
            chains.append(chain)
    return tuple(chains)


def _links(path: Path) -> list[tuple[str, str]]:
    """A path's links as (head node, tail node), in the direction they are written."""

    def node(name: str) -> str:
        key = normalise(name)
        return key if key in path.entities else max(path.entities, key=lambda e: token_f1(e, key), default=key)

    return [(node(t.head), node(t.tail)) for t in path.triples]


def support(cited: Sequence[Step], chains: Sequence[Chain], vocabulary: dict[str, str]) -> float:
    """sup(trace, P): the best-supported chain's, 0 to 1."""
    mentions = [mentioned(s.tokens, vocabulary) for s in cited]
    negated = [s.negated for s in cited]
    best = 0.0
    for chain in chains:
        # Saying that something is not so refutes a chain, unless the chain itself says so.
        own = [i for i in range(len(cited)) if chain.negated or not negated[i]]
        seen = [mentions[i] for i in own]
        best = max(best, _links_support(chain, seen) if chain.path.triples else _text_support(chain, cited, own, seen))
    return best


def _links_support(chain: Chain, mentions: Sequence[Sequence[str]]) -> float:
    """Half for entities in order, half for links; whichever the chain has none of is left out."""
    scores = []
    if chain.nodes:
        order = [n for step in mentions for n in step if n in chain.nodes]
        scores.append(lcs(order, chain.nodes) / len(chain.nodes))
    if chain.links:
        stated = sum(any(_ordered(step, head, tail) for step in mentions) for head, tail in chain.links)
        scores.append(stated / len(chain.links))
    return sum(scores) / len(scores)


def _text_support(chain: Chain, cited: Sequence[Step], own: Sequence[int], mentions: Sequence[Sequence[str]]) -> float:
    """Half for ROUGE-L recall of the sentences' own words, half for entity recall."""
    scores = []
    if chain.content:
        said = [w for i in own for w in words(cited[i].text) if w not in STOP_WORDS]
        scores.append(lcs(said, chain.content) / len(chain.content))
    if chain.nodes:
        named = {n for step in mentions for n in step}
        scores.append(sum(n in named for n in chain.nodes) / len(chain.nodes))
    return sum(scores) / len(scores)


def _ordered(step: Sequence[str], head: str, tail: str) -> bool:
    return head in step and tail in step[step.index(head) + 1 :]


def mentioned(tokens: Sequence[str], vocabulary: dict[str, str]) -> list[str]:
    """Nodes named in a row of normalised words, in order; of names that overlap, the longest."""
    return [node for _, node in mentioned_at(tokens, vocabulary)]


def mentioned_at(tokens: Sequence[str], vocabulary: dict[str, str]) -> list[tuple[int, str]]:
    longest = max((name.count(" ") + 1 for name in vocabulary), default=0)
    found, i = [], 0
    while i < len(tokens):
        for size in range(min(longest, len(tokens) - i), 0, -1):
            node = vocabulary.get(" ".join(tokens[i : i + size]))
            if node is not None:
                found.append((i, node))
                i += size
                break
        else:
            i += 1
    return found
