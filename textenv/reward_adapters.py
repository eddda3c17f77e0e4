"""The base of the adapters in `textenv.rewards`: a named function that deep copies share."""

import inspect
import reprlib
from collections.abc import Callable
from functools import partial
from typing import Any, ClassVar, Self

from textenv.errors import InvalidRewardError


class Adapter:
    """A function with a name; a deep copy of the adapter is the adapter itself.

    Attributes:
        may_abstain: Its function may return None for an episode that it does not apply to.

    Raises:
        InvalidRewardError: The argument is not a function, is `async`, or is an adapter already.
    """

    may_abstain: ClassVar[bool] = False

    def __init__(self, function: Callable[..., Any], name: str | None = None):
        self._check(function)
        if isinstance(function, Adapter):
            raise InvalidRewardError(f"{function!r} is a reward already; pass it as it is")
        self.function = function
        self.__name__ = name_of(function) if name is None else name

    def _check(self, function: Any) -> None:
        check_waits_for_nothing(function)

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.__name__})"


def check_callable(function: Any) -> None:
    """Raise InvalidRewardError unless `function` can be called."""
    shown = reprlib.repr(function)
    if isinstance(function, type):
        raise InvalidRewardError(f"{shown} is a class; pass an instance of it")
    if not callable(function):
        raise InvalidRewardError(
            f"{shown} of type {type(function).__name__} is not a reward: pass a function of a list "
            "of episodes, something made by textenv.rewards, or a string 'package.module:name'"
        )


def check_waits_for_nothing(function: Any) -> None:
    """Raise InvalidRewardError unless `function` can be called and is not `async`."""
    check_callable(function)
    if is_async(function):
        raise InvalidRewardError(
            f"{reprlib.repr(function)} is an async function; wrap it in a plain one that waits, "
            "with asyncio.run"
        )


def is_async(function: Any) -> bool:
    """Whether calling `function` gives a coroutine."""
    while isinstance(function, partial):
        function = function.func
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(function.__call__)


def name_of(function: Any) -> str:
    """`length` for a function `_length`, `lambda` for a lambda, else the name of the class."""
    if isinstance(function, partial):
        return name_of(function.func)
    name = getattr(function, "__name__", type(function).__name__)
    return str(name).strip("_<>") or "reward"
