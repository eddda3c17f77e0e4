"""A block of our own transformer as one call: fewer calls from Python, fewer arrays made."""

from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from policies.compiled.attention import attend
from policies.compiled.elementwise import gelu, layer_norm
from policies.compiled.panels import add_product, linear

Array = NDArray[np.float32]


class Weights(NamedTuple):
    """Parameters of a block: matrices as panels, biases and norms of shape (width,)."""

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
    keys: Array,
    values: Array,
    rows: NDArray[np.int64],
    positions: NDArray[np.int64],
    wanted: NDArray[np.int64],
    threads: int,
) -> Array:
    """See `policies.transformer.Block`.

    Args:
        x: Residual stream of the new tokens, shape (N, width).
        weights: Parameters of the block.
        eps: Added to the variance in the layer norms.
        keys: Stored keys, shape (rows, width of the store, heads, d); new ones are written.
        values: Stored values, likewise.
        rows: Row of each token, shape (N,).
        positions: Its position in the row, shape (N,).
        wanted: Whose states are asked for, shape (k,).
        threads: How many share the work.

    Returns:
        Residual stream of the wanted tokens, shape (k, width).
    """
    n, width = x.shape
    heads, d = keys.shape[2:]
    # Attention. All tokens write their keys, wanted or not: later tokens look at them.
    normed = layer_norm(x, weights.ln_1, weights.ln_1_bias, eps)
    qkv = np.empty((n, 3 * heads, d), np.float32)
    linear(normed, weights.qkv, weights.qkv_bias, qkv.reshape(n, 3 * width), threads)
    attended, scale = np.empty((n, heads, d), np.float32), np.float32(1 / np.sqrt(d))
    attend(qkv, keys, values, rows, positions, scale, keys.shape[1], attended, threads)
    # From here on only the wanted tokens. The residual stream and the bias are put into `out`
    # first, so that the product is added to them without an array of its own.
    k = len(wanted)
    looked, out = np.empty((k, width), np.float32), np.empty((k, width), np.float32)
    for i in range(k):
        for c in range(width):
            looked[i, c] = attended[wanted[i], c // d, c % d]
            out[i, c] = x[wanted[i], c] + weights.attn_out_bias[c]
    add_product(looked, weights.attn_out, out, threads)
    # The MLP, added to the residual stream in the same way.
    normed = layer_norm(out, weights.ln_2, weights.ln_2_bias, eps)
    hidden = np.empty((k, len(weights.mlp_in_bias)), np.float32)
    linear(normed, weights.mlp_in, weights.mlp_in_bias, hidden, threads)
    for i in range(k):
        for c in range(hidden.shape[1]):
            hidden[i, c] = gelu(hidden[i, c])
        for c in range(width):
            out[i, c] += weights.mlp_out_bias[c]
    add_product(hidden, weights.mlp_out, out, threads)
    return out
