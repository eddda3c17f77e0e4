"""Random streams that are addressed, not advanced.

The k-th prompt of a row is a pure function of the row's key and of k. Nothing but the counter k has
to be saved to resume a stream, and the rows of a group read the same stream at their own pace.
"""

from collections.abc import Sequence

import numpy as np
from gymnasium.utils import seeding
from numpy.typing import NDArray

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def row_keys(seeds: Sequence[int | None]) -> NDArray[np.uint64]:
    """One stream key for each seed, shape (len(seeds),); fresh entropy where the seed is None."""
    keys = [seeding.np_random(seed)[0].integers(2**64, dtype=np.uint64) for seed in seeds]
    return np.array(keys, dtype=np.uint64)


def draw_seeds(keys: NDArray[np.uint64], draws: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The 64-bit seed of draw number `draws` in the stream `keys`, both of shape (n,).

    SplitMix64 (Steele, Lea and Flood, 2014): the output for state `key + draw * golden ratio`.
    """
    z = keys + (draws + np.uint64(1)) * _GOLDEN
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))
