"""The sequences of an epoch, divided among its minibatches."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from agents.distribution.shares import cut_evenly


def split_evenly(
    counts: NDArray[np.int64], order: NDArray[np.int64], size: int | None
) -> Iterator[NDArray[np.int64]]:
    """Minibatches of whole sequences, with about `size` tokens each.

    All minibatches have about the same number of tokens: the last one is not a small remainder.

    Args:
        counts: Tokens of each sequence, shape (S,), int64.
        order: The order in which sequences are taken: a permutation of range(S), shape (S,), int64.
        size: Tokens of a minibatch; None puts all sequences into one.

    Yields:
        Sequences of one minibatch, shape (k,), int64, k >= 1.
    """
    if size is None:
        yield order
        return
    counts = counts[order]
    pieces = max(1, round(counts.sum() / size))
    for places in cut_evenly(counts, pieces):
        if len(places):  # a sequence longer than two pieces leaves one empty
            yield order[places]
