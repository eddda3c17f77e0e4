"""Every way through a procedure that chooses among finitely many things, one after the other.

    ways, found = Ways(), []
    while ways.more():
        draws = Draws(ways)  # in place of a generator
        found.append((draws.integers(2), draws.choice(["a", "b"]), draws.logprob))

lists all four outcomes with their log-probabilities. Only what is counted can be listed: `integers`
and `choice`. Numbers of a continuum (`random`, `normal`) cannot.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from textenv.errors import WorldError


class Ways:
    """Goes depth first through all sequences of choices; the procedure is run once for each."""

    def __init__(self) -> None:
        self._path: list[int] = []  # which one was taken at each choice of this run
        self._counts: list[int] = []  # out of how many
        self._at = 0  # choices of this run so far
        self._begun = False

    def more(self) -> bool:
        """Begin the next run; False when all have been made."""
        self._at = 0
        if not self._begun:
            self._begun = True
            return True
        while self._path and self._path[-1] + 1 == self._counts[-1]:
            self._path.pop()
            self._counts.pop()
        if self._path:
            self._path[-1] += 1
        return bool(self._path)

    def choose(self, count: int) -> int:
        """Which of `count` things is taken in this run.

        Raises:
            WorldError: An earlier run that went the same way had another number of them here.
        """
        if self._at == len(self._path):
            self._path.append(0)
            self._counts.append(count)
        elif self._counts[self._at] != count:
            raise WorldError(
                f"the same draws led to {count} possibilities where there were "
                f"{self._counts[self._at]} before: all chance must come from the generator that "
                "begin and reply are given, and nothing may be kept from one episode to the next"
            )
        self._at += 1
        return self._path[self._at - 1]


class Draws:
    """Takes the place of a `numpy.random.Generator`, and takes every outcome in turn.

    Args:
        ways: Where each draw is one choice.

    Attributes:
        logprob: Log-probability of all draws so far.
    """

    def __init__(self, ways: Ways):
        self._ways = ways
        self.logprob = 0.0

    def integers(
        self, low: int, high: int | None = None, size: Any = None, *, endpoint: bool = False
    ) -> Any:
        """As `Generator.integers`, for single bounds."""
        first, end = (0, low) if high is None else (low, high)
        return self.choice(np.arange(first, end + endpoint), size)

    def choice(
        self, a: int | Sequence[Any] | ArrayLike, size: Any = None, *, p: ArrayLike | None = None
    ) -> Any:
        """As `Generator.choice`, with replacement."""
        outcomes = np.arange(a) if isinstance(a, int | np.integer) else np.asarray(a)
        weights = np.full(len(outcomes), 1 / len(outcomes)) if p is None else np.asarray(p, float)
        if size is None:
            return outcomes[self._draw(weights)]
        drawn = [self._draw(weights) for _ in range(math.prod(np.atleast_1d(size)))]
        return outcomes[np.reshape(drawn, size)]

    def _draw(self, weights: np.ndarray[Any, Any]) -> int:
        possible = np.flatnonzero(weights)
        drawn = int(possible[self._ways.choose(len(possible))])
        self.logprob += math.log(weights[drawn])
        return drawn

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # what Python itself looks for
            raise AttributeError(name)
        raise WorldError(
            f"rng.{name} cannot be listed outcome by outcome: draw with rng.integers, or with "
            "rng.choice([...], p=[...])"
        )
