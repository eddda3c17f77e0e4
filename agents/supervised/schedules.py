"""Learning rates over the steps of a training, as factors of the peak.

A schedule is a function of a step's number, from 1, and of the number of steps in all. `Cosine` is
the one of GPT-2 and GPT-3; `Constant` suits a training whose length is not known beforehand.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

from textenv.errors import OptionError

Schedule = Callable[[int, int], float]
"""Number of a step, from 1, and steps in all, to a factor of the peak learning rate."""


@dataclass(frozen=True)
class Cosine:
    """A linear warm-up, then half a cosine down to a floor, where it stays.

    Brown et al., "Language Models are Few-Shot Learners" (2020), appendix B: down to a tenth, over
    260 of 300 billion tokens.

    Attributes:
        warmup: Steps in which the rate rises; below 1 a share of `length`.
        floor: What it falls to.
        length: Steps until it is there, those of the warm-up included; all of them if None.
    """

    warmup: float = 0.05
    floor: float = 0.1
    length: int | None = None

    def __call__(self, step: int, steps: int) -> float:
        """See `Schedule`; an `OptionError` if the warm-up takes all steps."""
        done, warmup = _place(step, self.length or steps, self.warmup)
        return learning_rate_factor(min(done, 1.0), warmup, self.floor)


@dataclass(frozen=True)
class LinearDecay:
    """A linear warm-up, then a straight line down to a floor; the attributes are `Cosine`'s."""

    warmup: float = 0.05
    floor: float = 0.0
    length: int | None = None

    def __call__(self, step: int, steps: int) -> float:
        """See `Schedule`; an `OptionError` if the warm-up takes all steps."""
        done, warmup = _place(step, self.length or steps, self.warmup)
        if done < warmup:
            return done / warmup
        rest = (min(done, 1.0) - warmup) / (1 - warmup)
        return 1 - (1 - self.floor) * rest


@dataclass(frozen=True)
class Constant:
    """A linear warm-up, then the peak.

    Attributes:
        warmup: Steps in which the rate rises; below 1 a share of all.
    """

    warmup: float = 0.0

    def __call__(self, step: int, steps: int) -> float:
        """See `Schedule`; an `OptionError` if the warm-up takes all steps."""
        done, warmup = _place(step, steps, self.warmup)
        return done / warmup if done < warmup else 1.0


def learning_rate_factor(done: float, warmup: float, floor: float = 0.1) -> float:
    """Linear warm-up to 1, then half a cosine down to `floor`; `done` runs from 0 to 1."""
    if done < warmup or warmup == 1:
        return done / warmup
    rest = (done - warmup) / (1 - warmup)
    return floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * rest))


def _place(step: int, length: int, warmup: float) -> tuple[float, float]:
    """Shares of `length`: how far the step is, and the warm-up."""
    if warmup >= max(length, 1):
        raise OptionError(
            f"a warm-up of {warmup:g} steps does not fit into {length}: the learning rate would "
            "only rise; give fewer, or a share below 1"
        )
    return step / length, warmup if warmup < 1 else warmup / length


@dataclass(frozen=True)
class BatchRamp:
    """Steps of more and more windows: many cheap ones at first, when gradients agree anyway.

    The number grows in a straight line with the tokens that were read (Brown et al., 2020, appendix
    B: from 32,000 tokens to the full value over the first 4 to 12 billion tokens).

    Attributes:
        start: Windows of the first step.
        tokens: Tokens until the full number.
    """

    start: int
    tokens: int

    def __post_init__(self) -> None:
        """Refuse a ramp of no windows."""
        if self.start < 1:
            raise ValueError(f"the first step has {self.start} windows; it needs 1 or more")

    def windows(self, tokens: int, full: int) -> int:
        """Windows of a step before which `tokens` were read, of `full` at the end."""
        if tokens >= self.tokens:
            return full
        return min(self.start + (full - self.start) * tokens // self.tokens, full)
