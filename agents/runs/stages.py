"""The stages of a long job: one progress bar each, and how long each took."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console

from agents.runs.bars import Bar

Advance = Callable[..., None]
"""Called with how much is done in all, and a `note` to show below the bar."""


class Stages:
    """Shows the stages of a job one below the other.

    Args:
        console: Where to print. In a log file each stage prints a line now and then.

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
        with self.timed(name), Bar(total, unit, name=name, console=self.console) as bar:

            def advance(done: int, note: str = "") -> None:
                bar.move(min(done, total), [note] if note else [])

            yield advance
