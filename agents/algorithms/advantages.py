"""Advantages as values: sums, mixtures and schedules that any policy gradient takes.

    GRPO(advantage=0.8 * Own() + 0.2 * Extra("teacher"))
    PPO(advantage=Own() + linear(1.0, 0.0) * Following(Extra("steps")))

What is added is a function of a rollout that gives (S,) for whole sequences or (S, L) for tokens:
one of the classes here, or a function of one's own. The rollout's `advantages` are the algorithm's
own, `extra` holds what an `annotate` hook has added, `progress` is the share of the training that
is done.

A policy gradient is linear in the advantages, so that of a mixture is the mixture of the gradients.
Where the loss standardises what it is given (`PPO`, `VinePPO`, `TreePO`), only the proportions of
the parts count.

Nothing here imports torch, so the command line can show an algorithm's fields at once.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, TypeAlias

from agents import returns
from agents.algorithm import Algorithm, Needs
from agents.optimisation.bounds import bounded, check_fields
from textenv.errors import AnnotationError, OptionError, UnmetNeedError
from textenv.loading import load_function
from textenv.records import short

if TYPE_CHECKING:
    from torch import Tensor

    from agents.rollout import Rollout

AdvantageFunction: TypeAlias = Callable[..., Any]
"""From a rollout to (S,) or (S, L); without the names of the arrays' types, which need torch."""
Weight: TypeAlias = float | Callable[[float], float]
"""A number, or a function from the share of the training that is done to one."""


class Advantage(ABC):
    """Base class of the values: `a + b` is a sum, `weight * a` a weighted one.

    Subclasses are frozen dataclasses: equal ones are the same setting, and a run's configuration
    names one by its module (`--advantage file.py:name`).

    Attributes:
        needs: What it cannot be computed without; the algorithm that takes it then needs it, too.
    """

    needs: ClassVar[Needs] = Needs()

    @abstractmethod
    def __call__(self, rollout: Rollout) -> Tensor:
        """How much better each sequence (S,), or each choice (S, L), was than expected."""

    def __add__(self, other: AdvantageFunction) -> Mixture:
        """The sum of both."""
        return Mixture((*_parts(self), *_parts(other)))

    def __radd__(self, other: AdvantageFunction) -> Mixture:
        """The sum of a plain function and this one."""
        return Mixture((*_parts(other), *_parts(self)))

    def __rmul__(self, weight: Weight) -> Mixture:
        """This one with a weight; of a mixture, as a whole."""
        return Mixture(((weight, self),))


@dataclass(frozen=True)
class Mixture(Advantage):
    """A weighted sum: sum over k of w_k(progress) A_k, best written with `+` and `*`.

    A part of shape (S,) counts at every token of its sequence, as it would alone. Weights need not
    sum to 1: a loss that does not standardise its advantages takes a step as large as they are.

    Attributes:
        parts: Pairs of a weight and a function of a rollout.

    Raises:
        OptionError: There are no parts, or one is no pair of these.
    """

    parts: tuple[tuple[Weight, AdvantageFunction], ...]

    def __post_init__(self) -> None:
        """Refuse what cannot be added, and collect what the parts need."""
        if not self.parts:
            raise OptionError("a Mixture has no parts: give (weight, advantage) pairs")
        for weight, part in self.parts:
            number = isinstance(weight, int | float) and math.isfinite(weight)
            if not number and not callable(weight):
                raise OptionError(
                    f"the weight of {short(part)} is {short(weight)}; it must be a finite number "
                    "or a function of the share of the training that is done, such as "
                    "linear(1.0, 0.0)"
                )
            if not callable(part):
                raise OptionError(f"{short(part)} is no function of a rollout: write weight * part")
        needs = together(needs_of(part) for _, part in self.parts)
        object.__setattr__(self, "needs", needs)

    def __call__(self, rollout: Rollout) -> Tensor:
        """The weighted sum; (S,) if all parts are, else (S, L) and 0 outside the mask."""
        found = [part(rollout) for _, part in self.parts]
        if any(part.dim() == 2 for part in found):
            found = [spread(part, rollout) for part in found]
        weights = [_now(weight, rollout.progress) for weight, _ in self.parts]
        first, *others = (w * part for w, part in zip(weights, found, strict=True))
        return sum(others, first)


@dataclass(frozen=True)
class Own(Advantage):
    """The algorithm's own advantages, as they would be without a mixture."""

    def __call__(self, rollout: Rollout) -> Tensor:
        """(S,) or (S, L), whatever the algorithm gives."""
        if rollout.advantages is None:
            raise UnmetNeedError(
                "Own() is what the algorithm that takes the mixture gives, and the rollout has no "
                "advantages yet: pass the mixture as advantage=, or set rollout.advantages"
            )
        return rollout.advantages


