"""The terms of a reward, and calls of them that check every value.

A reward is user code in the middle of a long run. If it fails, the error names the reward, the
episode and the value, before anything wrong reaches a learner.
"""

import math
import reprlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from textenv.episode import Episode
from textenv.errors import RewardCountError, RewardError, RewardRaisedError, RewardValueError
from textenv.places import defined_at, place_of
from textenv.reward_adapters import name_of
from textenv.step_batch import StepBatch

LARGEST = 1e15
"""Size of the largest reward. Learners compute in float32, which ends at 3e38: the squares of ten
million rewards of this size can still be summed there."""

_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = 80


@dataclass(frozen=True, eq=False)
class RewardTerm:
    """One summand of a reward.

    Attributes:
        name: Name under which its values are reported.
        weight: Factor by which the environment multiplies its values.
        function: Takes the finished episodes, or a `StepBatch` if `dense`.
        dense: Whether it is called at every step.
    """

    name: str
    weight: float
    function: Callable[[Any], Any]
    dense: bool

    @property
    def may_abstain(self) -> bool:
        """Whether None is a value: the reward does not apply to that episode."""
        return getattr(self.function, "may_abstain", False)

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self  # the function may hold a network


def call_on_episodes(term: RewardTerm, episodes: Sequence[Episode]) -> NDArray[np.float64]:
    """The values that `term` gives to `episodes`, unweighted, shape (len(episodes),), float64.

    The function may return a list, a tuple, an array or a tensor of that shape. It is not called if
    there are no episodes. NaN stands for the None of a reward that may abstain.

    Raises:
        RewardRaisedError: The function raised; its exception is the cause.
        RewardCountError: It did not return one value for each episode.
        RewardValueError: A value is not a finite number.
    """
    return _score(term, episodes, describe_episode)


def call_on_steps(term: RewardTerm, batch: StepBatch) -> NDArray[np.float64]:
    """The values that the dense `term` gives to `batch`, unweighted, shape (k,), float64.

    Raises:
        RewardError: The same errors as those of `call_on_episodes`.
    """
    return _score(term, batch, _describe_row)


def weigh(term: RewardTerm, values: NDArray[np.float64], scored: Any) -> NDArray[np.float64]:
    """What `term` pays: its weight times its values for `scored`, shape (k,).

    Args:
        term: The term.
        values: What it gave, from `call_on_episodes` or `call_on_steps`, shape (k,).
        scored: The episodes, or the `StepBatch`.

    Raises:
        RewardValueError: A product is beyond `LARGEST`.
    """
    with np.errstate(over="ignore"):  # an infinity is refused like any other large number
        paid = term.weight * values
    beyond = np.abs(paid) > LARGEST
    if beyond.any():
        index = int(beyond.argmax())
        where = (_describe_row if term.dense else describe_episode)(scored, index)
        times = "" if term.weight == 1 else f", times its weight of {term.weight:g},"
        raise RewardValueError(
            f"reward {term.name!r} returned {values[index]:g}{times} for {where}; learners compute "
            f"in float32, so it must be within {LARGEST:g} of 0: divide it by a constant"
        )
    return paid


def check_paid(rewards: NDArray[Any]) -> None:
    """Refuse what an environment paid, wrappers included, if it is too large to learn from.

    Args:
        rewards: Of one step, shape (num_envs,).

    Raises:
        RewardValueError: One is beyond `LARGEST`.
    """
    beyond = np.abs(rewards) > LARGEST
    if beyond.any():
        row = int(beyond.argmax())
        raise RewardValueError(
            f"the environment paid {rewards[row]:g} to row {row}; learners compute in float32, so "
            f"it must be within {LARGEST:g} of 0: scale the rewards down, as "
            "gymnasium.wrappers.vector.TransformReward does"
        )


def describe_episode(episodes: Sequence[Episode], index: int) -> str:
    """One of `episodes` in a few words, for an error message."""
    episode = episodes[index]
    return _describe(index, len(episodes), episode.prompt, episode.text)


def raised(name: str, error: Exception, where: str, function: Any) -> RewardRaisedError:
    """The error to raise when `function`, the reward `name`, has raised `error`."""
    place = place_of(error, function)
    return RewardRaisedError(
        f"reward {name!r} raised {type(error).__name__}: {error}; on {where}"
        + (f"; in {place}" if place else "")
    )


def _score(
    term: RewardTerm, scored: Any, describe: Callable[[Any, int], str]
) -> NDArray[np.float64]:
    count = len(scored)
    if count == 0:
        return np.zeros(0)
    try:
        returned = term.function(scored)
    except RewardError as error:  # an adapter that knows the episode has described it
        if term.name == name_of(term.function):
            raise
        raise type(error)(f"component {term.name!r}: {error}") from (error.__cause__ or error)
    except Exception as error:
        where = f"a batch beginning with {describe(scored, 0)}"
        raise raised(term.name, error, where, term.function) from error
    if hasattr(returned, "detach"):  # a torch tensor, perhaps with a gradient or on a GPU
        returned = returned.detach().cpu().double()
    try:
        values = np.asarray(returned)
    except Exception:  # a ragged list, or a list of tensors that have gradients
        values = np.array(None)
    if values.shape == (count,) and values.dtype.kind in "fiub":
        values = values.astype(np.float64)  # a copy: the function may use its array again
        if np.isfinite(values).all():
            return values
    try:
        items = _items(term.name, returned, values, count)
        return np.array(
            [
                math.nan
                if x is None and term.may_abstain
                else _number(term.name, scored, describe, i, x)
                for i, x in enumerate(items)
            ]
        )
    except RewardError as error:
        place = defined_at(term.function)
        raise type(error)(f"{error}; in {place}" if place else str(error)) from error.__cause__


def _items(name: str, returned: Any, values: NDArray[Any], count: int) -> list[Any]:
    """The values that a reward returned, one by one, if there are `count` of them."""
    if isinstance(returned, list | tuple):
        items = list(returned)
    elif values.ndim == 1:
        items = values.tolist()
    else:
        got = f"an array of shape {values.shape}" if values.ndim else _SHORT.repr(returned)
        raise RewardCountError(
            f"reward {name!r} returned {got}; it must return a list or array of shape ({count},), "
            "one number for each episode"
        )
    if len(items) != count:
        raise RewardCountError(
            f"reward {name!r} returned {len(items)} values for {count} episodes; it must return "
            "one number for each"
        )
    return items


def _number(
    name: str, scored: Any, describe: Callable[[Any, int], str], index: int, item: Any
) -> float:
    value = math.nan
    if not isinstance(item, str | bytes) and getattr(item, "shape", ()) == ():
        try:
            value = float(item.detach() if hasattr(item, "detach") else item)
        except (TypeError, ValueError, OverflowError):
            pass
    if math.isfinite(value):
        return value
    shown = item.item() if isinstance(item, np.generic) else item  # nan, not np.float64(nan)
    raise RewardValueError(
        f"reward {name!r} returned {_SHORT.repr(shown)} for {describe(scored, index)}; "
        "it must be a finite number"
    )


def _describe_row(batch: StepBatch, row: int) -> str:
    start, end = batch.prompt_lengths[row], batch.lengths[row]
    texts = [
        batch.tokenizer.decode(ids.tolist())
        for ids in (batch.tokens[row, :start], batch.tokens[row, start:end])
    ]
    return _describe(row, len(batch), *texts)


def _describe(index: int, count: int, prompt: str, answer: str) -> str:
    return (
        f"episode {index} of {count} (counted from 0; prompt {_SHORT.repr(prompt)}, "
        f"answer {_SHORT.repr(answer)})"
    )
