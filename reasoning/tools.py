"""What a model may ask about sources that contradict each other."""

from __future__ import annotations

from typing import Any

from launch.errors import DataError
from launch.tools import tool


@tool(imports=["reasoning.conflict"], seconds=60, megabytes=2048)
def resolve_conflict(question: str, passages: list[str], answers: list[str] | None = None) -> dict[str, Any]:
    """Choose which of several passages to follow when they answer a question differently, and say why.

    Args:
        question: What is asked, in plain words.
        passages: The passages, each in full; they may contradict each other.
        answers: The answer that each passage gives, in their order, "" for none; leave it out to have them found.

    Returns:
        answer, and the index from 0 of the passage followed (null if none answers); rejected, indices of passages that
        answer otherwise; paths, one per passage: its answer, its chain of links [head, relation, tail], score in 0 to
        1, and faults (a gap or a contradiction in the chain); confidence in 0 to 1; trace, the reasoning in words.
    """
    from reasoning.conflict import resolve

    if not question.strip() or not passages:
        raise DataError("a question and at least one passage are needed")
    return dict(resolve(question, passages, answers))


@tool(imports=["reasoning.conflict"], seconds=30, megabytes=2048)
def conflict_paths(question: str, passage: str, answer: str = "") -> dict[str, Any]:
    """Find the chain of evidence by which one passage leads from a question to an answer.

    Args:
        question: What is asked, in plain words.
        passage: The text to search.
        answer: The answer to lead to; leave it out to take what the passage itself answers.

    Returns:
        answer; links, the chain as [head, relation, tail]; sentences that state it; score in 0 to 1; faults, each a gap
        (nothing joins two ends) or a contradiction between two links.
    """
    from reasoning.conflict import conflict_paths as paths

    return dict(paths(question, passage, answer))
