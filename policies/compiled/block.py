"""A block of our own transformer as one call: fewer calls from Python, fewer arrays made."""

from typing import Any, NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from policies.compiled.attention import attend
from policies.compiled.elementwise import gelu, layer_norm, rms_norm, silu
from policies.compiled.panels import add_product, linear

Array = NDArray[np.float32]


class Weights(NamedTuple):
    """Parameters of a block: matrices as panels, biases and norms of shape (width,).

    Where a form has no bias it is an array of zeros. With a gate, `mlp_in` has twice the outputs
    that `mlp_out` reads: gates, then what they are multiplied with.
    """

    ln_1: Array
    ln_1_bias: Array
    qkv: Array
    qkv_bias: Array
    attn_out: Array
    attn_out_bias: Array
    ln_2: Array
    ln_2_bias: Array
    mlp_in: Array
    mlp_in_bias: Array
    mlp_out: Array
    mlp_out_bias: Array


@njit(error_model="numpy", cache=True, nogil=True)
def block(
    x: Array,
    weights: Weights,
    eps: np.float32,
    rms: bool,
    keys: Array,
    values: Array,
    rows: NDArray[np.int64],
    positions: NDArray[np.int64],
    turns: Any,
    wanted: NDArray[np.int64],
    threads: int,
) -> Array:
    """See `policies.transformer.Block`.

    Args:
        x: Residual stream of the new tokens, shape (N, width).
        weights: Parameters of the block.
        eps: Added to the variance in the norms.
        rms: Whether norms are RMS norms rather than layer norms.
        keys: Stored keys, shape (rows, width of the store, key heads, d); new ones are written.
        values: Stored values, likewise.
        rows: Row of each token, shape (N,).
        positions: Its position in the row, shape (N,).
        turns: Cosines and sines of every token's rotary angles, shape (2, N, d / 2); None without
            rotary positions, of which the compiler makes a function of its own.
        wanted: Whose states are asked for, shape (k,).
        threads: How many share the work.

    Returns:
        Residual stream of the wanted tokens, shape (k, width).
    """
    n, width = x.shape
    key_heads, d = keys.shape[2:]
    inner, outer = weights.attn_out.shape[1], weights.mlp_out.shape[1]
    heads = inner // d
    # Attention. All tokens write their keys, wanted or not: later tokens look at them.
    normed = _norm(x, weights.ln_1, weights.ln_1_bias, eps, rms)
    qkv = np.empty((n, heads + 2 * key_heads, d), np.float32)
    linear(
        normed, weights.qkv, weights.qkv_bias, qkv.reshape(n, inner + 2 * key_heads * d), threads
    )
    if turns is not None:
        _turn(qkv, heads + key_heads, turns)
    attended, scale = np.empty((n, heads, d), np.float32), np.float32(1 / np.sqrt(d))
    attend(qkv, keys, values, rows, positions, scale, keys.shape[1], attended, threads)
    # From here on only the wanted tokens. The residual stream and the bias are put into `out`
    # first, so that the product is added to them without an array of its own.
    k = len(wanted)
    looked, out = np.empty((k, inner), np.float32), np.empty((k, width), np.float32)
    for i in range(k):
        for c in range(inner):
            looked[i, c] = attended[wanted[i], c // d, c % d]
        for c in range(width):
            out[i, c] = x[wanted[i], c] + weights.attn_out_bias[c]
    add_product(looked, weights.attn_out, out, threads)
    # The MLP, added to the residual stream in the same way.
    normed = _norm(out, weights.ln_2, weights.ln_2_bias, eps, rms)
    hidden = np.empty((k, len(weights.mlp_in_bias)), np.float32)
    linear(normed, weights.mlp_in, weights.mlp_in_bias, hidden, threads)
    if hidden.shape[1] == outer:
        for i in range(k):
            for c in range(outer):
                hidden[i, c] = gelu(hidden[i, c])
    else:
        hidden = _gated(hidden)
    for i in range(k):
        for c in range(width):
            out[i, c] += weights.mlp_out_bias[c]
    add_product(hidden, weights.mlp_out, out, threads)
    return out


@njit(error_model="numpy", cache=True, nogil=True)
def _norm(x, weight, bias, eps, rms):  # type: ignore[no-untyped-def]
    return rms_norm(x, weight, eps) if rms else layer_norm(x, weight, bias, eps)


@njit(fastmath={"contract"}, error_model="numpy", cache=True, nogil=True)
def _turn(qkv, count, turns):  # type: ignore[no-untyped-def]
    """Turn the first `count` heads in place; see `policies.rotary.turned`."""
    half = turns.shape[2]
    for i in range(len(qkv)):
        for h in range(count):
            for c in range(half):
                first, second = qkv[i, h, c], qkv[i, h, c + half]
                cos, sin = turns[0, i, c], turns[1, i, c]
                qkv[i, h, c] = first * cos - second * sin
                qkv[i, h, c + half] = second * cos + first * sin


@njit(fastmath={"contract"}, error_model="numpy", cache=True, nogil=True)
def _gated(both):  # type: ignore[no-untyped-def]
    """SwiGLU of gates and values side by side, shape (k, 2 inner) to (k, inner)."""
    k, inner = both.shape[0], both.shape[1] // 2
    out = np.empty((k, inner), np.float32)
    for i in range(k):
        for c in range(inner):
            out[i, c] = silu(both[i, c]) * both[i, inner + c]
    return out
