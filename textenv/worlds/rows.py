"""The worlds of the rows: made from what a user gives, asked together, their replies checked."""

import asyncio
import copy
import inspect
import numbers
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np

from textenv.errors import WORLD_FAILURES, WorldError
from textenv.loading import load_object
from textenv.records import short
from textenv.worlds.base import BatchedWorld, Opening, Reply, Turn, World
from textenv.worlds.states import restored, state_of

ROLES = ("user", "tool", "system")
"""Who may speak to the agent."""

WorldArgument: TypeAlias = Callable[[], World] | BatchedWorld | str
"""A class (or function) that makes a `World`, a `BatchedWorld`, or a string that names either."""


class OneWorldPerEpisode(BatchedWorld):
    """Makes a `World` for each episode, and asks all that wait at once.

    Args:
        make: Makes a world.
    """

    def __init__(self, make: Callable[[], World]):
        self.make = make
        self.tools = getattr(make, "tools", ())
        self.worlds: dict[int, World] = {}

    def begin(
        self,
        rows: Sequence[int],
        records: Sequence[Mapping[str, Any]],
        rngs: Sequence[np.random.Generator],
    ) -> Sequence[Opening | BaseException]:
        """Make and begin a world for each row."""
        openings: list[Opening | BaseException] = []
        for row, record, rng in zip(rows, records, rngs, strict=True):
            try:
                world = self.make()
                openings.append(world.begin(record, rng))
            except WORLD_FAILURES as error:
                openings.append(error)
            else:
                self.worlds[row] = world  # only now: one that cannot begin leaves the old one
        return openings

    def ask(
        self, rows: Sequence[int], turns: Sequence[Turn], rngs: Sequence[np.random.Generator]
    ) -> Sequence[Any]:
        """Each row's reply, a coroutine that gives it, or the exception that its world raised."""
        given = []
        for row, turn, rng in zip(rows, turns, rngs, strict=True):
            try:
                given.append(self.worlds[row].reply(turn, rng))
            except WORLD_FAILURES as error:
                given.append(error)
        return given

    async def reply(
        self, rows: Sequence[int], turns: Sequence[Turn], rngs: Sequence[np.random.Generator]
    ) -> Sequence[Any]:
        """Each row's reply, or the exception that its world raised; all run together."""
        given = self.ask(rows, turns, rngs)
        late = [one for one in given if inspect.isawaitable(one)]
        answers = iter(await asyncio.gather(*late, return_exceptions=True))
        return [next(answers) if inspect.isawaitable(one) else one for one in given]

    def another(self) -> "OneWorldPerEpisode":
        """Worlds made in the same way."""
        return OneWorldPerEpisode(self.make)

    def save(self, row: int) -> Any:
        """A copy of the state of one row's world; None if it cannot be saved but replayed.

        Raises:
            WorldError: It can be neither saved nor replayed.
        """
        try:
            return copy.deepcopy(state_of(self.worlds[row]))
        except WorldError:
            if self.worlds[row].replayable:
                return None
            raise

    def restore(self, row: int, state: Any) -> None:
        """Make the world of a saved state in one row."""
        # A copy: other worlds may be made of it.
        self.worlds[row] = restored(self.make(), copy.deepcopy(state))

    def state_dict(self) -> dict[str, Any]:
        """The state of each row's world, without those that are to be replayed."""
        states = {str(row): self.save(row) for row in self.worlds}
        return {row: state for row, state in states.items() if state is not None}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Make the worlds of a saved state."""
        self.worlds = {}
        for row, saved in state.items():
            self.restore(int(row), saved)


def load_world(world: WorldArgument) -> BatchedWorld:
    """The world of an environment.

    Raises:
        WorldError: It is neither a `BatchedWorld` nor makes a `World`.
        ObjectNotFoundError: A string does not name an object.
    """
    found: Any = load_object(world) if isinstance(world, str) else world
    if isinstance(found, BatchedWorld):
        return found
    if isinstance(found, type) and issubclass(found, BatchedWorld):
        return found()
    if isinstance(found, type) and not callable(getattr(found, "reply", None)):
        raise WorldError(
            f"world is the class {found.__name__}, which has no method reply: derive it from "
            "textenv.World. A class for TRL goes through textenv.tools.from_trl_environment, a "
            "Gymnasium environment through textenv.worlds.adapters.GymnasiumWorld, a game for two "
            "through agents.partners.TwoPlayers"
        )
    if isinstance(found, type) and inspect.isabstract(found):
        raise WorldError(f"world is the class {found.__name__}, which lacks a method reply")
    if isinstance(found, World) or not callable(found):
        raise WorldError(
            f"world is {short(found)}: pass a class derived from textenv.World, or a function that "
            "makes one, since each episode has a world of its own; or a BatchedWorld"
        )
    return OneWorldPerEpisode(found)


def reward_of(world: BatchedWorld) -> Any:
    """The reward that belongs to a world (see `World.episode_reward`), or None."""
    return getattr(getattr(world, "make", world), "episode_reward", None)


def checked(reply: Any, world: str) -> Reply:
    """A reply that can be used.

    Raises:
        WorldError: It is no `Reply`, or a field of it holds something else than it should.
    """
    if not isinstance(reply, Reply):
        raise WorldError(f"{world}.reply returned {short(reply)}, not a Reply")
    several = isinstance(reply.text, list | tuple) and all(isinstance(t, str) for t in reply.text)
    if not isinstance(reply.text, str) and not several:
        raise WorldError(f"{world}.reply returned the text {short(reply.text)}, not a str")
    if reply.role not in ROLES:
        raise WorldError(
            f"{world}.reply returned the role {short(reply.role)}; it must be one of {ROLES}"
        )
    if not isinstance(reply.reward, numbers.Real) or not np.isfinite(float(reply.reward)):
        raise WorldError(
            f"{world}.reply returned the reward {short(reply.reward)}; it must be a finite number"
        )
    for name in ("terminated", "truncated"):
        if not isinstance(getattr(reply, name), bool | np.bool_):
            given = short(getattr(reply, name))
            raise WorldError(f"{world}.reply returned {name} = {given}; it must be True or False")
    if not isinstance(reply.info, Mapping):
        raise WorldError(f"{world}.reply returned the info {short(reply.info)}, not a dict")
    return reply
