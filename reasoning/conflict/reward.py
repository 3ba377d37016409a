"""Verifiable rewards for reasoning over conflicting contexts: format, answer, logic, consistency, and their guards.

    R = w_f r_f + w_a r_a + w_l r_l + w_c r_c                                    defaults 0.1, 1.0, 0.5, 0.5

- r_f = 1 for exactly one think block and one answer block, in order, neither empty, nothing outside; else R = 0.
- r_a = 1 if the answer matches the gold answer or an alias (`text.answer_matches`).
- r_l = sup(trace, P+) - sup(trace, P-), where sup is the best-supported path's mean of entity order (LCS) and links
  stated (head before tail in one step); for paths without links, ROUGE-L recall and entity recall. What both sides
  share is left out first: else the question's own entities would swamp the difference.
- r_c = r_ans · r_grd · r_mix: the conclusion and the chain followed are those of the answer; the share of the trace's
  names that occur in question or contexts; 1 - min/max of the two supports, 0 when neither is supported.

Confirmed for KCR (arXiv 2508.01273): a logic and a consistency reward along the correct path. The formulas are a
reconstruction. Guards against cheap scores: a step counts only if it cites a context; a step that refutes is no support
for what it mentions; traces that are too short, too long, repetitive, or mostly copied in long runs get r_l = r_c = 0.
Only the answer block is compared with the answer. All rewards are the same in whatever order the contexts come.

    python -c "from tasks.worlds.conflicts import ConflictsWorld as W; from reasoning.conflict import kcr_reward; \\
               w = W(); p = w.prompts('train')[0]; print(kcr_reward(w.examples(p)[0], w.instance(p)))"
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, TypedDict

from launch.errors import DataError
from reasoning.conflict.completion import Step, parse, steps
from reasoning.conflict.extract import DEFAULT
from reasoning.conflict.instance import Instance, Path
from reasoning.conflict.paths import extract_paths
from reasoning.conflict.support import Chain, chains, mentioned_at, support
from reasoning.conflict.text import (
    NEGATIONS,
    answer_matches,
    contains,
    ngrams,
    normalise,
    truth_value,
    words,
)

COPY_RUN = 12
"""Runs of this many words count as copied; a quoted short fact has none."""


@dataclass(frozen=True)
class Rules:
    """Weights and limits of the reward. Keep `answer` dominant, or a model learns to recite."""

    format: float = 0.1
    answer: float = 1.0
    logic: float = 0.5
    consistency: float = 0.5
    wrong_answer: float = 0.0
    """Taken off r_a when the answer is a wrong candidate; 0.5 is usual where that must be worse than no answer."""
    min_tokens: int = 16
    max_tokens: int = 1024
    """Words of the trace, citations included (not the tokens of any model)."""
    max_repeated: float = 0.3
    """Share of 4-grams that occurred before."""
    max_copied: float = 0.5
    """Share of the trace's runs of `COPY_RUN` words, between two citations, that stand in a context as they are."""


DEFAULT_RULES = Rules()
VERDICTS = (
    "ok", "not_text", "no_think", "no_answer", "repeated", "disordered", "outside", "empty_think", "empty_answer",
    "too_short", "too_long", "repetitive", "copied",
)  # fmt: skip
"""What `Parts` may say in `verdict`."""


class Parts(TypedDict):
    """What a reward is made of. All floats but `verdict`, which is "ok", a fault of form, or the guard that struck."""

    total: float
    format: float
    answer: float
    logic: float
    consistency: float
    wrong: float
    """1 if the answer is a wrong candidate."""
    support_true: float
    support_false: float
    agrees: float
    grounded: float
    unmixed: float
    tokens: float
    repeated: float
    copied: float
    verdict: str


@dataclass(frozen=True)
class _Prepared:
    instance: Instance
    true: tuple[Chain, ...]
    false: tuple[Chain, ...]
    vocabulary: dict[str, str]
    """Names a trace may use, to their node."""
    ground: str
    """Question and contexts as normalised words between spaces."""
    passages: tuple[str, ...]


