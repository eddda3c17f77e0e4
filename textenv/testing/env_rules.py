"""Rules for single environments only."""

import contextlib
import importlib
import io
import warnings
from collections.abc import Callable, Mapping
from typing import Any
from unittest import SkipTest

from gymnasium.utils.env_checker import check_env

from textenv.imports import installed
from textenv.testing.making import Maker, RuleBroken, require
from textenv.testing.playing import play

# These say nothing about the environment: it is wrapped, or was made without a name.
EXPECTED_WARNINGS = (".*different from the unwrapped version", ".*alternative render modes")


def steps_return_python_types(make: Maker) -> None:
    """A step returns a float, two bools and a dict; not numpy's."""
    for step in play(make):
        types = tuple(type(x) for x in (step.reward, step.terminated, step.truncated))
        require(
            types == (float, bool, bool)
            and isinstance(step.info, Mapping)
            and isinstance(step.before_info, Mapping),
            f"{step.where}: reward, terminated and truncated are {[t.__name__ for t in types]}, "
            f"info a {type(step.info).__name__}. Return float(reward), bool(terminated), "
            "bool(truncated) and a dict",
        )


def reset_seeds_np_random(make: Maker) -> None:
    """`reset(seed=...)` seeds np_random, `reset()` leaves it alone."""
    env = make().unwrapped

    def state_after(seed: int | None) -> Any:
        env.reset(seed=seed)
        return env.np_random.bit_generator.state

    first, goes_on, other, again = map(state_after, (1, None, 2, 1))
    require(
        first == again and first != other and goes_on != other,
        f"np_random after reset(seed=1) is {'the same' if first == again else 'another'} the second"
        f" time, and {'the same' if first == other else 'another'} for seed=2. Begin reset with "
        "super().reset(seed=seed)",
    )


def gymnasium_agrees(make: Maker) -> None:
    """Gymnasium's own check_env passes without a warning."""
    _agrees("gymnasium.utils.env_checker.check_env", check_env, make)


def stable_baselines3_agrees(make: Maker) -> None:
    """The check_env of Stable-Baselines3 passes without a warning, if it is installed."""
    if not installed("stable_baselines3"):
        raise SkipTest("stable_baselines3 is not installed")
    name = "stable_baselines3.common.env_checker"
    _agrees(f"{name}.check_env", importlib.import_module(name).check_env, make)


def _agrees(name: str, check: Callable[[Any], None], make: Maker) -> None:
    env = make()
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("error")
        for message in EXPECTED_WARNINGS:
            warnings.filterwarnings("ignore", message=message)
        try:
            check(env)
        except Exception as error:
            raise RuleBroken(f"{name} says {type(error).__name__}: {error}") from error
