"""Functions of one number or of one row: exponential, GELU, SiLU, largest number, norms."""

import math

import numpy as np
from numba import njit
from numpy.typing import NDArray

SUMS = {"reassoc", "contract", "arcp", "nsz"}
"""Sums may be reordered, so that they can be vectorised; infinities and NaN keep their meaning."""

BLOCK = 128
"""Weights of a vocabulary are summed over blocks of this size, and the sums in double precision."""

ZERO, HALF, ONE = (np.float32(x) for x in (0.0, 0.5, 1.0))

_LOG2E = np.float32(1.4426950408889634)
_LN2_HIGH, _LN2_LOW = np.float32(0.693359375), np.float32(-2.12194440e-4)
_C2, _C3, _C4, _C5, _C6 = (np.float32(1 / n) for n in (2, 6, 24, 120, 720))
_LOWEST = np.float32(-87.0)
_BIAS, _MANTISSA = np.int32(127), np.int32(23)

_ROOT_HALF = np.float32(math.sqrt(0.5))
_P = np.float32(0.3275911)
_A1, _A2, _A3, _A4, _A5 = (
    np.float32(a) for a in (0.254829592, -0.284496736, 1.421413741, -1.453152027, 1.061405429)
)


@njit(fastmath={"contract"}, error_model="numpy", cache=True)
def exp(x: np.float32) -> np.float32:
    """The exponential of x <= 0, relative error 3e-7; 0 below -87. `math.exp` is not vectorised.

    exp(x) = 2**n exp(r) with n the integer nearest to x / ln 2, so that |r| <= ln 2 / 2, where six
    terms of the series suffice (Cody and Waite, "Software Manual for the Elementary Functions",
    1980).
    """
    y = max(x, _LOWEST)
    n = np.int32(y * _LOG2E - HALF)
    r = (y - np.float32(n) * _LN2_HIGH) - np.float32(n) * _LN2_LOW
    series = ((((_C6 * r + _C5) * r + _C4) * r + _C3) * r + _C2) * r * r + r + ONE
    power = np.int32((n + _BIAS) << _MANTISSA).view(np.float32)
    return ZERO if x < _LOWEST else series * power


@njit(fastmath={"contract"}, error_model="numpy", cache=True)
def gelu(x: np.float32) -> np.float32:
    """The exact GELU, x Phi(x), with an absolute error below 1e-6.

    Phi(-a sqrt 2) = erfc(a) / 2 by formula 7.1.26 of Abramowitz and Stegun, "Handbook of
    Mathematical Functions", 1964.
    """
    a = abs(x) * _ROOT_HALF
    t = ONE / (ONE + _P * a)
    series = ((((_A5 * t + _A4) * t + _A3) * t + _A2) * t + _A1) * t
    tail = HALF * series * exp(-a * a)
    return x * (tail if x < ZERO else ONE - tail)


@njit(fastmath={"contract"}, error_model="numpy", cache=True)
def silu(x: np.float32) -> np.float32:
    """SiLU, x sigmoid(x); the exponential is that of -|x|, so that nothing overflows."""
    e = exp(-abs(x))
    return x * (ONE if x >= ZERO else e) / (ONE + e)


@njit(fastmath=SUMS, error_model="numpy", cache=True, nogil=True)
def largest_of(row: NDArray[np.float32]) -> np.float32:
    """The largest number of a row. NumPy's `max` looks for NaN too, and takes longer."""
    largest = row[0]
    for i in range(len(row)):
        largest = max(largest, row[i])
    return largest


@njit(fastmath=SUMS, error_model="numpy", cache=True, nogil=True)
def _sum_of(row: NDArray[np.float32]) -> np.float32:
    total = ZERO
    for i in range(len(row)):
        total += row[i]
    return total


@njit(fastmath=SUMS, error_model="numpy", cache=True, nogil=True)
def _squares_around(row: NDArray[np.float32], mean: np.float32) -> np.float32:
    """The sum of the squared distances from `mean`."""
    total = ZERO
    for i in range(len(row)):
        total += (row[i] - mean) ** 2
    return total


# Not with SUMS: sums may be reordered only in functions that write to no array. LLVM compiles a
# loop that writes to one array and reads another twice, and takes the slow form where the arrays
# lie closer together than what it handles at a time. Reordered, the two forms round differently,
# so that the last bits would depend on where memory happened to be free.
@njit(fastmath={"contract"}, error_model="numpy", cache=True, nogil=True)
def layer_norm(
    x: NDArray[np.float32],
    weight: NDArray[np.float32],
    bias: NDArray[np.float32],
    eps: np.float32,
) -> NDArray[np.float32]:
    """Rows (n, width) with mean 0 and variance 1, times `weight`, plus `bias`."""
    n, width = x.shape
    out = np.empty_like(x)
    for i in range(n):
        # Two passes: the mean of squares less the square of the mean would lose digits.
        mean = _sum_of(x[i]) / np.float32(width)
        square = _squares_around(x[i], mean)
        scale = ONE / np.sqrt(square / np.float32(width) + eps)
        for c in range(width):
            out[i, c] = (x[i, c] - mean) * scale * weight[c] + bias[c]
    return out


@njit(fastmath={"contract"}, error_model="numpy", cache=True, nogil=True)
def rms_norm(
    x: NDArray[np.float32], weight: NDArray[np.float32], eps: np.float32
) -> NDArray[np.float32]:
    """Rows (n, width) with a mean square of 1, times `weight`."""
    n, width = x.shape
    out = np.empty_like(x)
    for i in range(n):
        square = _squares_around(x[i], ZERO)
        scale = ONE / np.sqrt(square / np.float32(width) + eps)
        for c in range(width):
            out[i, c] = x[i, c] * scale * weight[c]
    return out
