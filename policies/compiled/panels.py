"""The product of a few rows with a weight that is laid out in panels, one after the other.

A decoding step multiplies a few dozen rows with every weight of a network. General libraries make
such a product in blocks that suit large ones, and wait for each weight to come from memory. Here a
panel of 16 outputs is read once, front to back; at most six rows at a time are multiplied with it,
so that all sums stay in registers (12 of the 16 that AVX2 has); and while that goes on, the next
panel is fetched, a little with every step (Goto and van de Geijn, "Anatomy of High-Performance
Matrix Multiplication", 2008, without the copying that their large products need).

Every output is summed in one order, whatever other rows are there: a row's result does not depend
on the batch it is in.

Numba compiles all of it; only the innermost loop is put together from LLVM's vector instructions,
since no compiler finds it by itself. `policies.kernels` says when it is used.
"""

from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit, prange, types
from numba.core import cgutils
from numba.extending import intrinsic
from numpy.typing import NDArray

LANES = 8
"""Numbers in a register of AVX2."""

WIDTH = 2 * LANES
"""Outputs of a panel."""

MOST_ROWS = 6
"""Rows that are multiplied at a time."""

CHUNK = 256
"""Inputs that are summed at a time: a panel's share of them stays in the nearest cache, and sums
of so few numbers round less."""

_FLOAT, _INT32 = ir.FloatType(), ir.IntType(32)
_VECTOR = ir.VectorType(_FLOAT, LANES)
_INTO_L2 = 2


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


@intrinsic
def _add_tile(
    typing: Any, x: Any, row: Any, rows: Any, first: Any, last: Any, panels: Any, panel: Any,
    ahead: Any, stride: Any, out: Any, column: Any,
) -> Any:  # fmt: skip
    """Add x[row : row + rows, first:last] @ panels[panel, first:last] to `out` at row and column.

    At each of the steps from `first` to `last` the memory `ahead` bytes behind the beginning of
    the panels is fetched, and `ahead` goes on by `stride`.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        x, row, rows, first, last, panels, panel, ahead, stride, out, column = arguments
        x, panels, out = (
            context.make_array(kind)(context, builder, value)
            for kind, value in zip(
                (signature.args[0], signature.args[5], signature.args[9]),
                (x, panels, out),
                strict=True,
            )
        )
        inputs, outputs = (builder.extract_value(array.shape, 1) for array in (x, out))
        weights = builder.gep(
            panels.data, [builder.mul(builder.mul(panel, inputs), inputs.type(WIDTH))]
        )
        fetched = builder.gep(
            builder.bitcast(panels.data, cgutils.voidptr_t),
            [builder.sub(ahead, builder.mul(first, stride))],
        )

        def places(array: Any, width: Any, count: int) -> list[Any]:
            numbers = [builder.add(row, row.type(r)) for r in range(count)]
            return [builder.gep(array.data, [builder.mul(n, width)]) for n in numbers]

        for count in range(1, MOST_ROWS + 1):
            with builder.if_then(builder.icmp_signed("==", rows, rows.type(count))):
                targets = [builder.gep(p, [column]) for p in places(out, outputs, count)]
                values = places(x, inputs, count)
                _multiply(builder, values, weights, first, last, fetched, stride, targets)
        return context.get_dummy_value()

    return types.void(
        x, row, rows, first, last, panels, panel, ahead, stride, out, column
    ), generate


def _multiply(
    builder: Any, values: Any, weights: Any, first: Any, last: Any, fetched: Any, stride: Any,
    targets: Any,
) -> None:  # fmt: skip
    """The loop over inputs, for a number of rows that is known."""
    halves = range(WIDTH // LANES)
    integer, address = first.type, _VECTOR.as_pointer()
    undefined, zero = ir.Constant(_VECTOR, ir.Undefined), ir.Constant(_VECTOR, None)
    all_lanes = ir.Constant(ir.VectorType(_INT32, LANES), None)
    fetch = cgutils.get_or_insert_function(
        builder.module,
        ir.FunctionType(ir.VoidType(), [cgutils.voidptr_t, _INT32, _INT32, _INT32]),
        "llvm.prefetch.p0",
    )

    def vectors(base: Any) -> list[Any]:
        starts = [builder.gep(base, [integer(LANES * h)]) for h in halves]
        return [builder.bitcast(start, address) for start in starts]

    sums = [[cgutils.alloca_once_value(builder, zero) for _ in halves] for _ in values]
    with cgutils.for_range_slice(builder, first, last, integer(1)) as (i, _):
        soon = builder.gep(fetched, [builder.mul(i, stride)])
        builder.call(fetch, [soon, _INT32(0), _INT32(_INTO_L2), _INT32(1)])
        line = builder.gep(weights, [builder.mul(i, integer(WIDTH))])
        columns = [builder.load(place, align=4) for place in vectors(line)]
        for start, totals in zip(values, sums, strict=True):
            value = builder.load(builder.gep(start, [i]))
            value = builder.insert_element(undefined, value, _INT32(0))
            value = builder.shuffle_vector(value, undefined, all_lanes)
            for total, column in zip(totals, columns, strict=True):
                product = builder.fmul(value, column, flags=("contract",))
                added = builder.fadd(builder.load(total), product, flags=("contract",))
                builder.store(added, total)
    for target, totals in zip(targets, sums, strict=True):
        for place, total in zip(vectors(target), totals, strict=True):
            before = builder.load(place, align=4)
            builder.store(builder.fadd(before, builder.load(total)), place, align=4)


@njit(error_model="numpy", cache=True, nogil=True)
def add_product(
    x: NDArray[np.float32], panels: NDArray[np.float32], out: NDArray[np.float32], threads: int
) -> None:
    """Add `x @ weight.T` to `out`.

    Args:
        x: Rows, shape (n, inputs).
        panels: The weight, from `pack`.
        out: Shape (n, outputs).
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
    outputs = out.shape[1]
    blocks = (n + MOST_ROWS - 1) // MOST_ROWS
    stride = (4 * WIDTH + blocks - 1) // max(blocks, 1)  # so that a pass fetches a panel
    rest = np.zeros((n if end * WIDTH > outputs else 0, WIDTH), np.float32)
    for panel in range(begin, end):
        whole = (panel + 1) * WIDTH <= outputs
        target, column = (out, panel * WIDTH) if whole else (rest, 0)
        ahead = 4 * WIDTH * inputs * (panel + 1)
        for first in range(0, inputs, CHUNK):
            last = min(first + CHUNK, inputs)
            for block in range(blocks):
                # Blocks of nearly equal size: six rows and one left over would wait for the one.
                row = block * n // blocks
                rows = (block + 1) * n // blocks - row
                _add_tile(
                    x, row, rows, first, last, panels, panel, ahead, stride, target, column
                )  # fmt: skip
                ahead += stride * (last - first)
    for r in range(len(rest)):
        for c in range(outputs % WIDTH):
            out[r, outputs - outputs % WIDTH + c] += rest[r, c]
