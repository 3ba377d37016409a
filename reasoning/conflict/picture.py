"""A decision as a picture: the local graph of every context, the chain that was followed, and the link that broke.

    python -c "from reasoning.conflict import resolve; from reasoning.conflict.picture import draw; \\
               q = 'Where does the mentor of Ann live?'; c = ['The mentor of Ann is Bob. Bob lives in Oslo.', \\
               'The mentor of Ann is Cy. Dan lives in Rome.']; draw(q, c, resolve(q, c), 'conflict.svg')"

A context's chain, or the ends of its gap, stand in a row from the question to the answer; networkx places the other
names around them. Of a long context the names nearest to the chain are drawn, and how many are not is said.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reasoning.conflict.extract import DEFAULT, Extractor
from reasoning.conflict.paths import Local, local_graph
from reasoning.conflict.resolver import PathView, Resolution

if TYPE_CHECKING:
    import networkx

MOST = 24
"""Names drawn of one context."""
LABEL = 22
"""Letters of a name or relation that are shown."""
FOLLOWED, LINK, BROKEN, QUIET = "#1b7837", "#4d4d4d", "#c51b1b", "#bdbdbd"
ASKED, ANSWER, OTHER = "#d1e5f0", "#fddbc7", "white"

Edge = tuple[str, str]


@dataclass(frozen=True)
class Panel:
    """One context's graph with what is to be seen in it. Edges go from head to tail as they are told."""

    graph: networkx.Graph
    row: list[str]
    """Nodes of the chain in order, or the two ends of its gap."""
    links: dict[Edge, str]
    """The chain's links that hold, with their relations."""
    broken: dict[Edge, str]
    """Contradicted links and what contradicts them, or the link that nothing states."""
    asked: list[str]
    answers: list[str]
    names: dict[str, str]
    """Nodes as they are written in the context."""
    hidden: int
    """Names that are not drawn."""


def panel(question: str, context: str, view: PathView, extractor: Extractor = DEFAULT) -> Panel:
    """What to draw of one context.

    Args:
        view: its entry in `Resolution.paths`.
    """
    local = local_graph(question, context, view["answer"], extractor)
    node = local.names.node
    links = {(node(head), node(tail)): relation for head, relation, tail in view["links"]}
    broken: dict[Edge, str] = {}
    row = _row(list(links))
    for fault in view["faults"]:
        if fault["kind"] == "contradiction":
            for head, relation, tail in (fault["link"], fault["against"]):
                broken[node(head), node(tail)] = relation
        elif fault["kind"] == "gap" and fault["link"][0]:
            row = [node(fault["link"][0]), node(fault["link"][2])]
            broken[row[0], row[1]] = "no link stated"
    kept = _nearest(local, [*row, *(n for edge in broken for n in edge), *local.sources, *local.targets])
    written = {
        node(name): name for _, _, d in local.graph.edges(data=True) for t in d["triples"] for name in (t[0], t[2])
    }
    return Panel(
        graph=local.graph.subgraph(kept).copy(),
        row=row,
        links={edge: relation for edge, relation in links.items() if edge not in broken},
        broken=broken,
        asked=local.sources,
        answers=local.targets,
        names={n: written.get(n, n) for n in kept},
        hidden=len(local.graph) - len(kept & set(local.graph)),
    )


def draw(
    question: str, contexts: Sequence[str], resolution: Resolution, file: str | Path, extractor: Extractor = DEFAULT
) -> Path:
    """Write the picture of a decision; the format is that of the file's suffix (svg, png, pdf).

    Args:
        question, contexts: what `resolve` was given.
        resolution: what it gave back.
    """
    from matplotlib import rc_context
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    views = resolution["paths"]
    panels = [panel(question, context, view, extractor) for context, view in zip(contexts, views, strict=True)]
    columns = max(1, min(2, len(panels)))
    rows = max(1, -(-len(panels) // columns))
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "conflict"}):
        figure = Figure(figsize=(7 * columns, 4.8 * rows), layout="constrained")
        FigureCanvasAgg(figure)
        figure.suptitle(question, fontsize=11)
        for number, (shown, view) in enumerate(zip(panels, views, strict=True)):
            axes = figure.add_subplot(rows, columns, number + 1)
            chosen = number == resolution["followed"]
            verdict = "followed" if chosen else "rejected" if number in resolution["rejected"] else "not needed"
            title = f"Context {number + 1}: {view['answer'] or 'no answer'} ({verdict})"
            if shown.hidden:
                title += f", {shown.hidden} more names"
            axes.set_title(title, color=FOLLOWED if chosen else LINK, fontsize=10)
            _draw(axes, shown, FOLLOWED if chosen else LINK)
        _legend(figure)
        path = Path(file)
        figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)
    return path


# ---------------------------------------------------------------- what is where


def _row(edges: list[Edge]) -> list[str]:
    """Nodes of a chain in order, whichever way its links are told."""
    row = list(edges[0]) if edges else []
    for edge, after in pairwise(edges):
        if len(row) == 2 and row[1] not in after:
            row.reverse()
        row.append(after[0] if after[1] in edge else after[1])
    return row


