"""Rewards: functions of finished episodes or of single steps, and adapters for other functions.

A reward is a function of a list of `Episode`s that gives one number for each. There are adapters
for a function of one text (`per_text`), a TRL reward function (`from_trl`, `from_trl_chat`), a
function of every step (`dense`) and several rewards with weights (`weighted`).

A reward is shared and never copied. Gymnasium deep-copies the arguments of an environment, and a
reward model would be copied with them. A deep copy of an adapter is the adapter itself, and
`shared` does the same for any other callable object. An adapter can be pickled if its function can.
"""

import math
import numbers
import reprlib
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Self, TypeAlias

from textenv.episode import Episode
from textenv.errors import InvalidRewardError
from textenv.loading import load_object
from textenv.reward_adapters import Adapter, check_waits_for_nothing, name_of
from textenv.reward_terms import (
    RewardTerm,
    call_on_episodes,
    call_on_steps,
    describe_episode,
    raised,
)
from textenv.step_batch import StepBatch
from textenv.trl import from_trl, from_trl_chat

__all__ = [
    "EpisodeReward",
    "Reward",
    "RewardTerm",
    "StepBatch",
    "StepReward",
    "call_on_episodes",
    "call_on_steps",
    "dense",
    "from_trl",
    "from_trl_chat",
    "per_text",
    "reward_terms",
    "shared",
    "terms_of_all",
    "weighted",
]

EpisodeReward: TypeAlias = Callable[[Sequence[Episode]], Any]
"""A function of n finished episodes: n numbers as a list, tuple, array or tensor."""

StepReward: TypeAlias = Callable[[StepBatch], Any]
"""A function of k rows at one step: k numbers."""


class PerText(Adapter):
    """A function of one answer's text as a reward; see `per_text`."""

    def __call__(self, episodes: Sequence[Episode]) -> list[Any]:
        values = []
        for index, episode in enumerate(episodes):
            try:
                values.append(self.function(episode.text))
            except Exception as error:
                raise raised(
                    self.__name__, error, describe_episode(episodes, index), self.function
                ) from error
        return values


class Dense(Adapter):
    """A reward that is paid at every step; see `dense`."""

    def __call__(self, batch: StepBatch) -> Any:
        return self.function(batch)


class Shared(Adapter):
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
"""Anything that an environment takes as a reward; `textenv.loading.load_object` reads strings."""


def per_text(function: Callable[[str], float], name: str | None = None) -> PerText:
    """A reward from a function of the answer's text.

    >>> per_text(len, name="length")
    PerText(length)
    """
    return PerText(function, name)


def dense(function: StepReward, name: str | None = None) -> Dense:
    """A reward that is paid at every step: a function of a `StepBatch`, one number for each row.

    >>> dense(lambda batch: -0.01 * batch.ended, name="end")
    Dense(end)
    """
    return Dense(function, name)


def shared(reward: EpisodeReward, name: str | None = None) -> Shared:
    """A reward whose deep copy is itself; use it for a callable object that holds a network.

    Functions and the other adapters do not need it.
    """
    return Shared(reward, name)


def weighted(**parts: tuple[float, Reward]) -> Weighted:
    """A sum of rewards, given as `name=(weight, reward)`.

    Every part is reported under its name, unweighted. A part of weight 0 is only reported. The
    parts of a nested sum have both names, `outer.inner`, and the product of both weights.

    >>> weighted(size=(0.5, per_text(len)), end=(-2, dense(lambda batch: batch.ended)))
    0.5 * size + -2 * end

    Raises:
        InvalidRewardError: A part is not such a pair, a weight or a product of weights is not a
            finite number, a name begins with an underscore, two names are equal, or there are no
            parts.
        ObjectNotFoundError: A reward is a string that does not name an object.
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
            product = weight * term.weight
            if not math.isfinite(product):
                raise InvalidRewardError(
                    f"the weights of {full_name} multiply to {product}: write smaller ones"
                )
            terms.append(RewardTerm(full_name, product, term.function, term.dense))
    if not terms:
        raise InvalidRewardError("there are no parts: write weighted(name=(weight, reward), ...)")
    names = [term.name for term in terms]
    for name in names:
        # A key that begins with an underscore is the mask of another info.
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
        ObjectNotFoundError: `reward` is a string that does not name an object.
    """
    resolved = _resolve(reward)
    if isinstance(resolved, Weighted):
        return resolved.terms
    check_waits_for_nothing(resolved)
    return (RewardTerm(name_of(resolved), 1.0, resolved, isinstance(resolved, Dense)),)


def terms_of_all(rewards: Iterable[Reward]) -> tuple[RewardTerm, ...]:
    """The summands of several rewards, each of weight 1.

    Raises:
        InvalidRewardError: One is not a reward, or two summands have one name.
        ObjectNotFoundError: One is a string that does not name an object.
    """
    terms = [term for reward in rewards for term in reward_terms(reward)]
    names = [term.name for term in terms]
    if len(set(names)) < len(names):
        raise InvalidRewardError(
            f"the world brings a reward under a name that is taken: {names}; name yours otherwise, "
            "with textenv.rewards.weighted(name=(1.0, reward))"
        )
    return tuple(terms)


def _resolve(reward: Any) -> Any:
    return load_object(reward) if isinstance(reward, str) else reward


def _is_weight(weight: Any) -> bool:
    return isinstance(weight, numbers.Real) and math.isfinite(weight)