def kcr_reward(completion: object, instance: Instance | str, rules: Rules = DEFAULT_RULES) -> Parts:
    """The reward of one completion and its parts. Never raises for whatever a model wrote.

    Args:
        completion: text, or chat messages whose last turn is the answer.
        instance: an Instance or its JSON. Paths that it does not carry are extracted.

    Raises:
        DataError: `instance` is text but not an instance's JSON.
    """
    prepared = _from_json(instance) if isinstance(instance, str) else _prepare(instance)
    parsed = parse(completion)
    if parsed.verdict != "ok":
        return _parts(parsed.verdict)
    known = prepared.instance
    right = answer_matches(parsed.answer, known.gold, known.wrong)
    wrong = not right and answer_matches(parsed.answer, known.wrong)
    r_a = float(right) - rules.wrong_answer * wrong

    found = steps(parsed.trace)
    said = words(parsed.trace)
    repeated = _repeated(said)
    copied = _copied(found, prepared.passages)
    verdict = _guard(len(said), repeated, copied, rules)
    r_l = r_c = agrees = grounded = unmixed = plus = minus = 0.0
    if verdict == "ok":
        count = len(known.contexts)
        cited = [s for s in found if any(0 <= j < count for j in s.cited) and not s.refutes]
        plus = support(cited, prepared.true, prepared.vocabulary)
        minus = support(cited, prepared.false, prepared.vocabulary)
        r_l = max(-1.0, min(1.0, plus - minus))
        side = right if plus > minus else wrong if minus > plus else True
        concluded = _conclusion(found, prepared)
        agrees = float(side and concluded is not None and _same(concluded, parsed.answer, right, known))
        grounded = _grounded(found, prepared)
        unmixed = 1 - min(plus, minus) / max(plus, minus) if plus or minus else 0.0
        r_c = agrees * grounded * unmixed
    total = rules.format + rules.answer * r_a + rules.logic * r_l + rules.consistency * r_c
    return Parts(
        total=total,
        format=1.0,
        answer=r_a,
        logic=r_l,
        consistency=r_c,
        wrong=float(wrong),
        support_true=plus,
        support_false=minus,
        agrees=agrees,
        grounded=grounded,
        unmixed=unmixed,
        tokens=float(len(said)),
        repeated=repeated,
        copied=copied,
        verdict=verdict,
    )


def kcr_rewards(
    prompts: Sequence[Any],
    completions: Sequence[Any],
    instance: Sequence[str],
    *,
    rules: Rules = DEFAULT_RULES,
    log_metric: Callable[[str, float], None] | None = None,
    log_extra: Callable[[str, list[Any]], None] | None = None,
    **columns: Any,
) -> list[float]:
    """`kcr_reward` over a batch, as a reward function of TRL: ``GRPOTrainer(reward_funcs=kcr_rewards, ...)``.

    The data set has a string column ``instance`` (`Instance.to_json`). Means of all parts and the share of each verdict
    go to TRL's metrics as ``kcr/...``; the verdicts become a column of its table of completions. Other weights:
    ``functools.partial(kcr_rewards, rules=Rules(...))``.

    Raises:
        DataError: the columns differ in length, or a row's instance cannot be read.
    """
    if len(instance) != len(completions):
        raise DataError(f"{len(completions)} completions but {len(instance)} instances; give one instance each")
    rows = [kcr_reward(completion, text, rules) for completion, text in zip(completions, instance, strict=True)]
    if log_metric and rows:
        for name in Parts.__annotations__:
            if name != "verdict":
                log_metric(f"kcr/{name}", sum(row[name] for row in rows) / len(rows))  # type: ignore[literal-required]
        counts = Counter(row["verdict"] for row in rows)
        for verdict in VERDICTS:  # all of them: TRL takes means over the batches that logged a metric
            log_metric(f"kcr/verdict_{verdict}", counts[verdict] / len(rows))
    if log_extra:
        log_extra("verdict", [row["verdict"] for row in rows])
    return [row["total"] for row in rows]


# ---------------------------------------------------------------- the two sides


@lru_cache(maxsize=64)
def _from_json(text: str) -> _Prepared:
    """A group's completions share one instance, which is prepared once; the bound keeps memory flat."""
    return _prepare(Instance.from_json(text))