def _nearest(local: Local, roots: Sequence[str]) -> set[str]:
    """The roots, the names nearest to them, then any, until there are `MOST`."""
    kept = dict.fromkeys(roots)
    edge = [n for n in kept if n in local.graph]
    while edge and len(kept) < MOST:
        around = dict.fromkeys(n for node in edge for n in local.graph.adj[node] if n not in kept)
        edge = list(around)[: MOST - len(kept)]
        kept.update(dict.fromkeys(edge))
    kept.update(dict.fromkeys([n for n in local.graph if n not in kept][: max(0, MOST - len(kept))]))
    return set(kept)


def _places(shown: Panel) -> dict[str, tuple[float, float]]:
    """Node to (x, y): the row from left to right at y = 0, the others by springs, spread over the room around it."""
    import networkx

    springs: Any = networkx.Graph()  # nodes in a fixed order, so that the same decision gives the same picture
    springs.add_nodes_from(sorted(shown.names))
    springs.add_edges_from(sorted(tuple(sorted(edge)) for edge in (*shown.graph.edges, *shown.links, *shown.broken)))
    if not springs:
        return {}
    row = shown.row or shown.asked[:1] or sorted(springs)[:1]
    half = max(1.0, (len(row) - 1) / 2)
    at = {n: (2 * half * i / max(1, len(row) - 1) - half, 0.0) for i, n in enumerate(row)}
    start = {n: at.get(n, (half - 2 * half * i / len(springs), 1.0 if i % 2 else -1.0)) for i, n in enumerate(springs)}
    found = networkx.spring_layout(springs, k=1.0, pos=start, fixed=list(at), iterations=200, seed=0)
    free = [n for n in springs if n not in at]
    widest = max((abs(float(found[n][0])) for n in free), default=0.0) / (half + 0.3) or 1.0
    for above in (True, False):
        side = sorted((n for n in free if bool(found[n][1] >= 0) == above), key=lambda n: abs(found[n][1]))
        for rank, n in enumerate(side):
            height = 0.5 + rank / len(side)
            at[n] = float(found[n][0]) / max(1.0, widest), height if above else -height
    return at


# ---------------------------------------------------------------- ink


def _draw(axes: Any, shown: Panel, colour: str) -> None:
    axes.set_axis_off()
    at = _places(shown)
    if not at:
        axes.text(0.5, 0.5, "no names", ha="center", va="center", color=QUIET, transform=axes.transAxes)
        return
    ring = {*shown.row, *(n for edge in shown.broken for n in edge)}
    boxes = {}
    for name, (x, y) in at.items():
        fill = ASKED if name in shown.asked else ANSWER if name in shown.answers else OTHER
        box = {"boxstyle": "round", "facecolor": fill, "edgecolor": colour if name in ring else QUIET}
        size = 9 if name in ring else 7
        text = _short(shown.names[name])
        boxes[name] = axes.text(x, y, text, ha="center", va="center", fontsize=size, bbox=box, zorder=3)
    axes.update_datalim(list(at.values()))
    axes.margins(0.14)
    axes.autoscale_view()

    def line(edge: Edge, ink: str, relation: str = "", **style: Any) -> None:
        """From the rim of one box to that of the other."""
        ends = {"patchA": boxes[edge[0]].get_bbox_patch(), "patchB": boxes[edge[1]].get_bbox_patch()}
        arrow = {"arrowstyle": "-|>" if relation else "-", "color": ink, "shrinkA": 0, "shrinkB": 0, **ends, **style}
        axes.annotate("", xy=at[edge[1]], xytext=at[edge[0]], arrowprops=arrow)
        if relation:
            (x, y), (u, v) = at[edge[0]], at[edge[1]]
            where = {"textcoords": "offset points", "ha": "center", "va": "bottom"}
            paper = {"boxstyle": "square,pad=0.1", "facecolor": "white", "edgecolor": "none", "alpha": 0.8}
            middle = ((x + u) / 2, (y + v) / 2)
            axes.annotate(_short(relation), middle, (0, 4), fontsize=8, color=ink, bbox=paper, zorder=2, **where)

    told = {frozenset(edge) for edge in (*shown.links, *shown.broken)}
    for edge in shown.graph.edges:
        if frozenset(edge) not in told:
            line(edge, QUIET, linewidth=0.8)
    for edge, relation in shown.links.items():
        line(edge, colour, relation or "with", linewidth=2.2)
    for edge, relation in shown.broken.items():
        line(edge, BROKEN, relation or "with", linewidth=2.2, linestyle="dashed")


def _short(text: str) -> str:
    return text if len(text) <= LABEL else text[: LABEL - 1] + "…"


def _legend(figure: Any) -> None:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    keys = [
        Patch(facecolor=ASKED, edgecolor=QUIET, label="asked about"),
        Patch(facecolor=ANSWER, edgecolor=QUIET, label="answer"),
        Line2D([], [], color=FOLLOWED, linewidth=2.2, label="chain followed"),
        Line2D([], [], color=LINK, linewidth=2.2, label="chain not followed"),
        Line2D([], [], color=BROKEN, linewidth=2.2, linestyle="dashed", label="broken link"),
        Line2D([], [], color=QUIET, linewidth=0.8, label="other links"),
    ]
    figure.legend(handles=keys, loc="outside lower center", ncols=len(keys), fontsize=8, frameon=False)
