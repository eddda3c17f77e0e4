"""A GPT-2 style decoder that works on tokens laid end to end, whatever rows they belong to.

Linear layers do not care which row a token comes from; only attention does. So the blocks see one
flat list of N tokens, and an attention object says who may look at whom: `CausalRows` for whole
sequences (training, scoring), `CachedRows` for tokens that continue cached rows (generation).
Nothing is spent on padding, and rows that need one token and rows that need thirty share a pass.

The activation is the exact GELU, as in nanoGPT: the tanh form of GPT-2 takes twice its time.
Not covered: dropout (policies compare log-probabilities; regularise by weight decay), rotary or
relative positions, grouped keys.
"""

import math
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from policies.linear import Linear
from policies.sharing import SharedRows


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

    def __call__(self, layer: int, qkv: Tensor) -> Tensor:
        """Queries, keys and values (N, 3, heads, head_dim) to outputs (N, heads, head_dim)."""
        ...


class Block(nn.Module):
    """Pre-LN attention and MLP, each added to the residual stream."""

    def __init__(self, config: TransformerConfig, layer: int):
        super().__init__()
        width = config.n_embd
        self.layer, self.n_head = layer, config.n_head
        self.ln_1 = nn.LayerNorm(width)
        self.qkv = Linear(width, 3 * width)
        self.attn_out = Linear(width, width)
        self.ln_2 = nn.LayerNorm(width)
        self.mlp_in = Linear(width, 4 * width)
        self.mlp_out = Linear(4 * width, width)

    def forward(self, x: Tensor, attention: Attention, wanted: Tensor | None = None) -> Tensor:
        """Residual stream (N, n_embd) to the same, or to the `wanted` (k,) of its N places."""
        qkv = self.qkv(self.ln_1(x)).unflatten(-1, (3, self.n_head, -1))
        attended = attention(self.layer, qkv).flatten(1)
        if wanted is not None:
            x, attended = x.index_select(0, wanted), attended.index_select(0, wanted)
        x = x + self.attn_out(attended)
        return x + self.mlp_out(F.gelu(self.mlp_in(self.ln_2(x))))


