"""Signs of links on four real graphs: docs/results/signed_links.json and docs/results/signed_links.md.

    python -m benchmarks.signed_links            # every cell of the plan that is not there yet, in its order
    python -m benchmarks.signed_links --minutes 45
    python -m benchmarks.signed_links --write    # only write what the finished cells say

A cell is one method on one split of one graph. Each finished cell is a line of runs/signed_links/cells.jsonl, so that
the study can be stopped and continued; where that file is not there, it starts from the cells of the results. Graphs
and published splits are read from $ARBITER_DATA; further splits are drawn 80/20 for each sign, or 85/5/10 (csg).
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import rankdata

from benchmarks.measure import machine
from benchmarks.signed_links_page import RESULTS, write
from launch.runfolder import read_rows, write_rows
from tasks.graph.signed.augment import Changes, augment, candidate_precision, score_pairs, unbalanced_among_added
from tasks.graph.signed.baselines import always_positive, six_feature_scores
from tasks.graph.signed.curriculum import Curriculum
from tasks.graph.signed.data import load_signed
from tasks.graph.signed.edges import SignedGraph
from tasks.graph.signed.evaluate import measured
from tasks.graph.signed.learn import schedule
from tasks.graph.signed.metrics import sign_metrics
from tasks.graph.signed.options import THRESHOLDS, Backbone, BackboneOptions, CurriculumOptions, published
from tasks.graph.signed.splits import leakage, split_edges, split_validated
from tasks.graph.signed.training import Trained, train

ROOT = Path(__file__).resolve().parents[1]
SHORT_CSG = CurriculumOptions("csg", epochs_per_stage=14)
"""CSG's 21 stages in 294 epochs, so that it costs what the others do."""
SGA_PLAN = CurriculumOptions("sga", stages=30)
RESAMPLES = 200


class Split:
    """One split of one graph, and what several methods on it share."""

    def __init__(self, graph: str, name: str) -> None:
        self.name, self.graph_name = name, graph
        if name in ("sga1", "csg1"):
            parts: dict[str, np.ndarray] = load_signed(graph, name)  # type: ignore[call-overload]
            self.parts = parts
        elif name.startswith("csg-"):
            drawn = split_validated(load_signed(graph), int(name.removeprefix("csg-")))
            self.parts = dict(zip(("train", "validation", "test"), drawn, strict=True))
        else:
            kind, seed = name.split("-")
            made = split_edges(load_signed(graph), int(seed), by_pair=kind == "pairs")
            self.parts = dict(zip(("train", "test"), made, strict=True))
        self.train, self.test = self.parts["train"], self.parts["test"]
        self.validation = self.parts.get("validation")
        # As the authors' tables: a row for every id up to the largest, also where nobody has it. It matters: half of
        # bitcoin-alpha's rows are nobody, drawn "none" pairs mostly hit them, and the encoder is surer of the others.
        self.nodes = np.arange(1 + max(int(part[:, :2].max()) for part in self.parts.values()))
        self.graph = SignedGraph.of(self.train, self.nodes)
        self.seed = 0 if name == "sga1" else int(name.split("-")[-1]) if "-" in name else 0

    @cached_property
    def encoder(self) -> Trained:
        """The SGCN with spectral inputs: a method, and what SGA's augmentation asks."""
        return self.fit(self.graph, published("sgcn"))

    @cached_property
    def scored(self) -> Any:
        model: Any = self.encoder.model
        return score_pairs(self.graph, self.encoder.z, model.head)

    @cached_property
    def augmented(self) -> tuple[SignedGraph, Changes]:
        return self.augmented_for("sgcn")

    def augmented_for(self, backbone: Backbone) -> tuple[SignedGraph, Changes]:
        """By the thresholds published for a backbone; SGCN's where there are none."""
        limits = THRESHOLDS.get((self.graph_name, backbone), THRESHOLDS[self.graph_name, "sgcn"])
        return augment(self.graph, self.scored, limits)

    def fit(self, graph: SignedGraph, options: BackboneOptions, plan: Curriculum | None = None) -> Trained:
        """Validation edges, where the split has them, choose the epoch."""
        return train(graph, options, self.seed, plan, validation=self.validation)

    def scores(self, trained: Trained) -> np.ndarray:
        at = self.graph.positions(self.test[:, :2])
        return trained.score(at[:, 0], at[:, 1])


