"""Sequences that begin alike, with the common beginnings encoded once.

The answers of a group have one prompt, and the parts of an episode that was cut are prefixes of one
another. Like the prefix cache this goes by content: whatever begins alike is shared.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from policies.cache import common_prefix


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
    """Rows whose beginnings are taken from the row above with which each has most in common.

    Args:
        tokens: Shape (S, L), int64.
        lengths: How many of them count in each row, shape (S,), int64, at least 1.
    """
    rows, ends = tokens.cpu().numpy(), lengths.cpu().numpy()
    width = int(ends.max())
    index = np.zeros((len(rows), width), dtype=np.int64)
    places: list[NDArray[np.int64]] = []
    count = 0
    for row, end in enumerate(ends):
        shared = 0
        if row:
            common = np.minimum(common_prefix(rows[row], rows[:row]), ends[:row])
            source = int(common.argmax())
            shared = min(int(common[source]), int(end))
            index[row, :shared] = index[source, :shared]
        own = np.arange(shared, end)
        index[row, shared:end] = count + own - shared
        places.append(row * width + own)
        count += len(own)
    flat = torch.from_numpy(np.concatenate(places)).to(tokens.device)
    return SharedRows(torch.from_numpy(index).to(tokens.device), flat, flat % width)
