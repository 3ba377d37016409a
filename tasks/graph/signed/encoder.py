"""`SignedGraphEncoder`: nodes of a signed graph as vectors, and the sign that an edge between two of them would have.

    encoder = SignedGraphEncoder().fit(edges)              # int [m, 3]: source, target, sign
    encoder.encode([17, 404])                              # float32 [2, 64]
    encoder.predict([[17, 404]])                           # chance in 0 to 1 that 17 trusts 404
    encoder.save_pretrained("trust")

Chances come from classes of equal weight: .5 is where both signs fit alike, however rare one of them is. What is saved
needs neither torch nor PyTorch Geometric to be used.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from scipy.special import expit

from launch.errors import DataError
from tasks.encoder.saved import SavedEncoder
from tasks.graph.signed.edges import SignedGraph, find, unknown_node, whole_numbers
from tasks.graph.signed.options import AugmentOptions, BackboneOptions, CurriculumOptions, Thresholds
from tasks.graph.signed.scorer import PairHead

if TYPE_CHECKING:
    from launch.runfolder import RunFolder


class SignedGraphEncoder(SavedEncoder):
    """Embeddings of nodes and a head over pairs of them."""

    def __init__(
        self,
        backbone: BackboneOptions | None = None,
        curriculum: CurriculumOptions | None = None,
        augment: AugmentOptions | None = None,
        seed: int = 0,
    ) -> None:
        self.backbone = backbone or BackboneOptions()
        self.curriculum = curriculum or CurriculumOptions()
        self.augment = augment or AugmentOptions()
        self.seed = seed
        self.changes: dict[str, int] | None = None
        """What the augmentation did, if there was one."""
        self.ids = np.zeros(0, dtype=np.int64)
        self.z = np.zeros((0, 0), dtype=np.float32)
        self.head: PairHead | None = None

    def fit(
        self,
        data: Any,
        nodes: Any = None,
        features: Any = None,
        run: RunFolder | None = None,
        validation: Any = None,
    ) -> Self:
        """Train on signed edges.

        Args:
            data: integers [m, 3]: source, target, sign (1 or -1).
            nodes: ids of all nodes, if some without edges shall have vectors too; those rest on their inputs alone.
            features: float [n, d] of the nodes in the order of their ids; None: what `backbone.inputs` says.
            run: keeps metrics and checkpoints; None: nothing is kept.
            validation: integers [k, 3], edges that choose the epoch (CSG); None: the last one is taken.

        Raises:
            DataError: edges that make no signed graph, or of one sign only; features that do not fit or are not finite.
        """
        from tasks.graph.signed.learn import learn

        graph = SignedGraph.of(data, nodes)
        held_out = None if validation is None else SignedGraph.of(validation, graph.ids).rows
        learned = learn(
            graph, self.backbone, self.curriculum, self.augment, self.seed, run, features, validation=held_out
        )
        self.ids, self.z, self.head = graph.ids, learned.trained.z, learned.trained.head
        self.changes = asdict(learned.changes) if learned.changes else None
        return self

    def encode(self, items: Any) -> np.ndarray:
        """Vectors of nodes, by their ids: float32 [n, d].

        Raises:
            DataError: a node that the graph does not have, or no fit yet.
        """
        return self.z[self._positions(items)]

    def score(self, pairs: Any) -> np.ndarray:
        """Log-odds of the positive sign, float64 [k], of pairs of ids [k, 2]: from whom, to whom.

        Raises:
            DataError: a node that the graph does not have, or no pairs.
        """
        asked = whole_numbers(pairs, "pairs")
        if asked.ndim != 2 or asked.shape[1] != 2:
            raise DataError(f"pairs have shape {asked.shape}; rows of source, target are needed")
        at = self._positions(asked)
        assert self.head is not None  # `_positions` has seen to it
        return self.head.score(self.z[at[:, 0]], self.z[at[:, 1]])

    def predict(self, pairs: Any) -> np.ndarray:
        """Chance in 0 to 1 that the sign is positive, float64 [k]; see `score`."""
        chances: np.ndarray = expit(self.score(pairs))
        return chances

    @staticmethod
    def difficulty(edges: Any) -> np.ndarray:
        """Share of unbalanced triangles of each edge, float64 [m]; see `triangles.difficulty`."""
        from tasks.graph.signed.triangles import difficulty

        return difficulty(SignedGraph.of(edges))

    def settings(self) -> dict[str, Any]:
        return {
            "backbone": asdict(self.backbone),
            "curriculum": asdict(self.curriculum),
            "augment": asdict(self.augment),
            "seed": self.seed,
            "changes": self.changes,
        }

    def tensors(self) -> dict[str, np.ndarray]:
        if self.head is None:
            raise DataError("there is nothing to save; call fit first")
        found: dict[str, np.ndarray] = {
            "ids": self.ids,
            "z": self.z,
            "weight": np.asarray(self.head.weight, dtype=np.float64),
            "bias": np.array([self.head.bias]),
        }
        if self.head.product is not None:
            found["product"] = np.asarray(self.head.product, dtype=np.float64)
        return found

    @classmethod
    def restore(cls, settings: dict[str, Any], tensors: dict[str, np.ndarray]) -> Self:
        augment = settings["augment"]
        encoder = cls(
            BackboneOptions(**settings["backbone"]),
            CurriculumOptions(**settings["curriculum"]),
            AugmentOptions(
                augment["enabled"], Thresholds(**augment["thresholds"]), BackboneOptions(**augment["encoder"])
            ),
            settings["seed"],
        )
        encoder.changes = settings["changes"]
        encoder.ids, encoder.z = tensors["ids"], tensors["z"]
        encoder.head = PairHead(tensors["weight"], float(tensors["bias"][0]), tensors.get("product"))
        return encoder

    def _positions(self, ids: Any) -> np.ndarray:
        if self.head is None:
            raise DataError("the encoder knows no graph; call fit, or load one with from_pretrained")
        asked = whole_numbers(ids, "nodes")
        at = find(self.ids, asked)
        if (at < 0).any():
            raise unknown_node(asked[at < 0].flat[0], self.ids)
        return at
