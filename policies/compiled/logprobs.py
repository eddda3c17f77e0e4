"""Log-probabilities and entropies of chosen tokens; probabilities are kept for the gradient."""

import numpy as np
from numba import njit, prange
from numpy.typing import NDArray

from policies.compiled.elementwise import BLOCK, SUMS, ZERO, exp, largest_of


@njit(error_model="numpy", cache=True, nogil=True)
def fill(
    logits: NDArray[np.float32],
    tokens: NDArray[np.int64],
    logprobs: NDArray[np.float32],
    entropies: NDArray[np.float32],
    threads: int,
) -> None:
    """Turn logits into probabilities in place; write log-probabilities and entropies of choices.

    Args:
        logits: Shape (n, V); probabilities are written in their place.
        tokens: Choices, shape (n,).
        logprobs: Filled with their log-probabilities, shape (n,).
        entropies: Filled with the entropies of the distributions, shape (n,), nats.
        threads: How many share the work.
    """
    if threads == 1:
        _fill_some(logits, tokens, logprobs, entropies, 0, len(logits))
    else:
        _fill_in_parts(logits, tokens, logprobs, entropies, threads)


@njit(error_model="numpy", cache=True, nogil=True, parallel=True)
def _fill_in_parts(logits, tokens, logprobs, entropies, threads):  # type: ignore[no-untyped-def]
    n = len(logits)
    for part in prange(threads):
        first, last = part * n // threads, (part + 1) * n // threads
        _fill_some(logits, tokens, logprobs, entropies, first, last)


@njit(fastmath=SUMS, error_model="numpy", cache=True, nogil=True, forceinline=True)
def _fill_some(logits, tokens, logprobs, entropies, begin, end):  # type: ignore[no-untyped-def]
    """The rows from `begin` to `end`.

    With w = exp(z - largest): p = w / sum of w, entropy = log(sum of w) - sum of p (z - largest).
    """
    vocab_size = logits.shape[1]
    for i in range(begin, end):
        row = logits[i]
        largest = largest_of(row)
        # Read now: the loop below overwrites the row.
        chosen = np.float64(row[tokens[i]] - largest)
        total, weighted = 0.0, 0.0
        # Sums of a block in float32, which can be vectorised; sums of blocks in float64, which
        # keep small probabilities beside large ones.
        for first in range(0, vocab_size, BLOCK):
            block = row[first : first + BLOCK]
            weights, products = ZERO, ZERO
            for v in range(len(block)):
                below = block[v] - largest
                weight = exp(below)
                weights += weight
                products += weight * below
                block[v] = weight
            total += np.float64(weights)
            weighted += np.float64(products)
        log_total = np.log(total)
        logprobs[i] = chosen - log_total
        entropies[i] = log_total - weighted / total
        # One division a row instead of one an entry.
        scale = np.float32(1.0 / total)
        for v in range(vocab_size):
            row[v] *= scale
