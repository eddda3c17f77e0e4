"""What a leaf is worth: by the value head, by continuations that are scored, or by both."""

from dataclasses import dataclass
from typing import ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

from agents.optimisation.bounds import Checked, bounded


class LeafValue(Protocol):
    """How a beginning of an answer is judged.

    Attributes:
        continuations: Answers that are sampled from it and scored.
        stops: Whether it is scored as an answer that ends there, too.
    """

    @property
    def continuations(self) -> int: ...  # noqa: D102
    @property
    def stops(self) -> bool: ...  # noqa: D102

    def __call__(self, value: float, scores: NDArray[np.float64]) -> float:
        """Its worth, from the value head's estimate and the scores of the answers, (k,)."""
        ...


@dataclass(frozen=True)
class ByValue:
    """The value head's estimate, as in AlphaZero: no reward call, but the head must be trained.

    PPO and A2C train one; `agents.returns` says on what.
    """

    continuations: ClassVar[int] = 0
    stops: ClassVar[bool] = False

    def __call__(self, value: float, scores: NDArray[np.float64]) -> float:
        """See `LeafValue`."""
        return value


@dataclass(frozen=True)
class ByContinuations(Checked):
    """The mean score of answers that the policy samples from there.

    It needs no value head and has no bias. Each costs a reward call and the tokens of the rest of
    an answer; all of them count as answers that were found.

    Attributes:
        continuations: Answers that are sampled from each leaf; more are less noisy.
    """

    continuations: int = bounded(1, minimum=1)
    stops: ClassVar[bool] = False

    def __call__(self, value: float, scores: NDArray[np.float64]) -> float:
        """See `LeafValue`."""
        return float(scores.mean())


@dataclass(frozen=True)
class ByBoth(Checked):
    """A mixture of both: (1 - share) value + share mean score (AlphaGo, Silver et al., 2016).

    Attributes:
        continuations: Answers that are sampled from each leaf.
        share: Weight of their mean score.
    """

    continuations: int = bounded(1, minimum=1)
    stops: ClassVar[bool] = False
    share: float = bounded(0.5, minimum=0, maximum=1)

    def __call__(self, value: float, scores: NDArray[np.float64]) -> float:
        """See `LeafValue`."""
        return (1 - self.share) * value + self.share * float(scores.mean())


@dataclass(frozen=True)
class ByStopping:
    """What the answer would earn if it ended there: one reward call, and no token.

    For rewards that tell something of unfinished answers, as a sentiment or a reward model does:
    Khanov et al., "ARGS: Alignment as Reward-Guided Search" (2024), arXiv:2402.01694. Not for those
    that only a whole answer can earn. There must be a stop token that is allowed everywhere.
    """

    continuations: ClassVar[int] = 0
    stops: ClassVar[bool] = True

    def __call__(self, value: float, scores: NDArray[np.float64]) -> float:
        """See `LeafValue`."""
        return float(scores.mean())


ONE_CONTINUATION = ByContinuations()
"""The judgement of a search that says nothing else."""
