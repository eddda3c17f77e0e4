"""Where the numbers of a training run go: the terminal, a CSV file, TensorBoard.

A logger is anything with `log` and `close`. What it was given is kept even if the process is killed
right after: nothing waits in a buffer.
"""

import csv
import io
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

from rich import get_console
from rich.console import Console
from rich.text import Text

from textenv.imports import optional


class Logger(Protocol):
    """What `agents.runs.progress.learn` asks of a logger."""

    def log(self, step: int, numbers: Mapping[str, float]) -> None:
        """Write down `numbers`, measured when `step` tokens had been chosen."""
        ...

    def close(self) -> None:
        """Let go of files and threads; nothing is logged afterwards."""
        ...


class ConsoleLogger:
    """One aligned line for every call, under a header that comes back every 20 lines.

    Args:
        names: Which numbers to print, from left to right; one that was not measured is left blank.
        console: Where to; the terminal if None. Lines appear above a running progress bar.
    """

    HEADER_EVERY = 20

    def __init__(
        self,
        names: Sequence[str] = ("score", "kl", "entropy", "tokens_per_second"),
        console: Console | None = None,
    ):
        self.names = tuple(names)
        self.console = console or get_console()
        self._lines = 0

    def log(self, step: int, numbers: Mapping[str, float]) -> None:
        """Print one line."""
        if self._lines % self.HEADER_EVERY == 0:
            titles = "".join(f"  {name:>{_width(name)}}" for name in self.names)
            self._print(Text(f"{'step':>12}{titles}", style="bold"))
        cells = (
            f"{format(numbers[name], ',.5g') if name in numbers else '':>{_width(name)}}"
            for name in self.names
        )
        self._print(Text("  ".join([f"{step:>12,}", *cells])))
        self._lines += 1

    def close(self) -> None:
        """Nothing is held."""

    def _print(self, line: Text) -> None:
        # A line is never folded, so that columns stay columns in a narrow window and in a file.
        self.console.print(line, soft_wrap=True)


class CSVLogger:
    """One row for every call in a CSV file, which spreadsheets and `pandas.read_csv` read.

    The first column is `step`, the others are named by the first row. A number that turns up later
    gets a column of its own, and a number that is missing leaves its cell empty. A file that exists
    is continued and nothing in it is removed: after going on from an older checkpoint, steps that
    were done twice are there twice. Only half a row, left by a full disk, is cut off.

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


class TensorBoardLogger:
    """Scalars for TensorBoard: `tensorboard --logdir folder`, with tokens as the step.

    Args:
        folder: Where the event file goes. A resumed run adds a second file to it, and TensorBoard
            shows both as one curve.

    Raises:
        MissingExtraError: TensorBoard is not installed.
    """

    def __init__(self, folder: str | Path):
        with optional(
            "tensorboard", extra="train", purpose="TensorBoardLogger", instead="use CSVLogger"
        ):
            # Takes seconds to import, so not at the top.
            from torch.utils.tensorboard import SummaryWriter
        self._writer = SummaryWriter(str(folder))

    def log(self, step: int, numbers: Mapping[str, float]) -> None:
        """Add one point to the curve of every number."""
        for name, value in numbers.items():
            self._writer.add_scalar(name, value, step)
        self._writer.flush()

    def close(self) -> None:
        """Close the event file."""
        self._writer.close()


def _width(name: str) -> int:
    return max(len(name), 10)


def _cut_half_row(path: Path) -> None:
    """Remove what follows the last end of line: its last number may lack digits."""
    content = path.read_bytes()
    whole = content.rfind(b"\n") + 1
    if whole < len(content):
        with path.open("r+b") as file:
            file.truncate(whole)
