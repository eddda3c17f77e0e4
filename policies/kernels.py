"""When the compiled loops are used, and how tensors are handed to them.

For float32 on a CPU with few threads, where Numba is installed; everything else goes through torch,
with the same results up to rounding. Each loop runs on one thread: it replaces calls that are bound
by reading memory, or by the cost of the call itself.
"""

import functools
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

FEW_THREADS = 4
"""With more threads than this torch's own calls, which use all of them, are left to it."""


def kernels_fit(x: Tensor) -> bool:
    """Whether tensors like `x` can be given to the compiled loops."""
    return (
        x.dtype == torch.float32
        and x.device.type == "cpu"
        and torch.get_num_threads() <= FEW_THREADS
        and _compiled() is not None
    )


def attend(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    stored: tuple[Tensor, Tensor],
    rows: NDArray[np.int64],
    positions: NDArray[np.int64],
    scale: float | None = None,
    window: int | None = None,
) -> Tensor:
    """Softmax attention of new tokens over the rows they continue; see `policies.compiled.attend`.

    Args:
        q: Queries, shape (N, heads, d).
        k: Keys, shape (N, key heads, d).
        v: Values, as `k`.
        stored: Keys and values of the rows, both (rows, width, key heads, d); the new ones are
            written into them.
        rows: Row of each token, shape (N,).
        positions: Its position in the row, shape (N,).
        scale: Scores are multiplied by it; 1 / sqrt(d) if None.
        window: So many positions are seen, the token's own included; all if None.

    Returns:
        Shape (N, heads, d).
    """
    new, out = torch.cat([q, k, v], dim=1), torch.empty(q.shape)
    width, d = stored[0].shape[1], q.shape[2]
    _compiled().attend(
        new.numpy(),
        *(x.numpy() for x in stored),
        rows,
        positions,
        np.float32(d**-0.5 if scale is None else scale),
        width if window is None else window,
        out.numpy(),
    )
    return out


def sample(
    logits: Tensor, uniforms: NDArray[np.float64]
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Tokens and log-probabilities, both (n,), from logits (n, V) and uniform numbers (n,)."""
    tokens, logprobs = np.empty(len(logits), np.int64), np.empty(len(logits))
    _compiled().sample(logits.contiguous().numpy(), uniforms, tokens, logprobs)
    return tokens, logprobs


@functools.cache
def _compiled() -> Any:
    """The compiled loops; None where Numba is not installed."""
    try:
        from policies import compiled
    except ImportError:
        return None
    return compiled
