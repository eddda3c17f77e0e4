"""Progress bars that fit a narrow window; without a terminal, lines in their place."""

import time
from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta

from rich.console import Console, RenderableType
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.text import Text

LINE_EVERY = 30.0
"""Seconds after which a log file gets another line, at the latest."""

LONGEST_NAME = 20
"""With a longer name in front of it, a bar leaves out the elapsed time to fit 80 columns."""

BETWEEN = "  "
"""Stands between two pieces of a line."""


class Bar(Progress):
    """How far a job is, and on a second line what was measured last.

    In a terminal the lines are drawn over and over. Anywhere else, such as in a log file, a line is
    printed at each tenth of the work and every 30 seconds, and the last state at the end.

    Args:
        total: Units of work in all.
        unit: Name of the units, such as "tokens".
        done: Units that were done before the bar began.
        name: Text in front of the bar.
        pieces: Parts of the second line, which is left out if there are none.
        console: Where to print; the terminal if None.
        visible: False shows nothing.
        lines: Without a terminal: True prints a line now and then, False only the last state.
    """

    def __init__(
        self,
        total: int,
        unit: str,
        *,
        done: int = 0,
        name: str = "",
        pieces: Sequence[str] = (),
        console: Console | None = None,
        visible: bool = True,
        lines: bool = True,
    ):
        super().__init__(
            *([TextColumn(name, markup=False)] if name else []),
            BarColumn(bar_width=None),
            TextColumn("{task.fields[count]}", markup=False),
            *([TimeElapsedColumn(), TextColumn("elapsed")] if len(name) <= LONGEST_NAME else []),
            TimeRemainingColumn(),
            TextColumn("left"),
            console=console,
            disable=not visible,
            expand=True,
            refresh_per_second=2,  # the work wants the processor
            speed_estimate_period=600,  # one unit may take minutes
        )
        self._name, self._unit = name, unit
        self._lines = lines and not self.console.is_terminal
        self._due = Milestones(done, total)
        count = f"{short(done)}/{short(total)} {unit}"
        self.add_task("", total=total, completed=done, count=count, pieces=tuple(pieces))

    def move(self, done: int, pieces: Sequence[str] = (), speed: str = "") -> None:
        """Show that `done` units are done in all.

        Args:
            done: Units done in all; more than the total counts as the total.
            pieces: Parts of the second line, the most important first: what does not fit is left
                out.
            speed: Text behind the count.
        """
        task = self.tasks[0]
        total = int(task.total or 0)
        count = BETWEEN.join([f"{short(done)}/{short(total)} {self._unit}", *filter(None, [speed])])
        self.update(task.id, completed=done, count=count, pieces=tuple(pieces))
        if self._lines and self.live.is_started and not self.finished and self._due(done):
            self.console.print(Text(fitting(self._line(), self.console.width)), soft_wrap=True)

    def get_renderables(self) -> Iterator[RenderableType]:
        """One line or two."""
        yield self.make_tasks_table(self.tasks)
        for task in self.tasks:  # empty when rich first asks
            if task.fields["pieces"]:
                yield Text(fitting(task.fields["pieces"], self.console.width))

    def _line(self) -> list[str]:
        """The pieces of a line for a log file."""
        task = self.tasks[0]
        left = task.time_remaining
        return [
            *filter(None, [self._name]),
            f"{task.percentage:.0f}%",
            *([] if left is None else [f"{timedelta(seconds=int(left))} left"]),
            *task.fields["pieces"],
            task.fields["count"],
        ]


class Milestones:
    """Says when another line is due: at each tenth of the work, and every 30 seconds.

    Args:
        done: Units that were done before.
        total: Units in all.
        clock: Gives seconds.
    """

    def __init__(self, done: int, total: int, clock: Callable[[], float] = time.monotonic):
        self.total, self.clock = total, clock
        self._tenth, self._last = self._tenth_of(done), clock()

    def __call__(self, done: int) -> bool:
        """Whether a line is due now that `done` units are done; it then counts as printed."""
        tenth, now = self._tenth_of(done), self.clock()
        if tenth <= self._tenth and now - self._last < LINE_EVERY:
            return False
        self._tenth, self._last = tenth, now
        return True

    def _tenth_of(self, done: int) -> int:
        return 10 * done // max(self.total, 1)


def fitting(pieces: Sequence[str], width: int) -> str:
    """The first pieces that fit a line of this width, so that no number is cut.

    >>> fitting(["update 3", "score 0.5", "entropy 5 nats"], 25)
    'update 3  score 0.5'
    """
    line = ""
    for piece in pieces:
        longer = f"{line}{BETWEEN}{piece}" if line else piece
        if len(longer) > width:
            break
        line = longer
    return line


def short(count: float) -> str:
    """Three digits of a count.

    >>> short(5), short(12_345), short(1_500_000)
    ('5', '12.3k', '1.5M')
    """
    for unit in ("", "k", "M", "G"):
        if count < 999.5:
            return f"{count:.3g}{unit}"
        count /= 1000
    return f"{count:.3g}T"
