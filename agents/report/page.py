"""The report as a page of HTML.

Everything is in the one file, styles and figures included; no script, nothing from a network. The
texts of policies and of people are escaped wherever they stand.
"""

import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from agents.report.figures import curve_svg
from agents.report.parts import Curve, TableData, TokenTrace
from agents.report.templates import cell, write_page

BELOW, ABOVE = "230 97 1", "33 102 172"
"""Orange and blue in CSS; people who cannot tell red from green can tell these apart."""

FULL_COLOUR_AT = 0.95
"""Quantile of the sizes of a measure: one odd token does not make all others pale."""


def write_report(
    path: str | Path,
    title: str,
    intro: str = "",
    *,
    tables: Sequence[TableData] = (),
    curves: Sequence[Curve] = (),
    traces: Sequence[TokenTrace] = (),
    facts: Mapping[str, object] | None = None,
) -> Path:
    """Write the page to `path`, whose folder is made if needed.

    Args:
        path: The `.html` file.
        title: Title of the page.
        intro: Text below the title; an empty line begins a paragraph.
        tables: Tables, shown first.
        curves: Figures, shown below the tables.
        traces: Answers token by token, shown below the figures. The reader chooses the measure
            that colours their tokens.
        facts: Seeds, versions and the like, shown at the end.

    Returns:
        `path`.

    Raises:
        MissingExtraError: `jinja2` or `matplotlib` is not installed.
    """
    scales = _scales(traces)
    return write_page(
        path,
        "report.html.j2",
        title=title,
        paragraphs=[text for text in intro.split("\n\n") if text.strip()],
        tables=[(table, column_kinds(table)) for table in tables],
        figures=[(c.title, curve_svg(c, f"figure{n}")) for n, c in enumerate(curves)],
        scales=scales,
        colours={"below": BELOW, "above": ABOVE},
        traces=[(trace, _spans(trace, scales)) for trace in traces],
        facts=facts or {},
    )


def _scales(traces: Sequence[TokenTrace]) -> dict[str, float]:
    """For each measure the size at which its colour is full, the same in all traces."""
    names = dict.fromkeys(name for trace in traces for name in trace.measures)
    return {name: _scale(name, traces) for name in names}


def _scale(name: str, traces: Sequence[TokenTrace]) -> float:
    values = np.concatenate([np.asarray(t.measures.get(name, ()), dtype=float) for t in traces])
    sizes = np.abs(values[np.isfinite(values) & (values != 0)])
    return float(np.quantile(sizes, FULL_COLOUR_AT)) if len(sizes) else 1.0


def _spans(trace: TokenTrace, scales: Mapping[str, float]) -> list[dict[str, Any]]:
    """What the template shows of each token: text, colours and numbers."""
    spans = []
    for place, text in enumerate(trace.tokens):
        numbers = {name: values[place] for name, values in trace.measures.items()}
        colours = {
            number: _colour(numbers[name] / scale)
            for number, (name, scale) in enumerate(scales.items())
            if name in numbers
        }
        tooltip = "\n".join(f"{name} {value:.4f}" for name, value in numbers.items())
        spans.append({"text": text, "colours": colours, "tooltip": tooltip})
    return spans


def _colour(share: float) -> str:
    """Orange below 0, blue above, the stronger the further; at most at -1 and 1."""
    if not math.isfinite(share):
        return "transparent"
    return f"rgb({BELOW if share < 0 else ABOVE} / {0.75 * min(abs(share), 1):.2f})"


def column_kinds(table: TableData) -> list[str]:
    """For each column how it is set: `number` if all that is in it begins like one, or `words`."""
    columns = [[cell(row[place]) for row in table.rows] for place in range(len(table.columns))]
    return [
        "number" if all(re.match(r"[-+.\d]|nan|$", cell) for cell in column) else "words"
        for column in columns
    ]
