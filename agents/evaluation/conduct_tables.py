"""What several policies did in one exam, as tables: a row for each figure, a column for each."""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from agents.evaluation.conduct import MEASURES, Conduct, gain
from agents.evaluation.intervals import Interval, bootstrap_interval


class Cells(NamedTuple):
    """A table of texts.

    Attributes:
        title: What it shows.
        columns: Headings; the first is empty.
        rows: A cell for each column.
        note: How to read it.
    """

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    note: str = ""

    def markdown(self) -> str:
        """The table for a page."""
        lines = [self.columns, ["---"] * len(self.columns), *self.rows]
        return "\n".join("| " + " | ".join(line) + " |" for line in lines)


INTERVALS = "Means with 95% intervals over the questions."


def conduct_tables(conducts: Mapping[str, Conduct]) -> list[Cells]:
    """All tables of policies that took the same exam; the first one is what others differ from.

    Args:
        conducts: By the names of their columns.
    """
    first = next(iter(conducts))
    others = [name for name in conducts if name != first]
    return [
        _table(
            "Helpful, truthful, harmless",
            conducts,
            {name: _measure(name) for name in MEASURES},
        ),
        Cells(
            f"Gain over {first}",
            ["", *others],
            [
                ["correct", *(str(gain(conducts[name], conducts[first])) for name in others)],
                *(
                    [measure, *(_gain(conducts[name], conducts[first], measure) for name in others)]
                    for measure in ("helpful: correct", "truthful: wrong", "declined where not due")
                ),
            ],
            "Differences question by question, with 95% intervals.",
        ),
        _table("Correct by kind", conducts, _rows(conducts, Conduct.kinds)),
        _table("Correct by examples in the prompt", conducts, _rows(conducts, _shots)),
        _table("Correct by wording", conducts, _rows(conducts, _wordings)),
        _table("Later questions of a conversation", conducts, _rows(conducts, Conduct.history)),
        _table("Correct by the group asked about", conducts, _rows(conducts, _groups)),
        _table(
            "What pretraining could do",
            conducts,
            {
                "perplexity of unread texts": lambda c: (
                    "" if c.perplexity is None else f"{c.perplexity:.3f}"
                ),
                "sentences continued right": lambda c: (
                    str(bootstrap_interval(c.continued)) if c.continued else ""
                ),
            },
        ),
    ]


def _shots(conduct: Conduct) -> dict[str, Interval]:
    return {str(number): bootstrap_interval(some) for number, some in conduct.shots.items()}


def _wordings(conduct: Conduct) -> dict[str, Interval | str]:
    found = conduct.wordings()
    if found is None:
        return {}
    return {
        **found.by_wording,
        "spread": f"{found.spread:.3f} (p {found.p_value:.4f})",
        "right in all": found.worst_case,
        "right in any": found.best_case,
    }


def _groups(conduct: Conduct) -> dict[str, Interval | str]:
    found = conduct.bias()
    if found is None:
        return {}
    gap = f"{found.gap:.3f} (p {found.p_value:.4f})"
    return {**found.by_group, **found.differences, "gap": gap}


def _measure(name: str) -> Callable[[Conduct], str]:
    return lambda conduct: _text(conduct.interval(name))


def _gain(one: Conduct, other: Conduct, measure: str) -> str:
    return "" if other.interval(measure) is None else str(gain(one, other, measure))


def _rows(
    conducts: Mapping[str, Conduct], of: Callable[[Conduct], Mapping[str, Interval | str]]
) -> dict[str, Callable[[Conduct], str]]:
    names = dict.fromkeys(name for conduct in conducts.values() for name in of(conduct))
    return {name: lambda conduct, name=name: _text(of(conduct).get(name)) for name in names}  # type: ignore[misc]


def _text(figure: Interval | str | None) -> str:
    return "" if figure is None else str(figure)


def _table(
    title: str, conducts: Mapping[str, Conduct], rows: Mapping[str, Callable[[Conduct], str]]
) -> Cells:
    cells = [[name, *(row(conduct) for conduct in conducts.values())] for name, row in rows.items()]
    return Cells(title, ["", *conducts], [line for line in cells if any(line[1:])], INTERVALS)
