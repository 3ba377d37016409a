"""`UserEncoder`: communities and vectors of a graph whose edges are partly wrong, learned without labels.

    graph = Graph.of(edges, features)
    encoder = UserEncoder(clusters=7, options=Options(learning_rate=0.1)).fit(graph)
    encoder.labels, encoder.soft_assignment, encoder.encode([17, 404]), encoder.edge_confidence([(17, 404)])

USER, arXiv 2302.05889: full batch, Adam, a rate that falls where the loss stalls. Transductive: it knows the nodes that
it was fitted on. Left out: GPUs, and batches of nodes.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, Self

import numpy as np
import torch
from torch.nn import functional as F

from launch.errors import ArbiterError, DataError
from tasks.encoder import SavedEncoder
from tasks.graph.user.features import Features
from tasks.graph.user.graph import Graph, is_id, pairs_of
from tasks.graph.user.network import LearnedGraph, Network, normalised_given, propagation
from tasks.graph.user.objective import Terms, terms
from tasks.graph.user.options import SETTLED, Options
from tasks.graph.user.sparse import SparseMatrix, constant

DENSE_LIMIT = 20_000
"""Nodes up to which a learned graph, a dense matrix, is allowed: 1.6 GB, of which training holds about eight."""
HISTORY = ("npsi_learned", "npsi_given", "dbi", "retention", "loss", "learning_rate")
"""Columns of `UserEncoder.history`, one row an epoch; terms before they are weighted."""

_FAR = 10
"""Deviations from 0 at which features are called far: the index then measures hardly anything else."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Fitted:
    """What a fit left, by the names of its tensors on disk."""

    assignment: np.ndarray
    """Y, float32 [n, r]."""
    vectors: np.ndarray
    """Z, float32 [n, hidden], rows of length 1."""
    history: np.ndarray
    """float64 [epochs, 6], see `HISTORY`."""
    learned: np.ndarray | None
    """A' without its diagonal, float32 [n, n]."""


class UserEncoder(SavedEncoder):
    """Unsupervised Structural Entropy-based Robust graph neural network."""

    def __init__(self, clusters: int, options: Options | None = None, seed: int = 0) -> None:
        if clusters < 2:
            raise DataError(f"clusters={clusters}: parts are told apart from 2 on; ask for at least 2")
        self.clusters, self.options, self.seed = clusters, options or Options(), seed
        self.nodes: Sequence[Any] = []
        self._place: dict[Any, int] = {}
        self._fitted: _Fitted | None = None

    def fit(self, data: Graph, log: Callable[[dict[str, float]], None] | None = None) -> UserEncoder:
        """Learn parts and vectors of a graph's nodes.

        Args:
            data: the graph.
            log: called after every epoch with `HISTORY`'s values by name, and "epoch".

        Raises:
            DataError: fewer nodes than clusters, or too many for a learned graph.
            ArbiterError: the loss is not, or stopped being, finite.
        """
        if len(data) < self.clusters:
            raise DataError(f"{len(data)} nodes cannot fill {self.clusters} clusters; ask for fewer")
        if self.options.learn_graph and len(data) > DENSE_LIMIT:
            raise DataError(f"{len(data)} nodes: a learned graph is dense, up to {DENSE_LIMIT}; use learn_graph=False")
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            learner = Learner(data, self.clusters, self.options)
            history = learner.run(log)
        self.nodes = data.nodes
        self._place = {node: n for n, node in enumerate(data.nodes)}
        self._fitted = learner.result(history)
        if len(np.unique(self.labels)) < self.clusters:
            logger.warning("%d of %d clusters hold nodes", len(np.unique(self.labels)), self.clusters)
        return self

    # ------------------------------------------------------------ what was learned

    @property
    def soft_assignment(self) -> np.ndarray:
        """Y, float32 [n, r]: each node's share in each cluster, in the order of the graph's nodes."""
        return self._known.assignment

    @property
    def labels(self) -> np.ndarray:
        """int64 [n]: the cluster in which a node has its largest share."""
        return self._known.assignment.argmax(1)

    @property
    def history(self) -> np.ndarray:
        """float64 [epochs, 6], see `HISTORY`."""
        return self._known.history

    @property
    def learned_graph(self) -> np.ndarray | None:
        """A', float32 [n, n], symmetric, zero diagonal; None if it was not learned."""
        return self._known.learned

    def encode(self, items: Sequence[Any]) -> np.ndarray:
        """Vectors of nodes by id, float32 [len(items), hidden], rows of length 1."""
        return self._known.vectors[self._positions(items)]

    def edge_confidence(self, pairs: Sequence[Sequence[Any]]) -> np.ndarray:
        """How likely pairs of nodes are to be joined rightly, float32 [len(pairs)].

        A'_ij where the graph was learned: about 1 for an edge to believe. Else the chance in 0 to 1 that both nodes are
        in one cluster, Y_i . Y_j.

        Args:
            pairs: [k, 2], two ids each; a graph's `edges` are [2, E], and go in as ``graph.edges.T``.

        Raises:
            DataError: a pair that has not two ids, or an id that the graph has not.
        """
        i, j = self._ends(pairs)
        if self._known.learned is not None:
            return self._known.learned[i, j]
        return (self._known.assignment[i] * self._known.assignment[j]).sum(1)

    def link_probability(self, pairs: Sequence[Sequence[Any]]) -> np.ndarray:
        """sigmoid(z_i . z_j), float32 [len(pairs)]: the paper's score of missing links, in .27 to .73.

        Takes and refuses what `edge_confidence` does.
        """
        i, j = self._ends(pairs)
        return 1 / (1 + np.exp(-(self._known.vectors[i] * self._known.vectors[j]).sum(1)))

    @property
    def _known(self) -> _Fitted:
        if self._fitted is None:
            raise DataError("this encoder has seen no graph; call fit, or from_pretrained on a saved one")
        return self._fitted

    def _ends(self, pairs: Sequence[Sequence[Any]]) -> list[list[int]]:
        checked = pairs_of(pairs)
        return [self._positions([pair[end] for pair in checked]) for end in (0, 1)]

    def _positions(self, items: Sequence[Any]) -> list[int]:
        place, count = self._place, len(self._known.assignment)
        unknown = [item for item in items if not is_id(item) or item not in place]
        if unknown:
            told = f"node {unknown[0]!r} is not among the {count} nodes of the graph, such as {self.nodes[0]!r}"
            raise DataError(f"{told}; fit the encoder on a graph that has it")
        return [place[item] for item in items]

    # ------------------------------------------------------------ disk

    def settings(self) -> dict[str, Any]:
        """Hyper-parameters, and the ids of nodes unless they are 0, 1, …"""
        numbered = isinstance(self.nodes, range)
        held = {"clusters": self.clusters, "seed": self.seed, "options": asdict(self.options)}
        return {**held, "nodes": len(self.nodes) if numbered else list(self.nodes)}

    def tensors(self) -> dict[str, np.ndarray]:
        """What `fit` learned; the dense A' among it where there is one."""
        return {f.name: value for f in fields(_Fitted) if (value := getattr(self._known, f.name)) is not None}

    @classmethod
    def restore(cls, settings: dict[str, Any], tensors: dict[str, np.ndarray]) -> Self:
        """See `SavedEncoder`."""
        encoder = cls(settings["clusters"], Options(**settings["options"]), settings["seed"])
        nodes = settings["nodes"]  # formerly, whole numbers of an array were saved as floats
        encoder.nodes = (
            range(nodes) if isinstance(nodes, int) else [int(n) if isinstance(n, float) else n for n in nodes]
        )
        encoder._place = {node: n for n, node in enumerate(encoder.nodes)}
        encoder._fitted = _Fitted(**{"learned": None, **tensors})  # type: ignore[arg-type]
        return encoder


