"""When a run is saved, and how it ends when it is asked to."""

import re
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from rich.console import Console

from agents.distribution import Ranks
from agents.distribution.checkpoints import of_ranks
from agents.runs.checkpoints import Checkpoints, Write
from agents.runs.signals import ASKING, Asked, Stopped, handled
from textenv.errors import NotSavedError, NotSavedWarning, OptionError

LEAST_SECONDS, TIMES = 120.0, 50
"""By default a run is saved as soon as both have passed: these seconds, and this many times the
seconds that the last save took."""

GO_ON, SAVE, SAVE_AND_END = 0, 1, 2
"""What may be done after an update."""


@dataclass(frozen=True)
class Schedule:
    """How often a run is saved; with neither number by the clock, as `LEAST_SECONDS` says.

    Attributes:
        updates: After this many updates; 0 saves at the beginning and at the end only.
        seconds: After this many seconds.
    """

    updates: int | None = None
    seconds: float | None = None

    @classmethod
    def of(cls, given: int | str | None) -> Self:
        """From what `--save-every` takes: updates (50), minutes (2m), or nothing.

        >>> Schedule.of("2m")
        Schedule(updates=None, seconds=120.0)

        Raises:
            OptionError: It is neither.
        """
        if given is None:
            return cls()
        text = str(given)
        if re.fullmatch(r"\d+", text):
            return cls(updates=int(text))
        if re.fullmatch(r"(\d+\.?\d*|\.\d+)m", text) and float(text[:-1]) > 0:
            return cls(seconds=60 * float(text[:-1]))
        raise OptionError(
            f"--save-every is {text!r}; it must be a number of updates, such as 50, or of minutes, "
            "such as 2m"
        )

    def due(self, updates: int, seconds: float, took: float) -> bool:
        """Whether it is time.

        Args:
            updates: Updates since the last save.
            seconds: Seconds since then.
            took: Seconds that it took.
        """
        if self.updates is not None:
            return self.updates > 0 and updates >= self.updates
        return seconds >= (self.seconds or max(LEAST_SECONDS, TIMES * took))

    def words(self, took: float | None) -> str:
        """How often, for people, where the last save took this many seconds, if that is known."""
        if self.updates is not None:
            return (
                f"every {self.updates} updates" if self.updates else "at the beginning and the end"
            )
        if self.seconds is not None:
            return f"every {self.seconds / 60:g} minutes"
        if took is None:
            times = f"{TIMES} times the seconds of a save"
        else:
            times = f"{TIMES * took:.1f} seconds, {TIMES} times the {took:.2g} s of the first save,"
        return f"every {LEAST_SECONDS / 60:g} minutes, or every {times} where that is longer"


