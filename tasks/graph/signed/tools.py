"""What a model may ask of a signed graph: the sign of a link, and which edges are hard to reconcile with the others."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any

from launch.errors import DataError
from launch.tools import data_path, tool, written

if TYPE_CHECKING:
    from tasks.graph.signed.encoder import SignedGraphEncoder

MOST_PAIRS = 2000
MOST_EDGES = 100_000


@tool(imports=["tasks.graph.signed.encoder"], seconds=60, megabytes=4096)
def predict_link_sign(pairs: list[list[int]], encoder: str) -> dict[str, Any]:
    """Predict whether a link between two members of a signed network is positive (trust) or negative (distrust).

    Args:
        pairs: The links to judge, at most 2000, each [from, to] by the numbers of the members.
        encoder: Folder of the trained signed-graph encoder, below the data folder.

    Returns:
        positive, for each pair the chance in 0 to 1 that the link is positive, if both signs were equally common; sign,
        1 or -1, the likelier one.
    """
    if not 0 < len(pairs) <= MOST_PAIRS:
        raise DataError(f"{len(pairs)} pairs were given; give 1 to {MOST_PAIRS} at a time")
    bad = next((i for i, pair in enumerate(pairs) if len(pair) != 2), None)
    if bad is not None:
        raise DataError(f"pair {bad} has {len(pairs[bad])} members; a pair is [from, to]")
    folder = data_path(encoder)
    chances = _encoder(str(folder), written(folder)).predict(pairs)
    return {"positive": chances.round(6).tolist(), "sign": [1 if chance > 0.5 else -1 for chance in chances]}


@lru_cache(maxsize=2)
def _encoder(folder: str, when: int) -> SignedGraphEncoder:
    from tasks.graph.signed.encoder import SignedGraphEncoder

    return SignedGraphEncoder.from_pretrained(folder)


@tool(imports=["tasks.graph.signed.triangles"], seconds=60, megabytes=2048)
def edge_difficulty(edges: list[list[int]], most: int = 20) -> dict[str, Any]:
    """Find the edges of a signed network that disagree with the edges around them.

    Three members are in balance when the product of the signs between them is positive: the friend of a friend is a
    friend, the foe of a foe is a friend.

    Args:
        edges: All edges of the network, at most 100000, each [from, to, sign] with sign 1 or -1.
        most: How many of the hardest edges to return.

    Returns:
        hardest, edges with the largest share of unbalanced triangles, each [from, to, sign, share in 0 to 1], hardest
        first; mean, the mean share over all edges in 0 to 1, where edges in no triangle have 0; in_triangle, the share
        of the edges in 0 to 1 that lie in a triangle at all.
    """
    import numpy as np

    from tasks.graph.signed.edges import SignedGraph
    from tasks.graph.signed.triangles import difficulty, in_triangle

    if len(edges) > MOST_EDGES:
        raise DataError(f"{len(edges)} edges were given; give at most {MOST_EDGES}, say the part around some members")
    if most < 1:
        raise DataError(f"most is {most}; ask for 1 edge or more")
    graph = SignedGraph.of(edges)
    share = difficulty(graph)
    order = np.argsort(-share, kind="stable")[:most]
    hardest = [[*row, round(float(d), 6)] for row, d in zip(graph.rows[order].tolist(), share[order], strict=True)]
    return {
        "hardest": hardest,
        "mean": round(float(share.mean()), 6),
        "in_triangle": round(float(in_triangle(graph).mean()), 6),
    }
