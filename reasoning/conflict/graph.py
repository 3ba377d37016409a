"""The local graph of a passage, and the shortest simple chains through it.

Nodes are normalised names, merged through an alias table and by token F1 of at least 0.8; an edge keeps every triple
that states it. A hop costs 1, or 1.2 where the link is only a co-occurrence. Chains come from Yen's algorithm in
networkx, on the part of the graph that a chain of at most L hops can reach.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any

from reasoning.conflict.instance import Triple
from reasoning.conflict.text import normalise, token_f1

if TYPE_CHECKING:
    import networkx

MERGE = 0.8
COOCCURRENCE_COST = 0.2
_TRIED = 64
"""Chains looked at per question; those over L hops are passed over, and there can be many of the same cost."""
_SOURCE, _TARGET = "\x00source", "\x00target"


class Names:
    """Maps names as written to nodes. The first name of a group of merged ones stands for all."""

    def __init__(self, aliases: Mapping[str, str] | None = None) -> None:
        self._alias = {normalise(a): normalise(b) for a, b in (aliases or {}).items()}
        self._node: dict[str, str] = {}
        self._by_word: dict[str, list[str]] = {}

    def node(self, name: str) -> str:
        """The node of a name, made if it is new; "" for a name without letters or digits."""
        key = normalise(name)
        key = self._alias.get(key, key)
        if key not in self._node:
            self._node[key] = self._merge(key) or key
            if self._node[key] == key:
                for word in set(key.split()):
                    self._by_word.setdefault(word, []).append(key)
        return self._node[key]

    def _merge(self, key: str) -> str:
        parts = key.split()
        if len(parts) < 2:
            return ""  # one word merges at F1 1 only, which is equality
        digits = {p for p in parts if p[0].isdigit()}
        near = {n: None for word in parts for n in self._by_word.get(word, ())}
        for other in near:
            theirs = other.split()
            if len(theirs) > 1 and token_f1(key, other) >= MERGE and {p for p in theirs if p[0].isdigit()} == digits:
                return other
        return ""


def build(triples: Iterable[Triple], names: Names) -> networkx.Graph:
    """Undirected graph; edge attributes ``triples`` (all that state it, in text order) and ``cost``."""
    import networkx

    graph = networkx.Graph()
    for triple in triples:
        head, tail = names.node(triple.head), names.node(triple.tail)
        if not head or not tail or head == tail:
            continue
        price = cost([triple])
        if graph.has_edge(head, tail):
            edge = graph.edges[head, tail]
            edge["triples"].append(triple)
            edge["cost"] = min(edge["cost"], price)
        else:
            graph.add_edge(head, tail, triples=[triple], cost=price)
    return graph


def cost(triples: Iterable[Triple]) -> float:
    """What it costs to walk these links."""
    return sum(1 + COOCCURRENCE_COST * t.cooccurrence for t in triples)


def chains(
    graph: networkx.Graph, sources: Sequence[str], targets: Sequence[str], max_hops: int, count: int
) -> list[list[str]]:
    """At most `count` simple node chains from a source to a target, cheapest first, none over `max_hops` links.

    Nodes that are both source and target are sources only. [] where nothing joins them.
    """
    import networkx

    starts = [s for s in dict.fromkeys(sources) if s in graph]
    ends = [t for t in dict.fromkeys(targets) if t in graph and t not in starts]
    if not starts or not ends or max_hops < 1:
        return []
    near = _within(graph, starts, max_hops)
    back = _within(graph, ends, max_hops)
    keep = [n for n in near if n in back and near[n] + back[n] <= max_hops]
    if not keep:
        return []
    part: Any = networkx.Graph()
    part.add_nodes_from(keep)  # in a fixed order, so that ties fall the same way in every process
    kept = set(keep)
    part.add_edges_from((a, b, {"cost": d["cost"]}) for a, b, d in graph.edges(data=True) if a in kept and b in kept)
    part.add_edges_from((_SOURCE, s, {"cost": 0.0}) for s in starts if s in kept)
    part.add_edges_from((t, _TARGET, {"cost": 0.0}) for t in ends if t in kept)
    found: list[list[str]] = []
    start_set, end_set = set(starts), set(ends)
    for chain in islice(_yen(part), _TRIED):
        inner = chain[1:-1]
        # A chain through a second question entity or past a first answer holds a shorter one.
        if len(inner) - 1 <= max_hops and not start_set & set(inner[1:]) and not end_set & set(inner[:-1]):
            found.append(inner)
            if len(found) == count:
                break
    return found


def _yen(part: networkx.Graph) -> Iterator[list[str]]:
    import networkx

    return networkx.shortest_simple_paths(part, _SOURCE, _TARGET, weight="cost")


def _within(graph: networkx.Graph, roots: Sequence[str], hops: int) -> dict[str, int]:
    """Hops from the nearest root, breadth first, up to `hops`."""
    seen = dict.fromkeys(roots, 0)
    edge = list(roots)
    for distance in range(1, hops + 1):
        new = [n for node in edge for n in graph.adj[node] if n not in seen]
        edge = list(dict.fromkeys(new))
        seen.update(dict.fromkeys(edge, distance))
    return seen
