"""When the compiled loops are used, and how tensors are handed to them.

For float32 on a CPU with few threads, where Numba is installed; everything else goes through torch,
with the same results up to rounding errors.
"""

import functools
import os
import threading
import warnings
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

FEW_THREADS = 4
"""With more threads than this torch's own calls, which use all of them, are left to it."""

_ALONE = threading.Lock()
"""Not every threading layer of Numba can be entered by two threads at once."""

_forked = threading.Event()
"""Set in processes that were forked from this one."""


def _stay_alone() -> None:
    """Compute with one thread in a process that was forked, as torch's `DataLoader` does.

    Threads do not outlive a fork, and OpenMP does not start others: it waits for those it had, for
    ever. That holds for torch's own operations as for compiled loops.
    """
    _forked.set()
    torch.set_num_threads(1)


if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(after_in_child=_stay_alone)


def kernels_fit(x: Tensor) -> bool:
    """Whether tensors like `x` can be given to the compiled loops."""
    return (
        x.dtype == torch.float32
        and x.device.type == "cpu"
        and torch.get_num_threads() <= FEW_THREADS
        and _compiled() is not None
    )


def panels_fit() -> bool:
    """Whether products can be made in panels, and are the fastest where they were measured."""
    return (
        _has_wide_registers() and torch.get_num_threads() <= FEW_THREADS and _compiled() is not None
    )