Outcome = tuple[np.ndarray, dict[str, Any]]


def plain(backbone: Backbone, **changes: Any) -> Callable[[Split], Outcome]:
    """A backbone as it is published, up to `changes`."""

    def run(split: Split) -> Outcome:
        if backbone == "sgcn" and not changes:
            return split.scores(split.encoder), {"epoch": split.encoder.epoch}
        return _outcome(split, split.graph, published(backbone, **changes))

    return run


def _outcome(
    split: Split, graph: SignedGraph, options: BackboneOptions, plan: CurriculumOptions | None = None, **facts: Any
) -> Outcome:
    order, options = schedule(graph, options, plan or CurriculumOptions())
    trained = split.fit(graph, options, order)
    spread = float(trained.z[np.unique(graph.source)].std(0).mean())
    return split.scores(trained), {"epoch": trained.epoch, "spread": spread, **facts}


def planned(plan: CurriculumOptions, backbone: Backbone = "sgcn", **changes: Any) -> Callable[[Split], Outcome]:
    """A backbone with a curriculum."""
    return lambda split: _outcome(split, split.graph, published(backbone, **changes), plan)


def augmented(
    plan: CurriculumOptions | None, backbone: Backbone = "sgcn", **changes: Any
) -> Callable[[Split], Outcome]:
    """A backbone on the graph that SGA's augmentation makes, with or without its curriculum."""

    def run(split: Split) -> Outcome:
        graph, changed = split.augmented if backbone == "sgcn" else split.augmented_for(backbone)
        facts: dict[str, Any] = {"changes": asdict(changed), "unbalanced": unbalanced_among_added(split.graph, graph)}
        for sign, word in ((1, "positive"), (-1, "negative")):
            found = candidate_precision(getattr(split.scored, word), sign, split.graph, split.test)
            facts[f"candidates_{word}"] = {"right": found[0], "among": found[1]}
        return _outcome(split, graph, published(backbone, **changes), plan, **facts)

    return run


def shipped(split: Split) -> Outcome:
    """SGCN on the augmented training set that SGA's authors publish."""
    graph = SignedGraph.of(split.parts["augmented"], split.nodes)
    return _outcome(split, graph, published("sgcn", inputs="random"))


def random_additions(split: Split) -> Outcome:
    """As many random signed edges as SGA adds, of the same signs, and nothing deleted."""
    changed, generator = split.augmented[1], np.random.default_rng(split.seed)
    people, known = np.unique(split.train[:, :2]), {(u, v) for u, v, _ in split.train.tolist()}
    rows: list[tuple[int, int, int]] = []
    while len(rows) < changed.added:
        u, v = generator.choice(people, 2, replace=False).tolist()
        if (u, v) not in known:
            known.add((u, v))
            rows.append((u, v, 1 if len(rows) < changed.added_positive else -1))
    graph = SignedGraph.of(np.concatenate([split.train, np.array(rows)]), split.nodes)
    return _outcome(split, graph, published("sgcn", inputs="random"), added=len(rows))


