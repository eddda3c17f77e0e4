"""Replies that were asked for: a world's answers, some of which take their time."""

import asyncio
import inspect
from collections.abc import Mapping, Sequence
from concurrent.futures import ALL_COMPLETED, FIRST_COMPLETED, Future, wait
from dataclasses import dataclass
from typing import Any

import numpy as np

from textenv.background import schedule
from textenv.errors import WORLD_FAILURES, WorldError
from textenv.places import told
from textenv.worlds.base import BatchedWorld, Reply, Turn
from textenv.worlds.rows import OneWorldPerEpisode, checked


@dataclass(frozen=True)
class Asked:
    """A turn that the world was told of.

    Attributes:
        turn: What was said.
        stopped: Whether a stop token ended it.
        future: Will hold what the world gives, for all rows that were asked with this one.
        place: Which of them this one is; None if the future is for this row alone.
    """

    turn: Turn
    stopped: bool
    future: Future[Any]
    place: int | None


class Replies:
    """Asks a world, and keeps what is asked for until it is taken.

    Args:
        world: What replies.
        name: What messages call it.
        first_row: What the world calls the first row.
        timeout: Seconds that an `async` reply may take; None sets no limit.

    Attributes:
        asked: What has not been taken, by row.
    """

    def __init__(
        self, world: BatchedWorld, name: str, first_row: int = 0, timeout: float | None = None
    ):
        self._world, self._name, self._first_row = world, name, first_row
        self._timeout = timeout
        self.asked: dict[int, Asked] = {}

    @property
    def rows(self) -> Sequence[int]:
        """Rows whose reply has not been taken."""
        return list(self.asked)

    def ask(
        self,
        rows: Sequence[int],
        turns: Sequence[Turn],
        stopped: Sequence[bool],
        rngs: Sequence[np.random.Generator],
    ) -> None:
        """Tell the world what was said; coroutines start at once and run beside each other."""
        futures: list[tuple[Future[Any], int | None]]
        try:
            given = self._ask(rows, turns, rngs)
        except WORLD_FAILURES as error:  # one call for all rows: it fails for all
            given = [error] * len(rows)
        if isinstance(given, Future):
            futures = [(given, place) for place in range(len(rows))]
        else:
            if len(given) != len(rows):
                given = [self._miscounted(len(given), len(rows))] * len(rows)
            futures = [(self._future(one), None) for one in given]
        for row, turn, stop, (future, place) in zip(rows, turns, stopped, futures, strict=True):
            self.asked[row] = Asked(turn, stop, future, place)

    def _ask(
        self, rows: Sequence[int], turns: Sequence[Turn], rngs: Sequence[np.random.Generator]
    ) -> Sequence[Any] | Future[Any]:
        rows = [row + self._first_row for row in rows]
        if isinstance(self._world, OneWorldPerEpisode):
            return self._world.ask(rows, turns, rngs)
        given = self._world.reply(rows, turns, rngs)
        return self._future(given) if inspect.isawaitable(given) else list(given)

    def _future(self, given: Any) -> Future[Any]:
        if inspect.isawaitable(given):
            return schedule(_limited(given, self._timeout))
        future: Future[Any] = Future()
        future.set_result(given)
        return future

    def take(
        self,
        *,
        wait_for_all: bool,
        wait_for_one: bool = False,
        rows: Sequence[int] | None = None,
    ) -> Mapping[int, tuple[Asked, Reply | WorldError]]:
        """What has come, by row; it is not kept any longer.

        Args:
            wait_for_all: Wait until all have come.
            wait_for_one: Wait until at least one has.
            rows: Look at these rows alone.
        """
        of = self.asked if rows is None else {row: self.asked[row] for row in rows}
        late = {asked.future for asked in of.values() if not asked.future.done()}
        nothing = len({asked.future for asked in of.values()}) == len(late)
        if late and (wait_for_all or (wait_for_one and nothing)):
            wait(late, return_when=ALL_COMPLETED if wait_for_all else FIRST_COMPLETED)
        come = {row: asked for row, asked in of.items() if asked.future.done()}
        for row in come:
            del self.asked[row]
        return {row: (asked, self._outcome(asked)) for row, asked in come.items()}

    def settled(self) -> Mapping[int, tuple[Asked, Reply | WorldError]]:
        """All replies once they have come; they are kept for `take`."""
        come = self.take(wait_for_all=True)
        for row, (asked, outcome) in come.items():
            self.keep(row, asked.turn, asked.stopped, outcome)
        return come

    def keep(self, row: int, turn: Turn, stopped: bool, outcome: Reply | WorldError) -> None:
        """Hold a reply that has come until it is taken."""
        self.asked[row] = Asked(turn, stopped, self._future(outcome), None)

    def drop(self, rows: Sequence[int]) -> None:
        """Nobody waits for these rows any more."""
        for row in rows:
            asked = self.asked.pop(row, None)
            if asked is not None and asked.place is None:
                asked.future.cancel()

    def _outcome(self, asked: Asked) -> Reply | WorldError:
        """The reply, or what went wrong."""
        try:
            given = asked.future.result()
            if asked.place is not None and not isinstance(given, WORLD_FAILURES):
                given = list(given)
                if len(given) <= asked.place:
                    raise self._miscounted(len(given), asked.place + 1)
                given = given[asked.place]
            if isinstance(given, WORLD_FAILURES):
                raise given
            return checked(given, self._name)
        except WorldError as error:
            return error
        except (*WORLD_FAILURES, asyncio.CancelledError) as error:
            failed = WorldError(f"{self._name}.reply raised {told(error)}")
            failed.__cause__ = error
            return failed

    def _miscounted(self, count: int, rows: int) -> WorldError:
        return WorldError(f"{self._name}.reply returned {count} replies for {rows} rows")


async def _limited(reply: Any, timeout: float | None) -> Any:
    return await asyncio.wait_for(_held(reply), timeout)


async def _held(reply: Any) -> Any:
    """The reply, or the `SystemExit` that it raised, which would end the loop of all."""
    try:
        return await reply
    except SystemExit as error:
        return error
