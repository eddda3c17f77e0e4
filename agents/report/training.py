"""The report of a training run: its curves, its results, and answers before and after it."""

import csv
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from agents.evaluation import Evaluation, bootstrap_interval
from agents.report.figures import curve_svg
from agents.report.page import column_kinds
from agents.report.parts import Curve, Point, TableData
from agents.report.templates import write_page
from agents.runs.endings import COMPONENT
from agents.runs.run_folder import RunFolder
from agents.runs.samples import Sample, check_same_prompts, evenly_ranked

SHOWN = 50
"""Number of prompts whose answers are shown."""

MOST_POINTS = 300
"""Most points of a line; in longer runs neighbouring updates are averaged."""

MEASURES = (
    ("tokens_per_answer", "tokens an answer", ".1f"),
    ("kl_per_answer", "KL an answer (nats)", ".3f"),
    ("kl_per_token", "KL a token (nats)", ".4f"),
    ("reference_perplexity", "perplexity under the first policy", ".1f"),
    ("distinct_2", "distinct pairs of tokens", ".3f"),
)
"""Attributes of an `Evaluation` in a table of results, besides the score: name, label, format."""

FIGURES = (
    ("KL to the reference", "nats/token", ("kl",)),
    ("Entropy", "nats", ("entropy",)),
    ("Length of the answers", "tokens", ("tokens_per_answer",)),
    ("Ended by the token budget", "share of the answers", ("ended_by_budget",)),
    ("Loss", "", ("loss", "policy_loss")),
    ("Loss of the values", "score²", ("value_loss",)),
    ("Explained variance", "", ("explained_variance",)),
    ("How far an update moved the policy", "nats/token", ("approx_kl",)),
    ("Time of an update", "seconds", ("rollout_seconds", "reference_seconds", "update_seconds")),
)
"""Titles, units and numbers of the figures below that of the score."""


@dataclass(frozen=True)
class Pair:
    """Two answers to one prompt."""

    before: Sample
    after: Sample

    @property
    def gain(self) -> float:
        """How much more the later one scored."""
        return self.after.score - self.before.score


def write_training_report(run: RunFolder, before: Evaluation, after: Evaluation) -> Path:
    """Write `report.html` into the folder of a run: one file that opens without a network.

    Args:
        run: Its `config.json`, `versions.json`, `metrics.csv` and, if there is one,
            `evaluations.csv` are read.
        before: Answers before training.
        after: Answers to the same prompts after it.

    Returns:
        The page's path.

    Raises:
        ValueError: The two do not answer the same prompts in the same order.
        MissingExtraError: `jinja2` or `matplotlib` is not installed.
    """
    check_same_prompts(before.samples, after.samples)
    pairs = list(map(Pair, before.samples, after.samples))
    metrics = _columns(run.metrics)
    results = _results(before, after)
    curves = _curves(metrics, _evaluations(run))
    gain = bootstrap_interval(after.scores - before.scores)
    return write_page(
        run.path / "report.html",
        "training.html.j2",
        name=run.path.resolve().name,
        gain=gain,
        results=results,
        kinds=column_kinds(results),
        figures=[(c.title, curve_svg(c, f"figure{n}")) for n, c in enumerate(curves)],
        pairs=evenly_ranked(pairs, SHOWN, lambda pair: pair.gain),
        count=len(pairs),
        settings=_readable(_json(run.config)),
        versions=_readable(_json(run.path / "versions.json")),
    )


def _results(before: Evaluation, after: Evaluation) -> TableData:
    rows = [["mean score", *(str(bootstrap_interval(e.scores)) for e in (before, after))]]
    for name, label, form in MEASURES:
        values = [getattr(evaluation, name) for evaluation in (before, after)]
        if not all(map(math.isnan, values)):  # there was no reference
            rows.append([label, *(format(value, form) for value in values)])
    note = "In brackets: 95% intervals, by the bootstrap over the prompts."
    return TableData("Results", ["", "before", "after"], rows, note)


# -------------------------------------------------------------------- curves


def _curves(
    metrics: Mapping[str, Sequence[float]], evaluations: Mapping[str, Sequence[float]]
) -> list[Curve]:
    """The score with its deviation, its components, then `FIGURES`; only what was measured."""
    curves = []
    if scores := _points(metrics, "score"):
        spread = dict(_points(metrics, "score_std"))
        band = [(x, y - spread[x], y + spread[x]) for x, y in scores if x in spread]
        series = {"answers of each update, with their standard deviation": scores}
        bands = dict.fromkeys(series, band)
        if tested := _points(evaluations, "score"):
            series["evaluations on the way"] = tested
        curves.append(Curve("Score", "tokens", "score", series, bands))
    components = [name for name in metrics if name.startswith(COMPONENT)]
    if components:
        lines = {name.removeprefix(COMPONENT): _points(metrics, name) for name in components}
        curves.append(Curve("Components of the score, unweighted", "tokens", "", lines))
    for title, unit, names in FIGURES:
        lines = {name.replace("_seconds", ""): _points(metrics, name) for name in names}
        if lines := {name: points for name, points in lines.items() if points}:
            curves.append(Curve(title, "tokens", unit, lines))
    return curves


def _points(columns: Mapping[str, Sequence[float]], name: str) -> list[Point]:
    """The curve of a number over the tokens, averaged to at most `MOST_POINTS`."""
    steps, values = columns.get("step", ()), columns.get(name, ())
    known = [(x, y) for x, y in zip(steps, values, strict=False) if math.isfinite(y)]
    if len(known) <= MOST_POINTS:
        return known
    parts = np.array_split(np.array(known), MOST_POINTS)
    return [(float(x), float(y)) for x, y in (part.mean(0) for part in parts)]


def _columns(path: Path) -> dict[str, list[float]]:
    """The columns of a `CSVLogger` file by step; if a step was done twice, the later row counts."""
    if not path.exists():
        return {}
    with path.open(newline="", encoding="utf-8") as file:
        rows = {float(row["step"]): row for row in csv.DictReader(file)}
    ordered = [rows[step] for step in sorted(rows)]
    names = dict.fromkeys(name for row in ordered for name in row)
    return {name: [float(row[name] or "nan") for row in ordered] for name in names}


def _evaluations(run: RunFolder) -> dict[str, list[float]]:
    return _columns(run.path / "evaluations.csv")


# -------------------------------------------------------------------- settings


def _json(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def _readable(settings: Mapping[str, Any]) -> dict[str, str]:
    """The settings as text, without those that are None; names of nested ones have a dot."""
    words: dict[str, str] = {}
    for name, value in settings.items():
        if isinstance(value, Mapping):
            words |= {f"{name}.{inner}": text for inner, text in _readable(value).items()}
        elif isinstance(value, bool):
            words[name] = "yes" if value else "no"
        elif isinstance(value, float):
            words[name] = f"{value:.6g}"
        elif isinstance(value, int):
            words[name] = f"{value:,}"
        elif isinstance(value, list | tuple):
            words[name] = ", ".join(map(str, value))
        elif value is not None:
            words[name] = str(value)
    return words
