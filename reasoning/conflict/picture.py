"""The chains of a decision as a picture: one row per context, followed links solid, the broken link dashed and named.

    python -c "from reasoning.conflict import resolve; from reasoning.conflict.picture import draw; \\
               draw(resolve('Where does the mentor of Ann live?', ['The mentor of Ann is Bob. Bob lives in Oslo.', \\
               'The mentor of Ann is Cy. Dan lives in Rome.']), 'conflict.svg')"
"""

from __future__ import annotations

from pathlib import Path

from reasoning.conflict.resolver import PathView, Resolution

Segment = tuple[str, str, str, bool]
"""Head, relation, tail, and whether the link holds."""


def segments(view: PathView) -> list[Segment]:
    """The links to draw of one context: its chain, with the contradicted ones marked, or the two ends of its gap."""
    broken = {tuple(fault["link"]) for fault in view["faults"] if fault["kind"] == "contradiction"}
    drawn = [(head, relation, tail, (head, relation, tail) not in broken) for head, relation, tail in view["links"]]
    for fault in view["faults"]:
        if fault["kind"] == "contradiction":
            drawn.append((fault["against"][0], fault["against"][1], fault["against"][2], False))
        elif fault["kind"] == "gap" and fault["link"][0]:
            drawn.append((fault["link"][0], "no link", fault["link"][2], False))
    return drawn


def draw(resolution: Resolution, file: str | Path) -> Path:
    """Write the picture of a decision; the format is that of the file's suffix (svg, png, pdf)."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rows = [segments(view) for view in resolution["paths"]]
    widest = max((len(_places(row)) for row in rows), default=1)
    figure = Figure(figsize=(2.2 * max(2, widest), 1.6 * max(1, len(rows))))
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.set_axis_off()
    axes.set_xlim(-0.6, max(1, widest - 1) + 0.6)
    axes.set_ylim(-len(rows) + 0.3, 0.7)
    for number, (row, view) in enumerate(zip(rows, resolution["paths"], strict=True)):
        chosen = number == resolution["followed"]
        color = "#1b7837" if chosen else "#762a83"
        verdict = "followed" if chosen else "rejected" if number in resolution["rejected"] else "not needed"
        title = f"Context {number + 1}: {view['answer'] or 'no answer'} ({verdict})"
        axes.text(-0.5, 0.42 - number, title, color=color, fontsize=9)
        places = _places(row)
        for head, relation, tail, holds in row:
            style = {
                "arrowstyle": "->",
                "color": color,
                "linestyle": "-" if holds else "--",
                "shrinkA": 28,
                "shrinkB": 28,
            }
            # A second link between the same two, or back, is bent so that both can be seen.
            if places[tail] - places[head] != 1 or not holds:
                style["connectionstyle"] = "arc3,rad=0.25"
            ends = (places[head], -number), (places[tail], -number)
            axes.annotate("", xy=ends[1], xytext=ends[0], arrowprops=style)
            middle = (ends[0][0] + ends[1][0]) / 2
            axes.text(middle, -number + (0.1 if holds else -0.3), relation, ha="center", fontsize=7, color=color)
        for name, x in places.items():
            box = {"boxstyle": "round", "facecolor": "white", "edgecolor": color}
            axes.text(x, -number, name, ha="center", va="center", fontsize=8, bbox=box)
    path = Path(file)
    figure.savefig(path, bbox_inches="tight")
    return path


def _places(row: list[Segment]) -> dict[str, int]:
    """Columns of the names of a row, in the order they come."""
    names = dict.fromkeys(name for head, _, tail, _ in row for name in (head, tail))
    return {name: x for x, name in enumerate(names)}
