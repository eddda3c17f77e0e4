"""Attention within whole sequences of which some begin alike.

What stands in several rows is computed once everywhere else (see `policies.sharing`). Attention
reads rows, so it asks for keys of a common beginning in every row; queries need not be repeated.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from policies.rows import AttentionForm, Prefix, attention, visible
from policies.sharing import SharedRows


class WholeRows:
    """Causal attention within whole rows; they may share tokens.

    Rows whose beginning stands in another row have queries behind it alone, as far as that can be
    had in two calls.

    Args:
        rows: Which flat token stands where.
        prefix: Virtual tokens in front of every row.
        dropout: Probability that the weight of a position is dropped; see `policies.dropout`.
    """

    def __init__(self, rows: SharedRows, prefix: Prefix | None = None, dropout: float = 0.0):
        self.prefix, self.dropout = prefix, dropout
        count, width = rows.index.shape
        # Only if something is padded or shared does a flat token not stand at its own place.
        full = len(rows.places) == rows.index.numel()
        self.parts = [_Part(None if full else rows.index, (count, width), 0)]
        self.order = None if full else rows.places
        begins = rows.places.new_full((count,), width)
        begins.scatter_reduce_(0, rows.places // width, rows.positions, "amin")
        # Measured on CPUs, where masked attention is as fast as causal attention.
        border = _border(begins, width) if rows.index.device.type == "cpu" else 0
        if border:
            early = (begins < border).nonzero().squeeze(1)
            late = ((begins >= border) & (begins < width)).nonzero().squeeze(1)
            self.parts = [
                _Part(rows.index[some], (len(some), width), first)
                for some, first in ((early, 0), (late, border))
                if len(some)
            ]
            at, done = torch.zeros_like(rows.index), 0
            for some, first in ((early, 0), (late, border)):
                size = len(some) * (width - first)
                at[some, first:] = torch.arange(done, done + size).view(len(some), width - first)
                done += size
            self.order = at.flatten()[rows.places]

    def attend(self, form: AttentionForm, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """See `Rows`. Padding stands behind the tokens, where causal attention never looks."""
        outs = [self._attend(part, form, q, k, v) for part in self.parts]
        out = outs[0] if len(outs) == 1 else torch.cat(outs)
        return out if self.order is None else out.index_select(0, self.order)

    def _attend(
        self, part: "_Part", form: AttentionForm, q: Tensor, k: Tensor, v: Tensor
    ) -> Tensor:
        """Outputs (s * (W - first), heads, d) of a part's queries."""
        q, k, v = part.rows_of(q, part.first), part.rows_of(k), part.rows_of(v)
        before = 0
        if self.prefix is not None:  # virtual tokens are put in front of the keys, not the queries
            (k, v), before = (
                [
                    torch.cat([p.to(x).expand(len(x), -1, -1, -1), x], dim=2)
                    for p, x in zip(self.prefix[form.layer], (k, v), strict=True)
                ],
                self.prefix[form.layer][0].shape[1],
            )
        width = part.shape[1]
        # Without a mask torch takes its fast causal path; a mask is made only where that is wrong.
        mask = None
        behind = before + part.first
        if behind or form.softcap is not None or (form.window or width) < width:
            positions = torch.arange(behind, before + width, device=q.device)
            mask = visible(positions, before + width, form.window, q.dtype)
        return attention(q, k, v, mask, form, self.dropout).transpose(1, 2).flatten(0, 1)


class _Part(NamedTuple):
    """Rows whose queries begin at one position.

    Attributes:
        which: Which flat token stands at each place of the rows, shape (s, W); None if the flat
            tokens are the rows one after the other.
        shape: s and W.
        first: Position of the first queries.
    """

    which: Tensor | None
    shape: tuple[int, int]
    first: int

    def rows_of(self, x: Tensor, first: int = 0) -> Tensor:
        """Flat (N, heads, head_dim) to padded (s, heads, W - first, head_dim)."""
        if self.which is not None:
            x = x.index_select(0, self.which[:, first:].flatten())
        return x.unflatten(0, (self.shape[0], -1)).transpose(1, 2)


WORTHWHILE = 0.8
"""Rows are split if this share of the queries' work is left."""


def _border(begins: Tensor, width: int) -> int:
    """The position at which queries of rows that begin there or later cost least in all.

    Args:
        begins: Position of the first token of each row that stands in no row before, shape (S,).
        width: Positions of a row.

    Returns:
        The position; 0 if little would be saved.
    """
    borders, counts = begins.unique(return_counts=True)
    late = counts.flip(0).cumsum(0).flip(0)  # rows that begin at a border or behind it
    saved = late * borders
    best = int(saved.argmax())
    enough = int(saved[best]) >= (1 - WORTHWHILE) * len(begins) * width
    return int(borders[best]) if enough else 0