@dataclass(frozen=True)
class AdvantagesOf(Advantage):
    """Those of another algorithm, with its fields.

    `AdvantagesOf(GRPO())` is standardised within each group, `AdvantagesOf(RLOO())` compares with
    the mean of the others, `AdvantagesOf(A2C(gamma=0.9, gae_lambda=0.95))` is GAE. Its loss and its
    other settings are not used, and neither are clips.

    Attributes:
        algorithm: The algorithm.

    Raises:
        OptionError: It is none, or it plays on for its advantages: use that one as the algorithm,
            and `Own()` in the mixture.
    """

    algorithm: Algorithm

    def __post_init__(self) -> None:
        """Refuse an algorithm whose advantages do not follow from the rollout."""
        if not isinstance(self.algorithm, Algorithm):
            raise OptionError(
                f"{short(self.algorithm)} is no algorithm; write AdvantagesOf(RLOO())"
            )
        if type(self.algorithm).look_ahead is not Algorithm.look_ahead:
            name = type(self.algorithm).__name__
            raise OptionError(
                f"{name} plays on from places in a rollout for its advantages: make it the "
                f"algorithm, {name}(advantage=Own() + ...)"
            )
        # What its loss compares with does not matter here.
        object.__setattr__(self, "needs", self.algorithm.needs)

    def __call__(self, rollout: Rollout) -> Tensor:
        """(S,) or (S, L), whatever it gives."""
        own = dataclasses.replace(rollout, advantages=self.algorithm.advantages(rollout))
        return self.algorithm.mix(own)


@dataclass(frozen=True)
class Extra(Advantage):
    """What an `annotate` hook has added: a teacher's log-ratio, rewards of steps, anything.

    It is taken as it is. `Following` sums what follows each token; a part that is to be compared
    within its group needs a function of its own.

    Attributes:
        name: Its name in `rollout.extra`.
    """

    name: str

    def __call__(self, rollout: Rollout) -> Tensor:
        """(S,), or (S, L) and 0 outside the mask.

        Raises:
            AnnotationError: The rollout has nothing of that name.
        """
        extra = rollout.extra or {}
        if self.name not in extra:
            raise AnnotationError(
                f"the advantage reads rollout.extra[{self.name!r}], and there is "
                f"{', '.join(map(repr, extra)) or 'nothing'} in it: give the learner "
                f"annotate=function, which returns {{{self.name!r}: tensor}}"
            )
        found = extra[self.name]
        return found if found.dim() == 1 else found.where(rollout.mask, 0.0)


@dataclass(frozen=True)
class LogRatio(Advantage):
    """The reference's log-probability of each chosen token less the policy's at sampling.

        A_t = log p(a_t | text) - log pi(a_t | text)

    With a teacher as the reference this is minus the reverse KL by token: on-policy distillation
    (Agarwal et al., 2023, arXiv:2306.13649; Gu et al., "MiniLLM", 2023, arXiv:2306.08543). By
    itself it judges each token alone; `Following(LogRatio())` adds what it leads to, and is then
    the exact gradient of minus the KL of whole answers.
    """

    needs: ClassVar[Needs] = Needs(reference=True)

    def __call__(self, rollout: Rollout) -> Tensor:
        """(S, L), 0 outside the mask.

        Raises:
            UnmetNeedError: There is no reference.
        """
        if rollout.ref_logprobs is None:
            raise UnmetNeedError(
                "LogRatio compares the policy with a reference and there is none: pass "
                "reference=teacher"
            )
        return (rollout.ref_logprobs - rollout.logprobs).where(rollout.mask, 0.0)


@dataclass(frozen=True)
class Following(Advantage):
    """The discounted sum of another advantage from each token on: reward to go.

        B_t = A_t + gamma B_{t+1}    over chosen tokens

    Use it for rewards of tokens or steps, whose credit goes to all that came before. It has no
    baseline; its size grows with the answer's length.

    Attributes:
        part: What is summed; it gives (S, L).
        gamma: Discount for each chosen token, 0 to 1; 0 sums nothing.
    """

    part: AdvantageFunction
    gamma: float = bounded(1.0, minimum=0, maximum=1)

    def __post_init__(self) -> None:
        """Refuse a discount out of its bounds."""
        check_fields(self)
        object.__setattr__(self, "needs", needs_of(self.part))

    def __call__(self, rollout: Rollout) -> Tensor:
        """(S, L), 0 outside the mask.

        Raises:
            ValueError: The part gives one number for a sequence.
        """
        paid: Tensor = self.part(rollout)
        # Nothing is known of what comes behind the end of a rollout.
        nothing = paid.new_zeros(len(rollout))
        return returns.discounted_returns(paid, rollout.mask, nothing, self.gamma)


