"""The USER recipe: communities of a graph whose edges are partly wrong, measured where the classes are known.

    arbiter run tasks/user_planted                        four planted blocks, seconds on one core
    arbiter run tasks/user_cora data.noise=attack data.rate=0.2
    arbiter run tasks/user_cora user.learn_graph=true     the paper's learned graph: tens of minutes
    arbiter run tasks/user_planted data.path=graph.npz    a graph of your own: arrays edges [2, E], features [n, d], and
                                                          whole numbers labels [n] from 0 if you have them

The run folder holds the encoder (``encoder/``, for `UserEncoder.from_pretrained`), the loss term by term in
metrics.jsonl (stage "user"), and artifacts/user-graph.json: scores of USER and of k-means on the features, the sizes of
clusters, and how well low confidence tells the edges that were added.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from launch.contracts import Result
from launch.errors import ConfigError, DataError
from launch.options import RunOptions
from tasks.graph.user.options import Options

if TYPE_CHECKING:
    import numpy as np

    from tasks.graph.user.encoder import UserEncoder
    from tasks.graph.user.graph import Graph


@dataclass
class DataOptions:
    """Which graph, and what was done to its edges."""

    graph: Literal["planted", "cora", "citeseer", "polblogs", "wiki"] = "planted"
    """Real ones are read from ARBITER_DATA; Cora and Citeseer as `variant` says."""
    variant: Literal["lcc", "planetoid"] = "lcc"
    """lcc: the largest component, which attacks are known for; planetoid: all nodes."""
    path: str = ""
    """An .npz file without pickles in place of `graph`; directions and repetitions of its edges are dropped."""
    noise: Literal["none", "random", "attack"] = "none"
    """random: flips of pairs of nodes, by run.seed; attack: Metattack as published, on lcc."""
    rate: float = 0.2
    """Changes an edge."""
    scale: Literal["none", "min_max_l2"] = "none"
    """min_max_l2: columns of features to 0 to 1, then rows to length 1; the authors' for Wiki."""

    def __post_init__(self) -> None:
        attackable = self.graph in ("cora", "citeseer", "polblogs") and self.variant == "lcc" and not self.path
        if self.noise == "attack" and not attackable:
            raise ConfigError("attacks are known for cora, citeseer and polblogs, variant lcc; use random", "noise")


@dataclass
class Config:
    """Fitting and measuring of one encoder."""

    data: DataOptions = field(default_factory=DataOptions)
    user: Options = field(default_factory=Options)
    clusters: int = 0
    """How many to find; 0: as many as there are classes."""
    run: RunOptions = field(default_factory=lambda: RunOptions(folder="runs/user"))


class Loaded(NamedTuple):
    """A graph, with what is known of it."""

    graph: Graph
    labels: np.ndarray | None
    clean: np.ndarray
    """Edges before noise, [2, E], i < j, each once."""


def main(config: Config) -> Result:
    """Fit, measure, save the encoder.

    Returns:
        The folder; metrics `npsi` (bits, of the hard clusters on the edges as given), `clusters_used`, and where
        classes are known `accuracy`, `nmi`, `f1`, and the same of k-means on the features as `k_means_…`; with noise
        `edge_auc`, how well low confidence tells the edges that were added (.5 by chance).
    """
    from launch.config import resolve
    from launch.runfolder import RunFolder

    run = RunFolder(config.run.folder, config.run.fresh).open(resolve(config), config.run.seed)
    held = load(config.data, config.run.seed)
    run.fingerprint_data(
        "graph", [{"edges": held.graph.edges.tolist(), "features": held.graph.features.sum(1).tolist()}]
    )
    clusters = config.clusters or (0 if held.labels is None else int(held.labels.max()) + 1)
    if not clusters:
        raise ConfigError("the graph has no classes to count; say how many clusters to find", "clusters")
    with run.timing("user"):
        encoder = _fitted(config, clusters, held.graph, run)
    metrics = measured(encoder, held, config.run.seed)
    sizes = [int((encoder.labels == number).sum()) for number in range(clusters)]
    run.artifact("user-graph", {**metrics, "sizes": sizes, "nodes": len(held.graph), "edges": len(held.graph.edges.T)})
    run.log({"stage": "evaluation", "step": len(encoder.history), **metrics})
    return Result(run.path, metrics)


