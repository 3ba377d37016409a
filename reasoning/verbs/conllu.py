"""Parsed text: CoNLL-U files, sentence by sentence.

Only what argument extraction reads is kept. Ranges ("1-2") and empty nodes ("1.1") are passed over: the basic tree does
not use them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from launch.errors import DataError


class Token(NamedTuple):
    """One word of a tree. `head` is a token's number from 1; 0 for the root."""

    form: str
    lemma: str
    upos: str
    head: int
    deprel: str


Sentence = tuple[Token, ...]


def read_conllu(path: str | Path) -> Iterator[Sentence]:
    """The sentences of a file.

    Raises:
        DataError: no such file, or a line that is no token; says which.
    """
    path = Path(path)
    if not path.is_file():
        raise DataError(f"no file {path}; give the path of a CoNLL-U file")
    try:
        with path.open(encoding="utf-8") as lines:
            yield from parse(lines, str(path))
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 ({error.reason}); convert it") from error


def parse(lines: Iterable[str], name: str = "text") -> Iterator[Sentence]:
    """The sentences of CoNLL-U lines; `name` is what complaints call them."""
    tokens: list[Token] = []
    first = 1
    for number, line in enumerate(lines, 1):
        line = line.rstrip("\n")
        if line.startswith("#"):
            continue
        if not line.strip():
            if tokens:
                yield _whole(tokens, name, first)
            tokens = []
            continue
        fields = line.split("\t")
        if len(fields) != 10:
            raise DataError(f"{name}, line {number}: {len(fields)} columns of 10; is it CoNLL-U, with tabs?")
        if "-" in fields[0] or "." in fields[0]:
            continue
        if not tokens:
            first = number
        if fields[0] != str(len(tokens) + 1) or not fields[6].isdecimal():
            raise DataError(
                f"{name}, line {number}: token {fields[0]!r} with head {fields[6]!r} after {len(tokens)} tokens; "
                "number them 1, 2, ... and give each a head"
            )
        tokens.append(Token(fields[1], fields[2], fields[3], int(fields[6]), fields[7]))
    if tokens:
        yield _whole(tokens, name, first)


def _whole(tokens: list[Token], name: str, line: int) -> Sentence:
    """The sentence, if every token's heads lead to the root."""
    rooted: set[int] = {0}
    for start in range(1, len(tokens) + 1):
        trail: list[int] = []
        at = start
        while at not in rooted:
            if at > len(tokens) or at in trail:
                raise DataError(
                    f"{name}, line {line}: heads of token {start} never reach the root; repair the sentence"
                )
            trail.append(at)
            at = tokens[at - 1].head
        rooted.update(trail)
    return tuple(tokens)
