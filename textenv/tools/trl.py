"""Environment classes written for TRL's `environment_factory`, unmodified, as worlds.

TRL 1.16 makes such a class without arguments. `reset` gets the row's columns by name and may return
a text, which is put behind the prompt. Every other public method is a tool, except `get_reward`,
which scores the finished episode and is added with weight 1 under the class's name.

Where this differs from TRL's trainers:

- a world has an object of its own for each episode; TRL makes one and calls `reset` again;
- arguments of another type than the hint's are refused, and a call that cannot be read is answered
  with an error; TRL passes on the first, and takes the second for an answer that ends the episode;
- an error is told as `error: ...`; TRL says `{'error': '...'}`;
- what `reset` and tools draw from the global generators of Python and NumPy follows the seeds of
  the environment, and a group shares what `reset` draws; TRL leaves those generators alone;
- results are told in the order of the calls; TRL puts those of `async` methods last;
- `reset` and tools give text alone; TRL also takes lists with images;
- a dict of factories is not taken.

`max_turns` of the environment is TRL's `max_tool_calling_iterations` plus one.
"""

import asyncio
import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar

import numpy as np

from textenv.background import wait_for
from textenv.episode import Episode
from textenv.errors import ToolError, WorldError
from textenv.records import short
from textenv.reward_adapters import Adapter
from textenv.tools.world import Tool, Tools, ToolWorld
from textenv.trl import messages_of
from textenv.worlds.adapters.step_numbers import global_numbers_kept, seed_global_numbers
from textenv.worlds.base import Opening, Turn
from textenv.worlds.states import restored, state_of

NO_TOOLS = ("reset", "get_reward")


class TRLEnvironment(Tools):
    """Makes worlds from a class for TRL's `environment_factory`; see `from_trl_environment`.

    Attributes:
        episode_reward: The class's `get_reward` as a reward; None if it has none.
    """

    def __init__(self, factory: Callable[[], Any], **settings: Any):
        if isinstance(factory, Mapping) or not callable(factory):
            raise ToolError(f"{short(factory)} is not a class, nor a function that makes objects")
        self.factory = factory
        made = factory()
        kind = type(made)
        methods = dict(inspect.getmembers(kind, inspect.isfunction))
        if "reset" not in methods:
            raise ToolError(f"{kind.__name__} has no method reset(), which TRL's environments need")
        super().__init__(list(_tools_of(made).values()), **settings)
        self.episode_reward = GetReward(kind) if "get_reward" in methods else None

    def __call__(self) -> "TRLWorld":
        """A world around a new object of the class."""
        return TRLWorld(self, self.factory())


class TRLWorld(ToolWorld):
    """One object of a TRL environment class in one episode.

    Attributes:
        environment: The object.
    """

    replayable = False  # its tools may act on something outside

    def __init__(self, settings: Tools, environment: Any):
        super().__init__(settings, _tools_of(environment))
        self.environment = environment

    def begin(self, record: Mapping[str, Any], rng: np.random.Generator) -> Opening:
        """Reset it; what it says stands behind the prompt."""
        prompt = record["prompt"]
        messages = messages_of(record) if isinstance(prompt, str) else prompt
        with _numbers_of(rng):
            # Messages, as TRL gives it.
            said = self.environment.reset(**{**record, "prompt": messages})
        if said is None:
            return None
        if not isinstance(said, str):
            raise WorldError(
                f"{type(self.environment).__name__}.reset returned {short(said)}; textenv reads "
                "text: it must be a str or None"
            )
        if isinstance(prompt, str):
            return prompt + said
        *before, last = messages
        return [*before, {**last, "content": last["content"] + said}]

    def reply(self, turn: Turn, rng: np.random.Generator) -> Any:
        """The results of the calls in a turn; the end if there is none."""
        with _numbers_of(rng):
            return super().reply(turn, rng)

    def state_dict(self) -> dict[str, Any]:
        """The object's attributes, or its own `state_dict()`."""
        return {"calls": self.calls, "environment": state_of(self.environment)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` gave."""
        self.calls = state["calls"]
        restored(self.environment, state["environment"])


class GetReward(Adapter):
    """The method `get_reward` of TRL environments as a reward of finished episodes."""

    may_abstain: ClassVar[bool] = True

    def _check(self, function: Any) -> None:
        """A class: its objects are those of the episodes."""

    def __call__(self, episodes: Sequence[Episode]) -> list[Any]:
        """What each episode's object says of it."""
        worlds: list[Any] = [episode.world for episode in episodes]
        given = [world.environment.get_reward() for world in worlds]
        if any(inspect.isawaitable(one) for one in given):
            return wait_for(_together(given))
        return given


@contextmanager
def _numbers_of(rng: np.random.Generator) -> Iterator[None]:
    """Inside, Python's and NumPy's global generators, from which such classes draw, follow `rng`.

    So a group shares what `reset` draws, and no row depends on another. `async` tools run later and
    draw from the generators of the process.
    """
    with global_numbers_kept():
        seed_global_numbers(int(rng.integers(2**32)))
        yield


async def _together(given: Sequence[Any]) -> list[Any]:
    return list(await asyncio.gather(*given))


def from_trl_environment(factory: Callable[[], Any], **settings: Any) -> TRLEnvironment:
    '''A world, for `world=`, from a class that TRL's `environment_factory` takes.

    >>> class Counter:
    ...     def reset(self, **columns):
    ...         self.count = 0
    ...
    ...     def add(self, step: int) -> int:
    ...         """Add to the counter.
    ...
    ...         Args:
    ...             step: How much.
    ...         """
    ...         self.count += step
    ...         return self.count
    ...
    ...     def get_reward(self) -> float:
    ...         return float(self.count == 3)
    >>> from_trl_environment(Counter)
    Tools(add)

    Args:
        factory: The class, or a function without arguments that makes such objects. It is called
            once here, to see its tools.
        **settings: Those of `Tools`: `parse`, `max_calls` and `max_result_chars`.

    Raises:
        ToolError: It has no `reset`, or a public method cannot be used as a tool; TRL refuses such
            a method too, when it renders the prompt. A leading underscore hides a method.
    '''
    return TRLEnvironment(factory, **settings)


def _tools_of(environment: Any) -> dict[str, Tool]:
    # Listed on the class, as TRL does: on the object, properties would be computed.
    names = [name for name, _ in inspect.getmembers(type(environment), inspect.isfunction)]
    return {
        name: getattr(environment, name)
        for name in names
        if name not in NO_TOOLS and not name.startswith("_")
    }