def load(data: DataOptions, seed: int) -> Loaded:
    """The graph that a config names, its noise included.

    Raises:
        DataError: a file that is missing, changed, or no graph.
    """
    from tasks.graph.data import load_citation, load_meta_attack
    from tasks.graph.user.graph import Graph, min_max_l2
    from tasks.graph.user.noise import planted_partition, random_flips

    if data.path:
        edges, X, y = _read(Path(data.path))
    elif data.graph == "planted":
        edges, X, y = planted_partition(240, 4, 0.12, 0.01, seed, features=32, signal=0.35)
    else:
        variant = {"wiki": "planetoid", "polblogs": "lcc"}.get(data.graph, data.variant)
        edges, X, y, _ = load_citation(data.graph, variant)
    noisy = edges
    if data.noise == "attack":
        noisy = load_meta_attack(data.graph, data.rate)
    elif data.noise == "random":
        noisy = random_flips(edges, X.shape[0], data.rate, seed)
    if data.scale == "min_max_l2":
        X = min_max_l2(X)
    return Loaded(Graph.of(noisy, X, isolated="keep"), y, edges)


def measured(encoder: UserEncoder, held: Loaded, seed: int) -> dict[str, float]:
    """See `main`."""
    import numpy as np
    from sklearn.cluster import KMeans
    from sklearn.metrics import roc_auc_score

    from tasks.graph.user.entropy import npsi_by_counting
    from tasks.graph.user.metrics import clustering_scores

    graph = held.graph
    found = {"npsi": npsi_by_counting(graph.edges, encoder.labels), "clusters_used": len(np.unique(encoder.labels))}
    if held.labels is not None:
        means = KMeans(encoder.clusters, n_init=10, random_state=seed).fit_predict(graph.features)
        found |= clustering_scores(encoder.labels, held.labels)
        found |= {f"k_means_{name}": value for name, value in clustering_scores(means, held.labels).items()}
    n = len(graph)
    clean = held.clean.astype(np.int64)
    added = ~np.isin(graph.edges[0] * n + graph.edges[1], clean[0] * n + clean[1])
    if added.any() and not added.all():
        found["edge_auc"] = float(roc_auc_score(added, -encoder.edge_confidence(graph.edges.T.tolist())))
    return found


def _fitted(config: Config, clusters: int, graph: Graph, run: Any) -> UserEncoder:
    """Fitted, or read again if this run has done so before."""
    from tasks.graph.user.encoder import UserEncoder

    place = run.path / "encoder"
    if (place / "encoder.json").is_file():
        return UserEncoder.from_pretrained(place)
    encoder = UserEncoder(clusters, config.user, config.run.seed)
    encoder.fit(graph, lambda row: run.log({"stage": "user", "step": row.pop("epoch"), **row}))
    encoder.save_pretrained(place)
    return encoder


def _read(path: Path) -> tuple[np.ndarray, Any, np.ndarray | None]:
    """Edges as noise and `measured` take them (int64 [2, E], i < j, each once), features [n, d], labels int64 [n]."""
    import zipfile

    import numpy as np

    from tasks.graph.user.graph import Graph, loop_told
    from tasks.graph.user.metrics import class_numbers

    try:
        with np.load(path, allow_pickle=False) as held:
            arrays = {name: held[name] for name in held.files}
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise DataError(f"{path} cannot be read: {error}; save it by numpy.savez, without objects") from error
    missing = [name for name in ("edges", "features") if name not in arrays]
    if missing:
        raise DataError(f"{path} has no array {missing[0]!r}; it needs edges [2, E] and features [n, d]")
    try:
        graph = Graph.of(arrays["edges"], arrays["features"], loops="drop", isolated="keep")
        told = loop_told(arrays["edges"], graph.nodes)
        if told:
            raise DataError(f"{told}; take it out")
        labels = class_numbers(arrays["labels"], "labels") if "labels" in arrays else None
    except DataError as error:
        raise DataError(f"{path}: {error}") from error
    n = len(graph)
    if labels is not None and labels.shape != (n,):
        raise DataError(f"{path}: labels have shape {labels.shape} for {n} nodes; give one a node")
    if labels is not None and labels.max() >= n:
        told = f"labels have {labels.max()} for node {labels.argmax()}, as if {n} nodes had more classes than that"
        raise DataError(f"{path}: {told}; number classes from 0 without holes")
    return graph.edges, arrays["features"], labels