class Transformer(nn.Module):
    """Token and position embeddings, the blocks, a final layer norm.

    The output head is the token embedding (tied). Weights start from N(0, 0.02), the two
    projections that write to the residual stream from N(0, 0.02 / sqrt(2 n_layer)) (Radford et al.,
    2019).

    Attributes:
        recompute: Keep only what goes into each block and compute it again in the backward pass
            (Chen et al., "Training Deep Nets with Sublinear Memory Cost", 2016): a third more
            time for a fraction of the memory.
    """

    def __init__(self, config: TransformerConfig, seed: int = 0):
        super().__init__()
        self.config = config
        self.recompute = False
        self.token_embedding = nn.Embedding(config.vocab_size, config.n_embd)
        self.position_embedding = nn.Embedding(config.context, config.n_embd)
        self.blocks = nn.ModuleList(Block(config, layer) for layer in range(config.n_layer))
        self.ln_f = nn.LayerNorm(config.n_embd)
        self._initialise(torch.Generator().manual_seed(seed))

    def forward(
        self,
        tokens: Tensor,
        positions: Tensor,
        attention: Attention,
        wanted: Tensor | None = None,
    ) -> Tensor:
        """Final hidden states of flat tokens.

        Args:
            tokens: Ids, shape (N,), int64.
            positions: Where each stands in its row, shape (N,), int64.
            attention: Who may look at whom.
            wanted: Whose states are asked for, shape (k,), int64; all if None. In the last block
                the others, such as those of a prompt, are only looked at.

        Returns:
            Shape (k, n_embd), or (N, n_embd).
        """
        x = self.token_embedding(tokens) + self.position_embedding(positions)
        *others, last = self.blocks
        if self.recompute and torch.is_grad_enabled():
            for block in others:
                x = checkpoint(block, x, attention, use_reentrant=False)
            return self.ln_f(checkpoint(last, x, attention, wanted, use_reentrant=False))
        for block in others:
            x = block(x, attention)
        return self.ln_f(last(x, attention, wanted))

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

    Rows may share tokens: what is the same is encoded once and attended to by all.

    Args:
        rows: Which flat token stands where.
    """

    def __init__(self, rows: SharedRows):
        self.shape, self.places = rows.index.shape, rows.places
        full = len(rows.places) == rows.index.numel()  # nothing padded, nothing shared
        self.index = None if full else rows.index.flatten()

    def __call__(self, layer: int, qkv: Tensor) -> Tensor:
        """See `Attention`. Padding stands behind the tokens, where causal attention never looks."""
        if self.index is not None:
            qkv = qkv.index_select(0, self.index)
        q, k, v = qkv.unflatten(0, self.shape).permute(2, 0, 3, 1, 4).unbind(0)
        out = F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).flatten(0, 1)
        return out if self.index is None else out.index_select(0, self.places)


class KeyValueStore:
    """Keys and values of every row, layer and position; grows as the texts do.

    Args:
        config: Shape of the network.
        rows: Number of rows.
        like: A tensor of the dtype and on the device that keys and values are to have.

    Attributes:
        layers: For each layer keys and values, shape (rows, 2, heads, width, head_dim).
    """

    def __init__(self, config: TransformerConfig, rows: int, like: Tensor):
        self.config, self.rows, self.like = config, rows, like
        self.layers: list[Tensor] = []
        self.clear()

    def reserve(self, width: int) -> None:
        """Make room for positions below `width`, at least doubling what there is."""
        have = self.layers[0].shape[3]
        if width <= have:
            return
        more = max(width, min(max(2 * have, 64), self.config.context)) - have
        # Zeros, not garbage: what attention weighs with 0 must be finite.
        self.layers = [F.pad(layer, (0, 0, 0, more)) for layer in self.layers]

    def clear(self) -> None:
        """Forget all rows."""
        head_dim = self.config.n_embd // self.config.n_head
        shape = (self.rows, 2, self.config.n_head, 0, head_dim)
        self.layers = [self.like.new_zeros(shape) for _ in range(self.config.n_layer)]

    def places(self, rows: Tensor, positions: Tensor) -> Tensor:
        """Where keys and values of N tokens go, if a layer is read as (*, head_dim).

        Returns:
            Shape (N * 2 * heads,), int64, for all layers alike.
        """
        _, two, heads, width, _ = self.layers[0].shape
        each = torch.arange(two * heads, device=rows.device)
        return ((rows[:, None] * two * heads + each) * width + positions[:, None]).flatten()

    def copy_prefix(self, source: int, target: int, length: int) -> None:
        """Let row `target` begin with the first `length` positions of row `source`."""
        for layer in self.layers:
            layer[target, :, :, :length] = layer[source, :, :, :length]


class CachedRows:
    """Attention of new tokens over the cached rows they continue.

    Args:
        store: Keys and values so far; those of the new tokens are written into it.
        rows: Row of each new token, shape (N,), int64, in ascending order.
        positions: Its position, shape (N,), int64, ascending within a row.
        counts: New tokens of each row that takes part, shape (k,), int64.
    """

    def __init__(self, store: KeyValueStore, rows: Tensor, positions: Tensor, counts: Tensor):
        self.store = store
        ends = counts.cumsum(0)
        self.last = ends - 1  # flat index of each row's last new token
        self.width = int(positions.max()) + 1
        store.reserve(self.width)
        self.places = store.places(rows, positions)
        self.last_mask = self._visible(positions[self.last], self.width)
        # Without copies if all rows take part, as they nearly always do.
        self.active = slice(None) if len(counts) == store.rows else rows[self.last]
        # Rows with several new tokens: these tokens as a padded block of queries.
        many = (counts > 1).nonzero().squeeze(1)
        self.any_block = len(many) > 0
        if self.any_block:
            counts, starts = counts[many, None], (ends - counts)[many, None]
            steps = torch.arange(int(counts.max()), device=rows.device)
            self.inside = steps < counts
            self.block = starts + torch.minimum(steps, counts - 1)
            self.block_rows = rows[starts.squeeze(1)]
            self.block_width = int(positions[self.block[:, -1]].max()) + 1
            mask = self._visible(positions[self.block].flatten(), self.block_width)
            self.block_mask = mask.view(len(many), 1, len(steps), self.block_width)

    def __call__(self, layer: int, qkv: Tensor) -> Tensor:
        """See `Attention`. All last tokens go through one call, longer runs through another."""
        stored = self.store.layers[layer]
        head_dim = stored.shape[-1]
        stored.view(-1, head_dim).index_copy_(0, self.places, qkv[:, 1:].reshape(-1, head_dim))
        q = qkv[:, 0]
        last = q[self.last] if self.any_block else q
        keys, values = stored[self.active, :, :, : self.width].unbind(1)
        last = F.scaled_dot_product_attention(
            last.unsqueeze(2), keys, values, attn_mask=self.last_mask
        ).squeeze(2)
        if not self.any_block:
            return last
        keys, values = stored[self.block_rows, :, :, : self.block_width].unbind(1)
        block = F.scaled_dot_product_attention(
            q[self.block].transpose(1, 2), keys, values, attn_mask=self.block_mask
        ).transpose(1, 2)
        out = torch.empty_like(q)
        out[self.block[self.inside]] = block[self.inside]
        out[self.last] = last
        return out

    def _visible(self, positions: Tensor, width: int) -> Tensor:
        """Additive mask (N, 1, 1, width): 0 up to the token's own position, -inf behind it."""
        behind = torch.arange(width, device=positions.device) > positions[:, None]
        mask = torch.zeros_like(behind, dtype=self.store.like.dtype)
        return mask.masked_fill_(behind, -torch.inf)[:, None, None, :]
