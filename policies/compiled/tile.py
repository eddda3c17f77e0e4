"""The innermost loop of a product, in LLVM's vector instructions.

A few rows at a time are multiplied with a panel, which is two registers wide, so that all sums stay
in registers. With AVX2 the sums of six rows, two registers of weights and one with a row's number
fill 15 of 16 registers. AVX-512 has 32, enough for fourteen rows, but eleven were faster, perhaps
because rows that lie a power of two apart share places of the nearest cache. Compilers do not find
this by themselves.
"""

from typing import Any

from llvmlite import binding, ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

_AVX512 = binding.get_host_cpu_features().get("avx512f", False)

LANES = 16 if _AVX512 else 8
"""Numbers in a register."""

WIDTH = 2 * LANES
"""Outputs of a panel."""

MOST_ROWS = 11 if _AVX512 else 6
"""Rows that are multiplied at a time."""

LINE = 64
"""Bytes that are fetched at once."""

_INT32 = ir.IntType(32)
_VECTOR = ir.VectorType(ir.FloatType(), LANES)
_UNDEFINED, _ZERO = ir.Constant(_VECTOR, ir.Undefined), ir.Constant(_VECTOR, None)
_ALL_LANES = ir.Constant(ir.VectorType(_INT32, LANES), None)
_FOR_READING, _INTO_L2, _OF_DATA = _INT32(0), _INT32(2), _INT32(1)


@intrinsic
def add_tile(
    typing: Any, x: Any, x_at: Any, rows: Any, steps: Any, panels: Any, panels_at: Any,
    fetched: Any, stride: Any, out: Any, out_at: Any,
) -> Any:  # fmt: skip
    """Add the product of some rows with a part of a panel to `out`.

        out[r, c] += sum over i < steps of x[r, i] * panel[i, c],   r < rows, c < WIDTH

    where x[0, 0] is number `x_at` in the array `x`, and so on. At each step as many bytes as a
    panel has for one input are fetched into the second cache, starting `fetched` bytes behind the
    beginning of `panels`, then `stride` bytes further.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        x, x_at, rows, steps, panels, panels_at, fetched, stride, out, out_at = arguments
        x, panels, out = (
            context.make_array(signature.args[i])(context, builder, arguments[i]) for i in (0, 4, 8)
        )

        def starts(array: Any, at: Any, count: int) -> list[Any]:
            width = builder.extract_value(array.shape, 1)
            return [
                builder.gep(array.data, [builder.add(at, builder.mul(width, width.type(r)))])
                for r in range(count)
            ]

        # One loop is generated for each number of rows, since registers have no index: the right
        # one is chosen when the function runs.
        weights = builder.gep(panels.data, [panels_at])
        memory = builder.gep(builder.bitcast(panels.data, cgutils.voidptr_t), [fetched])
        for count in range(1, MOST_ROWS + 1):
            with builder.if_then(builder.icmp_signed("==", rows, rows.type(count))):
                values, targets = starts(x, x_at, count), starts(out, out_at, count)
                _multiply(builder, values, weights, steps, memory, stride, targets)
        return context.get_dummy_value()

    return types.void(
        x, x_at, rows, steps, panels, panels_at, fetched, stride, out, out_at
    ), generate  # fmt: skip


def _multiply(
    builder: Any, rows: Any, weights: Any, steps: Any, memory: Any, stride: Any, targets: Any
) -> None:
    """The loop over inputs, for a number of rows that is known when it is compiled."""
    integer, halves = steps.type, range(WIDTH // LANES)
    fetch = cgutils.get_or_insert_function(
        builder.module,
        ir.FunctionType(ir.VoidType(), [cgutils.voidptr_t, _INT32, _INT32, _INT32]),
        "llvm.prefetch.p0",
    )

    def vectors(start: Any) -> list[Any]:
        places = [builder.gep(start, [integer(LANES * half)]) for half in halves]
        return [builder.bitcast(place, _VECTOR.as_pointer()) for place in places]

    # Stack slots, which LLVM turns into registers.
    sums = [[cgutils.alloca_once_value(builder, _ZERO) for _ in halves] for _ in rows]
    with cgutils.for_range(builder, steps) as loop:
        i = loop.index
        soon = builder.gep(memory, [builder.mul(i, stride)])
        for byte in range(0, 4 * WIDTH, LINE):
            place = builder.gep(soon, [integer(byte)])
            builder.call(fetch, [place, _FOR_READING, _INTO_L2, _OF_DATA])
        start = builder.gep(weights, [builder.mul(i, integer(WIDTH))])
        columns = [builder.load(place, align=4) for place in vectors(start)]
        for row, totals in zip(rows, sums, strict=True):
            # One number of the row, repeated in all lanes of a register.
            number = builder.load(builder.gep(row, [i]))
            number = builder.insert_element(_UNDEFINED, number, _INT32(0))
            number = builder.shuffle_vector(number, _UNDEFINED, _ALL_LANES)
            for total, column in zip(totals, columns, strict=True):
                # "contract" lets both become one fused multiply-add.
                product = builder.fmul(number, column, flags=("contract",))
                added = builder.fadd(builder.load(total), product, flags=("contract",))
                builder.store(added, total)
    for target, totals in zip(targets, sums, strict=True):
        for place, total in zip(vectors(target), totals, strict=True):
            before = builder.load(place, align=4)
            builder.store(builder.fadd(before, builder.load(total)), place, align=4)
