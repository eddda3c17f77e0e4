"""Environments that are waited for: those of all rows are asked at the same time."""

import asyncio
import copy
import weakref
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Self

from textenv.background import finish, wait_for
from textenv.errors import WorldError
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


class ConcurrentWorld(SteppedWorld):
    """A `SteppedWorld` whose resets and steps are coroutines.

    Args:
        make: Makes an environment, whose `close` can be awaited.
    """

    CANNOT_BEGIN: ClassVar = ""
    """What to do if an environment cannot begin."""

    def __init__(self, make: Callable[[], Any]):
        super().__init__(make)
        weakref.finalize(self, _let_go, self._played)

    @abstractmethod
    async def _reset_one(self, env: Any, seed: int, options: Mapping[str, Any]) -> str:
        """Begin an episode; returns its opening."""

    @abstractmethod
    async def _step_one(self, env: Any, text: str) -> Reply:
        """Do what was said."""

    def begin(self, rows: Rows, records: Records, rngs: Generators) -> Sequence[str]:
        """Reset each row's environment, all at the same time."""
        olds = [self._played.pop(row, None) for row in rows]
        begun = [
            Played(
                self._make() if old is None else old.env,
                seed_of(record, rng),
                self._reset_columns(record),
            )
            for old, record, rng in zip(olds, records, rngs, strict=True)
        ]
        wait_for(self._reset_all(begun))
        self._played.update(zip(rows, begun, strict=True))
        return [played.said for played in begun]

    async def _reset_all(self, begun: Sequence[Played]) -> None:
        resets = [self._reset_one(one.env, one.seed, one.options) for one in begun]
        said = await asyncio.gather(*resets, return_exceptions=True)
        failed = [one for one in said if isinstance(one, BaseException)]
        if failed:
            await _close_all([one.env for one in begun])
            raise WorldError(
                f"{len(failed)} of {len(begun)} episodes could not begin: {failed[0]}. "
                + self.CANNOT_BEGIN
            ) from failed[0]
        for one, text in zip(begun, said, strict=True):
            one.said = text

    async def reply(self, rows: Rows, turns: Sequence[Turn], rngs: Generators) -> Any:
        """Step each row's environment, all at the same time."""
        seeds = [step_seed(rng) for rng in rngs]
        texts = [turn.text for turn in turns]
        return await asyncio.gather(*map(self._step_row, rows, texts, seeds))

    async def _step_row(self, row: int, text: str, seed: int) -> Reply | Exception:
        try:
            played = self._played[row]
            reply = await self._step_one(played.env, text)
        except Exception as error:
            gone = self._played.pop(row, None)
            if gone is not None:
                await _close_all([gone.env])
            return error
        played.note(text, seed, reply)
        return reply

    def _reset(self, env: Any, seed: int, options: Mapping[str, Any]) -> str:
        return wait_for(self._reset_one(env, seed, options))

    def _step(self, env: Any, text: str, seed: int) -> Reply:
        return wait_for(self._step_one(env, text))

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
