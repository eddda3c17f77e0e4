"""The stages of a long job: one progress bar each, and how long each took."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

Advance = Callable[..., None]
"""Called with how much is done in all, and a `note` to show behind the bar."""


class Stages:
    """Shows the stages of a job one below the other.

    Args:
        console: Where to.

    Attributes:
        seconds: How long each stage took, by its name.
    """

    def __init__(self, console: Console):
        self.console = console
        self.seconds: dict[str, float] = {}

    @contextmanager
    def timed(self, name: str) -> Iterator[None]:
        """A stage that shows itself, or nothing."""
        begin = time.perf_counter()
        yield
        self.seconds[name] = time.perf_counter() - begin

    @contextmanager
    def bar(self, name: str, total: int, unit: str) -> Iterator[Advance]:
        """A stage with a progress bar of `total` units; yields what moves it."""
        bar = Progress(
            TextColumn(name),
            BarColumn(bar_width=None),
            TextColumn("{task.completed:,.0f}/{task.total:,.0f} " + unit),
            TextColumn("{task.fields[note]}"),
            TimeElapsedColumn(),
            TextColumn("elapsed"),
            TimeRemainingColumn(),
            TextColumn("left"),
            console=self.console,
            expand=True,
            refresh_per_second=2,  # the work wants the processor
        )
        with self.timed(name), bar:
            task = bar.add_task("", total=total, note="")

            def advance(done: int, note: str = "") -> None:
                bar.update(task, completed=min(done, total), note=note)

            yield advance
