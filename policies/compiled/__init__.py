"""The inner loops of a decoding step, and one of an update, compiled by Numba.

Plain loops over one row at a time, which a compiler makes fast: nothing is padded to the longest
row, and nothing is written that is not asked for. `policies.kernels` says when they are used; tests
check what they compute against torch.

    panels        the product of a few rows with a weight
    tile          its innermost loop
    attention     new tokens look at their rows
    elementwise   exponential, GELU, layer norm
    block         a block of our own transformer, made of these
    sampling      a token of every row
    gumbel        the same by the Gumbel-max trick
    logprobs      log-probabilities and entropies of whole sequences
    notice        what the user is told before they are compiled

Loops that threads share are written for a part of the rows or of the outputs. Each thread does one
part, so that the bits do not depend on the number of threads.

What sums in another order (`SUMS`) and is called by another compiled loop is inlined there. Numba
would keep a copy of it beside its own, optimised once more, with other last bits; a process that
compiles uses the one and a process that loads from the cache the other, so that the first run of an
installation would differ from all later ones.
"""

import contextlib
from pathlib import Path

from numba import config, set_num_threads


def _forget_what_is_stale() -> None:
    """Remove compiled code that is older than a file here.

    Numba compares a function with its own file only; what it calls may lie in another.
    """
    folder = Path(__file__).parent
    newest = max(file.stat().st_mtime for file in folder.glob("*.py"))
    for index in (folder / "__pycache__").glob("*.nbi"):
        with contextlib.suppress(OSError):  # another process was quicker, or nothing may be written
            if index.stat().st_mtime < newest:
                index.unlink()


_forget_what_is_stale()

from policies.compiled import attention, block, gumbel, logprobs, panels, sampling  # noqa: E402
from policies.compiled.notice import tell_before_compiling  # noqa: E402

tell_before_compiling()

compiling: bool = not config.DISABLE_JIT
most_threads: int = config.NUMBA_NUM_THREADS

# Code from Numba's cache expects that threads have been started, which this call does. Without it,
# code crashes that was compiled by a process that had loaded a part of it from the cache.
set_num_threads(most_threads)

__all__ = [
    "attention",
    "block",
    "compiling",
    "gumbel",
    "logprobs",
    "most_threads",
    "panels",
    "sampling",
    "set_num_threads",
]
