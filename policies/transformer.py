"""A GPT-2 style decoder that works on tokens laid end to end, whatever rows they belong to.

Linear layers do not care which row a token comes from; only attention does. So the blocks see one
flat list of N tokens, and an attention object says who may look at whom: `CausalRows` for whole
sequences (training, scoring), `CachedRows` for tokens that continue cached rows (generation).
Nothing is spent on padding, and rows that need one token and rows that need thirty share a pass.

Not covered: dropout (policies compare log-probabilities; regularise by weight decay), rotary or
relative positions, grouped keys.
"""

import math
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F


@dataclass(frozen=True)
class TransformerConfig:
    """Shape of the network.

    Attributes:
        vocab_size: Number of tokens V; padding is not one of them.
        context: Longest sequence of positions.
        n_layer: Number of blocks.
        n_head: Attention heads; must divide `n_embd`.
        n_embd: Width of the residual stream.
    """

    vocab_size: int
    context: int
    n_layer: int = 4
    n_head: int = 4
    n_embd: int = 128

    def __post_init__(self) -> None:
        """Refuse shapes that make no network."""
        if self.n_embd % self.n_head:
            raise ValueError(f"n_head {self.n_head} does not divide n_embd {self.n_embd}")
        if min(self.vocab_size, self.context, self.n_layer, self.n_head) < 1:
            raise ValueError(f"every size must be 1 or more: {self}")


