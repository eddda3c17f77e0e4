"""A token of every row by the Gumbel-max trick, its noise made on the way from one number a row."""

import math

import numpy as np
from numba import njit, prange
from numpy.typing import NDArray

from policies.compiled.elementwise import BLOCK, SUMS, ZERO, exp, largest_of

GOLDEN, FIRST, SECOND = (
    np.uint64(x) for x in (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB)
)
"""The constants of SplitMix64; see `textenv.seeding.draw_seed`, which computes the same numbers."""

_S30, _S27, _S31, _S40, _S11 = (np.uint64(x) for x in (30, 27, 31, 40, 11))
_COARSE, _SLACK = np.float32(2.0**-24), np.float32(1.000001)
_FINE, _LATEST = 2.0**-53, 3e38


@njit(error_model="numpy", cache=True, nogil=True)
def sample_gumbel(
    logits: NDArray[np.float32],
    keys: NDArray[np.uint64],
    tokens: NDArray[np.int64],
    logprobs: NDArray[np.float64],
    threads: int,
) -> None:
    """Take the token of every row whose exponential clock rings first; `policies.sampling`.

    Args:
        logits: Shape (n, V); minus infinity rules a token out.
        keys: What each row's noise is made of, shape (n,).
        tokens: Filled with the choices, shape (n,).
        logprobs: Filled with their log-probabilities, shape (n,); NaN if nothing can be chosen.
        threads: How many share the work.
    """
    if threads == 1:
        _sample_some(logits, keys, tokens, logprobs, 0, len(logits))
    else:
        _sample_in_parts(logits, keys, tokens, logprobs, threads)


@njit(error_model="numpy", cache=True, nogil=True, parallel=True)
def _sample_in_parts(logits, keys, tokens, logprobs, threads):  # type: ignore[no-untyped-def]
    n = len(logits)
    for part in prange(threads):
        first, last = part * n // threads, (part + 1) * n // threads
        _sample_some(logits, keys, tokens, logprobs, first, last)


@njit(error_model="numpy", cache=True, inline="always")
def _mixed(state):  # type: ignore[no-untyped-def]
    """The output of SplitMix64 in this state."""
    z = (state ^ (state >> _S30)) * FIRST
    z = (z ^ (z >> _S27)) * SECOND
    return z ^ (z >> _S31)


@njit(fastmath=SUMS, error_model="numpy", cache=True, nogil=True, forceinline=True)
def _sample_some(logits, keys, tokens, logprobs, begin, end):  # type: ignore[no-untyped-def]
    """The rows from `begin` to `end`."""
    vocab_size = logits.shape[1]
    for i in range(begin, end):
        row, key = logits[i], keys[i]
        largest = largest_of(row)
        token, earliest, total = 0, _LATEST, 0.0
        for first in range(0, vocab_size, BLOCK):
            block = row[first : first + BLOCK]
            # A clock rings at -log(1 - w) / weight, which is w / weight or later. So the logarithm
            # is taken only in blocks where that is before the earliest ring so far: in few.
            bound, weights, early = np.float32(earliest) * _SLACK, ZERO, 0
            for v in range(len(block)):
                weight = exp(block[v] - largest)
                z = _mixed(key + np.uint64(first + v + 1) * GOLDEN)
                weights += weight
                early += np.float32(np.int32(z >> _S40)) * _COARSE < bound * weight
            total += np.float64(weights)
            if early == 0:
                continue
            for v in range(len(block)):
                weight = np.float64(exp(block[v] - largest))
                z = _mixed(key + np.uint64(first + v + 1) * GOLDEN)
                w = (np.float64(z >> _S11) + 0.5) * _FINE
                if w < earliest * weight:
                    ring = -math.log1p(-w) / weight
                    if ring < earliest:
                        token, earliest = first + v, ring
        tokens[i] = token
        logprobs[i] = np.float64(row[token] - largest) - np.log(total)
