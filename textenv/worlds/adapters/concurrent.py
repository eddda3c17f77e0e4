"""Environments that are waited for: those of all rows are asked at the same time."""

import asyncio
import copy
import weakref
from abc import abstractmethod
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, ClassVar, Self, TypeVar

from textenv.background import finish, wait_for
from textenv.errors import WORLD_FAILURES, WorldError
from textenv.worlds.adapters.stepped import (
    Generators,
    Played,
    Records,
    Rows,
    SteppedWorld,
    seed_of,
    step_seed,
)
from textenv.worlds.base import Reply, Turn

T = TypeVar("T")


class ConcurrentWorld(SteppedWorld):
    """A `SteppedWorld` whose resets and steps are coroutines.

    Args:
        make: Makes an environment, whose `close` can be awaited.
        timeout: Seconds that one reset or step may take; None sets no limit.
    """

    CANNOT_BEGIN: ClassVar = ""
    """What to do if an environment cannot begin."""

    def __init__(self, make: Callable[[], Any], timeout: float | None = None):
        super().__init__(make)
        self._timeout = timeout
        weakref.finalize(self, _let_go, self._played)

    @abstractmethod
    async def _reset_one(self, env: Any, seed: int, options: Mapping[str, Any]) -> str:
        """Begin an episode; returns its opening."""

    @abstractmethod
    async def _step_one(self, env: Any, text: str) -> Reply:
        """Do what was said."""

    def begin(
        self, rows: Rows, records: Records, rngs: Generators
    ) -> Sequence[str | BaseException]:
        """Reset each row's environment, all at the same time."""
        begun = [
            Played(
                self._played[row].env if row in self._played else self._make(),
                seed_of(record, rng),
                self._reset_columns(record),
            )
            for row, record, rng in zip(rows, records, rngs, strict=True)
        ]
        return wait_for(self._reset_all(rows, begun))

    async def _reset_row(self, row: int, played: Played) -> Any:
        """Begin one row's episode; a session that cannot is closed, and the error returned."""
        self._played.pop(row, None)  # if the reset fails, nobody steps it
        reset = self._reset_one(played.env, played.seed, played.options)
        try:
            played.said = await self._limited(reset)
        except (*WORLD_FAILURES, asyncio.CancelledError) as error:
            await _close_all([played.env])
            if isinstance(error, asyncio.CancelledError):
                raise
            return error
        self._played[row] = played
        return played.said

    async def _reset_all(self, rows: Rows, begun: Sequence[Played]) -> Sequence[Any]:
        said = await asyncio.gather(*map(self._reset_row, rows, begun))
        failed = sum(isinstance(one, BaseException) for one in said)
        told = f"{failed} of {len(said)} episodes could not begin"
        return [self._failed(told, one) if isinstance(one, BaseException) else one for one in said]

    def _failed(self, told: str, error: BaseException) -> WorldError:
        failed = WorldError(f"{told}: {error or type(error).__name__}. {self.CANNOT_BEGIN}".strip())
        failed.__cause__ = error
        return failed

    async def reply(self, rows: Rows, turns: Sequence[Turn], rngs: Generators) -> Any:
        """Step each row's environment, all at the same time."""
        seeds = [step_seed(rng) for rng in rngs]
        texts = [turn.text for turn in turns]
        return await asyncio.gather(*map(self._step_row, rows, texts, seeds))

    async def _step_row(self, row: int, text: str, seed: int) -> Reply | BaseException:
        try:
            played = self._played[row]
            reply = await self._limited(self._step_one(played.env, text))
        except (*WORLD_FAILURES, asyncio.CancelledError) as error:
            # Its answer may still come, and would be taken for the next one's.
            gone = self._played.pop(row, None)
            if gone is not None:
                await _close_all([gone.env])
            if isinstance(error, asyncio.CancelledError):
                raise
            return error
        played.note(text, seed, reply)
        return reply

    def _reset(self, env: Any, seed: int, options: Mapping[str, Any]) -> str:
        return wait_for(self._limited(self._reset_one(env, seed, options)))

    def _step(self, env: Any, text: str, seed: int) -> Reply:
        return wait_for(self._limited(self._step_one(env, text)))

    async def _limited(self, doing: Awaitable[T]) -> T:
        async with asyncio.timeout(self._timeout):
            return await doing

    def another(self) -> Self:
        """See `BatchedWorld.another`; it has environments of its own, and lets go of them."""
        other = copy.copy(self)
        other._played = {}
        weakref.finalize(other, _let_go, other._played)
        return other

    def close(self) -> None:
        """Let go of all environments; the end of the program does it too."""
        _let_go(self._played)


async def _close_all(envs: Sequence[Any]) -> None:
    closes = [asyncio.wait_for(_awaited(env.close()), 5.0) for env in envs]
    await asyncio.gather(*closes, return_exceptions=True)


async def _awaited(result: Any) -> Any:
    # Not every method that can be awaited gives a coroutine, and `wait_for` and `gather` want one.
    return await result


def _let_go(played: dict[int, Played]) -> None:
    finish(_close_all([one.env for one in played.values()]))
    played.clear()
