"""The metrics of `metrics` as `evaluate.Metric` classes, which combine with the library's own. Nothing is downloaded.

    both = evaluate.combine([SemanticAccuracy(), ConflictError()])
    both.add_batch(predictions=completions, references=[instance.to_json() for instance in instances])
    both.compute()        # {"semantic": 0.75, "semantic_low": …, "semantic_high": …, "semantic_n": …, …}

Predictions are completions in the form that the reward wants; ``SemanticAccuracy("answers")`` takes bare answers.
``compute(encode=None)`` compares texts alone. Rows stay in memory unless ``keep_in_memory=False``, which several
processes need. Importing `evaluate` takes seconds, so nothing else in this package imports this module.
"""

from __future__ import annotations

from typing import Any, ClassVar

import datasets
import evaluate

from launch.errors import ConfigError
from reasoning.conflict.instance import Instance
from reasoning.conflict.metrics import Encode, Prediction, by_minilm, reasoning_scores
from reasoning.conflict.metrics import evaluate as measure
from tasks.benchmarks.intervals import Estimate

CITATION = "Zheng et al. 2025, Knowledge Conflict Reasoning, arXiv 2508.01273"
INPUTS = """
Args:
    predictions: completions, or answers where the metric was made with "answers".
    references: conflict instances, as `Instance.to_json` writes them.
    encode: of `compute`; texts to unit vectors, by default all-MiniLM-L6-v2, None to compare texts alone.
"""


class ConflictMetric(evaluate.Metric):
    """What the classes below share; `names` are the numbers of `metrics.evaluate` that one reports, by their beginning.

    Args:
        config_name: "completions" or "answers", what predictions are.
    """

    names: ClassVar[tuple[str, ...]] = ()

    def __init__(self, config_name: str = "completions", keep_in_memory: bool | None = None, **options: Any) -> None:
        if config_name not in ("completions", "answers"):
            raise ConfigError(f"predictions are completions or answers, not {config_name!r}", "config_name")
        if keep_in_memory is None:
            keep_in_memory = options.get("num_process", 1) == 1
        super().__init__(config_name, keep_in_memory, **options)

    def _info(self) -> evaluate.MetricInfo:
        text = datasets.Value("string")
        return evaluate.MetricInfo(
            description=self.__doc__ or "",
            citation=CITATION,
            inputs_description=INPUTS,
            features=datasets.Features({"predictions": text, "references": text}),
        )

    def _compute(
        self, predictions: list[str], references: list[str], encode: Encode | None = by_minilm
    ) -> dict[str, float]:
        instances = [Instance.from_json(text) for text in references]
        return _flat(self._estimates(instances, list(predictions), encode))

    def _estimates(
        self, instances: list[Instance], predictions: list[str], encode: Encode | None
    ) -> dict[str, Estimate]:
        if self.config_name == "answers":
            read = [Prediction(answer) for answer in predictions]
        else:
            read = [Prediction.from_completion(c, i) for c, i in zip(predictions, instances, strict=True)]
        report = measure(instances, read, encode)
        return {name: report[name] for name in report if name.startswith(self.names)}


class SemanticAccuracy(ConflictMetric):
    """Share of answers that say the gold one, by text or by meaning; also by length and by the truth's position."""

    names = ("semantic",)


class ExactMatch(ConflictMetric):
    """Share of answers equal to a gold one after normalisation."""

    names = ("exact",)


class TokenF1(ConflictMetric):
    """Mean token F1 with the nearest gold answer."""

    names = ("f1",)


class ConflictError(ConflictMetric):
    """Share of answers that are a wrong candidate."""

    names = ("conflict_error",)


class StrictAccuracy(ConflictMetric):
    """Share of answers that hold all gold answers and no wrong one, RAMDocs' score."""

    names = ("strict",)


class ContextFollowed(ConflictMetric):
    """Share of completions, among those that follow one, whose context is a true one; {} where none follows any."""

    names = ("followed",)


class ReasoningScores(ConflictMetric):
    """Mean logic and consistency rewards of completions."""

    def _estimates(
        self, instances: list[Instance], predictions: list[str], encode: Encode | None
    ) -> dict[str, Estimate]:
        return reasoning_scores(instances, predictions)


ALL = (SemanticAccuracy, ExactMatch, TokenF1, ConflictError, StrictAccuracy, ContextFollowed, ReasoningScores)


def _flat(report: dict[str, Estimate]) -> dict[str, float]:
    return {
        key: number
        for name, e in report.items()
        for key, number in ((name, e.value), (f"{name}_low", e.low), (f"{name}_high", e.high), (f"{name}_n", e.n))
    }
