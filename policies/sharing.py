"""Sequences that begin alike, with the common beginnings encoded once.

The answers of a group have one prompt, and the parts of an episode that was cut are prefixes of one
another. Like the prefix cache this goes by content: all beginnings that are equal are shared.
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
    """Rows laid end to end that share nothing; `lengths` is (S,), int64."""
    width = int(lengths.max())
    steps = torch.arange(width, device=lengths.device)
    inside = steps < lengths[:, None]
    starts = lengths.cumsum(0) - lengths
    index = torch.where(inside, starts[:, None] + steps, 0)
    places = inside.flatten().nonzero().squeeze(1)
    return SharedRows(index, places, places % width)


def share_beginnings(tokens: Tensor, lengths: Tensor) -> SharedRows:
    """Rows in which every distinct beginning stands once.

    In sorted order, a row shares its longest common beginning with a neighbour, so that comparing
    neighbours finds all there is to share.

    Args:
        tokens: Shape (S, L), int64.
        lengths: How many of them count in each row, shape (S,), int64, at least 1.
    """
    rows, ends = tokens.cpu().numpy(), lengths.cpu().numpy()
    width = int(ends.max())
    steps = np.arange(width)
    inside = steps < ends[:, None]
    # Ids behind a row's end are set to a number that is no token: a common beginning ends there.
    order = np.lexsort(np.where(inside, rows[:, :width], _NOTHING).T[::-1])
    ordered, inside = rows[order, :width], inside[order]
    ends = ends[order]
    shared = np.zeros(len(rows), dtype=np.int64)
    shared[1:] = np.minimum(common_prefix(ordered[1:], ordered[:-1]), ends[:-1])
    # Each token that is not shared with the row above gets a number of its own.
    own = (steps >= shared[:, None]) & inside
    number = own.cumsum().reshape(own.shape) - 1
    # A shared place takes the number of the nearest row above that has its own token there.
    source = np.maximum.accumulate(np.where(own, np.arange(len(rows))[:, None], 0), axis=0)
    index = np.empty_like(number)
    index[order] = np.where(inside, np.take_along_axis(number, source, 0), 0)
    places = torch.from_numpy((order[:, None] * width + steps)[own]).to(tokens.device)
    return SharedRows(torch.from_numpy(index).to(tokens.device), places, places % width)