METHODS: dict[str, Callable[[Split], Outcome]] = {
    "always positive": lambda split: (always_positive(split.test), {}),
    "six features": lambda split: (six_feature_scores(split.train, split.test), {}),
    "six features, no reverse": lambda split: (six_feature_scores(split.train, split.test, True), {}),
    "SGCN, random": plain("sgcn", inputs="random"),
    "SGCN, spectral": plain("sgcn"),
    "SGCN + augmentation, random": augmented(None, inputs="random"),
    "SGCN + SGA, random": augmented(SGA_PLAN, inputs="random"),
    "SGCN + SGA, spectral": augmented(SGA_PLAN),
    "SGCN + CSG, random": planned(SHORT_CSG, inputs="random"),
    "SGCN + CSG, spectral": planned(SHORT_CSG),
    "SGCN + SGA's plan only, random": planned(SGA_PLAN, inputs="random"),
    "SGCN + random edges, random": random_additions,
    "SGCN + the authors' edges, random": shipped,
    "SGCN bilinear, spectral": plain("sgcn", head="bilinear"),
    "GCN, spectral": plain("gcn"),
    "GCN without triplets, spectral": plain("gcn", triplet=0.0),
    "GAT, spectral": plain("gat"),
    "GAT + SGA, spectral": augmented(SGA_PLAN, "gat"),
    "GAT + CSG, spectral": planned(SHORT_CSG, "gat"),
    "SDGNN": plain("sdgnn"),
    "SiGAT": plain("sigat"),
    "SiGAT + SGA": augmented(SGA_PLAN, "sigat"),
    "SGCN + CSG at length, random": planned(CurriculumOptions("csg"), inputs="random", learning_rate=0.005),
    "SGCN + CSG at length, spectral": planned(CurriculumOptions("csg"), learning_rate=0.005),
}
BASELINES = list(METHODS)[:3]
FIRST = ["SGCN, random", "SGCN, spectral", "SGCN + augmentation, random"]
CURRICULA = ["SGCN + SGA, random", "SGCN + CSG, random", "SGCN + SGA, spectral", "SGCN + CSG, spectral"]
EDGES = ["SGCN + random edges, random", "SGCN + the authors' edges, random"]
OTHERS = ["SGCN + SGA's plan only, random", "SGCN bilinear, spectral", "GCN, spectral", "GAT, spectral", "SDGNN"]
LONG = ["SiGAT", "SGCN + CSG at length, random", "SGCN + CSG at length, spectral"]
OWN = [f"own-{number}" for number in (1, 2, 3, 4)]


CSG = [f"csg-{number}" for number in (1, 2, 3, 4, 5)]
PROTOCOL = ["SGCN, random", "SGCN + CSG, random", "SGCN, spectral", "SGCN + CSG, spectral"]
BACKBONES = [
    "GCN, spectral",
    "GCN without triplets, spectral",
    "GAT, spectral",
    "GAT + SGA, spectral",
    "GAT + CSG, spectral",
]


def plan() -> Iterator[tuple[str, str, list[str]]]:
    """Graph, split and methods, what matters most first."""
    for split in ("sga1", *OWN, "pairs-1"):
        yield "bitcoin-alpha", split, BASELINES
    for split in ("sga1", *OWN):
        yield "bitcoin-otc", split, BASELINES
    yield "bitcoin-alpha", "sga1", [*FIRST, "SGCN + SGA, random", *EDGES]
    yield "bitcoin-alpha", "own-1", [*FIRST, EDGES[0]]
    yield "bitcoin-otc", "sga1", [*FIRST, "SGCN + SGA, random"]
    for split in OWN[1:]:
        yield "bitcoin-alpha", split, FIRST
    yield "bitcoin-alpha", "sga1", [*CURRICULA, *OTHERS]
    yield "bitcoin-alpha", "own-1", CURRICULA
    for graph in ("wiki-elec", "wiki-RfA"):
        for split in (*OWN, "own-5"):
            yield graph, split, BASELINES
    yield "wiki-elec", "own-1", [*FIRST, "SGCN + SGA, random"]
    for split in OWN[1:]:
        yield "bitcoin-alpha", split, CURRICULA
    for split in OWN:
        yield "bitcoin-otc", split, [*FIRST, *CURRICULA]
    yield "bitcoin-alpha", "pairs-1", FIRST
    yield "bitcoin-alpha", "sga1", LONG
    yield "wiki-RfA", "own-1", FIRST
    for graph in ("bitcoin-alpha", "bitcoin-otc"):
        for split in ("csg1", *CSG):
            yield graph, split, BASELINES
    for split in ("sga1", *OWN[:2]):
        yield "bitcoin-alpha", split, BACKBONES
    for split in CSG[:3]:
        yield "bitcoin-alpha", split, PROTOCOL
    for split in OWN[2:]:
        yield "bitcoin-alpha", split, BACKBONES
    for graph in ("bitcoin-alpha", "bitcoin-otc"):
        for split in CSG:
            yield graph, split, PROTOCOL
    for graph in ("wiki-elec", "wiki-RfA"):
        for split in (*OWN, "own-5"):
            yield graph, split, [*FIRST, "SGCN + SGA, random"]
    for split in OWN:
        yield "bitcoin-alpha", split, ["SGCN bilinear, spectral"]
    yield "bitcoin-otc", "sga1", ["SGCN + SGA, spectral", "SGCN + CSG, random", "SGCN + CSG, spectral"]
    for split in ("sga1", *OWN):
        yield "bitcoin-alpha", split, ["SDGNN", "SiGAT", "SiGAT + SGA"]
    for split in ("sga1", *OWN):
        yield "bitcoin-otc", split, ["SDGNN", "GAT, spectral", "GAT + SGA, spectral", "SiGAT", "SiGAT + SGA"]


