"""Attention over tokens laid end to end, whatever rows they belong to.

Linear layers treat every token alike, whatever row it comes from; only attention does not. So a
network reads one flat list of N tokens as if it were a single row, and its attention layers ask an
object that knows the rows: `policies.whole_rows.WholeRows` for whole sequences (training),
`ContinuedRows` for tokens that continue stored rows (generation). Nothing is spent on padding: rows
that need one token and rows that need thirty share a pass.

Query heads may share keys (GQA, MQA), layers may have a sliding window, and virtual tokens may
stand in front of every row (prefix tuning).
"""

from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from policies import kernels
from policies.cache import Plan
from policies.dropout import dropped

Prefix = list[tuple[Tensor, Tensor]]
"""Keys and values of p virtual tokens, each (key heads, p, head_dim), for every layer."""


class AttentionForm(NamedTuple):
    """What differs between the attention layers of models.

    Attributes:
        layer: Number of the layer.
        scale: Queries are multiplied by it; 1 / sqrt(head_dim) if None.
        window: A token sees this many tokens, itself included; all if None.
        softcap: Attention logits are squeezed into +-softcap; left as they are if None.
    """

    layer: int
    scale: float | None = None
    window: int | None = None
    softcap: float | None = None


class Rows(Protocol):
    """Attention over the rows that flat tokens belong to."""

    def attend(self, form: AttentionForm, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Queries (N, heads, d), keys and values (N, key heads, d) to outputs (N, heads, d)."""
        ...


class Recorded:
    """Wraps an attention and records its inputs.

    Attributes:
        prefix: Keys and values of every layer, which can be the prefix of other rows.
        windows: Windows of the layers.
        layers: Numbers of the layers that attend.
    """

    def __init__(self, rows: Rows):
        self.rows, self.prefix = rows, Prefix()
        self.windows: set[int | None] = set()
        self.layers: set[int] = set()

    def attend(self, form: AttentionForm, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """See `Rows`."""
        self.windows.add(form.window)
        self.layers.add(form.layer)
        self.prefix.append((k.transpose(0, 1), v.transpose(0, 1)))
        return self.rows.attend(form, q, k, v)


SHORT_RUN = 64
"""Rows with more new tokens go through torch's attention, which multiplies in blocks."""


class RowStore:
    """Keys and values of every row, layer and position; grows as the texts do.

    The positions of a row lie one after the other in memory, so that a token is written at one
    place and a row is read as one stream.

    Args:
        rows: Number of rows.
        longest: Positions that a row can have, those of virtual tokens included.

    Attributes:
        layers: Keys and values of each layer, both (rows, width, key heads, head_dim).
        width: Positions there is room for.
        before: Number of virtual tokens that every row begins with.
        state: Adapter, or anything besides the weights, under which this store was filled.
    """

    def __init__(self, rows: int, longest: int):
        self.rows, self.longest = rows, longest
        self.state: object = None
        self.clear()

    def clear(self) -> None:
        """Forget all rows."""
        self.layers: dict[int, tuple[Tensor, Tensor]] = {}
        self.width = self.before = 0

    def begin_with(self, prefix: Prefix) -> None:
        """Let every row begin with these virtual tokens."""
        self.before = prefix[0][0].shape[1]
        self.reserve(self.before)
        for layer, pair in enumerate(prefix):
            in_order = tuple(given.transpose(0, 1) for given in pair)
            for stored, given in zip(self.layer(layer, *in_order), in_order, strict=True):
                stored[:, : self.before] = given

    def reserve(self, width: int) -> None:
        """Make room for positions below `width`, at least doubling what there is."""
        if width <= self.width:
            return
        # Doubling: copying is then a constant cost for each position.
        more = max(width, min(max(2 * self.width, 64), self.longest)) - self.width
        # Zeros, not garbage: what attention weighs with 0 must be finite.
        for layer, (keys, values) in self.layers.items():
            grow = (0, 0, 0, 0, 0, more)
            self.layers[layer] = F.pad(keys, grow), F.pad(values, grow)
        self.width += more

    def layer(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values of a layer, which is made for keys like `k` (*, key heads, head_dim)."""
        if layer not in self.layers:
            self.layers[layer] = tuple(  # type: ignore[assignment]
                x.new_zeros(self.rows, self.width, *x.shape[1:]) for x in (k, v)
            )
        return self.layers[layer]

    def copy_prefix(self, source: int, target: int, length: int) -> None:
        """Let row `target` begin with the first `length` positions of row `source`."""
        end = self.before + length
        for pair in self.layers.values():
            for stored in pair:
                stored[target, :end] = stored[source, :end]


class ContinuedRows:
    """Attention of new tokens over the stored rows they continue.

    Args:
        store: Keys and values so far; those of the new tokens are written into it.
        plan: The new tokens.
        device: The network's device.

    Attributes:
        tokens: Ids of the new tokens, shape (N,), int64.
        positions: Their positions, virtual tokens included, shape (N,), int64.
        last: Whose hidden states are asked for, the last of their rows, shape (k,), int64; None if
            those of all are.
    """

    def __init__(self, store: RowStore, plan: Plan, device: torch.device):
        rows, positions, counts = plan.rows, plan.positions + store.before, plan.counts
        self.store, self.rows, self.at, self.counts = store, rows, positions, counts
        store.reserve(int(positions.max()) + 1)
        self.tokens, self.positions = (
            torch.from_numpy(x).to(device) for x in (plan.tokens, positions)
        )
        self.last = None
        if len(counts) < len(rows) and not plan.every:
            self.last = torch.from_numpy(np.cumsum(counts) - 1).to(device)
        # Long runs, such as prompts, are quicker in torch's blocked products.
        self.short = len(counts) == len(rows) or counts.max() <= SHORT_RUN
        self._padded: _PaddedRows | None = None

    def compiled(self, x: Tensor) -> bool:
        """Whether the compiled loops are used for tensors like `x`."""
        return self.short and kernels.kernels_fit(x)

    def attend(self, form: AttentionForm, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """See `Rows`."""
        stored = self.store.layer(form.layer, k, v)
        # The loops take keys and values of one width; DeepSeek V3's differ.
        if form.softcap is None and q.shape[-1] == v.shape[-1] and self.compiled(q):
            return kernels.attend(q, k, v, stored, self.rows, self.at, form.scale, form.window)
        if self._padded is None:
            self._padded = _PaddedRows(self)
        return self._padded.attend(form, q, k, v, stored)


class _PaddedRows:
    """Attention of `ContinuedRows` by torch: last tokens in one call, longer runs in another.

    Most rows have one new token. Were they padded to the longest run, a single row that was reset
    would make all others as long.
    """

    def __init__(self, new: ContinuedRows):
        device, positions = new.positions.device, new.positions
        rows, counts = (torch.from_numpy(x).to(device) for x in (new.rows, new.counts))
        ends = counts.cumsum(0)
        self.positions, self.places = positions, rows * new.store.width + positions
        self.last = ends - 1
        self.width = int(positions.max()) + 1
        # A slice takes views, an index copies. All rows take part nearly always.
        self.active = slice(None) if len(counts) == new.store.rows else rows[self.last]
        self._masks: dict[Any, Tensor] = {}  # layers that are alike share them
        # Rows with several new tokens: these tokens as a padded block of queries.
        many = (counts > 1).nonzero().squeeze(1)
        self.any_block = len(many) > 0
        if self.any_block:
            counts, starts = counts[many, None], (ends - counts)[many, None]
            steps = torch.arange(int(counts.max()), device=rows.device)
            self.inside = steps < counts
            # Runs that are shorter repeat their last token; the copies' outputs are dropped.
            self.block = starts + torch.minimum(steps, counts - 1)
            self.block_rows = rows[starts.squeeze(1)]
            self.block_width = int(positions[self.block[:, -1]].max()) + 1

    def attend(
        self, form: AttentionForm, q: Tensor, k: Tensor, v: Tensor, stored: tuple[Tensor, Tensor]
    ) -> Tensor:
        """Write keys and values; queries (N, heads, d) to outputs (N, heads, d)."""
        # Written before reading: a token sees itself and the new tokens before it.
        for all_rows, new in zip(stored, (k, v), strict=True):
            all_rows.flatten(2).flatten(0, 1).index_copy_(0, self.places, new.flatten(1))
        keys, values = stored
        last = q[self.last] if self.any_block else q
        k, v = (x[self.active, : self.width].transpose(1, 2) for x in (keys, values))
        mask = self._mask("last", form, q.dtype)
        last = attention(last.unsqueeze(2), k, v, mask, form).squeeze(2)
        if not self.any_block:
            return last
        k, v = (x[self.block_rows, : self.block_width].transpose(1, 2) for x in (keys, values))
        mask = self._mask("block", form, q.dtype)
        block = attention(q[self.block].transpose(1, 2), k, v, mask, form).transpose(1, 2)
        out = last.new_empty(len(q), *last.shape[1:])
        out[self.block[self.inside]] = block[self.inside]
        out[self.last] = last
        return out

    def _mask(self, part: str, form: AttentionForm, dtype: torch.dtype) -> Tensor:
        key = part, form.window, dtype
        if key not in self._masks:
            if part == "last":
                positions, width = self.positions[self.last][:, None], self.width
            else:
                positions, width = self.positions[self.block], self.block_width
            self._masks[key] = visible(positions, width, form.window, dtype)[:, None]
        return self._masks[key]


def visible(positions: Tensor, width: int, window: int | None, dtype: torch.dtype) -> Tensor:
    """Additive mask (*, width) of queries at `positions` (*): 0 where they may look, else -inf."""
    places = torch.arange(width, device=positions.device)
    hidden = places > positions[..., None]
    if window is not None:
        hidden |= places <= positions[..., None] - window
    return torch.zeros(hidden.shape, dtype=dtype, device=hidden.device).masked_fill_(
        hidden, -torch.inf
    )


def attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    mask: Tensor | None,
    form: AttentionForm,
    dropout: float = 0.0,
) -> Tensor:
    """Queries (S, heads, L, d) over keys (S, key heads, T, d); causal without a mask.

    `dropout` is the probability that the weight of a position is dropped.
    """
    if _in_float32(q, k, v):
        mask = None if mask is None else mask.float()
        with torch.autocast("cpu", enabled=False):
            return attention(q.float(), k.float(), v.float(), mask, form, dropout).to(v.dtype)
    heads, length = q.shape[1:3]
    share = heads // k.shape[1]
    if mask is None:
        return F.scaled_dot_product_attention(
            q,
            k,
            v,
            dropout_p=dropout,
            is_causal=True,
            scale=form.scale,
            enable_gqa=share > 1,
        )
    # Heads that share keys become further queries of one head: keys need not be repeated.
    q = q.unflatten(1, (-1, share)).flatten(2, 3)
    if share > 1:
        mask = mask.unsqueeze(-3).expand(*mask.shape[:-2], share, *mask.shape[-2:]).flatten(-3, -2)
    if form.softcap is None:
        out = F.scaled_dot_product_attention(
            q, k, v, attn_mask=mask, dropout_p=dropout, scale=form.scale
        )
    else:
        scale = q.shape[-1] ** -0.5 if form.scale is None else form.scale
        logits = form.softcap * torch.tanh(q @ k.transpose(-1, -2) * scale / form.softcap)
        weights = (logits + mask).float().softmax(-1).to(v.dtype)
        out = dropped(weights, dropout) @ v
    return out.unflatten(2, (share, length)).flatten(1, 2)


def _in_float32(q: Tensor, k: Tensor, v: Tensor) -> bool:
    """Whether attention computes in float32 although autocast or the weights have 16 bits.

    On a CPU its gradient takes nearly three times as long in 16 bits. With autocast, passes without
    a gradient use float32 too, so that a reference and the policy it was copied from agree.
    """
    if q.device.type != "cpu" or q.dtype == torch.float64:
        return False
    trained = v.dtype.itemsize == 2 and any(x.requires_grad for x in (q, k, v))
    return trained or torch.is_autocast_enabled("cpu")
