"""Rewards: functions of finished episodes or of single steps, and what makes them from others.

A reward is a function of a list of `Episode`s that gives one number for each. There are adapters
for a function of one text (`per_text`), a TRL reward function (`from_trl`), a function of every
step (`dense`) and several rewards with weights (`weighted`).

What a reward holds is shared, never copied: Gymnasium deep-copies the arguments of an environment,
and a reward model would be copied with them. Adapters are their own deep copies, and `shared` makes
the same of any other callable object. They pickle where the function they wrap does.
"""

import inspect
import math
import numbers
import reprlib
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Self, TypeAlias

from textenv.episode import Episode
from textenv.errors import InvalidRewardError
from textenv.loading import load_object
from textenv.scoring import (
    RewardTerm,
    StepBatch,
    describe_episode,
    raised,
    score_episodes,
    score_steps,
)

__all__ = [
    "EpisodeReward",
    "Reward",
    "RewardTerm",
    "StepBatch",
    "StepReward",
    "dense",
    "from_trl",
    "per_text",
    "reward_terms",
    "score_episodes",
    "score_steps",
    "shared",
    "weighted",
]

EpisodeReward: TypeAlias = Callable[[Sequence[Episode]], Any]
"""A function of n finished episodes: n numbers as a list, tuple, array or tensor."""

StepReward: TypeAlias = Callable[[StepBatch], Any]
"""A function of k rows at one step: k numbers."""


class _Adapter:
    """A function under a name; a deep copy of it is the adapter itself."""

    def __init__(self, function: Callable[..., Any], name: str | None = None):
        _check_callable(function)
        if isinstance(function, _Adapter):
            raise InvalidRewardError(f"{function!r} is a reward already; pass it as it is")
        self.function = function
        self.__name__ = _name_of(function) if name is None else name

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.__name__})"


class PerText(_Adapter):
    """A function of one answer's text as a reward; see `per_text`."""

    def __call__(self, episodes: Sequence[Episode]) -> list[Any]:
        values = []
        for index, episode in enumerate(episodes):
            try:
                values.append(self.function(episode.text))
            except Exception as error:
                raise raised(self.__name__, error, describe_episode(episodes, index)) from error
        return values


class FromTRL(_Adapter):
    """A TRL reward function as a reward; see `from_trl`."""

    def __call__(self, episodes: Sequence[Episode]) -> Any:
        values = self.function(
            **_columns(episodes),
            prompts=[episode.prompt for episode in episodes],
            completions=[episode.text for episode in episodes],
            completion_ids=[episode.tokens.tolist() for episode in episodes],
            trainer_state=None,
            log_extra=_log_nothing,
            log_metric=_log_nothing,
        )
        if isinstance(values, list | tuple):
            return [0.0 if value is None else value for value in values]
        return values


class Dense(_Adapter):
    """A reward that is paid at every step; see `dense`."""

    def __call__(self, batch: StepBatch) -> Any:
        return self.function(batch)


class Shared(_Adapter):
    """A reward that deep copies leave alone; see `shared`."""

    def __call__(self, episodes: Sequence[Episode]) -> Any:
        return self.function(episodes)


class Weighted:
    """A weighted sum of rewards; see `weighted`.

    Attributes:
        terms: The summands, those of nested sums included.
    """

    def __init__(self, terms: Sequence[RewardTerm]):
        self.terms = tuple(terms)

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self

    def __repr__(self) -> str:
        return " + ".join(f"{term.weight:g} * {term.name}" for term in self.terms)


Reward: TypeAlias = EpisodeReward | Dense | Weighted | str
"""All that an environment takes as a reward; a string is read by `textenv.loading.load_object`."""


def per_text(function: Callable[[str], float], name: str | None = None) -> PerText:
    """A reward from a function of the answer's text.

    >>> per_text(len, name="length")
    PerText(length)
    """
    return PerText(function, name)


def from_trl(function: Callable[..., Any], name: str | None = None) -> FromTRL:
    """A reward from a reward function written for TRL's trainers, in the standard (text) format.

    It is called by keyword as TRL 1.x calls it: `prompts` and `completions` (lists of texts),
    `completion_ids` (lists of ids, a stop token included), every column of the prompts' records
    (a list, None where a record lacks it), `trainer_state` (None: there is no trainer),
    `log_extra` and `log_metric` (which log nothing). A value None says that the function does not
    apply to that episode and counts as 0, which is what TRL's weighted sum makes of it.

    Functions that expect chat messages instead of texts, and `async` ones, are not supported.

    >>> def exact(completions, answer, **kwargs):
    ...     return [float(c == a) for c, a in zip(completions, answer)]
    >>> from_trl(exact)
    FromTRL(exact)
    """
    return FromTRL(function, name)