class Saving:
    """Saves a run while it goes on, and at a whole update when a signal asks it to end.

        with Saving(checkpoints, write, Schedule.of("2m"), console, "...") as saving:
            for step in steps:
                saving.after(step.number)

    Entering it saves a run that begins, so that what cannot be written is known before the work
    and the seconds of a save are known.
    Leaving it because of an error saves too. A save that fails is a warning, and the work goes on;
    one at the end is an error.

    Of several processes all save together, as soon as one of them would. After an error in one of
    them nothing is saved, since the others may be anywhere: the last checkpoint stays.

    Args:
        checkpoints: Where.
        write: Writes the run's present state into a folder.
        schedule: How often.
        console: Where to say what is saved.
        to_go_on: What a person does to go on from there, a sentence.
        done: Updates that are done when it begins.
        unit: What is counted, for messages.
        at_first: Whether a run that begins is saved at once.
        rescue: Called with an error instead of a save, and adds a note to it.

    Attributes:
        seconds: What all saves took.
        saves: How many there were.
    """

    def __init__(
        self,
        checkpoints: Checkpoints,
        write: Write,
        schedule: Schedule,
        console: Console,
        to_go_on: str,
        *,
        done: int = 0,
        unit: str = "update",
        at_first: bool = True,
        rescue: Callable[[BaseException], object] | None = None,
    ):
        self.ranks = Ranks.found()
        self.checkpoints, self.write, self.schedule = of_ranks(checkpoints), write, schedule
        self.console, self.to_go_on = console, to_go_on
        self.seconds, self.saves = 0.0, 0
        self._unit, self._at_first = unit, at_first
        self._rescue = rescue or self._save_because_of
        self._number = self._saved = self._tried = done
        self._took, self._last = 0.0, time.perf_counter()
        self._asked = Asked()
        self._until_left = ExitStack()

    def __enter__(self) -> Self:
        """Save, say how often it will be saved, and take over the signals."""
        with ExitStack() as stack:
            stack.enter_context(self.checkpoints.owned())
            if self._at_first and (self._number == 0 or not self.checkpoints.folder.exists()):
                self._try_to_save()
            kept = self.checkpoints.keep
            took = self._took if self.saves else None
            self.console.print(
                f"Saved {self.schedule.words(took)} in {self.checkpoints.folder}; the last "
                f"{'one is' if kept == 1 else f'{kept} are'} kept.",
                soft_wrap=True,
                highlight=False,
            )
            stack.enter_context(handled(self._asked, *ASKING))
            self._until_left = stack.pop_all()
        return self

    def after(self, number: int) -> None:
        """To be called after each whole update: saves if it is time, ends if a signal asks for it.

        Args:
            number: Updates done.

        Raises:
            Stopped: A signal has asked for it, and the run is saved; a note says so.
            NotSavedError: A signal has asked for it, and the run cannot be saved.
        """
        self._number = number
        since = time.perf_counter() - self._last
        due = self.schedule.due(number - self._tried, since, self._took)
        agreed = self.ranks.largest(SAVE_AND_END if self._asked.by else SAVE if due else GO_ON)
        if agreed == SAVE:
            self._try_to_save()
        if agreed == SAVE_AND_END:
            self.save()
            self._end()

    def save(self) -> None:
        """Save now.

        Raises:
            NotSavedError: It cannot be written.
        """
        self._tried, self._last = self._number, time.perf_counter()  # not again at every update
        self._took = self.checkpoints.save(self.write)
        self._saved, self._last = self._number, time.perf_counter()
        self.seconds, self.saves = self.seconds + self._took, self.saves + 1

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """Where a signal ends the work at once: nothing is done that is not kept already."""
        before, self._asked.waits = self._asked.waits, False
        try:
            yield
        finally:
            self._asked.waits = before

    def finish(self) -> None:
        """Save at the end of the work.

        Raises:
            Stopped: A signal has asked to end: what comes after the work is left for another time.
            NotSavedError: It cannot be written.
        """
        self.save()
        if self._is_to_end():
            self._end()

    def _is_to_end(self) -> bool:
        """Whether a signal has asked one of the processes."""
        return self.ranks.largest(SAVE_AND_END if self._asked.by else GO_ON) == SAVE_AND_END

    def _end(self) -> None:
        stopped = Stopped(self._asked.by or ASKING[0])
        stopped.add_note(f"Saved after {self._unit} {self._number}. {self.to_go_on}")
        raise stopped

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Give the signals back; after an error save what was learned, and say so in its note."""
        with self._until_left:
            if error is None and self._is_to_end():
                self.finish()  # a signal came after the last update
            if isinstance(error, Stopped):
                if not getattr(error, "__notes__", None):  # it came within an update
                    error.add_note(f"Saved last after {self._unit} {self._saved}. {self.to_go_on}")
            elif isinstance(error, Exception | KeyboardInterrupt) and self.ranks.size == 1:
                self._rescue(error)
            elif error is not None:
                error.add_note(f"Saved last after {self._unit} {self._saved}. {self.to_go_on}")

    def _try_to_save(self) -> None:
        try:
            self.save()
        except NotSavedError as error:
            warnings.warn(
                f"after {self._unit} {self._number}: {error}", NotSavedWarning, stacklevel=3
            )

    def _save_because_of(self, error: BaseException) -> None:
        try:
            self.save()
        except Exception as other:  # it must not hide the one that ended the run
            error.add_note(f"After {self._unit} {self._number}: {other}. {self.to_go_on}")
        else:
            error.add_note(f"Saved after {self._unit} {self._number}. {self.to_go_on}")
