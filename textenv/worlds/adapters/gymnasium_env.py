"""Any Gymnasium environment as a world: observations are described, actions read from the text."""

import re
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import gymnasium as gym

from textenv.errors import WorldError
from textenv.records import short
from textenv.worlds.adapters.step_numbers import Rekeyed
from textenv.worlds.adapters.stepped import SteppedWorld, plain
from textenv.worlds.base import Reply

_NUMBER = re.compile(r"-?\d+")


def read_number(text: str) -> int | None:
    """The last whole number in a text; None if there is none.

    >>> read_number("I go right: 2"), read_number("right")
    (2, None)
    """
    found = _NUMBER.findall(text)
    return int(found[-1]) if found else None


class GymnasiumWorld(SteppedWorld):
    r"""Plays a Gymnasium environment with discrete actions, one step a turn.

        slopes = GymnasiumWorld("FrozenLake-v1", describe=lambda square: f"square {square}\n")
        envs = textenv.TextVectorEnv(32, world=slopes, max_prompt_tokens=16, max_turns=50)

    Rewards and ends are the environment's. A step draws from the turn's own generator if the
    environment draws from its `np_random`; so the episodes of a group begin alike, and then slip
    each in its own way.

    Args:
        env: The id of a registered environment, or a function that makes one.
        describe: Says an observation in words.
        read: Finds the action in what was said; None if there is none. The default takes the last
            whole number.
        unreadable: Said if there is no action, or none of the action space; the environment is not
            stepped.
        penalty: Reward of such a turn.

    Raises:
        gymnasium.error.Error: There is no environment of this id.
        WorldError: The action space is not `Discrete`, and `read` is the default.
    """

    def __init__(
        self,
        env: str | Callable[[], gym.Env[Any, Any]],
        *,
        describe: Callable[[Any], str] = str,
        read: Callable[[str], Any] = read_number,
        unreadable: str = "?",
        penalty: float = 0.0,
    ):
        super().__init__(partial(gym.make, env) if isinstance(env, str) else env)
        self._describe, self._read, self._numbers = describe, read, Rekeyed()
        self._unreadable = Reply(unreadable, reward=penalty, info={"unreadable": True})
        env_of_space = self._make()
        space = env_of_space.action_space
        env_of_space.close()
        if read is read_number and not isinstance(space, gym.spaces.Discrete):
            raise WorldError(
                f"the actions of {short(env)} are {space}: give read=, a function that makes an "
                "action of a text"
            )

    def _reset(self, env: Any, seed: int, options: Mapping[str, Any]) -> str:
        observation, _ = env.reset(seed=seed, options=dict(options) or None)
        return self._describe(observation)

    def _step(self, env: Any, text: str, seed: int) -> Reply:
        action = self._read(text)
        if action is None or not env.action_space.contains(action):
            return self._unreadable
        env.unwrapped.np_random = self._numbers.of(seed)
        observation, reward, terminated, truncated, info = env.step(action)
        return Reply(
            self._describe(observation),
            float(reward),
            bool(terminated),
            bool(truncated),
            info=plain(info),
        )
