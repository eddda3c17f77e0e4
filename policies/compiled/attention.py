"""Softmax attention of new tokens over the stored rows that they continue."""

import numpy as np
from numba import njit, prange
from numpy.typing import NDArray

from policies.compiled.elementwise import SUMS, ZERO, exp


@njit(error_model="numpy", cache=True, nogil=True)
def attend(
    new: NDArray[np.float32],
    keys: NDArray[np.float32],
    values: NDArray[np.float32],
    rows: NDArray[np.int64],
    positions: NDArray[np.int64],
    scale: np.float32,
    window: int,
    out: NDArray[np.float32],
    threads: int,
) -> None:
    """Write new keys and values into their rows; then let every query look at its own row.

    Args:
        new: Queries, keys and values of the new tokens side by side, shape (N, heads + 2 key heads,
            d); neighbouring query heads share a key head.
        keys: All keys, shape (rows, width, key heads, d).
        values: All values, as `keys`.
        rows: Row of each new token, shape (N,).
        positions: Its position in that row, shape (N,).
        scale: Attention logits are multiplied by it.
        window: This many positions are seen, the query's own included.
        out: Filled with the outputs, shape (N, heads, d).
        threads: How many share the work.
    """
    # All keys are written before any query looks: a row may have several new tokens.
    n, heads, d = out.shape
    key_heads = keys.shape[2]
    for i in range(n):
        for h in range(key_heads):
            for c in range(d):
                keys[rows[i], positions[i], h, c] = new[i, heads + h, c]
                values[rows[i], positions[i], h, c] = new[i, heads + key_heads + h, c]
    if threads == 1:
        _attend_some(new, keys, values, rows, positions, scale, window, out, 0, n)
    else:
        _attend_in_parts(new, keys, values, rows, positions, scale, window, out, threads)


@njit(error_model="numpy", cache=True, nogil=True, parallel=True)
def _attend_in_parts(new, keys, values, rows, positions, scale, window, out, threads):  # type: ignore[no-untyped-def]
    n = len(out)
    for part in prange(threads):
        first, last = part * n // threads, (part + 1) * n // threads
        _attend_some(new, keys, values, rows, positions, scale, window, out, first, last)


@njit(fastmath=SUMS, error_model="numpy", cache=True, nogil=True, forceinline=True)
def _attend_some(new, keys, values, rows, positions, scale, window, out, first, last):  # type: ignore[no-untyped-def]
    """The tokens from `first` to `last`."""
    _, heads, d = out.shape
    share = heads // keys.shape[2]
    weights = np.empty((heads, keys.shape[1]), np.float32)
    for i in range(first, last):
        row, end = rows[i], positions[i] + 1
        begin = max(0, end - window)
        # Positions outside, heads inside: the keys of a position lie together in memory.
        for j in range(begin, end):
            for h in range(heads):
                logit = ZERO
                for c in range(d):
                    logit += new[i, h, c] * keys[row, j, h // share, c]
                weights[h, j - begin] = logit * scale
        # Softmax; the largest logit is subtracted, so that nothing overflows.
        for h in range(heads):
            largest, total = weights[h, 0], ZERO
            for j in range(end - begin):
                largest = max(largest, weights[h, j])
            for j in range(end - begin):
                weight = exp(weights[h, j] - largest)
                weights[h, j] = weight
                total += weight
            for j in range(end - begin):
                weights[h, j] /= total
        # The weighted sum of the values, again in the order in which they lie in memory.
        for h in range(heads):
            for c in range(d):
                out[i, h, c] = ZERO
        for j in range(begin, end):
            for h in range(heads):
                weight = weights[h, j - begin]
                for c in range(d):
                    out[i, h, c] += weight * values[row, j, h // share, c]