def cell(split: Split, method: str) -> dict[str, Any]:
    """Run one method on one split."""
    started = time.process_time()
    scores, facts = METHODS[method](split)
    return {
        "graph": split.graph_name,
        "split": split.name,
        "method": method,
        "cpu_seconds": round(time.process_time() - started, 1),
        **measured(scores, split.train, split.test),
        "interval": bootstrap(scores, split.test[:, 2]),
        "leakage": asdict(leakage(split.train, split.test)),
        **facts,
    }


def bootstrap(scores: np.ndarray, signs: np.ndarray) -> dict[str, list[float]]:
    """95 % intervals of AUC and macro-F1 over resampled test edges: how sure one split is of itself.

    From counts and ranks, a hundred times faster than `sign_metrics`; on the edges as they are they agree.
    """
    generator, found = np.random.default_rng(0), []
    whole = sign_metrics(scores, signs)
    assert np.allclose(_quick(scores, signs), [whole["auc"], whole["f1_macro"]])
    for _ in range(RESAMPLES):
        some = generator.integers(len(signs), size=len(signs))
        found.append(_quick(scores[some], signs[some]))
    low, high = np.percentile(found, (2.5, 97.5), axis=0).round(4).tolist()
    return {"auc": [low[0], high[0]], "f1_macro": [low[1], high[1]]}


def _quick(scores: np.ndarray, signs: np.ndarray) -> tuple[float, float]:
    """AUC (Mann-Whitney, ties by half) and macro-F1."""
    positive, said = signs > 0, scores > 0
    p, q = int(positive.sum()), int((~positive).sum())
    auc = (rankdata(scores)[positive].sum() - p * (p + 1) / 2) / (p * q)
    hits, misses = int((said & positive).sum()), int((~said & ~positive).sum())
    f1 = [
        2 * right / max(1, told + there) for right, told, there in ((hits, said.sum(), p), (misses, (~said).sum(), q))
    ]
    return float(auc), float(np.mean(f1))


def run(folder: Path, minutes: float) -> None:
    """Run the cells that are not there yet, until the CPU time is used up."""
    file = folder / "cells.jsonl"
    folder.mkdir(parents=True, exist_ok=True)
    if not file.exists():
        write_rows(file, json.loads((RESULTS / "signed_links.json").read_text(encoding="utf-8"))["cells"])
    done = {key(row) for row in read_rows(file, forgive_broken=True)}
    splits: dict[tuple[str, str], Split] = {}
    for graph, name, methods in plan():
        for method in methods:
            if (graph, name, method) in done or time.process_time() > 60 * minutes:
                continue
            if (graph, name) not in splits:
                splits = {(graph, name): Split(graph, name)}  # one in memory
            row = {**cell(splits[graph, name], method), "machine": machine(), "at": datetime.now(UTC).isoformat()}
            with file.open("a", encoding="utf-8") as out:
                out.write(json.dumps(row) + "\n")
            done.add(key(row))  # the plan may name it again further down
            print(graph, name, method, {k: round(v, 3) for k, v in row["all"].items()}, row["cpu_seconds"], flush=True)


def key(row: dict[str, Any]) -> tuple[str, str, str]:
    return row["graph"], row["split"], row["method"]


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Signs of links on real graphs")
    parser.add_argument("--folder", type=Path, default=ROOT / "runs" / "signed_links")
    parser.add_argument("--minutes", type=float, default=45.0, help="CPU time after which no cell is begun")
    parser.add_argument("--write", action="store_true", help="run nothing, only write the results")
    asked = parser.parse_args(arguments)
    if not asked.write:
        run(asked.folder, asked.minutes)
    cells = {key(row): row for row in read_rows(asked.folder / "cells.jsonl", forgive_broken=True)}
    write(list(cells.values()), list(METHODS), [list(p) for p in plan()])


if __name__ == "__main__":
    main()
