"""When to end a training early: rules on its updates.

    for update in until(learner.updates(1_000_000), BeyondKL(15.0), PastBest(component("judge"))):
        print(update.score)

A reward model is wrong about answers unlike those it was fitted to. Beyond some distance from the
reference its score still rises while the answers get worse (docs/reward_models.md). The distance is
known at every update; whether answers get worse, only somebody else can say: a judge that is a
component of the reward with weight 0, or a few answers that people look at.
"""

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import TypeAlias

from agents.runs.update import Update
from textenv.errors import UnmetNeedError

Rule: TypeAlias = Callable[[Update], bool]
"""Whether this update is the last one."""

Measure: TypeAlias = Callable[[Update], float]
"""A number of an update; NaN if it has none."""


def until(updates: Iterable[Update], *rules: Rule) -> Iterator[Update]:
    """The updates up to the first that a rule ends, which is given too."""
    for update in updates:
        yield update
        if any([rule(update) for rule in rules]):  # every rule sees every update
            return


def component(name: str) -> Measure:
    """What a part of a weighted reward has paid on average, such as a judge with weight 0.

    >>> judge = component("judge")

    The measure raises a KeyError if the reward has no such part.
    """
    return lambda update: update.components[name]


@dataclass(frozen=True)
class BeyondKL:
    """Ends once the answers are this far from the reference: KL(policy || reference).

    Attributes:
        nats: Largest KL, in nats per answer (not per token, as `Update.kl` is).
    """

    nats: float

    def __call__(self, update: Update) -> bool:
        """Whether the update's answers are further away.

        Raises:
            UnmetNeedError: The learner has no reference.
        """
        if update.kl is None:
            raise UnmetNeedError(
                f"to stop beyond {self.nats} nats there must be a KL: give the learner "
                "reference=policy.frozen_copy()"
            )
        return update.kl * update.tokens_per_answer > self.nats


@dataclass(frozen=True)
class Above:
    """Ends once a number is larger than a limit, such as `component("spread")` of an ensemble.

    Attributes:
        measure: The number.
        limit: Largest value.
    """

    measure: Measure
    limit: float

    def __call__(self, update: Update) -> bool:
        """Whether the number is larger."""
        return self.measure(update) > self.limit


@dataclass
class PastBest:
    """Ends once a number has not been as good as its best for some updates.

    The number is averaged over the latest updates, as one update's answers are few. Where training
    ends, the best is some updates ago: save the policy as you go, or take a small `patience`. Make
    a new rule for each training.

    Attributes:
        measure: The number; higher is better.
        patience: Updates without a new best after which it ends.
        smoothing: Updates that are averaged.
        best: The best average so far.
        best_update: `Update.number` of the last update in it; 0 if there is none yet.
    """

    measure: Measure
    patience: int = 5
    smoothing: int = 3
    best: float = field(default=-math.inf, init=False)
    best_update: int = field(default=0, init=False)
    _seen: list[float] = field(default_factory=list, init=False, repr=False)
    _since: int = field(default=0, init=False, repr=False)

    def __call__(self, update: Update) -> bool:
        """Whether the best is `patience` updates ago."""
        value = self.measure(update)
        if math.isnan(value):
            return False
        self._seen = [*self._seen, value][-self.smoothing :]
        if len(self._seen) < self.smoothing:
            return False
        mean = sum(self._seen) / self.smoothing
        self._since += 1
        if mean > self.best:
            self.best, self.best_update, self._since = mean, update.number, 0
        return self._since >= self.patience
