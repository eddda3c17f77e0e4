"""The job of `textenv agreement`: labellers who ranked the same answers, compared."""

import json
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from agents.commands.agreement import AgreementSettings
from agents.evaluation import Interval
from agents.feedback import Agreement, Ranking, agreement, read_rankings
from agents.jobs.outputs import check_file, write_file
from textenv.errors import OptionError


def run(settings: AgreementSettings) -> None:
    """Measure, and show and write the figures.

    Args:
        settings: The options.

    Raises:
        TextEnvError: Something that was given cannot be used.
    """
    console, compared = Console(), settings.compared
    if compared.json is not None:
        check_file(compared.json, "--json")
    labellers = by_labeller(compared.rankings)
    if len(labellers) < 2:
        raise OptionError(
            f"agreement is between labellers, and all of {' '.join(map(str, compared.rankings))} "
            f"is by one, {', '.join(labellers) or 'nobody'}: give a file of another one, too"
        )
    found = agreement(labellers, seed=compared.seed)
    for table in tables(found):
        console.print(table)
    console.print(f"All together: Fleiss' kappa {_shown(found.fleiss)}", highlight=False)
    console.print(f"All together: Krippendorff's alpha {_shown(found.alpha)}", highlight=False)
    if compared.json is not None:
        write_file(compared.json, json.dumps(found.numbers(), indent=2))


def by_labeller(paths: Sequence[Path]) -> dict[str, list[Ranking]]:
    """The rankings of files by the labeller that they name, or else by their file.

    Two files that name the same labeller are two labellers: one person may rank twice, and a judge
    by other principles.

    Raises:
        OptionError: A file is named twice.
        MalformedRecordError: Lines of a file are not rankings.
    """
    if len({path.resolve() for path in paths}) < len(paths):
        raise OptionError(f"a file is named twice: {' '.join(map(str, paths))}")
    stems = {path: path.name.partition(".")[0] for path in paths}
    alike = len(set(stems.values())) < len(stems)
    named = {path: str(path) if alike else stem for path, stem in stems.items()}
    files: dict[str, dict[Path, list[Ranking]]] = {}
    for path in paths:
        for ranking in read_rankings(path):
            who = files.setdefault(ranking.labeller or named[path], {})
            who.setdefault(path, []).append(ranking)
    return {
        name if len(of) == 1 else f"{name} in {named[path]}": rankings
        for name, of in files.items()
        for path, rankings in of.items()
    }


def tables(found: Agreement) -> tuple[Table, Table]:
    """Each two labellers, and each of them, as tables that rich prints."""
    between = _table("Agreement", ("", "pairs", "ordered alike", "Cohen's kappa"))
    for two in found.between:
        between.add_row(
            f"{two.one} and {two.other}",
            str(two.pairs),
            _shown(two.same_order),
            _shown(two.kappa),
        )
    habits = _table("Habits", ("", "pairs", "ties", "prefers longer", "prefers shown first"))
    for one in found.habits:
        shares = (one.ties, one.longer, one.earlier)
        habits.add_row(one.name, str(one.pairs), *map(_shown, shares))
    return between, habits


def _table(title: str, headings: Sequence[str]) -> Table:
    table = Table(title=title, title_justify="left")
    for number, heading in enumerate(headings):
        table.add_column(heading, justify="right" if number else "left", overflow="fold")
    return table


def _shown(interval: Interval) -> str:
    """Empty where there was nothing to measure."""
    return "" if interval.mean != interval.mean else str(interval)
