"""Curves as SVG that can stand inside a page."""

import math
from collections.abc import Sequence
from html import escape

from agents.report.parts import Curve, Point
from agents.runs.bars import short
from agents.runs.streaming import visible

WIDTH, HEIGHT = 480, 280
"""Of the drawing, which the page scales to the room it has."""

LEFT, RIGHT, TOP, BOTTOM = 58, 14, 12, 44
"""Margins around the lines, for the axes and their labels."""

LEGEND_LINE = 18
"""Height of a line of the legend."""

COLOURS = ("#2166ac", "#e66101", "#1b7837", "#762a83", "#8c510a", "#35978f")
"""Told apart by those who do not tell red from green; further lines begin anew."""

DOTS = 40
"""A line of at most this many points shows each as a dot."""

TICKS = 7
"""At most about this many lines of the grid in each direction."""


def curve_svg(curve: Curve) -> str:
    """The figure as an `<svg>` element, the same for the same curve.

    Text stays text: the page's own fonts show it, and it can be searched. The title is left to the
    page.
    """
    legend = LEGEND_LINE * len(curve.series) if len(curve.series) > 1 else 0
    everything = [*curve.series.values(), *_edges(curve)]
    x = _Axis([x for points in everything for x, _ in points], LEFT, WIDTH - RIGHT)
    y = _Axis([y for points in everything for _, y in points], HEIGHT - BOTTOM, TOP)
    drawn = [*_grid(x, y), *_labels(curve)]
    for number, (name, points) in enumerate(curve.series.items()):
        colour = COLOURS[number % len(COLOURS)]
        if name in curve.bands:
            drawn.append(_band(curve.bands[name], x, y, colour))
        drawn += _line(points, x, y, colour)
        if legend:
            drawn += _legend_line(name, colour, HEIGHT + LEGEND_LINE * number)
    return (
        f'<svg role="img" aria-label="{_text(curve.title)}" viewBox="0 0 {WIDTH} {HEIGHT + legend}"'
        ' font-family="inherit" font-size="12" fill="#444">' + "".join(drawn) + "</svg>"
    )


class _Axis:
    """Numbers along one direction.

    Args:
        values: What has to fit; those that are not finite are passed over.
        start: Place of the lowest number.
        end: Place of the highest.
    """

    def __init__(self, values: Sequence[float], start: float, end: float):
        finite = [value for value in values if math.isfinite(value)] or [0.0, 1.0]
        low, high = min(finite), max(finite)
        if high == low:  # a flat line stands in the middle
            spread = abs(low) / 2 or 0.5
            low, high = low - spread, high + spread
        step = _round_step((high - low) / TICKS)
        self.low, self.high, self.start, self.end = low, high, start, end
        first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
        self.ticks = [tick * step for tick in range(first, last + 1)]
        self.decimals = max(0, -math.floor(math.log10(step) + 1e-9))

    def place(self, value: float) -> float:
        share = (value - self.low) / (self.high - self.low)
        return self.start + share * (self.end - self.start)

    def label(self, tick: float) -> str:
        if max(abs(self.low), abs(self.high)) >= 10_000:
            return short(tick) if tick >= 0 else f"-{short(-tick)}"
        if self.decimals > 5:
            return f"{tick:.1e}"
        return f"{tick + 0.0:.{self.decimals}f}"


def _round_step(least: float) -> float:
    """The next of 1, 2, 5 times a power of ten that is not less."""
    power = 10.0 ** math.floor(math.log10(least))
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= least * (1 - 1e-9))


def _edges(curve: Curve) -> list[list[Point]]:
    """The lower and upper edges of all bands, as points."""
    bands = curve.bands.values()
    return [[(p[0], p[side]) for p in band] for band in bands for side in (1, 2)]


def _grid(x: _Axis, y: _Axis) -> list[str]:
    lines = []
    for tick in y.ticks:
        at = y.place(tick)
        lines.append(
            f'<path d="M{LEFT} {at:.1f}H{WIDTH - RIGHT}" stroke="#ddd"/>'
            f'<text x="{LEFT - 6}" y="{at + 4:.1f}" text-anchor="end">{y.label(tick)}</text>'
        )
    for tick in x.ticks:
        at = x.place(tick)
        lines.append(
            f'<path d="M{at:.1f} {HEIGHT - BOTTOM}v4" stroke="#888"/>'
            f'<text x="{at:.1f}" y="{HEIGHT - BOTTOM + 17}" text-anchor="middle">'
            f"{x.label(tick)}</text>"
        )
    lines.append(f'<path d="M{LEFT} {HEIGHT - BOTTOM}H{WIDTH - RIGHT}" stroke="#888"/>')
    return lines


def _labels(curve: Curve) -> list[str]:
    middle, low = (LEFT + WIDTH - RIGHT) / 2, (TOP + HEIGHT - BOTTOM) / 2
    return [
        f'<text x="{middle}" y="{HEIGHT - 8}" text-anchor="middle">{_text(curve.x_label)}</text>',
        f'<text transform="translate(13 {low}) rotate(-90)" text-anchor="middle">'
        f"{_text(curve.y_label)}</text>",
    ]


def _line(points: Sequence[Point], x: _Axis, y: _Axis, colour: str) -> list[str]:
    """The line, in pieces where points are missing, and its dots."""
    path, pen_down, dots = [], False, []
    for at, value in points:
        if not math.isfinite(value):
            pen_down = False
            continue
        place = f"{x.place(at):.1f} {y.place(value):.1f}"
        path.append(("L" if pen_down else "M") + place)
        pen_down = True
        if len(points) <= DOTS:
            dots.append(f'<circle cx="{place.split()[0]}" cy="{place.split()[1]}" r="2.2"/>')
    if not path:
        return []
    line = f'<path d="{"".join(path)}" fill="none" stroke="{colour}" stroke-width="1.6"/>'
    return [line, f'<g fill="{colour}">{"".join(dots)}</g>']


def _band(band: Sequence[tuple[float, float, float]], x: _Axis, y: _Axis, colour: str) -> str:
    """The area between the lower and the upper edge."""
    known = [point for point in band if all(map(math.isfinite, point))]
    lower = [f"{x.place(at):.1f} {y.place(low):.1f}" for at, low, _ in known]
    upper = [f"{x.place(at):.1f} {y.place(high):.1f}" for at, _, high in known]
    if not known:
        return ""
    return f'<path d="M{"L".join([*lower, *reversed(upper)])}Z" fill="{colour}" opacity=".18"/>'


def _legend_line(name: str, colour: str, top: float) -> list[str]:
    return [
        f'<path d="M{LEFT} {top + 6}h22" stroke="{colour}" stroke-width="3"/>',
        f'<text x="{LEFT + 30}" y="{top + 10}">{_text(name)}</text>',
    ]


def _text(label: str) -> str:
    return escape(visible(label))
