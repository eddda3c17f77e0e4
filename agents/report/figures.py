"""Curves as SVG that can stand inside a page."""

import io
import re
import warnings

from agents.report.parts import Curve
from textenv.imports import optional

SIZE = (6.4, 3.6)
"""Width and height in inches, which the page scales down where it is narrow."""

DOTS = 40
"""A line of at most this many points shows each as a dot."""


def curve_svg(curve: Curve, name: str) -> str:
    """The figure as an `<svg>` element, the same for the same curve.

    Args:
        curve: What to draw; the page shows its title.
        name: Different for each figure of a page: the ids in the figure begin with it.

    Raises:
        MissingExtraError: The package `matplotlib` is not installed.
    """
    with optional("matplotlib", extra="train", purpose="a report's curve"):
        from matplotlib import rc_context
        from matplotlib.figure import Figure
        from matplotlib.ticker import EngFormatter
    # Text stays text: the page's own fonts show it, and it can be searched.
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": name}), warnings.catch_warnings():
        # Matplotlib measures text in a font of its own, which knows no Chinese.
        warnings.filterwarnings("ignore", message=r"Glyph .* missing from font")
        figure = Figure(SIZE, layout="constrained")
        axes = figure.add_subplot()
        for label, points in curve.series.items():
            xs, ys = [x for x, _ in points], [y for _, y in points]
            (line,) = axes.plot(xs, ys, marker="o" if len(points) <= DOTS else "", markersize=3)
            if band := curve.bands.get(label):
                places, low, high = zip(*band, strict=True)
                axes.fill_between(places, low, high, color=line.get_color(), alpha=0.2, lw=0)
        axes.set_xlabel(_plain(curve.x_label))
        axes.set_ylabel(_plain(curve.y_label))
        axes.xaxis.set_major_formatter(EngFormatter(sep=""))  # 120k, not 120000
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
        if len(curve.series) > 1:
            axes.legend(axes.lines, [_plain(label) for label in curve.series], frameon=False)
        drawn = io.StringIO()
        nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        figure.savefig(drawn, format="svg", transparent=True, metadata=nothing)
    return _for_a_page(drawn.getvalue(), name)


def _for_a_page(svg: str, name: str) -> str:
    """Without the head of a file of its own, and with ids that no other figure of the page has."""
    svg = svg[svg.index("<svg") :]
    used = set(re.findall(r'(?:url\(|href=")#([^")]+)', svg))
    svg = re.sub(r' id="([^"]*)"', lambda found: found[0] if found[1] in used else "", svg)
    return re.sub(r'(id="|url\(#|href="#)', rf"\g<1>{name}-", svg)


def _plain(label: str) -> str:
    """`label` escaped: Matplotlib reads $ as a formula and leaves out labels that begin with _."""
    label = label.replace("$", r"\$")
    return f" {label}" if label.startswith("_") else label
