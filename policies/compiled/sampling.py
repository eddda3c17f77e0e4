"""A token of every row, drawn by inverting its cumulative distribution."""

import numpy as np
from numba import njit, prange
from numpy.typing import NDArray

from policies.compiled.elementwise import BLOCK, SUMS, ZERO, exp, largest_of

LOWEST = np.float32(-np.inf)


@njit(error_model="numpy", cache=True, nogil=True)
def sample(
    logits: NDArray[np.float32],
    uniforms: NDArray[np.float64],
    tokens: NDArray[np.int64],
    logprobs: NDArray[np.float64],
    threads: int,
) -> None:
    """Draw a token of every row.

    Args:
        logits: Shape (n, V); minus infinity rules a token out.
        uniforms: Numbers in [0, 1), shape (n,).
        tokens: Filled with the choices, shape (n,).
        logprobs: Filled with their log-probabilities, shape (n,); NaN if nothing can be chosen.
        threads: How many share the work.
    """
    if threads == 1:
        _sample_some(logits, uniforms, tokens, logprobs, 0, len(logits))
    else:
        _sample_in_parts(logits, uniforms, tokens, logprobs, threads)


@njit(error_model="numpy", cache=True, nogil=True, parallel=True)
def _sample_in_parts(logits, uniforms, tokens, logprobs, threads):  # type: ignore[no-untyped-def]
    n = len(logits)
    for part in prange(threads):
        first, last = part * n // threads, (part + 1) * n // threads
        _sample_some(logits, uniforms, tokens, logprobs, first, last)


@njit(fastmath=SUMS, error_model="numpy", cache=True, nogil=True, forceinline=True)
def _sample_some(logits, uniforms, tokens, logprobs, begin, end):  # type: ignore[no-untyped-def]
    """The rows from `begin` to `end`."""
    vocab_size = logits.shape[1]
    blocks = (vocab_size + BLOCK - 1) // BLOCK
    sums = np.empty(blocks, np.float64)  # of each block, so that only one block is searched
    for i in range(begin, end):
        row = logits[i]
        largest = largest_of(row)
        total = 0.0
        for b in range(blocks):
            block, weights = row[b * BLOCK : (b + 1) * BLOCK], ZERO
            for v in range(len(block)):
                weights += exp(block[v] - largest)
            sums[b] = weights
            total += sums[b]
        # The first block whose upper bound is above the target, and in it the first token. Sums
        # round: if none is above, it is the last one that has any weight.
        target, upper = uniforms[i] * total, 0.0
        below, first = 0.0, 0
        for b in range(blocks):
            if sums[b] > 0.0:
                below, first = upper, b * BLOCK
                upper += sums[b]
                if upper > target:
                    break
        token = first
        # Within the block the weights are computed once more: keeping them all would cost more.
        for t in range(first, min(first + BLOCK, vocab_size)):
            weight = np.float64(exp(row[t] - largest))
            if weight > 0.0:
                token = t
                below += weight
                if below > target:
                    break
        tokens[i] = token
        logprobs[i] = np.float64(row[token] - largest) - np.log(total)


@njit(error_model="numpy", cache=True, nogil=True)
def forbid(logits: NDArray[np.float32], masks: NDArray[np.bool_], threads: int) -> None:
    """Write minus infinity where a token may not be chosen.

    Args:
        logits: Shape (n, V).
        masks: Which tokens may be chosen, shape (n, V), or (1, V) for all rows.
        threads: How many share the work.
    """
    if threads == 1:
        _forbid_some(logits, masks, 0, len(logits))
    else:
        _forbid_in_parts(logits, masks, threads)


@njit(error_model="numpy", cache=True, nogil=True, parallel=True)
def _forbid_in_parts(logits, masks, threads):  # type: ignore[no-untyped-def]
    n = len(logits)
    for part in prange(threads):
        _forbid_some(logits, masks, part * n // threads, (part + 1) * n // threads)


@njit(error_model="numpy", cache=True, nogil=True)
def _forbid_some(logits, masks, begin, end):  # type: ignore[no-untyped-def]
    """The rows from `begin` to `end`."""
    for i in range(begin, end):
        row, mask = logits[i], masks[i if len(masks) > 1 else 0]
        for v in range(len(row)):
            row[v] = row[v] if mask[v] else LOWEST