@functools.cache
def _has_wide_registers() -> bool:
    return torch.backends.cpu.get_cpu_capability() in ("AVX2", "AVX512")


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
    """Softmax attention of new tokens over the rows they continue.

    Args:
        q: Queries, shape (N, heads, d).
        k: Keys, shape (N, key heads, d).
        v: Values, as `k`.
        stored: Keys and values of the rows, both (rows, width, key heads, d); the new ones are
            written into them.
        rows: Row of each token, shape (N,).
        positions: Its position in the row, shape (N,).
        scale: Attention logits are multiplied by it; 1 / sqrt(d) if None.
        window: This many positions are seen, the token's own included; all if None.

    Returns:
        Shape (N, heads, d).
    """
    # Side by side, since one array is quicker to hand over than three.
    new, out = torch.cat([q, k, v], dim=1), torch.empty_like(q)
    width, d = stored[0].shape[1], q.shape[2]
    _call(
        _compiled().attention.attend,
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
    _call(_compiled().sampling.sample, logits.contiguous().numpy(), uniforms, tokens, logprobs)
    return tokens, logprobs


def sample_gumbel(
    logits: Tensor, keys: NDArray[np.uint64]
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Tokens and log-probabilities, both (n,), from logits (n, V) and keys of noise (n,)."""
    tokens, logprobs = np.empty(len(logits), np.int64), np.empty(len(logits))
    _call(_compiled().gumbel.sample_gumbel, logits.contiguous().numpy(), keys, tokens, logprobs)
    return tokens, logprobs


def forbid(logits: Tensor, masks: Tensor) -> None:
    """Minus infinity in place where a token may not be chosen.

    Args:
        logits: Shape (n, V), contiguous.
        masks: Which tokens may be chosen, shape (n, V), or (V,) for all rows, bool.
    """
    rows = masks.numpy() if masks.ndim == 2 else masks.numpy()[None]
    _call(_compiled().sampling.forbid, logits.numpy(), rows)


def fill_logprobs(logits: Tensor, tokens: Tensor, logprobs: Tensor, entropies: Tensor) -> None:
    """Probabilities in place of logits (n, V); see `policies.compiled.logprobs`.

    Args:
        logits: Shape (n, V), contiguous.
        tokens: Choices, shape (n,), int64.
        logprobs: Filled with their log-probabilities, shape (n,).
        entropies: Filled with the entropies, shape (n,), nats.
    """
    arrays = (x.detach().numpy() for x in (logits, tokens, logprobs, entropies))
    _call(_compiled().logprobs.fill, *arrays)


class Panels:
    """`x @ weight.T + bias` with the weight laid out in panels; see `policies.compiled.panels`."""

    def __init__(self, weight: Tensor, bias: Tensor | None):
        self.outputs, self.inputs = weight.shape
        self.panels = pack(weight)
        self.bias = np.zeros(self.outputs, np.float32)
        if bias is not None:
            self.bias[:] = bias.detach().numpy()

    def __call__(self, x: Tensor) -> Tensor:
        """Rows (*, inputs) to rows (*, outputs)."""
        rows = np.ascontiguousarray(x.numpy()).reshape(-1, self.inputs)
        # Torch's memory, not NumPy's: see `Block`.
        out = torch.empty(len(rows), self.outputs, dtype=torch.float32)
        _call(_compiled().panels.linear, rows, self.panels, self.bias, out.numpy())
        return out.view(*x.shape[:-1], self.outputs)


def pack(weight: Tensor) -> NDArray[np.float32]:
    """The panels of a weight (outputs, inputs)."""
    panels: NDArray[np.float32] = _compiled().panels.pack(weight.detach().numpy())
    return panels


class Block:
    """A block of our own transformer as one call; see `policies.compiled.block`.

    Args:
        eps: Added to the variance in the norms.
        rms: Whether they are RMS norms.
        *parameters: In the order of `policies.compiled.block.Weights`; None for a bias that the
            form lacks.
    """

    def __init__(self, eps: float, rms: bool, *parameters: Tensor | None):
        # Copies: an optimiser writes into parameters in place, while these are what was packed.
        packed: list[NDArray[np.float32]] = []
        for weight, bias in zip(parameters[::2], parameters[1::2], strict=True):
            assert weight is not None
            packed.append(pack(weight) if weight.ndim == 2 else weight.detach().numpy().copy())
            no_bias = np.zeros(len(weight), np.float32)
            packed.append(no_bias if bias is None else bias.detach().numpy().copy())
        self.weights = _compiled().block.Weights(*packed)
        self.eps, self.rms = np.float32(eps), rms

    def __call__(
        self,
        x: Tensor,
        stored: tuple[Tensor, Tensor],
        rows: NDArray[np.int64],
        positions: NDArray[np.int64],
        turns: Tensor | None,
        wanted: Tensor | None,
    ) -> Tensor:
        """Residual stream (N, width) to that of the wanted tokens, all if None.

        Args:
            x: Residual stream.
            stored: See `attend`.
            rows: See `attend`.
            positions: See `attend`.
            turns: Cosines and sines of rotary angles, shape (2, N, d / 2).
            wanted: Numbers of the wanted tokens, shape (k,), int64.
        """
        all_of_them = np.arange(len(x)) if wanted is None else wanted.numpy()
        out = _call(
            _compiled().block.block,
            np.ascontiguousarray(x.numpy()),
            self.weights,
            self.eps,
            self.rms,
            *(s.numpy() for s in stored),
            rows,
            positions,
            None if turns is None else turns.numpy(),
            all_of_them,
        )
        # A copy in torch's memory, which begins at a multiple of 64 bytes. NumPy's may begin
        # anywhere, and the last bits of a product of few rows in torch's library depend on that:
        # equal seeds would not give equal bits.
        return torch.from_numpy(out).clone()


def _call(loop: Any, *arguments: Any) -> Any:
    """Call a compiled loop with as many threads as torch has."""
    threads = 1 if _forked.is_set() else min(torch.get_num_threads(), _compiled().most_threads)
    if threads == 1:
        return loop(*arguments, 1)
    with _ALONE:
        _compiled().set_num_threads(threads)
        return loop(*arguments, threads)


@functools.cache
def _compiled() -> Any:
    """The compiled loops; None where Numba is not installed, may not compile, or cannot cache."""
    # Imported here because Numba is optional and takes half a second.
    threads = torch.get_num_threads()
    try:
        from policies import compiled
    except ImportError:  # Numba raises it too, where NumPy is newer than it knows
        return None
    except RuntimeError as error:  # Numba's, when it looks for a folder for its cache
        warnings.warn(
            "the decoding loops are not compiled, so that generation is slower: Numba finds no "
            "folder that it may write to. Set NUMBA_CACHE_DIR to one. Numba says: "
            f"{error}",
            stacklevel=2,
        )
        return None
    finally:
        if torch.get_num_threads() != threads:  # Numba sets OpenMP's number, which is torch's too
            torch.set_num_threads(threads)
    return compiled if compiled.compiling else None
