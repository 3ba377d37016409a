"""Whether generated evidence is fit to learn from: it entails what it claims, and a model that reads it says so.

ConflictQA keeps only such evidence (Xie et al. 2024): an NLI model gives the claim a chance of at least 0.5, and the
model to be studied answers by the evidence when it sees that alone. Both need a model that a user names; without one
nothing is left out.

    keep_entailed(instances, entailment("FOLDER"))          an NLI model, e.g. a local copy of roberta-large-mnli
    keep_reproduced(instances, generator)
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from launch.contracts import Generator, Prompt, Sampling
from launch.errors import ConfigError
from reasoning.conflict.completion import alone, alone_prompt
from reasoning.conflict.instance import Context, Instance
from reasoning.conflict.text import answer_matches, pieces, truth_value

LEAST = 0.5
PIECE = 250
"""Words of evidence that are judged at once: what an NLI model of 512 tokens reads beside a claim."""
BATCH = 16

Entails = Callable[[Sequence[tuple[str, str]]], list[float]]
"""(premise, hypothesis) pairs to the chance, 0 to 1, that the premise entails the hypothesis."""


def claim(instance: Instance, context: Context) -> str:
    """What a context is meant to show, as a sentence for an NLI model.

    ConflictQA's own, where `sources.conflictqa` kept them; else question and answer, yes or no for True or False.
    """
    told = instance.meta.get("claims", {}).get(context.source)
    if told:
        return str(told)
    truth = truth_value(context.answer)
    return f"{instance.question} {context.answer if truth is None else 'Yes' if truth else 'No'}."


def keep_entailed(
    instances: Iterable[Instance], entails: Entails, least: float = LEAST, skipped: Counter[str] | None = None
) -> Iterator[Instance]:
    """The instances in which every context that answers entails its claim with a chance of at least `least`.

    Long evidence is judged in pieces of `PIECE` words, the surest of which counts. What is left out is counted in
    `skipped`, under "evidence does not entail its claim".
    """
    for instance in instances:
        asked = [
            (j, piece, claim(instance, c))
            for j, c in enumerate(instance.contexts)
            if c.answer.strip()
            for piece in pieces(c.text, PIECE)
        ]
        chances = entails([(piece, said) for _, piece, said in asked])
        best: dict[int, float] = {}
        for (j, *_), chance in zip(asked, chances, strict=True):
            best[j] = max(best.get(j, 0.0), chance)
        if all(chance >= least for chance in best.values()):
            yield instance
        elif skipped is not None:
            skipped["evidence does not entail its claim"] += 1


def keep_reproduced(
    instances: Iterable[Instance],
    generator: Generator,
    skipped: Counter[str] | None = None,
    *,
    chat: bool = True,
    max_new_tokens: int = 64,
) -> Iterator[Instance]:
    """The instances in which `generator`, shown one context alone, gives that context's answer, for all that answer.

    What is left out is counted in `skipped`, under "answer not reproduced".
    """
    sampling = Sampling(max_new_tokens=max_new_tokens, temperature=0.0)
    for instance in instances:
        answering = [c for c in instance.contexts if c.answer.strip()]
        texts = [alone_prompt(instance.question, c.text) for c in answering]
        prompts: list[Prompt] = [[{"role": "user", "content": t}] if chat else t for t in texts]
        said = [alone(row[0].text) for row in generator.generate(prompts, 1, sampling)] if prompts else []
        if all(answer_matches(s, (c.answer,)) for s, c in zip(said, answering, strict=True)):
            yield instance
        elif skipped is not None:
            skipped["answer not reproduced"] += 1


def entailment(folder: str) -> Entails:
    """An NLI model as an `Entails`, on the GPU if there is one.

    Args:
        folder: folder or hub name of a sequence-classification model with a label "entailment", and its tokenizer.

    Raises:
        ConfigError: there is no such model, or it has no such label.
    """
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    from launch.runtime import own_device

    try:
        tokenizer = AutoTokenizer.from_pretrained(folder)
        model: Any = AutoModelForSequenceClassification.from_pretrained(folder, use_safetensors=True)
    except (OSError, ValueError) as error:
        reason = str(error).splitlines()[0][:120]
        raise ConfigError(f"NLI model {folder} cannot be loaded ({reason}); give a local folder of one") from error
    labels = {str(name).lower(): int(number) for name, number in model.config.label2id.items()}
    if "entailment" not in labels:
        raise ConfigError(f"NLI model {folder} has labels {', '.join(sorted(labels))}; one must be entailment")
    device = own_device()
    model = (model if device is None else model.to(device)).eval()

    def entails(pairs: Sequence[tuple[str, str]]) -> list[float]:
        import torch

        chances: list[float] = []
        for start in range(0, len(pairs), BATCH):
            premises, claims = zip(*pairs[start : start + BATCH], strict=True)
            batch = tokenizer(
                list(premises), list(claims), padding=True, truncation="only_first", return_tensors="pt"
            ).to(model.device)
            with torch.inference_mode():
                chances += model(**batch).logits.float().softmax(-1)[:, labels["entailment"]].tolist()
        return chances

    return entails