def _prepare(instance: Instance) -> _Prepared:
    true: list[Path] = []
    false: list[Path] = []
    for c in instance.contexts:
        if not c.answer.strip():
            continue  # noise supports neither side
        paths = c.paths if c.paths is not None else extract_paths(instance.question, c.text, c.answer)
        (true if c.true else false).extend(paths.paths)
    nodes = {n for path in (*true, *false) for n in path.entities}
    vocabulary = {n: n for n in nodes}
    for group in (instance.gold, *((w,) for w in instance.wrong)):
        if truth_value(group[0]) is None:
            stands = next((n for n in sorted(nodes) if answer_matches(n, group[:1])), normalise(group[0]))
            vocabulary.update({normalise(name): stands for name in group if normalise(name)})
    passages = [instance.question, *(c.text for c in instance.contexts)]
    return _Prepared(
        instance,
        chains(true, false),
        chains(false, true),
        vocabulary,
        " " + " | ".join(normalise(p) for p in passages) + " ",
        tuple(f" {' '.join(words(p))} " for p in passages[1:]),
    )


# ---------------------------------------------------------------- consistency


def _conclusion(found: Sequence[Step], prepared: _Prepared) -> str | None:
    """The candidate that the trace ends on; "true" or "false" for yes/no questions, of which only the end is read."""
    instance = prepared.instance
    if instance.boolean:
        last = words(found[-1].text) if found else []
        verdicts = [w for w in last[-4:] if w in ("true", "false", "yes", "no")]
        return {"yes": "true", "no": "false"}.get(verdicts[-1], verdicts[-1]) if verdicts else None
    names = {normalise(name): normalise(name) for name in (*instance.gold, *instance.wrong)}
    for step in reversed(found):
        if step.refutes and step.cited:
            continue
        tokens = step.tokens
        for at, name in reversed(mentioned_at(tokens, names)):
            before = tokens[max(0, at - 3) : at]
            if (
                not NEGATIONS & set(before[-2:])
                and contains(before, ["rather", "than"]) < 0
                and "instead" not in before
            ):
                return name
    return None


def _same(concluded: str, answer: str, right: bool, instance: Instance) -> bool:
    """Whether trace and answer block say the same candidate."""
    if instance.boolean:
        return truth_value(answer) is (concluded == "true")
    if right:
        return concluded in {normalise(g) for g in instance.gold}
    return answer_matches(answer, (concluded,))


def _grounded(found: Sequence[Step], prepared: _Prepared) -> float:
    """Share of the names in the trace that stand in question or contexts; 1 for a trace without names."""
    text = " \n ".join(s.text for s in found)
    names = {normalise(m.name) for m in DEFAULT.mentions(text, prepared.vocabulary)}
    names.discard("")
    return sum(f" {name} " in prepared.ground for name in names) / len(names) if names else 1.0


# ---------------------------------------------------------------- guards


def _guard(tokens: int, repeated: float, copied: float, rules: Rules) -> str:
    if tokens < rules.min_tokens:
        return "too_short"
    if tokens > rules.max_tokens:
        return "too_long"
    if repeated > rules.max_repeated:
        return "repetitive"
    return "copied" if copied > rules.max_copied else "ok"


def _repeated(said: Sequence[str]) -> float:
    grams = ngrams(said, 4)
    return 1 - len(set(grams)) / len(grams) if grams else 0.0


def _copied(found: Sequence[Step], passages: Sequence[str]) -> float:
    """Share of the trace's runs of `COPY_RUN` words that stand in a passage as they are.

    A citation interrupts a run: telling a chain link by link, each with its citation, is what is asked for, however
    close to the passage. Runs go on through sentences that cite nothing.
    """
    blocks: list[list[str]] = [[]]
    for step in found:
        if step.cited:
            blocks.append([])
        blocks[-1] += words(step.text)
    texts = [f" {' '.join(run)} " for block in blocks for run in ngrams(block, COPY_RUN)]
    return sum(any(t in passage for passage in passages) for t in texts) / len(texts) if texts else 0.0


def _parts(verdict: str) -> Parts:
    zeros = dict.fromkeys(Parts.__annotations__, 0.0)
    return Parts(**(zeros | {"verdict": verdict}))  # type: ignore[typeddict-item]
