"""Which tokens a key is about: it comes some tenths of a second after what it means.

Knox and Stone, "Interactively Shaping Agents via Human Reinforcement: The TAMER Framework" (2009):
people react with a delay, so a key's reward is shared among what was shown then.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

DELAY = (0.2, 0.8)
"""Seconds from what is shown to the key about it, at least and at most (Knox and Stone, 2009)."""


class Press(NamedTuple):
    """A key.

    Attributes:
        at: When it was pressed, in seconds of the person's clock.
        reward: What it says, such as 1 or -1.
    """

    at: float
    reward: float


def credit(
    shown: ArrayLike, end: float, at: float, delay: tuple[float, float] = DELAY
) -> NDArray[np.float64]:
    """How much of a key's reward belongs to each token: shares that sum to at most 1.

    The share of a token is the probability that the delay of the key falls into the time for which
    the token was the last one on the screen; the delay is uniform between its bounds.

    Args:
        shown: When each token was shown, shape (n,), rising.
        end: When the last of them was no longer the last one.
        at: When the key was pressed.
        delay: Least and largest delay, in seconds.

    >>> credit([0.0, 0.5, 1.0], 1.5, at=1.2, delay=(0.2, 0.8)).round(3).tolist()
    [0.167, 0.833, 0.0]
    """
    begins = np.asarray(shown, dtype=np.float64)
    ends = np.append(begins[1:], end)
    least, most = delay
    # The moments that the key may be about.
    overlap = np.minimum(ends, at - least) - np.maximum(begins, at - most)
    return np.clip(overlap, 0, None) / (most - least)
