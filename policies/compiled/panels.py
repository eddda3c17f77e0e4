"""The product of a few rows with a weight that is laid out in panels, one after the other.

A decoding step multiplies a few dozen rows with every weight of a network. General libraries make
such a product in blocks that suit large ones, and wait for each weight to come from memory. Here a
panel of 16 or 32 outputs is read once, front to back. Only as many rows at a time are multiplied
with it as leave all sums in registers. Meanwhile the next panel is fetched, a little with every
step (after Goto and van de Geijn, "Anatomy of High-Performance Matrix Multiplication",
2008, without the copying that pays for large products).

Every output is summed in one order, whatever other rows are there: a row's result does not depend
on the batch it is in.
"""

import numpy as np
from numba import njit, prange
from numpy.typing import NDArray

from policies.compiled.tile import MOST_ROWS, WIDTH, add_tile

CHUNK = 256
"""Inputs that are summed at a time. A panel's share of them, 16 or 32 kB, fits the nearest cache,
and sums of this few numbers round less."""


def pack(weight: NDArray[np.float32]) -> NDArray[np.float32]:
    """A weight (outputs, inputs) as panels (panels, inputs, WIDTH); zeros fill up the last one."""
    outputs, inputs = weight.shape
    panels = np.zeros((-(-outputs // WIDTH), inputs, WIDTH), np.float32)
    whole = outputs // WIDTH
    split = whole * WIDTH
    panels[:whole] = weight[:split].reshape(whole, WIDTH, inputs).transpose(0, 2, 1)
    if split < outputs:
        panels[whole, :, : outputs - split] = weight[split:].T
    return panels


@njit(error_model="numpy", cache=True, nogil=True)
def linear(
    x: NDArray[np.float32],
    panels: NDArray[np.float32],
    bias: NDArray[np.float32],
    out: NDArray[np.float32],
    threads: int,
) -> None:
    """Write `x @ weight.T + bias` to `out`; see `add_product`."""
    for i in range(len(out)):
        for c in range(len(bias)):
            out[i, c] = bias[c]
    add_product(x, panels, out, threads)


@njit(error_model="numpy", cache=True, nogil=True)
def add_product(
    x: NDArray[np.float32], panels: NDArray[np.float32], out: NDArray[np.float32], threads: int
) -> None:
    """Add `x @ weight.T` to `out`.

    Args:
        x: Rows, shape (n, inputs), contiguous.
        panels: The weight, from `pack`.
        out: Shape (n, outputs), contiguous.
        threads: How many share the work.
    """
    if threads == 1:
        _add_some(x, panels, out, 0, len(panels))
    else:
        _add_in_parts(x, panels, out, threads)


@njit(error_model="numpy", cache=True, nogil=True, parallel=True)
def _add_in_parts(x, panels, out, threads):  # type: ignore[no-untyped-def]
    for part in prange(threads):
        begin, end = part * len(panels) // threads, (part + 1) * len(panels) // threads
        _add_some(x, panels, out, begin, end)


@njit(error_model="numpy", cache=True, nogil=True)
def _add_some(x, panels, out, begin, end):  # type: ignore[no-untyped-def]
    """The outputs of the panels from `begin` to `end`."""
    n, inputs = x.shape
    outputs, size = out.shape[1], inputs * WIDTH
    blocks = (n + MOST_ROWS - 1) // MOST_ROWS
    stride = (4 * WIDTH + blocks - 1) // max(blocks, 1)  # bytes a step: a panel while one is read
    # The last panel may be wider than what is left: its sums are made beside and added at the end.
    rest = np.zeros((n if end * WIDTH > outputs else 0, WIDTH), np.float32)
    for panel in range(begin, end):
        whole = (panel + 1) * WIDTH <= outputs
        target, column = (out, panel * WIDTH) if whole else (rest, 0)
        fetched = 4 * (panel + 1) * size  # bytes: where the next panel begins
        for first in range(0, inputs, CHUNK):
            steps, at = min(CHUNK, inputs - first), panel * size + first * WIDTH
            for block in range(blocks):
                # Blocks of nearly equal size: a row alone takes nearly as long as a full block.
                row, end_row = block * n // blocks, (block + 1) * n // blocks
                x_at, out_at = row * inputs + first, row * target.shape[1] + column
                add_tile(
                    x, x_at, end_row - row, steps, panels, at, fetched, stride, target, out_at
                )  # fmt: skip
                fetched += stride * steps
    for r in range(len(rest)):
        for c in range(outputs % WIDTH):
            out[r, outputs - outputs % WIDTH + c] += rest[r, c]
