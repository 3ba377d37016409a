"""Conflicts answered by a model: measuring a policy, and `resolve_with`, the model-backed way to decide.

`resolve_with` asks a Generator three kinds of questions: what each context alone answers (unless that is told), which
chain to follow, and, if the completion has the wrong form or does not say what it follows, once more with sampling.
What is still no decision after that is decided by structure (`resolver.resolve`), and `notes` says so.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from launch.contracts import Generator, Prompt, Sampling
from launch.errors import ConfigError
from reasoning.conflict.completion import Mode, alone, alone_prompt, chat_prompt, followed, parse
from reasoning.conflict.extract import DEFAULT, Extractor
from reasoning.conflict.instance import Context, Instance
from reasoning.conflict.metrics import Prediction, evaluate
from reasoning.conflict.resolver import Resolution, resolve
from reasoning.conflict.reward import DEFAULT_RULES, Rules, kcr_reward
from reasoning.conflict.text import answer_matches

RETRY_TEMPERATURE = 0.7
PARTS = ("answer", "wrong", "logic", "consistency", "tokens")
MEASURED = (("accuracy", "semantic"), ("conflict_error", "conflict_error"))
"""Numbers of a policy, and what `metrics.evaluate` calls them."""


def resolve_with(
    generator: Generator,
    question: str,
    contexts: Sequence[str],
    answers: Sequence[str] | None = None,
    *,
    mode: Mode = "both",
    budget: int = 0,
    max_new_tokens: int = 1024,
    chat: bool = True,
    extractor: Extractor = DEFAULT,
) -> Resolution:
    """`resolver.resolve`, decided by a model that reads contexts and their paths.

    Args:
        answers: what each context answers, "" for nothing; None asks the model, one context at a time.
        mode, budget: what the prompt shows, as in `completion.build_prompt`.
        chat: whether prompts are chat messages; False gives plain text, for models without a chat template.

    Returns:
        The model's answer, trace and followed context with the paths of all contexts; `confidence` is then that of
        the structure for the context followed, 0 if structure would not follow it. `notes` has "retried" if the first
        completion was no decision, "fallback" if the second was none either.

    Raises:
        DataError: `answers` and `contexts` differ in number.
    """

    def ask(texts: Sequence[str], temperature: float = 0.0) -> list[str]:
        prompts: list[Prompt] = [[{"role": "user", "content": t}] if chat else t for t in texts]
        sampling = Sampling(max_new_tokens=max_new_tokens, temperature=temperature)
        return [row[0].text for row in generator.generate(prompts, 1, sampling)]

    if answers is None:
        told = [c for c in contexts if c.strip()]
        said = iter(ask([alone_prompt(question, c) for c in told]) if told else [])
        answers = [alone(next(said)) if c.strip() else "" for c in contexts]
    structural = resolve(question, contexts, answers, extractor=extractor)
    if structural["followed"] is None or "agree" in structural["notes"]:
        return structural  # there is nothing to decide
    shown = tuple(Context(c, a, False) for c, a in zip(contexts, answers, strict=True))
    case = Instance(question, shown, gold=("",))
    prompt = str(chat_prompt(case, mode, budget, extractor=extractor)[0]["content"])
    notes = list(structural["notes"])
    for temperature in (0.0, RETRY_TEMPERATURE):
        parsed = parse(ask([prompt], temperature)[0])
        at = _context_of(parsed.answer, parsed.trace, answers)
        if at is not None:
            return _decided(structural, answers, at, parsed.answer, parsed.trace, notes)
        notes = [*structural["notes"], "retried"]
    return Resolution(**{**structural, "notes": [*notes, "fallback"]})


def _context_of(answer: str, trace: str, answers: Sequence[str]) -> int | None:
    """The context that an answer is of: the one its trace follows, if that one answers so, else the only one that does.

    None for an answer of no context, and for a tie.
    """
    said = [j for j, a in enumerate(answers) if a.strip() and answer and answer_matches(answer, (a,))]
    at = followed(trace, len(answers))
    if at in said:
        return at
    return said[0] if len(said) == 1 else None


def _decided(
    structural: Resolution, answers: Sequence[str], at: int, answer: str, trace: str, notes: list[str]
) -> Resolution:
    rejected = [j for j, a in enumerate(answers) if a.strip() and not answer_matches(a, (answers[at],))]
    agreed = structural["followed"] == at
    return Resolution(
        answer=answer,
        followed=at,
        rejected=rejected,
        paths=structural["paths"],
        confidence=structural["confidence"] if agreed else 0.0,
        trace=trace,
        notes=notes,
    )


# ---------------------------------------------------------------- measuring a policy


def load_policy(folder: str | Path, base: str | Path, precision: Any = "fp32") -> tuple[Any, Any]:
    """Model and tokenizer of a folder, or of adapters on `base`, merged; on the GPU if there is one."""
    from launch.models import load_causal_lm, load_tokenizer, merge_lora
    from launch.runtime import own_device

    if not (Path(folder) / "adapter_config.json").is_file():
        model: Any = load_causal_lm(folder, precision)
    else:
        from peft import PeftModel

        model = merge_lora(PeftModel.from_pretrained(load_causal_lm(base, precision), str(folder)))
    device = own_device()
    return (model if device is None else model.to(device)), load_tokenizer(base)


def answered(
    model: Any,
    tokenizer: Any,
    rows: Sequence[dict[str, Any]],
    *,
    tokens: int,
    temperature: float,
    batch: int = 64,
    seed: int = 0,
    rules: Rules = DEFAULT_RULES,
) -> tuple[dict[str, float], list[dict[str, Any]]]:
    """Numbers of a policy on rows {"prompt", "instance"}, and its greedy answers.

    Returns:
        Of greedy answers `accuracy` by text alone, `conflict_error` (with ``_low`` and ``_high``), `followed`, `reward`
        and the parts of the reward; of one answer each at `temperature` `sampled_accuracy` and
        `sampled_conflict_error`. Samples {"prompt", "response", "right", "reward", "verdict"} in the order of the rows.
    """
    from launch.generate import HFGenerator

    if not rows:
        raise ConfigError("no held-out conflicts to measure on", "held_out")
    instances = [Instance.from_json(row["instance"]) for row in rows]
    prompts = [row["prompt"] for row in rows]
    generator = HFGenerator(model, tokenizer, batch_size=batch)
    greedy = Sampling(max_new_tokens=tokens, temperature=0.0)
    texts = [row[0].text for row in generator.generate(prompts, 1, greedy)]
    read = [Prediction.from_completion(t, i) for t, i in zip(texts, instances, strict=True)]
    report = evaluate(instances, read, encode=None)
    parts = [kcr_reward(t, i, rules) for t, i in zip(texts, instances, strict=True)]
    numbers = {"reward": sum(p["total"] for p in parts) / len(parts)}
    for name, key in MEASURED:
        numbers |= {name: report[key].value, f"{name}_low": report[key].low, f"{name}_high": report[key].high}
    if "followed" in report:
        numbers["followed"] = report["followed"].value
    numbers |= {f"mean_{name}": sum(p[name] for p in parts) / len(parts) for name in PARTS}  # type: ignore[literal-required]
    drawn = generator.generate(prompts, 1, replace(greedy, temperature=temperature, seed=seed))
    sampled = [Prediction.from_completion(row[0].text, i) for row, i in zip(drawn, instances, strict=True)]
    again = evaluate(instances, sampled, encode=None)
    numbers |= {f"sampled_{name}": again[key].value for name, key in MEASURED}
    samples = [
        {"prompt": prompt, "response": text, "right": p["answer"] > 0, "reward": p["total"], "verdict": p["verdict"]}
        for prompt, text, p in zip(prompts, texts, parts, strict=True)
    ]
    return numbers, samples
