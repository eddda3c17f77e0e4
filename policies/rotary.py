"""Rotary positions, and how they are stretched so that a network reads longer texts.

Su et al., "RoFormer" (2021), arXiv:2104.09864: pairs of a query's and a key's numbers are turned by
an angle that grows with the position, so that their product depends on the distance alone. A
network that was trained with short texts has never seen the angles of long ones. A scaling makes
the slow pairs turn more slowly, so that long texts look like short ones.

The frequencies are those of transformers' register of the same names, number for number. Left out:
frequencies that change with the longest text of a batch (`dynamic` beyond the trained length,
`longrope`). A key that was stored would then be another one a step later; `NTK` is the form of
`dynamic` for one length that is known beforehand.
"""

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor

from textenv.errors import ModelError


@dataclass(frozen=True)
class Linear:
    """Positions divided by `factor` (Chen et al., 2023, arXiv:2306.15595); wants some training.

    Attributes:
        factor: How many times longer texts become.
    """

    factor: float

    def stretched(self, theta: float, d: int) -> tuple[Tensor, float]:
        """See `Scaling`."""
        return frequencies(theta, d) / self.factor, 1.0


@dataclass(frozen=True)
class NTK:
    """A larger base: slow pairs are stretched by `factor`, quick ones hardly; needs no training.

    The base becomes theta * factor ** (d / (d - 2)). This is transformers' `dynamic` at the one
    length whose factor it is, see `NTK.at`.

    Attributes:
        factor: How many times longer the slowest pair's turn takes.
    """

    factor: float

    @classmethod
    def at(cls, length: int, trained: int, factor: float) -> Self:
        """What `dynamic` of this `factor` is for texts of `length`, trained with `trained`."""
        return cls(max(factor * length / trained - (factor - 1), 1.0))

    def stretched(self, theta: float, d: int) -> tuple[Tensor, float]:
        """See `Scaling`.

        Raises:
            ModelError: A head has one pair, which turns by 1 whatever the base.
        """
        if d < 4:
            raise ModelError(
                f"NTK stretches by a larger base, and a head of {d} numbers has one pair, which "
                "does not depend on it: take Linear (--rope-scaling linear)"
            )
        return frequencies(theta * self.factor ** (d / (d - 2)), d), 1.0


