"""Which rows of a batch each rank reads."""

from collections.abc import Callable, Sequence
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from agents.distribution.ranks import Ranks

T = TypeVar("T")


def cut_evenly(counts: NDArray[np.int64], pieces: int) -> list[NDArray[np.intp]]:
    """Neighbours in `pieces` pieces of about equal sums; some may be empty.

    Laid end to end, the line is cut into equal pieces. What stands over a cut belongs to the piece
    that holds its middle: nothing is split, and each piece is off by half of one at most.

    Args:
        counts: Such as the tokens of each sequence, shape (n,), int64.
        pieces: How many pieces.

    Returns:
        Places of each piece, shape (k,).
    """
    middles = np.cumsum(counts) - counts / 2
    piece = (middles * pieces / max(counts.sum(), 1)).astype(int)
    return [np.flatnonzero(piece == number) for number in range(pieces)]


def padded(parts: Sequence[Sequence[T]], rank: int, spare: T) -> tuple[list[T], int]:
    """A rank's parts, filled up to as many as any rank has; and how many of them are its own.

    A sharded network is gathered by all ranks for each pass, so all must pass equally often.
    """
    own = list(parts[rank])
    most = max(1, *map(len, parts))
    return own + [spare] * (most - len(own)), len(own)


def nothing_of(computed: Tensor) -> Tensor:
    """0, with a way back through what was computed for nobody; also if that is no number."""
    return 0 * computed.sum().nan_to_num()


def is_shared(loss: Tensor) -> bool:
    """Whether a loss depends on what the ranks have divided: on `in_shares`, or `outputs_of`."""
    left, seen = [loss.grad_fn], set()
    while left:
        node = left.pop()
        if node is None or node in seen:
            continue
        if node.name() == "_PlacedBackward":
            return True
        seen.add(node)
        left += [before for before, _ in node.next_functions]
    return False


def in_shares(
    function: Callable[[Tensor], Tensor], counts: Tensor, lengths: Tensor | None = None
) -> Tensor:
    """What `function` gives for rows, each rank computing it for its own; for passes with gradient.

    Without gradient, or in a single process, it is `function` of all rows.

    Args:
        function: From the places of rows, a slice as (k,) int64 with k >= 1, to numbers (n, ...),
            those of one row behind those of the row before.
        counts: Tokens to read of each row, shape (S,): shares are about equally long.
        lengths: How many numbers each row has, shape (S,), int64; one if None.

    Returns:
        The numbers of all rows, on every rank; see `Ranks.gathered`.
    """
    ranks = Ranks.readers() if torch.is_grad_enabled() else Ranks()
    every = torch.arange(len(counts), device=counts.device)
    if ranks.size == 1:
        return function(every)
    numbers = torch.ones_like(every) if lengths is None else lengths
    shares = [
        every[torch.from_numpy(some).to(every.device)]
        for some in cut_evenly(counts.cpu().numpy(), ranks.size)
    ]
    own = shares[ranks.rank]
    computed = function(own if len(own) else every[:1])
    if not len(own):  # the pass is taken all the same, as that of a sharded network must be
        computed = computed[:0] + nothing_of(computed)
    return ranks.gathered(computed, [int(numbers[share].sum()) for share in shares])
