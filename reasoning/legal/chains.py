"""Legal chains: premise, situation and conclusion, with the range of months that the conclusion allows.

    诈骗公私财物 -> 数额巨大 OR 其他严重情节 -> 处三年以上十年以下有期徒刑，并处罚金        36-120 months

A situation is a condition in disjunctive form: alternatives joined by " OR ", the parts of one alternative by " AND ".
A charge's chains are stored in three files (LegalChainReasoner, arXiv 2509.00783): one chain a line; a list of nodes;
a list of edges, type 1 into a logic node, type 0 for an ordinary step.

    operands → logic node (1)    premise → logic node or situation (0)    logic node or situation → conclusion (0)

    python -c "from reasoning.legal import legal_chains; print(*legal_chains('诈骗罪'), sep='\\n')"
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from launch.errors import DataError
from launch.runfolder import write_text
from reasoning.legal.numerals import NUMERAL, number

ARROW, OR, AND = " -> ", " OR ", " AND "
BASE = "未达到特定情形"
"""The situation of a chain whose article asks for none."""
LIFE, DEATH = -1, -2
"""Terms that are no number of months, as CAIL2018 writes them."""
MONTHS = range(301)
"""Terms of imprisonment that a record may hold: 25 years are the most (Criminal Law, article 69)."""


@dataclass(frozen=True)
class MonthRange:
    """What a conclusion allows. Months are None where it allows no fixed term at all."""

    low: int | None
    high: int | None
    """None with a `low`: open above, which for a single offence means 180 (Criminal Law, article 45)."""
    life: bool = False
    death: bool = False

    def __contains__(self, months: object) -> bool:
        """Whether a term lies in the range; LIFE and DEATH are terms too."""
        if months in (LIFE, DEATH):
            return self.life if months == LIFE else self.death
        if not isinstance(months, int | float) or self.low is None:
            return False
        return self.low <= months and (self.high is None or months <= self.high)

    def __str__(self) -> str:
        fixed = "" if self.low is None else f"≥{self.low}" if self.high is None else f"{self.low}-{self.high}"
        return ", ".join([*([f"{fixed} months"] if fixed else []), *["life"] * self.life, *["death"] * self.death])


_TERM = {
    "between": re.compile(rf"({NUMERAL})年以上({NUMERAL})年以下有期徒刑"),
    "below": re.compile(rf"({NUMERAL})年以下有期徒刑"),
    "above": re.compile(rf"({NUMERAL})年以上有期徒刑"),
    "exact": re.compile(rf"({NUMERAL})年有期徒刑"),
}


def month_range(conclusion: str) -> MonthRange:
    """The range of months that a penalty allows.

    "三年以下" starts at 0, since detention and control stand beside it or a judge may grant them. Detention alone is 1
    to 6 months (article 42), control alone 3 to 24 (article 38).

    Raises:
        DataError: the text names no term, detention, control, life or death.
    """
    low: int | None = None
    high: int | None = None
    if found := _TERM["between"].search(conclusion):
        low, high = 12 * number(found[1]), 12 * number(found[2])
    elif found := _TERM["below"].search(conclusion):
        low, high = 0, 12 * number(found[1])
    elif found := _TERM["above"].search(conclusion):
        low = 12 * number(found[1])
    elif found := _TERM["exact"].search(conclusion):
        low = high = 12 * number(found[1])
    elif "拘役" in conclusion:
        low, high = 1, 6
    elif "管制" in conclusion:
        low, high = 3, 24
    life, death = "无期徒刑" in conclusion, "死刑" in conclusion
    if low is None and not life and not death:
        raise DataError(f"{conclusion!r} names no prison term; write it like '处三年以上十年以下有期徒刑'")
    return MonthRange(low, high, life, death)


@dataclass(frozen=True)
class Chain:
    """One triplet. `article` is that of the conclusion ("263", "133-1"), `source` that of the premise if another."""

    premise: str
    situation: str
    conclusion: str
    article: str = ""
    source: str = ""

    @cached_property
    def months(self) -> MonthRange:
        return month_range(self.conclusion)

    @property
    def alternatives(self) -> tuple[tuple[str, ...], ...]:
        """The situation as alternatives, each a tuple of parts that must hold together."""
        return tuple(tuple(part.split(AND)) for part in self.situation.split(OR))

    @property
    def line(self) -> str:
        return ARROW.join((self.premise, self.situation, self.conclusion))


def read_chains(path: str | Path, skip_broken: bool = False) -> list[Chain]:
    """The chains of a file, one a line; blank lines part premises.

    Args:
        skip_broken: pass over lines without exactly three fields, as the published code does.

    Raises:
        DataError: no such file; a line without exactly three fields, or whose conclusion has no range.
    """
    path = Path(path)
    if not path.is_file():
        raise DataError(f"no file {path}; give the path of a chain.txt")
    chains = []
    for row, line in enumerate(path.read_text(encoding="utf-8").split("\n"), 1):
        fields = [field.strip() for field in line.split(ARROW)]
        if not line.strip() or (skip_broken and len(fields) != 3):
            continue
        if len(fields) != 3 or not all(fields):
            raise DataError(f"{path}, line {row}: {line[:60]!r} is not 'premise -> situation -> conclusion'; repair it")
        chain = Chain(*fields)
        try:
            month_range(chain.conclusion)
        except DataError as error:
            raise DataError(f"{path}, line {row}: {error}") from error
        chains.append(chain)
    return chains


def write_chains(chains: Sequence[Chain], path: str | Path) -> None:
    """Write a chain file that `read_chains` reads back: one line each, a blank line before every new premise."""
    lines: list[str] = []
    for before, chain in zip([None, *chains], chains, strict=False):
        lines += [""] * (before is not None and before.premise != chain.premise) + [chain.line]
    write_text(Path(path), "\n".join(lines) + "\n")


# ---------------------------------------------------------------- graphs


@dataclass(frozen=True)
class Node:
    """A string of some chain, or a logic node OR_n or AND_n_m of chain n."""

    id: int
    name: str
    start: bool
    """Nothing leads into it: premises and operands."""
    logic: bool

    @property
    def type(self) -> str:
        return "Logic" if self.logic else "Normal"


@dataclass(frozen=True)
class Graph:
    """Nodes, and edges (source, type, target): type 1 into a logic node. An edge stands once for each use."""

    nodes: tuple[Node, ...]
    edges: tuple[tuple[int, int, int], ...]


def build_graph(chains: Iterable[Chain]) -> Graph:
    """The logic graph of a charge's chains. Equal strings are one node; logic nodes belong to one chain."""
    names: list[str] = []
    logic: set[int] = set()
    index: dict[str, int] = {}
    edges: list[tuple[int, int, int]] = []

    def node(name: str, is_logic: bool = False) -> int:
        if name not in index:
            index[name] = len(names)
            names.append(name)
            if is_logic:
                logic.add(index[name])
        return index[name]

    def join(name: str, operands: Sequence[str]) -> int:
        """A logic node over operands; it is numbered after the first of them, as in the published files."""
        first = node(operands[0])
        joined = node(name, is_logic=True)
        edges.extend((source, 1, joined) for source in (first, *(node(o) for o in operands[1:])))
        return joined

    for n, chain in enumerate(chains):
        premise = node(chain.premise)
        heads = []
        for m, parts in enumerate(chain.alternatives):
            heads.append(parts[0] if len(parts) == 1 else f"AND_{n}_{m}")
            if len(parts) > 1:
                join(heads[-1], parts)
        situation = node(heads[0]) if len(heads) == 1 else join(f"OR_{n}", heads)
        edges.append((premise, 0, situation))
        edges.append((situation, 0, node(chain.conclusion)))
    targets = {target for *_, target in edges}
    return Graph(tuple(Node(i, name, i not in targets, i in logic) for i, name in enumerate(names)), tuple(edges))


