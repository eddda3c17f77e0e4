"""The parts of a report: curves, tables, answers token by token."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

Point: TypeAlias = tuple[float, float]
"""x and y."""


@dataclass(frozen=True)
class Curve:
    """Lines in one figure.

    Attributes:
        title: Text above the figure.
        x_label: What x is.
        y_label: What y is.
        series: Points (x, y) of each line by its name, in the order in which they are joined; a y
            of NaN leaves a gap.
        bands: Points (x, low, high) of the area around a line, by the line's name.
    """

    title: str
    x_label: str
    y_label: str
    series: Mapping[str, Sequence[Point]]
    bands: Mapping[str, Sequence[tuple[float, float, float]]] = field(default_factory=dict)


@dataclass(frozen=True)
class TableData:
    """A table.

    Attributes:
        title: Text above the table.
        columns: Headings.
        rows: Cells; a float is shown with three decimals, everything else as `str` has it.
        note: Text below the table.

    Raises:
        ValueError: A row does not have a cell for each column.
    """

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[object]]
    note: str = ""

    def __post_init__(self) -> None:
        for number, row in enumerate(self.rows):
            if len(row) != len(self.columns):
                raise ValueError(
                    f"row {number} of {self.title!r} has {len(row)} cells for "
                    f"{len(self.columns)} columns"
                )


@dataclass(frozen=True)
class TokenTrace:
    """One answer, token by token.

    Attributes:
        title: Text above the answer.
        prompt: The prompt that it answers.
        tokens: Texts of its n tokens; joined they are the answer.
        measures: What was measured: n numbers by the measure's name; NaN where nothing was.

    Raises:
        ValueError: A measure does not have a number for each token.
    """

    title: str
    prompt: str
    tokens: Sequence[str]
    measures: Mapping[str, Sequence[float]]

    def __post_init__(self) -> None:
        for name, numbers in self.measures.items():
            if len(numbers) != len(self.tokens):
                raise ValueError(
                    f"{name!r} of {self.title!r} has {len(numbers)} numbers for "
                    f"{len(self.tokens)} tokens"
                )