@dataclass(frozen=True)
class Piecewise:
    """A weight that goes in straight lines from point to point, and is level outside them.

    Attributes:
        points: Pairs (share of the training done, weight), shares rising from 0 to 1.

    Raises:
        OptionError: There are no points, or their shares do not rise within 0 to 1.
    """

    points: tuple[tuple[float, float], ...]

    def __post_init__(self) -> None:
        """Refuse points that give no line."""
        shares = [share for share, _ in self.points]
        rising = all(a < b for a, b in itertools.pairwise(shares))
        if not shares or not rising or not 0 <= shares[0] <= shares[-1] <= 1:
            raise OptionError(
                f"the points are {self.points}; they must be (share, weight) pairs with shares "
                "that rise within 0 to 1"
            )

    def __call__(self, done: float) -> float:
        """The weight once this share of the training is done."""
        (share, weight), *following = self.points
        if done <= share:
            return weight
        for next_share, next_weight in following:
            if done <= next_share:
                part = (done - share) / (next_share - share)
                return weight + part * (next_weight - weight)
            share, weight = next_share, next_weight
        return weight


def linear(start: float, end: float) -> Piecewise:
    """A weight that goes from `start` to `end` in a straight line over the whole training."""
    return Piecewise(((0.0, start), (1.0, end)))


@dataclass(frozen=True)
class PolicyGradient(Algorithm):
    """Base class of algorithms whose loss multiplies advantages, and which take a mixture of them.

    Attributes:
        advantage: What multiplies the gradient instead of the algorithm's own advantages: a value
            of `agents.algorithms.advantages` or a function of a rollout, which gives (S,) or
            (S, L), or the name of one. The value head, if there is one, is fitted as without it.

    Raises:
        OptionError: It is something else, or it reads values and the algorithm trains none.
        ObjectNotFoundError: The module or file, or what it names there, does not exist.
    """

    advantage: str | AdvantageFunction | None = dataclasses.field(
        default=None, metadata={"metavar": "FILE:NAME"}
    )

    def __post_init__(self) -> None:
        """Refuse numbers out of their bounds, and what is no advantage."""
        super().__post_init__()
        if self.advantage is None:
            return
        needs = needs_of(_function(self.advantage))
        if needs.values and not self.needs.values:
            raise OptionError(
                f"the advantage {short(self.advantage)} reads values, and {type(self).__name__} "
                "trains none: use it with PPO, A2C or REINFORCE"
            )
        object.__setattr__(self, "needs", together([type(self).needs, needs]))

    def mix(self, rollout: Rollout) -> Tensor:
        """What `advantage` says of the rollout; without it the algorithm's own advantages."""
        assert rollout.advantages is not None
        if self.advantage is None:
            return rollout.advantages
        found: Tensor = _function(self.advantage)(rollout)
        by_token = 2 in (found.dim(), rollout.advantages.dim())
        return spread(found, rollout) if by_token else found


def spread(advantages: Tensor, rollout: Rollout) -> Tensor:
    """One number for each token, (S, L), 0 outside the mask, from (S,) or (S, L)."""
    wide = advantages if advantages.dim() == 2 else advantages[:, None]
    return wide.expand(rollout.mask.shape).where(rollout.mask, 0.0)


def needs_of(advantage: AdvantageFunction) -> Needs:
    """What an advantage cannot be computed without; a plain function says nothing of it."""
    found: Needs = getattr(advantage, "needs", Needs())
    return found


def together(needs: Iterable[Needs]) -> Needs:
    """All that any of them needs."""
    return Needs(*(any(needed) for needed in zip(*needs, strict=True)))


def _function(advantage: str | AdvantageFunction) -> AdvantageFunction:
    """The function that an advantage is, or is the name of."""
    if callable(advantage):
        return advantage
    if not isinstance(advantage, str):
        raise OptionError(
            f"advantage is {short(advantage)}; it must be a function of a rollout, such as "
            "0.8 * Own() + 0.2 * Extra('teacher'), or file.py:name"
        )
    return load_function(advantage, "the advantage", "a rollout")


def _parts(advantage: AdvantageFunction) -> tuple[tuple[Weight, AdvantageFunction], ...]:
    """The parts of a mixture; anything else is one of weight 1."""
    return advantage.parts if isinstance(advantage, Mixture) else ((1.0, advantage),)


def _now(weight: Weight, progress: float) -> float:
    return weight(progress) if callable(weight) else weight