@dataclass(frozen=True)
class YaRN:
    """Quick pairs as they are, slow ones divided by `factor`, a ramp between them.

    Peng et al., "YaRN" (2023), arXiv:2309.00071. Which is which depends on how often a pair turns
    within the trained length. The turned vectors also grow a little.

    Attributes:
        factor: How many times longer texts become.
        trained: Longest text of the training before.
        beta_fast: Pairs that turn more often are left alone.
        beta_slow: Pairs that turn less often are stretched by `factor`.
        magnitude: Factor of the turned vectors; 0.1 ln(factor) + 1 if None.
        whole: Whether the ramp begins and ends at whole pairs.
    """

    factor: float
    trained: int
    beta_fast: float = 32.0
    beta_slow: float = 1.0
    magnitude: float | None = None
    whole: bool = True

    def stretched(self, theta: float, d: int) -> tuple[Tensor, float]:
        """See `Scaling`."""

        def pair(turns: float) -> float:  # the pair that turns so often within the trained length
            return d * math.log(self.trained / (turns * 2 * math.pi)) / (2 * math.log(theta))

        low, high = pair(self.beta_fast), pair(self.beta_slow)
        if self.whole:
            low, high = math.floor(low), math.ceil(high)
        low, high = max(low, 0), min(high, d - 1)
        width = high - low or 0.001
        slow = ((torch.arange(d // 2, dtype=torch.float32) - low) / width).clamp(0, 1)
        quick = frequencies(theta, d)
        magnitude = yarn_growth(self.factor) if self.magnitude is None else self.magnitude
        return quick / self.factor * slow + quick * (1 - slow), magnitude


def yarn_growth(factor: float, slope: float = 1.0) -> float:
    """How much vectors grow for texts that are `factor` times longer: 0.1 slope ln(factor) + 1."""
    return 0.1 * slope * math.log(factor) + 1.0 if factor > 1 else 1.0


@dataclass(frozen=True)
class Llama3:
    """Llama 3.1's: by wavelength, with a smooth step between stretched and not.

    Grattafiori et al., "The Llama 3 Herd of Models" (2024), arXiv:2407.21783.

    Attributes:
        factor: Waves longer than `trained / low` are stretched by it.
        trained: Longest text of the training before.
        low: See `factor`.
        high: Waves shorter than `trained / high` are left alone.
    """

    factor: float
    trained: int
    low: float = 1.0
    high: float = 4.0

    def stretched(self, theta: float, d: int) -> tuple[Tensor, float]:
        """See `Scaling`."""
        plain = frequencies(theta, d)
        turns = self.trained * plain / (2 * math.pi)  # within the trained length
        kept = ((turns - self.low) / (self.high - self.low)).clamp(0, 1)
        return (1 - kept) * plain / self.factor + kept * plain, 1.0


Scaling = Linear | NTK | YaRN | Llama3
"""How rotary frequencies are stretched.

`stretched(theta, d)` has the base of the frequencies and the numbers of a head, and gives radians a
position, shape (d / 2,), float32, and a factor of the turned vectors.
"""

SCALINGS: dict[str, type[Scaling]] = {
    "linear": Linear,
    "ntk": NTK,
    "yarn": YaRN,
    "llama3": Llama3,
}
"""Scalings by the names that files and the command line use."""


@dataclass(frozen=True)
class Rope:
    """Rotary positions of a network.

    Attributes:
        theta: The base of the frequencies: pair i of a head of d numbers turns by
            theta ** (-2 i / d) radians a position.
        scaling: How frequencies are stretched; not at all if None.
    """

    theta: float = 10_000.0
    scaling: Scaling | None = None

    def table(self, context: int, d: int) -> Tensor:
        """Cosines and sines of every position's angles, shape (2, context, d / 2), float32."""
        if self.scaling is None:
            turns, magnitude = frequencies(self.theta, d), 1.0
        else:
            turns, magnitude = self.scaling.stretched(self.theta, d)
        angles = torch.arange(context, dtype=torch.float32)[:, None] * turns
        return torch.stack([angles.cos(), angles.sin()]) * magnitude

    def as_json(self) -> dict[str, Any]:
        """What `from_json` reads."""
        if self.scaling is None:
            return {"theta": self.theta}
        (kind,) = (name for name, made in SCALINGS.items() if type(self.scaling) is made)
        return {"theta": self.theta, "scaling": {"kind": kind, **dataclasses.asdict(self.scaling)}}

    @classmethod
    def from_json(cls, known: Mapping[str, Any]) -> Self:
        """The one that `as_json` wrote.

        Raises:
            KeyError: The scaling's kind is unknown.
        """
        scaling = known.get("scaling")
        if scaling is not None:
            numbers = dict(scaling)
            scaling = SCALINGS[numbers.pop("kind")](**numbers)
        return cls(known["theta"], scaling)


def frequencies(theta: float, d: int) -> Tensor:
    """Radians a position of each pair, theta ** (-2 i / d), shape (d / 2,), float32."""
    return 1.0 / theta ** (torch.arange(0, d, 2, dtype=torch.float32) / d)


def turned(x: Tensor, turns: Tensor) -> Tensor:
    """Vectors (N, heads, d), turned; pair i is made of numbers i and i + d / 2.

    Args:
        x: Queries or keys.
        turns: Cosines and sines of each token's angles, shape (2, N, d / 2).
    """
    cos, sin = turns.to(x.dtype).unsqueeze(2)
    first, second = x.chunk(2, dim=-1)
    return torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1)
