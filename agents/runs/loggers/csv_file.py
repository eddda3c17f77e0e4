"""The numbers of a run in a CSV file."""

import csv
import io
import os
from collections.abc import Mapping
from pathlib import Path


class CSVLogger:
    """One row for every call in a CSV file, which spreadsheets and `pandas.read_csv` read.

    The first column is `step`, the others are named by the first row. A number that turns up later
    gets a column of its own, and a number that is missing leaves its cell empty. A file that exists
    is continued and nothing in it is removed: after resuming from an older checkpoint, steps that
    were done twice have two rows. Only half a row, left by a full disk, is cut off.

    Args:
        path: The file; it is made, with its folder, at the first row.
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)
        self._columns: list[str] = []
        if self.path.exists():
            _cut_half_row(self.path)
            with self.path.open(newline="", encoding="utf-8") as file:
                self._columns = next(csv.reader(file), [])

    def log(self, step: int, numbers: Mapping[str, float]) -> None:
        """Append one row."""
        row: dict[str, float] = {"step": step, **numbers}
        columns = list(dict.fromkeys([*self._columns, *row]))
        if columns != self._columns:
            self._widen(columns)
        # Opened anew each time: closing hands the row to the system, and no handle is left open.
        with self.path.open("a", newline="", encoding="utf-8") as file:
            csv.DictWriter(file, columns, lineterminator="\n").writerow(row)

    def close(self) -> None:
        """Nothing is held: the file is open only while a row is written."""

    def _widen(self, columns: list[str]) -> None:
        """Give the file these columns; the old ones come first, so old rows only get longer."""
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, columns, lineterminator="\n")
        writer.writeheader()
        if self._columns:
            with self.path.open(newline="", encoding="utf-8") as file:
                writer.writerows(csv.DictReader(file))
        self.path.parent.mkdir(parents=True, exist_ok=True)
        # Written beside the file and moved over it: one of them is whole whenever the process dies.
        beside = self.path.with_name(self.path.name + ".new")
        beside.write_text(text.getvalue(), encoding="utf-8", newline="")
        os.replace(beside, self.path)
        self._columns = columns


def _cut_half_row(path: Path) -> None:
    """Remove what follows the last end of line: its last number may lack digits."""
    content = path.read_bytes()
    whole = content.rfind(b"\n") + 1
    if whole < len(content):
        with path.open("r+b") as file:
            file.truncate(whole)