def read_graph(nodes: str | Path, edges: str | Path) -> Graph:
    """A node file and an edge file.

    Raises:
        DataError: a file is missing, a row is not of the form, or an edge names a node that is not there.
    """
    nodes, edges = Path(nodes), Path(edges)
    for path in (nodes, edges):
        if not path.is_file():
            raise DataError(f"no file {path}; a logic graph is a node file and an edge file")
    try:
        rows = json.loads(nodes.read_text(encoding="utf-8"))
        read = [Node(int(r["id"]), str(r["name"]), bool(r["start"]), r["type"] == "Logic") for r in rows]
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{nodes}: not a list of id, name, start and type ({error!r})") from error
    known = {node.id for node in read}
    links = []
    for row, line in enumerate(edges.read_text(encoding="utf-8").split("\n"), 1):
        if not line.strip():
            continue
        parts = line.split("\t")
        if len(parts) != 3 or not all(p.strip().isdigit() for p in parts) or int(parts[1]) > 1:
            raise DataError(f"{edges}, line {row}: {line[:40]!r} is not 'source TAB 0 or 1 TAB target'")
        source, kind, target = (int(p) for p in parts)
        if not {source, target} <= known:
            raise DataError(f"{edges}, line {row}: {line!r} names a node that {nodes.name} does not have")
        links.append((source, kind, target))
    return Graph(tuple(read), tuple(links))


def write_graph(graph: Graph, nodes: str | Path, edges: str | Path) -> None:
    """Write the two files that `read_graph` reads back."""
    rows = [{"id": n.id, "name": n.name, "start": n.start, "type": n.type} for n in graph.nodes]
    write_text(Path(nodes), json.dumps(rows, ensure_ascii=False, indent=4))
    write_text(Path(edges), "\n".join("\t".join(map(str, edge)) for edge in graph.edges))
