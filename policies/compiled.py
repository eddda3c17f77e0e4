"""The inner loops of a decoding step, compiled by Numba: attention over stored rows, and sampling.

Plain loops over one row at a time, which a compiler makes fast: nothing is padded to the longest
row, and nothing is written that is not asked for. `policies.kernels` says when they are used; what
they compute is checked against torch.
"""

import numpy as np
from numba import njit
from numpy.typing import NDArray

_SUMS = {"reassoc", "contract", "arcp", "nsz"}
"""Sums may be reordered, so that they can be vectorised; infinities and NaN keep their meaning."""

_LOG2E, _HALF, _ONE, _ZERO = (np.float32(x) for x in (1.4426950408889634, 0.5, 1.0, 0.0))
_LN2_HIGH, _LN2_LOW = np.float32(0.693359375), np.float32(-2.12194440e-4)
_C2, _C3, _C4, _C5, _C6 = (np.float32(1 / n) for n in (2, 6, 24, 120, 720))
_LOWEST = np.float32(-87.0)
_BIAS, _MANTISSA = np.int32(127), np.int32(23)

BLOCK = 128
"""Weights are summed over blocks of this size, so that only one block is gone through."""


@njit(fastmath={"contract"}, error_model="numpy", cache=True)
def _exp(x: np.float32) -> np.float32:
    """exp(x) for x <= 0, relative error 3e-7; 0 below -87. Unlike `math.exp` it is vectorised.

    exp(x) = 2**n exp(r) with n the integer nearest to x / ln 2, so that |r| <= ln 2 / 2, where six
    terms of the series suffice (Cody and Waite, "Software Manual for the Elementary Functions",
    1980).
    """
    y = max(x, _LOWEST)
    n = np.int32(y * _LOG2E - _HALF)
    r = (y - np.float32(n) * _LN2_HIGH) - np.float32(n) * _LN2_LOW
    series = ((((_C6 * r + _C5) * r + _C4) * r + _C3) * r + _C2) * r * r + r + _ONE
    power = np.int32((n + _BIAS) << _MANTISSA).view(np.float32)
    return _ZERO if x < _LOWEST else series * power


@njit(fastmath=_SUMS, error_model="numpy", cache=True, nogil=True)
def attend(
    new: NDArray[np.float32],
    keys: NDArray[np.float32],
    values: NDArray[np.float32],
    rows: NDArray[np.int64],
    positions: NDArray[np.int64],
    scale: np.float32,
    window: int,
    out: NDArray[np.float32],
) -> None:
    """Write new keys and values into their rows; then let every query look at its own row.

    Args:
        new: Queries, keys and values of the new tokens side by side, shape (N, heads + 2 key heads,
            d); neighbouring query heads share a key head.
        keys: All keys, shape (rows, width, key heads, d).
        values: All values, as `keys`.
        rows: Row of each new token, shape (N,).
        positions: Its position in that row, shape (N,).
        scale: Scores are multiplied by it.
        window: So many positions are seen, the query's own included.
        out: For the outputs, shape (N, heads, d).
    """
    n, heads, d = out.shape
    key_heads = keys.shape[2]
    share = heads // key_heads
    for i in range(n):
        keys[rows[i], positions[i]] = new[i, heads : heads + key_heads]
        values[rows[i], positions[i]] = new[i, heads + key_heads :]
    weights = np.empty((heads, keys.shape[1]), np.float32)
    for i in range(n):
        row, end = rows[i], positions[i] + 1
        begin = max(0, end - window)
        for j in range(begin, end):
            for h in range(heads):
                score = _ZERO
                for c in range(d):
                    score += new[i, h, c] * keys[row, j, h // share, c]
                weights[h, j - begin] = score * scale
        for h in range(heads):
            largest, total = weights[h, : end - begin].max(), _ZERO
            for j in range(end - begin):
                weight = _exp(weights[h, j] - largest)
                weights[h, j] = weight
                total += weight
            for j in range(end - begin):
                weights[h, j] /= total
        out[i] = _ZERO
        for j in range(begin, end):
            for h in range(heads):
                weight = weights[h, j - begin]
                for c in range(d):
                    out[i, h, c] += weight * values[row, j, h // share, c]


@njit(fastmath=_SUMS, error_model="numpy", cache=True, nogil=True)
def sample(
    logits: NDArray[np.float32],
    uniforms: NDArray[np.float64],
    tokens: NDArray[np.int64],
    logprobs: NDArray[np.float64],
) -> None:
    """Draw a token of every row by inverting its cumulative distribution.

    Args:
        logits: Shape (n, V); minus infinity rules a token out.
        uniforms: Numbers in [0, 1), shape (n,).
        tokens: For the choices, shape (n,).
        logprobs: For their log-probabilities, shape (n,); NaN if there is nothing to choose from.
    """
    n, vocab_size = logits.shape
    blocks = (vocab_size + BLOCK - 1) // BLOCK
    sums = np.empty(blocks, np.float64)
    for i in range(n):
        row = logits[i]
        largest = row.max()
        total = 0.0
        for b in range(blocks):
            block = _ZERO
            for token in range(b * BLOCK, min((b + 1) * BLOCK, vocab_size)):
                block += _exp(row[token] - largest)
            sums[b] = block
            total += sums[b]
        # The first block whose upper bound is above the target, and in it the first token. Sums
        # round: should none be above, it is the last that has any weight.
        target, upper = uniforms[i] * total, 0.0
        below, first = 0.0, 0
        for b in range(blocks):
            if sums[b] > 0.0:
                below, first = upper, b * BLOCK
                upper += sums[b]
                if upper > target:
                    break
        token = first
        for t in range(first, min(first + BLOCK, vocab_size)):
            weight = np.float64(_exp(row[t] - largest))
            if weight > 0.0:
                token = t
                below += weight
                if below > target:
                    break
        tokens[i] = token
        logprobs[i] = np.float64(row[token] - largest) - np.log(total)
