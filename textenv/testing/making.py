"""Makes the environment under check, as many times as the rules need it."""

import contextlib
import inspect
from collections.abc import Callable, Iterator
from typing import Any, TypeAlias
from unittest import SkipTest

import gymnasium as gym
from gymnasium.vector import AutoresetMode, VectorEnv

AnyEnv: TypeAlias = gym.Env[Any, Any] | VectorEnv[Any, Any, Any]


class RuleBroken(AssertionError):
    """Raised by a rule; an assertion of the environment itself is another error."""


def require(condition: Any, message: str) -> None:
    """Like `assert`, but python -O does not remove it.

    Raises:
        RuleBroken: The condition is false.
    """
    if not condition:
        raise RuleBroken(message)


class Maker:
    """Gives the environment to check, with other arguments if that is possible.

    Args:
        given: An environment, which is given as it is, or a class or function that makes one.

    Raises:
        TypeError: `given` is neither.
    """

    def __init__(self, given: AnyEnv | Callable[..., AnyEnv]):
        if not isinstance(given, gym.Env | VectorEnv) and not callable(given):
            raise TypeError(f"{given!r} is not an environment and does not make one")
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
            TypeError: The made object is not an environment.
            SkipTest: The environment cannot be made with these arguments.
        """
        if isinstance(self._given, gym.Env | VectorEnv) and not arguments:
            return self._given
        for argument in arguments:
            if not self.takes(argument):
                raise SkipTest(
                    f"it cannot be made with {argument}=...: pass a class or function that takes it"
                )
        assert callable(self._given)
        env = self._given(**arguments)
        if not isinstance(env, gym.Env | VectorEnv):
            raise TypeError(f"{self._given!r} made {env!r}, which is not an environment")
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
        """Close the environments made here; an environment that was given stays open."""
        for env in self._made:
            with contextlib.suppress(Exception):  # there is a rule about closing
                env.close()
        self._made.clear()


def single_spaces(env: AnyEnv) -> tuple[gym.Space[Any], gym.Space[Any]]:
    """Action and observation space of one row."""
    if isinstance(env, VectorEnv):
        return env.single_action_space, env.single_observation_space
    return env.action_space, env.observation_space
