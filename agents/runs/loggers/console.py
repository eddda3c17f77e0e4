"""The numbers of a run as lines on the terminal."""

from collections.abc import Mapping, Sequence

from rich import get_console
from rich.console import Console
from rich.text import Text


class ConsoleLogger:
    """One aligned line for every call, under a header that comes back every 20 lines.

    Args:
        names: Which numbers to print, from left to right; one that was not measured is left blank.
        console: Where to print; the terminal if None. Lines appear above a running progress bar.
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


def _width(name: str) -> int:
    return max(len(name), 10)