class Attention(Protocol):
    """Attention over the rows that the flat tokens belong to."""

    def __call__(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Queries, keys and values (N, heads, head_dim) to outputs of the same shape."""
        ...


class Block(nn.Module):
    """Pre-LN attention and MLP, each added to the residual stream."""

    def __init__(self, config: TransformerConfig, layer: int):
        super().__init__()
        width = config.n_embd
        self.layer, self.n_head = layer, config.n_head
        self.ln_1 = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.attn_out = nn.Linear(width, width)
        self.ln_2 = nn.LayerNorm(width)
        self.mlp_in = nn.Linear(width, 4 * width)
        self.mlp_out = nn.Linear(4 * width, width)

    def forward(self, x: Tensor, attention: Attention) -> Tensor:
        """Residual stream (N, n_embd) to the same."""
        q, k, v = self.qkv(self.ln_1(x)).unflatten(-1, (3, self.n_head, -1)).unbind(1)
        x = x + self.attn_out(attention(self.layer, q, k, v).flatten(1))
        return x + self.mlp_out(F.gelu(self.mlp_in(self.ln_2(x)), approximate="tanh"))


class Transformer(nn.Module):
    """Token and position embeddings, the blocks, a final layer norm.

    The output head is the token embedding (tied). Weights start from N(0, 0.02), the two
    projections that write to the residual stream from N(0, 0.02 / sqrt(2 n_layer)) (Radford et al.,
    2019).
    """

    def __init__(self, config: TransformerConfig, seed: int = 0):
        super().__init__()
        self.config = config
        self.token_embedding = nn.Embedding(config.vocab_size, config.n_embd)
        self.position_embedding = nn.Embedding(config.context, config.n_embd)
        self.blocks = nn.ModuleList(Block(config, layer) for layer in range(config.n_layer))
        self.ln_f = nn.LayerNorm(config.n_embd)
        self._initialise(torch.Generator().manual_seed(seed))

    def forward(self, tokens: Tensor, positions: Tensor, attention: Attention) -> Tensor:
        """Final hidden states (N, n_embd) of flat tokens and positions, both (N,) int64."""
        x = self.token_embedding(tokens) + self.position_embedding(positions)
        for block in self.blocks:
            x = block(x, attention)
        return self.ln_f(x)  # type: ignore[no-any-return]

    @torch.no_grad()
    def _initialise(self, generator: torch.Generator) -> None:
        residual = 0.02 / math.sqrt(2 * self.config.n_layer)
        for name, parameter in self.named_parameters():
            if parameter.ndim == 2:
                std = residual if name.endswith(("attn_out.weight", "mlp_out.weight")) else 0.02
                parameter.normal_(0.0, std, generator=generator)
            elif name.endswith("bias"):
                parameter.zero_()


class CausalRows:
    """Causal attention within whole rows that start at position 0.

    Args:
        lengths: Tokens of each row, shape (S,), int64; the flat tokens are the rows end to end.
    """

    def __init__(self, lengths: Tensor):
        self.shape = (len(lengths), int(lengths.max()))
        # Where each flat token stands in the padded (S, longest) block; None if nothing is padded.
        inside = torch.arange(self.shape[1], device=lengths.device) < lengths[:, None]
        self.places = None if bool(inside.all()) else inside.flatten().nonzero().squeeze(1)

    def __call__(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """See `Attention`. Padding stands behind the tokens, where causal attention never looks."""
        q, k, v = (self._pad(x).transpose(1, 2) for x in (q, k, v))
        out = F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).flatten(0, 1)
        return out if self.places is None else out[self.places]

    def _pad(self, x: Tensor) -> Tensor:
        if self.places is None:
            return x.unflatten(0, self.shape)
        padded = x.new_zeros(self.shape[0] * self.shape[1], *x.shape[1:])
        return padded.index_copy(0, self.places, x).unflatten(0, self.shape)


class KeyValueStore:
    """Keys and values of every row, layer and position; grows as the texts do.

    Args:
        config: Shape of the network.
        rows: Number of rows.
        like: A tensor of the dtype and on the device that keys and values are to have.
    """

    def __init__(self, config: TransformerConfig, rows: int, like: Tensor):
        self.config, self.rows, self.like = config, rows, like
        self.keys: list[Tensor] = []
        self.values: list[Tensor] = []
        self.clear()

    def reserve(self, width: int) -> None:
        """Make room for positions below `width`, at least doubling what there is."""
        have = self.keys[0].shape[2]
        if width <= have:
            return
        more = min(max(width, 2 * have, 64), max(self.config.context, width)) - have
        # Zeros, not garbage: what attention weighs with 0 must be finite.
        self.keys = [F.pad(x, (0, 0, 0, more)) for x in self.keys]
        self.values = [F.pad(x, (0, 0, 0, more)) for x in self.values]

    def clear(self) -> None:
        """Forget all rows."""
        shape = (self.rows, self.config.n_head, 0, self.config.n_embd // self.config.n_head)
        self.keys = [self.like.new_zeros(shape) for _ in range(self.config.n_layer)]
        self.values = [self.like.new_zeros(shape) for _ in range(self.config.n_layer)]

    def copy_prefix(self, source: int, target: int, length: int) -> None:
        """Let row `target` begin with the first `length` positions of row `source`."""
        for tensor in (*self.keys, *self.values):
            tensor[target, :, :length] = tensor[source, :, :length]


class CachedRows:
    """Attention of new tokens over the cached rows they continue.

    Args:
        store: Keys and values so far; those of the new tokens are written into it.
        rows: Row of each new token, shape (N,), int64, in ascending order.
        positions: Its position, shape (N,), int64, ascending within a row.
        counts: New tokens of each row that takes part, shape (k,), int64.
    """

    def __init__(self, store: KeyValueStore, rows: Tensor, positions: Tensor, counts: Tensor):
        self.store, self.rows, self.positions = store, rows, positions
        ends = counts.cumsum(0)
        self.last = ends - 1  # flat index of each row's last new token
        self.active = rows[self.last]
        self.all_active = len(counts) == len(store.keys[0])
        self.width = int(positions.max()) + 1
        store.reserve(self.width)
        self.last_mask = self._visible(positions[self.last])
        # Rows with several new tokens: their tokens as a padded block of queries.
        many = (counts > 1).nonzero().squeeze(1)
        self.many = self.active[many]
        if len(many):
            longest = int(counts[many].max())
            steps = torch.arange(longest, device=rows.device)
            inside = steps < counts[many, None]
            block = (ends - counts)[many, None] + torch.minimum(steps, counts[many, None] - 1)
            self.block, self.inside = block, inside
            self.block_mask = self._visible(positions[block].flatten()).unflatten(
                0, block.shape
            )[:, None, :, 0, 0]

    def __call__(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """See `Attention`."""
        keys, values = self.store.keys[layer], self.store.values[layer]
        keys[self.rows, :, self.positions] = k
        values[self.rows, :, self.positions] = v
        keys, values = keys[:, :, : self.width], values[:, :, : self.width]
        # Nearly all rows have one new token. All last tokens go through one call without copies.
        every = slice(None) if self.all_active else self.active
        last = F.scaled_dot_product_attention(
            q[self.last].unsqueeze(2), keys[every], values[every], attn_mask=self.last_mask
        ).squeeze(2)
        if not len(self.many):
            return last
        out = torch.empty_like(q)
        block = F.scaled_dot_product_attention(
            q[self.block].transpose(1, 2),
            keys[self.many],
            values[self.many],
            attn_mask=self.block_mask,
        )
        out[self.block[self.inside]] = block.transpose(1, 2)[self.inside]
        out[self.last] = last
        return out

    def _visible(self, positions: Tensor) -> Tensor:
        """Additive mask (N, 1, 1, width): 0 up to the token's own position, -inf behind it."""
        behind = torch.arange(self.width, device=positions.device) > positions[:, None]
        mask = torch.zeros(behind.shape, device=positions.device, dtype=self.store.keys[0].dtype)
        return mask.masked_fill_(behind, -torch.inf)[:, None, None, :]
