"""The sequences of an epoch, divided among its minibatches."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray


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
    # Lay all sequences end to end and cut the line into equal pieces. A sequence belongs to the
    # piece that holds its middle: it is never split, and each piece is off by half a sequence.
    middles = np.cumsum(counts) - counts / 2
    piece = (middles * pieces / counts.sum()).astype(int)
    for number in range(pieces):
        chosen = order[piece == number]
        if len(chosen):  # a sequence longer than two pieces leaves one empty
            yield chosen
