"""Sequences shared out among the minibatches of an epoch."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray


def split_evenly(
    counts: NDArray[np.int64], order: NDArray[np.int64], size: int | None
) -> Iterator[NDArray[np.int64]]:
    """Whole sequences, as many to a minibatch as have about `size` tokens together.

    All minibatches get about the same share: the last one is not a small remainder.

    Args:
        counts: Tokens of each sequence, shape (S,), int64.
        order: In which order sequences are taken, a permutation of range(S), shape (S,), int64.
        size: Tokens of a minibatch; None puts all sequences into one.

    Yields:
        Sequences of one minibatch, shape (k,), int64, k >= 1.
    """
    if size is None:
        yield order
        return
    counts = counts[order]
    pieces = max(1, round(counts.sum() / size))
    middles = np.cumsum(counts) - counts / 2
    piece = (middles * pieces / counts.sum()).astype(int)
    for number in range(pieces):
        chosen = order[piece == number]
        if len(chosen):
            yield chosen