def dense(function: StepReward, name: str | None = None) -> Dense:
    """A reward that is paid at every step: a function of a `StepBatch`, one number for each row.

    >>> dense(lambda batch: -0.01 * batch.ended, name="end")
    Dense(end)
    """
    return Dense(function, name)


def shared(reward: EpisodeReward, name: str | None = None) -> Shared:
    """A reward whose deep copy is itself, for a callable object that holds a network.

    Functions need no such care, and neither do the other adapters.
    """
    return Shared(reward, name)


def weighted(**parts: tuple[float, Reward]) -> Weighted:
    """A sum of rewards, given as `name=(weight, reward)`.

    Every part is reported under its name, unweighted; one of weight 0 is only reported. The parts
    of a nested sum have both names, `outer.inner`, and the product of both weights.

    >>> weighted(size=(0.5, per_text(len)), end=(-2, dense(lambda batch: batch.ended)))
    0.5 * size + -2 * end

    Raises:
        InvalidRewardError: A part is no such pair, a weight is not a finite number, a name begins
            with an underscore or two are equal, or there are no parts.
        ObjectNotFoundError: A reward is a string that leads to no object.
    """
    terms: list[RewardTerm] = []
    for name, part in parts.items():
        if not (isinstance(part, tuple | list) and len(part) == 2 and _is_weight(part[0])):
            raise InvalidRewardError(
                f"{name}={reprlib.repr(part)} is not a pair of a finite weight and a reward: "
                f"write weighted({name}=(1.0, reward))"
            )
        weight, reward = float(part[0]), _resolve(part[1])
        for term in reward_terms(reward):
            full_name = f"{name}.{term.name}" if isinstance(reward, Weighted) else name
            terms.append(RewardTerm(full_name, weight * term.weight, term.function, term.dense))
    if not terms:
        raise InvalidRewardError("there are no parts: write weighted(name=(weight, reward), ...)")
    names = [term.name for term in terms]
    for name in names:
        # An info whose key begins with an underscore is the mask of another.
        if names.count(name) > 1 or name.startswith("_"):
            raise InvalidRewardError(
                f"a part of the reward is named {name!r}: names must differ and must not begin "
                f"with an underscore; they are {names}"
            )
    return Weighted(terms)


def reward_terms(reward: Reward) -> tuple[RewardTerm, ...]:
    """The summands of any reward; a single one has weight 1 and the name of its function.

    >>> reward_terms(per_text(len))
    (RewardTerm(name='len', weight=1.0, function=PerText(len), dense=False),)

    Raises:
        InvalidRewardError: `reward` is not a reward.
        ObjectNotFoundError: It is a string that leads to no object.
    """
    resolved = _resolve(reward)
    if isinstance(resolved, Weighted):
        return resolved.terms
    _check_callable(resolved)
    return (RewardTerm(_name_of(resolved), 1.0, resolved, isinstance(resolved, Dense)),)


def _resolve(reward: Any) -> Any:
    return load_object(reward) if isinstance(reward, str) else reward


def _check_callable(function: Any) -> None:
    shown = reprlib.repr(function)
    if isinstance(function, type):
        raise InvalidRewardError(f"{shown} is a class; pass an instance of it")
    if not callable(function):
        raise InvalidRewardError(
            f"{shown} of type {type(function).__name__} is not a reward: pass a function of a list "
            "of episodes, something made by textenv.rewards, or a string 'package.module:name'"
        )
    if inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(function.__call__):
        raise InvalidRewardError(
            f"{shown} is an async function; wrap it in a plain one that waits, with asyncio.run"
        )


def _name_of(function: Any) -> str:
    """`length` for a function `_length`, `lambda` for a lambda, else the name of the class."""
    if isinstance(function, partial):
        return _name_of(function.func)
    name = getattr(function, "__name__", type(function).__name__)
    return str(name).strip("_<>") or "reward"


def _is_weight(weight: Any) -> bool:
    return isinstance(weight, numbers.Real) and math.isfinite(weight)


def _columns(episodes: Sequence[Episode]) -> dict[str, list[Any]]:
    """The columns of the prompts' records as lists, without those that TRL leaves out too."""
    names = {name for episode in episodes for name in episode.columns}
    names -= {"prompt", "completion", "completion_ids"}
    return {name: [episode.columns.get(name) for episode in episodes] for name in sorted(names)}


def _log_nothing(name: str, value: object) -> None:
    """Stand in for TRL's `log_extra` and `log_metric`."""
