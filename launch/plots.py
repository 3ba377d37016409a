"""Small charts as inline SVG text, drawn for the report page's light and dark colours.

Every function is pure: numbers in, one ``<svg>`` out, no file, no font, no script. Colours are CSS classes of
``report_page.html`` (``s0`` … ``s7`` for series in a fixed order, ``pos`` and ``neg`` for signs), so one drawing is
right in both themes. Charts are 360 units wide: two or three stand beside each other on a desk and one fills a phone
with its letters still readable. Values that are not finite leave a gap.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape

WIDTH = 360
COLOURS = 8
MOST_POINTS = 300
Points = Sequence[tuple[float, float]]
Matrix = Sequence[Sequence[float]]


def number(value: float | int | None) -> str:
    """A number as the report shows it: four significant digits, thousands as k, M, G; a dash for None."""
    if value is None:
        return "–"
    if isinstance(value, bool) or not math.isfinite(value):
        return str(value)
    size = abs(value)
    for unit, factor in (("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e4)):
        if size >= factor:
            return f"{value / (1e3 if unit == 'k' else factor):.4g}{unit}"
    if isinstance(value, int) or float(value).is_integer():
        return f"{value:.0f}"
    return f"{value:.4g}" if size >= 1e-3 else f"{value:.2e}"


def ticks(low: float, high: float, count: int = 4) -> list[float]:
    """About `count` round values that lie within [low, high]."""
    raw = (high - low) / count
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(power * nice for nice in (1, 2, 2.5, 5, 10) if power * nice >= raw * 0.999)
    first = math.ceil(low / step - 1e-9)
    return [round(i * step, 12) for i in range(first, math.floor(high / step + 1e-9) + 1)]


def line_chart(
    series: Mapping[str, Points],
    x_label: str,
    y_label: str,
    y_range: tuple[float, float] | None = None,
    from_zero: bool = False,
    integer_x: bool = False,
) -> str:
    """Lines of (x, y) points, one colour a series in the order given; more than 300 points become bucket means."""
    height, left, right, top, bottom = 220, 46, 10, 12, 34
    drawn = {name: _thin([p for p in points if _finite(*p)]) for name, points in series.items()}
    everything = [point for points in drawn.values() for point in points]
    if not everything:
        return f'<p class="quiet">{escape(y_label)}: no finite value to draw</p>'
    x0, x1 = _spread([x for x, _ in everything])
    y0, y1 = y_range or _spread([y for _, y in everything])
    if y_range is None:
        y0 = 0.0 if from_zero and y0 >= 0 else y0 - 0.05 * (y1 - y0)
        y1 += 0.05 * (y1 - y0)

    def place(x: float, y: float) -> tuple[float, float]:
        across = left + (x - x0) / (x1 - x0) * (WIDTH - left - right)
        return across, height - bottom - (y - y0) / (y1 - y0) * (height - top - bottom)

    parts = []
    for tick in ticks(y0, y1):
        y = place(x0, tick)[1]
        parts.append(f'<path class="grid" d="M{left} {y:.1f}H{WIDTH - right}"/>')
        parts.append(f'<text class="tick" x="{left - 6}" y="{y + 3.5:.1f}" text-anchor="end">{number(tick)}</text>')
    for tick in ticks(x0, x1):
        if integer_x and tick != int(tick):
            continue
        x = place(tick, y0)[0]
        parts.append(
            f'<text class="tick" x="{x:.1f}" y="{height - bottom + 15}" text-anchor="middle">{number(tick)}</text>'
        )
    parts.append(f'<path class="axis" d="M{left} {height - bottom}H{WIDTH - right}"/>')
    parts.append(f'<text class="tick" x="{WIDTH - right}" y="{height - 4}" text-anchor="end">{escape(x_label)}</text>')
    for index, (name, points) in enumerate(drawn.items()):
        colour = f"s{index % COLOURS}"
        spots = [(*place(x, y), x, y) for x, y in points]
        path = "M" + "L".join(f"{px:.1f} {py:.1f}" for px, py, _, _ in spots)
        if len(spots) > 1:
            parts.append(f'<path class="line {colour}" d="{path}"/>')
        for px, py, x, y in spots if len(spots) <= 15 else spots[-1:]:
            tip = f"{escape(name)}, {escape(x_label)} {number(x)}: {number(y)}"
            parts.append(
                f'<circle class="dot {colour}" cx="{px:.1f}" cy="{py:.1f}" r="3.5"><title>{tip}</title></circle>'
            )
    return _svg(height, f"{y_label} by {x_label}", parts)


def heat_map(matrix: Matrix, names: Sequence[str], scale: float, label: str) -> str:
    """A K x K table of signed values; full colour at +-`scale`, so maps of one scale can be compared.

    Row against column: blue where the row wins, red where it loses.
    """
    k = len(matrix)
    margin = 26
    cell = (WIDTH - margin) / max(k, 1)
    height = margin + cell * k
    digits, size = (2, 13.0) if k <= 6 else (1, max(6.5, cell * 0.36))
    parts = []
    for i, row in enumerate(matrix):
        middle = margin + (i + 0.5) * cell
        parts.append(
            f'<text class="tick" x="{margin - 8}" y="{middle + 3.5:.1f}" text-anchor="end">{escape(names[i])}</text>'
        )
        parts.append(
            f'<text class="tick" x="{middle:.1f}" y="{margin - 9}" text-anchor="middle">{escape(names[i])}</text>'
        )
        for j, value in enumerate(row):
            x, y = margin + j * cell, margin + i * cell
            tip = f"{escape(names[i])} against {escape(names[j])}: {number(value)}"
            weight = min(1.0, abs(value) / scale) if scale > 0 and math.isfinite(value) else 0.0
            sign = "pos" if value > 0 else "neg"
            parts.append(
                f'<g><title>{tip}</title><rect class="{sign}" x="{x + 1:.1f}" y="{y + 1:.1f}" rx="3" '
                f'width="{cell - 2:.1f}" height="{cell - 2:.1f}" fill-opacity="{0.04 + 0.9 * weight:.2f}"/>'
            )
            if k <= 16:
                ink = "cell strong" if weight > 0.55 else "cell"
                shown = "·" if i == j else f"{value:z.{digits}f}"
                parts.append(
                    f'<text class="{ink}" x="{x + cell / 2:.1f}" y="{y + cell / 2 + size * 0.35:.1f}" '
                    f'font-size="{size:.1f}" text-anchor="middle">{shown}</text>'
                )
            parts.append("</g>")
    return _svg(height, label, parts)


def bar_chart(values: Sequence[float], names: Sequence[str], label: str, top: float | None = None) -> str:
    """Horizontal bars from zero with their value written at the end; `top` is the value of a full bar."""
    step, text_width = 26, 26 + 6 * max((len(name) for name in names), default=0)
    left = min(text_width, 150)
    full = top or max([abs(v) for v in values if math.isfinite(v)], default=0) or 1.0
    parts = []
    for i, (value, name) in enumerate(zip(values, names, strict=True)):
        y = i * step
        length = max(0.0, min(1.0, value / full)) * (WIDTH - left - 56) if math.isfinite(value) else 0.0
        parts.append(
            f'<text class="name" x="{left - 8}" y="{y + 16}" text-anchor="end">{escape(_short(name, 22))}</text>'
        )
        parts.append(f'<path class="axis" d="M{left} {y + 2}V{y + step - 2}"/>')
        if length > 0:
            parts.append(f'<path class="bar" d="{_bar(left, y + 5, length, step - 10)}"/>')
        parts.append(f'<text class="value" x="{left + length + 7:.1f}" y="{y + 17}">{number(value)}</text>')
    return _svg(step * max(len(values), 1), label, parts)


def interval_chart(
    rows: Sequence[tuple[float, float, float]],
    names: Sequence[str],
    label: str,
    x_range: tuple[float, float] | None = None,
    mark: float | None = None,
) -> str:
    """One (value, low, high) a line: a dot on its interval. `mark` is a dashed line, such as 1/2."""
    step, left, right = 26, min(26 + 6 * max((len(name) for name in names), default=0), 150), 52
    inside = [x for row in rows for x in row if math.isfinite(x)] + ([] if mark is None else [mark])
    x0, x1 = x_range or _spread(inside or [0.0, 1.0])
    bottom = step * max(len(rows), 1)

    def across(x: float) -> float:
        return left + min(1.0, max(0.0, (x - x0) / (x1 - x0))) * (WIDTH - left - right)

    parts = []
    for tick in ticks(x0, x1, 3):
        parts.append(f'<path class="grid" d="M{across(tick):.1f} 0V{bottom}"/>')
        spot = f'x="{across(tick):.1f}" y="{bottom + 14}" text-anchor="middle"'
        parts.append(f'<text class="tick" {spot}>{number(tick)}</text>')
    if mark is not None:
        parts.append(f'<path class="zero" d="M{across(mark):.1f} 0V{bottom}"/>')
    for i, ((value, low, high), name) in enumerate(zip(rows, names, strict=True)):
        y = i * step + step / 2
        tip = f"{escape(name)}: {number(value)} [{number(low)}, {number(high)}]"
        parts.append(
            f'<text class="name" x="{left - 8}" y="{y + 4}" text-anchor="end">{escape(_short(name, 22))}</text>'
        )
        parts.append(f"<g><title>{tip}</title>")
        if _finite(low, high):
            parts.append(f'<path class="line s0" d="M{across(low):.1f} {y}H{across(high):.1f}"/>')
        if _finite(value):
            parts.append(f'<circle class="dot s0" cx="{across(value):.1f}" cy="{y}" r="4.5"/>')
        parts.append(f'</g><text class="value" x="{WIDTH - right + 8}" y="{y + 4}">{number(value)}</text>')
    return _svg(bottom + 20, label, parts)


def histogram(edges: Sequence[float], counts: Sequence[float], label: str, x_label: str) -> str:
    """Counts between neighbouring edges (one edge more than counts)."""
    height, left, right, top, bottom = 150, 10, 10, 18, 34
    high = max([*counts, 1])
    low_edge, high_edge = edges[0], edges[-1]
    width = (high_edge - low_edge) or 1.0

    def across(value: float) -> float:
        return left + (value - low_edge) / width * (WIDTH - left - right)

    parts = []
    for start, end, count in zip(edges, edges[1:], counts, strict=False):
        tall = count / high * (height - top - bottom)
        x0, x1 = across(start), across(end)
        tip = f"{number(start)} to {number(end)}: {number(count)}"
        parts.append(
            f'<g><title>{tip}</title><rect class="bar" x="{x0 + 0.75:.1f}" y="{height - bottom - tall:.1f}" rx="1.5" '
            f'width="{max(0.5, x1 - x0 - 1.5):.1f}" height="{tall:.1f}"/></g>'
        )
    if low_edge < 0 < high_edge:
        parts.append(f'<path class="zero" d="M{across(0):.1f} {top}V{height - bottom}"/>')
    parts.append(f'<path class="axis" d="M{left} {height - bottom}H{WIDTH - right}"/>')
    for tick in ticks(low_edge, low_edge + width):
        anchor = "start" if across(tick) < left + 8 else "end" if across(tick) > WIDTH - right - 8 else "middle"
        spot = f'x="{across(tick):.1f}" y="{height - bottom + 15}" text-anchor="{anchor}"'
        parts.append(f'<text class="tick" {spot}>{number(tick)}</text>')
    parts.append(f'<text class="tick" x="{left}" y="11">most in one bin: {number(high)}</text>')
    parts.append(f'<text class="tick" x="{WIDTH - right}" y="{height - 4}" text-anchor="end">{escape(x_label)}</text>')
    return _svg(height, label, parts)


def unit_circle(points: Points, names: Sequence[str], arrows: Sequence[tuple[int, int]], label: str) -> str:
    """Points in the unit disc, numbered, with arrows from the winner to the loser of each pair in `arrows`."""
    size, radius = 300, 118
    middle_x, middle_y = WIDTH / 2, size / 2
    spots = [(middle_x + radius * x, middle_y - radius * y) for x, y in points]
    parts = [
        f'<circle class="ring" cx="{middle_x}" cy="{middle_y}" r="{radius}"/>',
        f'<path class="grid" d="M{middle_x - radius} {middle_y}h{2 * radius}"/>',
        f'<path class="grid" d="M{middle_x} {middle_y - radius}v{2 * radius}"/>',
    ]
    parts += [_arrow(spots[i], spots[j], f"{names[i]} beats {names[j]}") for i, j in arrows]
    for index, ((x, y), (px, py)) in enumerate(zip(points, spots, strict=True)):
        length = math.hypot(x, y)
        out_x, out_y = (x / length, -y / length) if length > 1e-6 else (0.0, -1.0)
        parts.append(
            f'<circle class="dot s{index % COLOURS}" cx="{px:.1f}" cy="{py:.1f}" r="5.5">'
            f"<title>{escape(names[index])}: ({number(x)}, {number(y)})</title></circle>"
            f'<text class="name" x="{px + 16 * out_x:.1f}" y="{py + 16 * out_y + 4:.1f}" text-anchor="middle">'
            f"{escape(names[index])}</text>"
        )
    return _svg(size, label, parts)


def legend(names: Sequence[str]) -> str:
    """The key of a line chart; nothing for a single series, which its title names."""
    if len(names) < 2:
        return ""
    items = "".join(f'<li><i class="s{i % COLOURS}"></i>{escape(name)}</li>' for i, name in enumerate(names))
    return f'<ul class="legend">{items}</ul>'


# ---------------------------------------------------------------- pieces


def _svg(height: float, label: str, parts: Sequence[str]) -> str:
    return f'<svg viewBox="0 0 {WIDTH} {height:.0f}" role="img" aria-label="{escape(label)}">{"".join(parts)}</svg>'


def _finite(*values: float) -> bool:
    return all(math.isfinite(value) for value in values)


def _spread(values: Sequence[float]) -> tuple[float, float]:
    """The range of `values`, widened where it is a single point."""
    low, high = min(values), max(values)
    if high - low > 1e-12 * max(1.0, abs(low), abs(high)):
        return low, high
    room = 0.5 * abs(low) or 0.5
    return low - room, high + room


def _thin(points: Points) -> Points:
    """At most `MOST_POINTS` points, each the mean of its bucket; the last one is kept as it is."""
    bucket = math.ceil(len(points) / MOST_POINTS)
    if bucket <= 1:
        return points
    groups = [points[i : i + bucket] for i in range(0, len(points), bucket)]
    means = [(sum(x for x, _ in group) / len(group), sum(y for _, y in group) / len(group)) for group in groups]
    return [*means[:-1], points[-1]]


def _short(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"


def _bar(x: float, y: float, length: float, height: float) -> str:
    """A bar square at its foot and rounded at its end."""
    r = min(3.0, length)
    return f"M{x} {y}h{length - r:.1f}q{r} 0 {r} {r}v{height - 2 * r:.1f}q0 {r} {-r} {r}h{r - length:.1f}z"


def _arrow(start: tuple[float, float], end: tuple[float, float], tip: str) -> str:
    dx, dy = end[0] - start[0], end[1] - start[1]
    length = math.hypot(dx, dy)
    if length < 24:
        return ""  # the two points lie on each other
    ux, uy = dx / length, dy / length
    x0, y0 = start[0] + 9 * ux, start[1] + 9 * uy
    x1, y1 = end[0] - 10 * ux, end[1] - 10 * uy
    head = " ".join(f"{x1 - 9 * ux + s * 4.5 * uy:.1f},{y1 - 9 * uy - s * 4.5 * ux:.1f}" for s in (1, -1))
    return (
        f'<g class="arrow"><title>{escape(tip)}</title>'
        f'<path d="M{x0:.1f} {y0:.1f}L{x1 - 8 * ux:.1f} {y1 - 8 * uy:.1f}"/>'
        f'<polygon points="{x1:.1f},{y1:.1f} {head}"/></g>'
    )
