"""The coefficient of the KL penalty over time.

A controller is a value: `update` returns the next one and changes nothing. A learner holds it like
any other number, and a checkpoint keeps its plain `state()`.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Protocol, Self


class KLController(Protocol):
    """What a learner asks of a KL coefficient."""

    @property
    def coef(self) -> float:
        """The coefficient to use now."""
        ...

    def update(self, kl: float, n: int) -> Self:
        """The controller to use after `n` more sequences whose mean KL was `kl`."""
        ...

    def state(self) -> dict[str, float]:
        """What has changed since construction, for a checkpoint."""
        ...

    def with_state(self, state: Mapping[str, float]) -> Self:
        """The same controller at a saved `state()`."""
        ...


@dataclass(frozen=True)
class FixedKL:
    """A coefficient that stays the same.

    Use it when a good coefficient is known, or when runs are compared: all of them then maximise
    the same objective. Use `AdaptiveKL` when it is the KL that should stay the same.

    Attributes:
        coef: The coefficient, in reward per nat, at least 0; 0 turns the penalty off.

    Raises:
        ValueError: If `coef` is negative or not finite.
    """

    coef: float

    def __post_init__(self) -> None:
        if not 0 <= self.coef < math.inf:
            raise ValueError(f"coef must be a finite number of at least 0, got {self.coef}")

    def update(self, kl: float, n: int) -> Self:
        """This controller itself; the measured KL changes nothing."""
        return self

    def state(self) -> dict[str, float]:
        """Empty: the coefficient is an argument, not a state."""
        return {}

    def with_state(self, state: Mapping[str, float]) -> Self:
        """This controller; a state with entries is of another controller and raises a TypeError."""
        return replace(self, **state)


@dataclass(frozen=True)
class AdaptiveKL:
    """A coefficient that steers the KL to a target.

        error = clip((KL - target) / target, -0.2, 0.2)
        coef <- coef * (1 + error * min(n / horizon, 1))

    Use it when it is known how far the policy may go from the reference, but not which coefficient
    keeps it there. A longer horizon moves the coefficient more slowly; with an endless one it is
    `FixedKL`. The objective changes during the run, so compare the scores of two runs at equal KL.

    Ziegler et al., "Fine-Tuning Language Models from Human Preferences" (2019), arXiv:1909.08593,
    section 2.2, with the horizon of their code. The minimum is ours: without it a batch of more
    than five horizons could turn the coefficient negative.

    Attributes:
        initial: The first coefficient, in reward per nat.
        target: The KL to keep, in the unit of `update`'s `kl`; nats per sequence in the paper.
        horizon: Number of sequences over which a full error moves the coefficient by 20%; larger
            is slower.
        scale: The factor reached so far.

    Raises:
        ValueError: If a number is not positive and finite.
    """

    initial: float
    target: float
    horizon: float
    scale: float = 1.0

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if not 0 < value < math.inf:
                raise ValueError(f"{name} must be a positive finite number, got {value}")

    @property
    def coef(self) -> float:
        """The coefficient now."""
        return self.initial * self.scale

    def update(self, kl: float, n: int) -> Self:
        """The controller to use after `n` more sequences whose mean KL was `kl`.

        Raises:
            ValueError: If `kl` is NaN or `n` is negative.
        """
        if math.isnan(kl) or n < 0:
            raise ValueError(f"kl must be a number and n at least 0, got kl={kl} and n={n}")
        error = max(-0.2, min(0.2, (kl - self.target) / self.target))
        return replace(self, scale=self.scale * (1 + error * min(n / self.horizon, 1)))

    def state(self) -> dict[str, float]:
        """The factor reached so far."""
        return {"scale": self.scale}

    def with_state(self, state: Mapping[str, float]) -> Self:
        """The same controller at a saved `state()`."""
        return replace(self, **state)