class Learner:
    """The fit itself: matrices, network, learned graph and optimiser. Draws from torch's global generator."""

    def __init__(self, graph: Graph, clusters: int, options: Options) -> None:
        self.options = options
        self.X = Features(constant(graph.features))
        if options.beta and self.X.deviations_from_0 > _FAR:
            told = "which the Davies-Bouldin index of soft parts mostly measures then"
            remedy = "subtract the means of their columns, or set beta=0"
            logger.warning("features lie %.3g deviations from 0, %s; %s", self.X.deviations_from_0, told, remedy)
        self.B = SparseMatrix.of(graph.adjacency(), symmetric=True)
        self.edges = torch.from_numpy(graph.edges)
        self.given = normalised_given(graph)
        self.network = Network(self.X, options.hidden, clusters, options.dropout)
        self.graph = LearnedGraph(len(graph)) if options.learn_graph else None
        self.dense_given = self.given.csr.to_dense() if options.learn_graph else None

    def run(self, log: Callable[[dict[str, float]], None] | None = None) -> np.ndarray:
        """Train; returns `HISTORY`, float64 [epochs, 6]."""
        learnt = [p for module in (self.network, self.graph) if module for p in module.parameters() if p.requires_grad]
        adam = torch.optim.Adam(learnt, lr=self.options.learning_rate, weight_decay=self.options.weight_decay)
        schedule = torch.optim.lr_scheduler.ReduceLROnPlateau(adam, mode="min", factor=0.3, patience=10)
        rows = []
        self.network.train()
        for epoch in range(self.options.epochs):
            adam.zero_grad()
            parts = self.terms()
            loss = parts.total(self.options.alpha, self.options.beta)
            values = [getattr(parts, name).item() for name in HISTORY[:4]]
            rows.append([*values, loss.item(), adam.param_groups[0]["lr"]])
            if not np.isfinite(rows[-1]).all():
                told = ", ".join(f"{name} {value:g}" for name, value in zip(HISTORY, rows[-1], strict=True))
                remedy = "lower learning_rate, or scale the features" if epoch else "scale the features"
                raise ArbiterError(f"the loss is not finite in epoch {epoch}: {told}; {remedy}")
            loss.backward()
            adam.step()
            schedule.step(loss.item())
            if log is not None:
                log({"epoch": epoch, **dict(zip(HISTORY, rows[-1], strict=True))})
            if adam.param_groups[0]["lr"] < SETTLED * self.options.learning_rate:
                break
        return np.array(rows)

    def terms(self) -> Terms:
        """The loss's terms for the present weights."""
        learned, A = self.matrices()
        Y, _ = self.network(self.X, A)
        return terms(Y, self.X, self.B, self.edges, learned)

    def matrices(self) -> tuple[torch.Tensor | None, torch.Tensor | SparseMatrix]:
        """A' if it is learned, and the propagation matrix."""
        if self.graph is None or self.dense_given is None:
            return None, self.given
        learned = self.graph()
        return learned, propagation(self.dense_given, learned)

    @torch.no_grad()
    def result(self, history: np.ndarray) -> _Fitted:
        """Parts and vectors in evaluation mode."""
        self.network.eval()
        learned, A = self.matrices()
        Y, H = self.network(self.X, A)
        Z = F.normalize(A @ H, dim=1)
        held = None if learned is None else learned.fill_diagonal_(0).numpy()
        return _Fitted(Y.numpy(), Z.numpy(), history, held)
