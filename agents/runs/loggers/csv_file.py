"""The numbers of a run in a CSV file."""

import csv
import io
from collections.abc import Mapping
from pathlib import Path

from agents.runs.checkpoints import write_whole


class CSVLogger:
    """One row for every call in a CSV file, which spreadsheets and `pandas.read_csv` read.

    The first column is `step`, the others are named by the first row. A number that turns up later
    gets a column of its own, and a number that is missing leaves its cell empty. A file that exists
    is continued. If the first row comes before rows that are there, the run was resumed from an
    older checkpoint: these rows are removed, since their updates are done again. So is half a row
    that a full disk left.

    Args:
        path: The file; it is made, with its folder, at the first row.
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)
        self._columns: list[str] = []
        self._continues = self.path.exists()
        if self.path.exists():
            _cut_half_row(self.path)
            with self.path.open(newline="", encoding="utf-8") as file:
                self._columns = next(csv.reader(file), [])

    def log(self, step: int, numbers: Mapping[str, float]) -> None:
        """Append one row."""
        row: dict[str, float] = {"step": step, **numbers}
        if self._continues:
            self._drop_from(row)
            self._continues = False
        columns = list(dict.fromkeys([*self._columns, *row]))
        if columns != self._columns:
            self._widen(columns)
        # Opened anew each time: closing hands the row to the system, and no handle is left open.
        with self.path.open("a", newline="", encoding="utf-8") as file:
            csv.DictWriter(file, columns, lineterminator="\n").writerow(row)

    def close(self) -> None:
        """Nothing is held: the file is open only while a row is written."""

    def _drop_from(self, first: Mapping[str, float]) -> None:
        """Remove the rows of updates that are done again, from that of `first` on."""
        # By number where rows have it: on other machines an update may end at another step.
        name = "update" if "update" in first and "update" in self._columns else "step"
        rows = self._rows()
        kept = [row for row in rows if not row[name] or float(row[name]) < first[name]]
        if len(kept) < len(rows):
            self._write(self._columns, kept)

    def _widen(self, columns: list[str]) -> None:
        """Give the file these columns; the old ones come first, so old rows only get longer."""
        self._write(columns, self._rows())
        self._columns = columns

    def _rows(self) -> list[dict[str, str]]:
        if not self._columns:
            return []
        with self.path.open(newline="", encoding="utf-8") as file:
            return list(csv.DictReader(file))

    def _write(self, columns: list[str], rows: list[dict[str, str]]) -> None:
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        write_whole(self.path, text.getvalue())


def _cut_half_row(path: Path) -> None:
    """Remove what follows the last end of line: its last number may lack digits."""
    content = path.read_bytes()
    whole = content.rfind(b"\n") + 1
    if whole < len(content):
        with path.open("r+b") as file:
            file.truncate(whole)
