"""Sequences that begin alike, with the common beginnings encoded once.

The answers of a group have one prompt, and the parts of an episode that was cut are prefixes of one
another. Like the prefix cache this goes by content: whatever begins alike is shared.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from policies.cache import common_prefix

_NOTHING = -1
"""Stands where a row has ended; no token equals it."""


@dataclass(frozen=True)
class SharedRows:
    """S rows of at most W tokens as one flat list of N distinct ones.

    Attributes:
        index: Which flat token stands at each place, shape (S, W), int64; 0 where there is none.
        places: One place (row * W + position) of each flat token, shape (N,), int64.
        positions: Its position in the row, shape (N,), int64.
    """

    index: Tensor
    places: Tensor
    positions: Tensor


def whole_rows(lengths: Tensor) -> SharedRows:
    """Rows of which nothing is shared, laid end to end; `lengths` is (S,), int64."""
    width = int(lengths.max())
    steps = torch.arange(width, device=lengths.device)
    inside = steps < lengths[:, None]
    starts = lengths.cumsum(0) - lengths
    index = torch.where(inside, starts[:, None] + steps, 0)
    places = inside.flatten().nonzero().squeeze(1)
    return SharedRows(index, places, places % width)


def share_beginnings(tokens: Tensor, lengths: Tensor) -> SharedRows:
    """Rows in which every distinct beginning stands once.

    Sorted rows have the longest beginning that they share with any other in common with their
    neighbour, so that comparing neighbours finds all there is to share.

    Args:
        tokens: Shape (S, L), int64.
        lengths: How many of them count in each row, shape (S,), int64, at least 1.
    """
    rows, ends = tokens.cpu().numpy(), lengths.cpu().numpy()
    width = int(ends.max())
    steps = np.arange(width)
    inside = steps < ends[:, None]
    # What does not count differs from every token: a common beginning ends with the shorter row.
    order = np.lexsort(np.where(inside, rows[:, :width], _NOTHING).T[::-1])
    ordered, inside = rows[order, :width], inside[order]
    ends = ends[order]
    shared = np.zeros(len(rows), dtype=np.int64)
    shared[1:] = np.minimum(common_prefix(ordered[1:], ordered[:-1]), ends[:-1])
    own = (steps >= shared[:, None]) & inside
    number = own.cumsum().reshape(own.shape) - 1
    # A shared place is the nearest row's above that has it for its own.
    source = np.maximum.accumulate(np.where(own, np.arange(len(rows))[:, None], 0), axis=0)
    index = np.empty_like(number)
    index[order] = np.where(inside, np.take_along_axis(number, source, 0), 0)
    places = torch.from_numpy((order[:, None] * width + steps)[own]).to(tokens.device)
    return SharedRows(torch.from_numpy(index).to(tokens.device), places, places % width)
