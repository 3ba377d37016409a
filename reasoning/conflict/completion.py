"""What a model is asked, and what its answer is made of: one think block of cited steps, one answer.

    <think> [Context 2] The mentor of Ann is Bob. [Context 2] Bob lives in Oslo. So the answer is Oslo. </think>
    <answer> Oslo </answer>

The prompt calls contexts by number only, in the order of the instance, and shows their paths in the same order, so
nothing in it tells which one is true.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from typing import Any, Literal

from reasoning.conflict.instance import Instance
from reasoning.conflict.paths import extract_paths
from reasoning.conflict.text import WORD, cleared, negates, normalise, refutes, sentences, words

Mode = Literal["context", "paths", "both"]

INSTRUCTION = """\
The contexts below may contradict each other about one question. Find out which of them holds together:
- compare the chains of facts that lead from the question to each possible answer;
- check that every link is stated and that the links join without a gap or a contradiction;
- follow the stronger chain only, do not mix chains, and use no fact from outside the contexts."""

FORMAT = """\
Write your steps inside <think> and </think>, each with the context it is from, as [Context 1]. Then write the answer \
alone inside <answer> and </answer>."""

ALONE = """\
Answer the question from the context alone, in as few words as possible. Write only <answer> and </answer> with the \
answer between them, or nothing between them if the context does not say.

Question: {question}

{context}"""


def build_prompt(instance: Instance, mode: Mode = "both", budget: int = 0, **options: Any) -> str:
    """The prompt of an instance.

    Args:
        mode: "context" shows the passages, "paths" only what was extracted from them, "both" shows both.
        budget: words (as `text.words` counts them) above which "both" becomes "paths"; 0 for no limit.
        **options: of `extract_paths`, for contexts whose paths are not stored.
    """
    if mode == "both" and budget and sum(len(words(c.text)) for c in instance.contexts) > budget:
        mode = "paths"
    parts = [INSTRUCTION, f"Question: {instance.question}"]
    for number, context in enumerate(instance.contexts, 1):
        if mode != "paths":
            parts.append(f"[Context {number}] {context.text}")
    for number, context in enumerate(instance.contexts, 1):
        if mode != "context":
            paths = context.paths or extract_paths(instance.question, context.text, context.answer, **options)
            parts.append(f"Candidate reasoning paths for context {number}:\n{paths.render() or '(none found)'}")
    return "\n\n".join([*parts, FORMAT])


def chat_prompt(instance: Instance, mode: Mode = "both", budget: int = 0, **options: Any) -> list[dict[str, str]]:
    """`build_prompt` as one user turn."""
    return [{"role": "user", "content": build_prompt(instance, mode, budget, **options)}]


def alone_prompt(question: str, context: str) -> str:
    """What one context answers, asked without the others and without a trace."""
    return ALONE.format(question=question, context=context)


def alone(completion: str) -> str:
    """The answer block of a completion to `alone_prompt`; "" where there is none."""
    return completion.partition("<answer>")[2].partition("</answer>")[0].strip()


# ---------------------------------------------------------------- reading an answer


@dataclass(frozen=True)
class Step:
    """One sentence of a trace."""

    text: str
    """Without its citations."""
    cited: tuple[int, ...]
    """Contexts it names, counted from 0."""

    @property
    def tokens(self) -> list[str]:
        return normalise(self.text).split()

    @property
    def refutes(self) -> bool:
        """Whether it speaks against what it mentions."""
        return refutes(self.text)

    @property
    def negated(self) -> bool:
        return negates(words(cleared(self.text)))


@dataclass(frozen=True)
class Parsed:
    """A completion taken apart. `verdict` is "ok", or what is wrong with its form; then trace and answer are ""."""

    verdict: str
    trace: str = ""
    answer: str = ""


_TAG = re.compile(r"</?(?:think|answer)>", re.IGNORECASE)
_ORDER = ("<think>", "</think>", "<answer>", "</answer>")
_CITATION = re.compile(r"[\[(]\s*context\s+(\d{1,3})\s*[\])]", re.IGNORECASE)


def parse(completion: object) -> Parsed:
    """Take a completion apart; chat messages are read at their last turn. Never raises.

    Verdicts: ok, not_text, no_think, no_answer, repeated (a tag twice), disordered (nested, or answer first),
    outside (text before, between or after the blocks), empty_think, empty_answer.
    """
    text = completion_text(completion)
    if text is None:
        return Parsed("not_text")
    tags = list(_TAG.finditer(text))
    names = [t.group().lower() for t in tags]
    counts = Counter(names)
    for block in ("think", "answer"):
        if not counts[f"<{block}>"] or not counts[f"</{block}>"]:
            return Parsed(f"no_{block}")
    if len(names) > len(_ORDER):
        return Parsed("repeated")
    if tuple(names) != _ORDER:
        return Parsed("disordered")
    before, between, after = text[: tags[0].start()], text[tags[1].end() : tags[2].start()], text[tags[3].end() :]
    if (before + between + after).strip():
        return Parsed("outside")
    trace = text[tags[0].end() : tags[1].start()].strip()
    answer = text[tags[2].end() : tags[3].start()].strip()
    if not WORD.search(trace):
        return Parsed("empty_think")
    if not WORD.search(answer):
        return Parsed("empty_answer")
    return Parsed("ok", trace, answer)


def completion_text(completion: object) -> str | None:
    """The text of a completion: a string, or the last turn's content of chat messages; None for anything else."""
    if isinstance(completion, str):
        return completion
    if isinstance(completion, list) and completion and isinstance(completion[-1], dict):
        content = completion[-1].get("content")
        return content if isinstance(content, str) else None
    return None


def steps(trace: str) -> list[Step]:
    """Sentences of a trace with what they cite; a citation alone after a full stop belongs to the one before it."""
    found: list[Step] = []
    for start, end in sentences(trace):
        sentence = trace[start:end]
        cited = tuple(dict.fromkeys(int(n) - 1 for n in _CITATION.findall(sentence)))
        rest = " ".join(_CITATION.sub(" ", sentence).split())
        if WORD.search(rest):
            found.append(Step(rest, cited))
        elif cited and found:
            found[-1] = Step(found[-1].text, tuple(dict.fromkeys((*found[-1].cited, *cited))))
    return found


def followed(trace: str, contexts: int) -> int | None:
    """The context cited most often by steps that do not refute it, from 0; None without citations or at a tie."""
    counts = Counter(j for step in steps(trace) if not step.refutes for j in step.cited if 0 <= j < contexts)
    best = counts.most_common(2)
    if not best or (len(best) == 2 and best[0][1] == best[1][1]):
        return None
    return best[0][0]
