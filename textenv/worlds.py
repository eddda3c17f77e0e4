"""Worlds: what answers when the agent has spoken.

An episode with a world is a conversation. The agent chooses one token a step; when its turn ends,
the world is told what was said and returns a `Reply`. The reply's ids are appended in the same
step. They are read like the prompt and never chosen.

`World` is a class with one object for each episode. `BatchedWorld` is one object for all rows, for
partners that answer in batches, such as a network or a server. Text that the world says is encoded
once; ids are never made from text that was made from ids.
"""

import asyncio
import inspect
import numbers
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from textenv.background import wait_for
from textenv.errors import WorldError
from textenv.loading import load_object
from textenv.records import short


@dataclass(frozen=True)
class Reply:
    """What the world does after a turn: it says something, pays something, ends it, or all three.

    Attributes:
        text: What the world says; nothing is appended if it is empty or if the episode ends here.
        reward: Paid in the step in which the turn ended.
        terminated: The episode is over, and nothing is worth anything after it.
        truncated: The episode is cut short here; learners estimate what would have followed.
        role: Who speaks, for frames that tell speakers apart: user, tool or system.
        info: Anything else, for `infos["reply_info"]`.
    """

    text: str = ""
    reward: float = 0.0
    terminated: bool = False
    truncated: bool = False
    role: str = "user"
    info: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Turn:
    """What the agent has just said.

    Attributes:
        text: Its text, without the stop token.
        tokens: Its ids exactly as they were chosen, shape (k,), int64.
        number: Number of the turn in the episode, from 1.
        finish_reason: `"stop"` after a stop token; `"length"` if the turn's budget or that of the
            text was spent.
        history: The turns and replies before this one, oldest first.
    """

    text: str
    tokens: NDArray[np.int64]
    number: int
    finish_reason: str
    history: "Sequence[Turn | Reply]" = field(default=(), repr=False)


class World(ABC):
    """What answers in one episode; made anew for each, without arguments.

        class Echo(World):
            def begin(self, record, rng):
                return "Say something."

            def reply(self, turn, rng):
                return Reply(f"You said {turn.text!r}.", reward=float(len(turn.text)))

    Attributes that JSON can hold are saved with the environment's state. A world with others has
    `state_dict` and `load_state_dict(state)`.
    """

    def begin(self, record: Mapping[str, Any], rng: np.random.Generator) -> str | None:
        """Begin an episode.

        Args:
            record: The drawn prompt's columns, and its text as `prompt`; secrets may be among them.
            rng: Random numbers of the draw: the same for all episodes of a group, so that answers
                to one opening can be compared.

        Returns:
            The text that the episode begins with; None takes the prompt.
        """
        return None

    @abstractmethod
    def reply(self, turn: Turn, rng: np.random.Generator) -> Any:
        """What follows a turn: a `Reply`. May be `async`; replies of one step then run together.

        Args:
            turn: What the agent said. The last turn that the budget allows comes too, cut or not;
                its reply's text is not appended.
            rng: Random numbers that belong to this turn of this episode.
        """


class BatchedWorld(ABC):
    """One world for all rows; its methods take lists with one entry for each row that waits.

    It keeps what it remembers of an episode by the number of its row. `state_dict` and
    `load_state_dict(state)` save that; a world without them cannot be saved.
    """

    def begin(
        self,
        rows: Sequence[int],
        records: Sequence[Mapping[str, Any]],
        rngs: Sequence[np.random.Generator],
    ) -> Sequence[str | None]:
        """Begin episodes in `rows`; see `World.begin`."""
        return [None] * len(rows)

    @abstractmethod
    def reply(
        self, rows: Sequence[int], turns: Sequence[Turn], rngs: Sequence[np.random.Generator]
    ) -> Any:
        """One `Reply` for each of `rows`; may be `async`."""


WorldArgument: TypeAlias = Callable[[], World] | BatchedWorld | str
"""A class (or function) that makes a `World`, a `BatchedWorld`, or a string that names either."""


class OneWorldPerEpisode(BatchedWorld):
    """Makes a `World` for each episode, and asks all that wait at once.

    Args:
        make: Makes a world.
        timeout: Seconds that an `async` reply may take.
    """

    def __init__(self, make: Callable[[], World], timeout: float | None = None):
        self.make, self.timeout = make, timeout
        self.worlds: dict[int, World] = {}

    def begin(
        self,
        rows: Sequence[int],
        records: Sequence[Mapping[str, Any]],
        rngs: Sequence[np.random.Generator],
    ) -> Sequence[str | None]:
        """Make and begin a world for each row."""
        openings = []
        for row, record, rng in zip(rows, records, rngs, strict=True):
            world = self.make()
            openings.append(world.begin(record, rng))
            self.worlds[row] = world  # only now: one that cannot begin leaves the old one
        return openings

    def reply(
        self, rows: Sequence[int], turns: Sequence[Turn], rngs: Sequence[np.random.Generator]
    ) -> Sequence[Any]:
        """Each row's reply, or the exception that its world raised."""
        given = []
        for row, turn, rng in zip(rows, turns, rngs, strict=True):
            try:
                given.append(self.worlds[row].reply(turn, rng))
            except Exception as error:
                given.append(error)
        waiting = [place for place, one in enumerate(given) if inspect.isawaitable(one)]
        if waiting:
            answers = wait_for(self._together([given[place] for place in waiting]))
            for place, answer in zip(waiting, answers, strict=True):
                given[place] = answer
        return given

    async def _together(self, replies: Sequence[Any]) -> Sequence[Any]:
        limited = [asyncio.wait_for(reply, self.timeout) for reply in replies]
        return await asyncio.gather(*limited, return_exceptions=True)

    def state_dict(self) -> dict[str, Any]:
        """The state of each row's world."""
        return {str(row): _state_of(world) for row, world in self.worlds.items()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Make the worlds of a saved state."""
        self.worlds = {}
        for row, saved in state.items():
            world = self.make()
            if hasattr(world, "load_state_dict"):
                world.load_state_dict(saved)
            else:
                vars(world).update(saved)
            self.worlds[int(row)] = world


def load_world(world: WorldArgument, timeout: float | None) -> BatchedWorld:
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
    if isinstance(found, World) or not callable(found):
        raise WorldError(
            f"world is {short(found)}: pass a class derived from textenv.World, or a function that "
            "makes one, since each episode has a world of its own; or a BatchedWorld"
        )
    return OneWorldPerEpisode(found, timeout)


def checked(reply: Any, world: str) -> Reply:
    """A reply that can be used.

    Raises:
        WorldError: It is no `Reply`, its text is no text, or its reward no finite number.
    """
    if not isinstance(reply, Reply):
        raise WorldError(f"{world}.reply returned {short(reply)}, not a Reply")
    if not isinstance(reply.text, str):
        raise WorldError(f"{world}.reply returned the text {short(reply.text)}, not a str")
    if not isinstance(reply.reward, numbers.Real) or not np.isfinite(float(reply.reward)):
        raise WorldError(
            f"{world}.reply returned the reward {short(reply.reward)}; it must be a finite number"
        )
    return reply


def _state_of(world: World) -> Any:
    from textenv.prompts import Prompt

    if hasattr(world, "state_dict"):
        return world.state_dict()
    try:  # a prompt's columns are saved by the same rules
        return Prompt("", vars(world)).to_json()["columns"]
    except Exception as error:
        raise WorldError(
            f"{type(world).__name__} has attributes that JSON cannot hold: give it state_dict() "
            f"and load_state_dict(state); {error}"
        ) from error
