"""Making the environment that is checked, as often as the rules need it."""

import contextlib
import inspect
from collections.abc import Callable, Iterator
from typing import Any, TypeAlias
from unittest import SkipTest

import gymnasium as gym
from gymnasium.vector import AutoresetMode, VectorEnv

AnyEnv: TypeAlias = gym.Env[Any, Any] | VectorEnv[Any, Any, Any]


class RuleBroken(AssertionError):
    """What a rule raises, as opposed to an assertion of the environment itself."""


def require(condition: Any, message: str) -> None:
    """`assert` that python -O does not leave out.

    Raises:
        RuleBroken: The condition is false.
    """
    if not condition:
        raise RuleBroken(message)


class Maker:
    """Gives out the environment to check, with other arguments where that is possible.

    Args:
        given: An environment, which is given out as it is, or something that makes one.

    Raises:
        TypeError: It is neither.
    """

    def __init__(self, given: AnyEnv | Callable[..., AnyEnv]):
        if not isinstance(given, gym.Env | VectorEnv) and not callable(given):
            raise TypeError(f"{given!r} is no environment, nor does it make one")
        self._given = given
        self._made: list[AnyEnv] = []

    def takes(self, argument: str) -> bool:
        """Whether environments can be made with this argument."""
        if isinstance(self._given, gym.Env | VectorEnv):
            return False
        try:
            inspect.signature(self._given).bind_partial(**{argument: None})
        except (TypeError, ValueError):
            return False
        return True

    def __call__(self, **arguments: Any) -> Any:
        """An environment, with these arguments beside those it has anyway.

        Raises:
            TypeError: What was made is no environment.
            SkipTest: It cannot be made with these arguments.
        """
        if isinstance(self._given, gym.Env | VectorEnv) and not arguments:
            return self._given
        for argument in arguments:
            if not self.takes(argument):
                raise SkipTest(f"it cannot be made with {argument}=...: pass what takes that")
        assert callable(self._given)
        env = self._given(**arguments)
        if not isinstance(env, gym.Env | VectorEnv):
            raise TypeError(f"{self._given!r} made {env!r}, which is no environment")
        self._made.append(env)
        return env

    def in_every_mode(self) -> Iterator[VectorEnv[Any, Any, Any]]:
        """A vector environment in each autoreset mode, or in the one it has."""
        if not self.takes("autoreset_mode"):
            yield self()
            return
        for mode in AutoresetMode:
            yield self(autoreset_mode=mode)

    def close(self) -> None:
        """Close what was made here; an environment that was given stays open."""
        for env in self._made:
            with contextlib.suppress(Exception):  # there is a rule about closing
                env.close()
        self._made.clear()


def single_spaces(env: AnyEnv) -> tuple[gym.Space[Any], gym.Space[Any]]:
    """Action and observation space of one row."""
    if isinstance(env, VectorEnv):
        return env.single_action_space, env.single_observation_space
    return env.action_space, env.observation_space
