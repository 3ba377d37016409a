"""What a model may ask of a graph whose edges are partly wrong: its communities, and which edges to believe."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from launch.errors import DataError
from launch.tools import tool

if TYPE_CHECKING:
    from tasks.graph.user.encoder import UserEncoder
    from tasks.graph.user.graph import Graph

IMPORTS = ("tasks.graph.user.encoder", "torch_geometric.nn")
MOST_NODES = 5000
MOST_LEARNED = 500
"""Nodes up to which `denoise_graph` may learn a graph: one call then takes seconds."""


@tool(imports=IMPORTS, seconds=120, megabytes=4096, result_bytes=262_144)
def cluster_nodes(
    edges: list[list[int | str]],
    n_clusters: int,
    features: list[list[float]] | None = None,
    nodes: list[int | str] | None = None,
    epochs: int = 300,
) -> dict[str, Any]:
    """Find communities of linked things, such as passages that cite each other, even if some links are wrong.

    Args:
        edges: Links, each a pair of node ids; direction does not matter; none from a node to itself.
        n_clusters: How many communities to find, at least 2.
        features: One row of numbers for each node, such as the embedding of its text; leave it out if there are none.
            With it, nodes without links are kept, and placed by their features alone.
        nodes: The ids that the rows of features belong to, in their order; leave it out if ids are 0, 1, 2, and so on.
        epochs: At most so many steps of learning, 50 to 1000.

    Returns:
        communities, for each its number from 0, its size and the ids of its nodes; confidence, for each node id in the
        order of the communities, the share in 0 to 1 with which the node belongs there; entropy, the structural entropy
        of the partition in bits, 0 for none, the lower the stronger.
    """
    graph = _graph(edges, features, nodes)
    encoder = _fit(graph, n_clusters, epochs, alpha=0.5, beta=0.005 if features else 0.0, learn_graph=False)
    shares = encoder.soft_assignment.max(1)
    communities, confidence = [], []
    for number in range(n_clusters):
        members = [n for n in range(len(graph)) if encoder.labels[n] == number]
        communities.append({"number": number, "size": len(members), "nodes": [graph.nodes[n] for n in members]})
        confidence.append([round(float(shares[n]), 3) for n in members])
    return {
        "communities": communities,
        "confidence": confidence,
        "entropy": round(_entropy(graph, encoder), 4),
    }


@tool(imports=IMPORTS, seconds=120, megabytes=4096, result_bytes=1_048_576)
def denoise_graph(
    edges: list[list[int | str]],
    features: list[list[float]],
    n_clusters: int,
    nodes: list[int | str] | None = None,
    alpha: float = 0.5,
    beta: float = 0.005,
    epochs: int = 300,
    learn_graph: bool = False,
    vectors: bool = False,
) -> dict[str, Any]:
    """Say which links of a graph to believe, and find its communities, without being told what is right.

    Args:
        edges: Links, each a pair of node ids; direction does not matter; none from a node to itself.
        features: One row of numbers for each node, such as the embedding of its text; nodes without links are kept, and
            placed by their features alone.
        n_clusters: How many communities there are, at least 2.
        nodes: The ids that the rows of features belong to, in their order; leave it out if ids are 0, 1, 2, and so on.
        alpha: How strongly a learned graph holds on to the given links, from 0.
        beta: How strongly communities are kept together in feature space, from 0.
        epochs: At most so many steps of learning, 50 to 1000.
        learn_graph: Learn a graph beside the given one; slow, for at most 500 nodes.
        vectors: Give the vector of each node too.

    Returns:
        edge_confidence, for each edge as given: without learn_graph the chance in 0 to 1 that both ends are in one
        community, with it about 1 for an edge to believe; doubtful, the indices from 0 of the tenth of the edges with
        the lowest confidence, lowest first; labels and soft_assignment, for each node in the order of nodes the number
        from 0 of its community and its share in 0 to 1 in each; embeddings, vectors of length 1, or null.
    """
    graph = _graph(edges, features, nodes)
    if learn_graph and len(graph) > MOST_LEARNED:
        raise DataError(
            f"{len(graph)} nodes are too many to learn a graph, up to {MOST_LEARNED}; set learn_graph false"
        )
    encoder = _fit(graph, n_clusters, epochs, alpha=alpha, beta=beta, learn_graph=learn_graph)
    confidence = encoder.edge_confidence(edges)
    return {
        "edge_confidence": confidence.round(4),
        "doubtful": confidence.argsort(kind="stable")[: max(1, len(edges) // 10)],
        "labels": encoder.labels,
        "soft_assignment": encoder.soft_assignment.round(4),
        "embeddings": encoder.encode(graph.nodes).round(4) if vectors else None,
    }


def _graph(edges: Any, features: Any, nodes: Any) -> Graph:
    """Nodes without edges stay where they have features to go by; what is refused names no option of `Graph`."""
    from tasks.graph.user.graph import Graph, isolated_told, pairs_of

    own = [n for n, (a, b) in enumerate(pairs_of(edges)) if a == b]
    if own:
        raise DataError(
            f"edge {own[0]} joins node {edges[own[0]][0]!r} to itself ({len(own)} such in all); take it out"
        )
    graph = Graph.from_pairs(edges, features, nodes, isolated="keep")
    told = isolated_told(graph.edges, graph.nodes) if features is None else None
    if told:
        raise DataError(f"{told}; take it out of nodes, or give features for all nodes")
    if len(graph) > MOST_NODES:
        raise DataError(f"{len(graph)} nodes are too many for one call, up to {MOST_NODES}; give a part of the graph")
    return graph


def _fit(graph: Graph, clusters: int, epochs: int, alpha: float, beta: float, learn_graph: bool) -> UserEncoder:
    from tasks.graph.user.encoder import UserEncoder
    from tasks.graph.user.options import Options

    if not 50 <= epochs <= 1000:
        raise DataError(f"epochs={epochs}; give 50 to 1000")
    if min(alpha, beta) < 0:
        raise DataError(f"alpha={alpha:g}, beta={beta:g}; give numbers from 0")
    options = Options(alpha=alpha, beta=beta, learning_rate=0.01, epochs=epochs, learn_graph=learn_graph)
    return UserEncoder(clusters, options).fit(graph)


def _entropy(graph: Graph, encoder: UserEncoder) -> float:
    from tasks.graph.user.entropy import npsi_by_counting

    return npsi_by_counting(graph.edges, encoder.labels)
