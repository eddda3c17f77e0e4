"""A GPT-2 style decoder that works on tokens laid end to end, whatever rows they belong to.

Attention layers ask an object of `policies.rows` which tokens may look at which.

The activation is the exact GELU, as in nanoGPT: the tanh form of GPT-2 takes twice its time.
Not covered: dropout (policies compare log-probabilities; regularise by weight decay), rotary or
relative positions, grouped keys.
"""

import functools
import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from policies import kernels
from policies.linear import Linear, Packed, packs
from policies.rows import AttentionForm, ContinuedRows, Rows


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


class Block(nn.Module):
    """Pre-LN attention and MLP, each added to the residual stream."""

    def __init__(self, config: TransformerConfig, layer: int):
        super().__init__()
        width = config.n_embd
        self.form, self.n_head = AttentionForm(layer), config.n_head
        self.ln_1 = nn.LayerNorm(width)
        self.qkv = Linear(width, 3 * width)
        self.attn_out = Linear(width, width)
        self.ln_2 = nn.LayerNorm(width)
        self.mlp_in = Linear(width, 4 * width)
        self.mlp_out = Linear(4 * width, width)
        self._packed = Packed()

    def forward(self, x: Tensor, rows: Rows, wanted: Tensor | None = None) -> Tensor:
        """Residual stream (N, n_embd) to the same, or to the `wanted` (k,) of its N places."""
        if isinstance(rows, ContinuedRows) and rows.compiled(x) and self._compiled(x):
            return self._one_call(x, rows, wanted)
        qkv = self.qkv(self.ln_1(x)).unflatten(-1, (3, self.n_head, -1))
        attended = rows.attend(self.form, *qkv.unbind(1)).flatten(1)
        if wanted is not None:
            x, attended = x.index_select(0, wanted), attended.index_select(0, wanted)
        x = x + self.attn_out(attended)
        return x + self.mlp_out(F.gelu(self.mlp_in(self.ln_2(x))))

    def _compiled(self, x: Tensor) -> bool:
        """Whether a decoding step can do all of this by one call of a compiled loop."""
        return (
            kernels.panels_fit()
            and packs(x, x.shape[1])
            # The loop knows nothing of adapters and hooks.
            and all(
                type(part) in (Linear, nn.LayerNorm)
                and not (part._forward_hooks or part._forward_pre_hooks)
                for part in self._parts()
            )
        )

    def _parts(self) -> Iterable[nn.Module]:
        # `children()` would do the same, but takes as long as a small product.
        return cast(Iterable[nn.Module], self._modules.values())

    def _one_call(self, x: Tensor, rows: ContinuedRows, wanted: Tensor | None) -> Tensor:
        parameters = [p for part in self._parts() for p in part._parameters.values()]
        block = self._packed.of(functools.partial(kernels.Block, self.ln_1.eps), *parameters)
        heads = x.unflatten(1, (self.n_head, -1))
        stored = rows.store.layer(self.form.layer, heads, heads)
        return block(x, stored, rows.rows, rows.at, wanted)


class Transformer(nn.Module):
    """Token and position embeddings, the blocks, a final layer norm.

    The output head is the token embedding (tied). Weights start from N(0, 0.02), the two
    projections that write to the residual stream from N(0, 0.02 / sqrt(2 n_layer)) (Radford et al.,
    2019).

    Attributes:
        recompute: Keep only the inputs of each block, and compute the rest again in the backward
            pass (Chen et al., "Training Deep Nets with Sublinear Memory Cost", 2016): a third more
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
        rows: Rows,
        wanted: Tensor | None = None,
    ) -> Tensor:
        """Final hidden states of flat tokens.

        Args:
            tokens: Ids, shape (N,), int64.
            positions: Where each stands in its row, shape (N,), int64.
            rows: Which tokens may look at which.
            wanted: Tokens whose states are wanted, shape (k,), int64; all if None. In the last
                block the others, such as those of a prompt, are only looked at.

        Returns:
            Shape (k, n_embd), or (N, n_embd).
        """
        x = self.token_embedding(tokens) + self.position_embedding(positions)
        *others, last = self.blocks
        if self.recompute and torch.is_grad_enabled():
            for block in others:
                x = checkpoint(block, x, rows, use_reentrant=False)
            return self.ln_f(checkpoint(last, x, rows, wanted, use_reentrant=False))
        for block in others:
            x = block(x, rows)
        return self.ln_f(last(x, rows, wanted))

    @torch.no_grad()
    def _initialise(self, generator: torch.Generator) -> None:
        residual = 0.02 / math.sqrt(2 * self.config.n_layer)
        for name, parameter in self.named_parameters():
            if parameter.ndim == 2:
                std = residual if name.endswith(("attn_out.weight", "mlp_out.weight")) else 0.02
                parameter.normal_(0.0, std, generator=generator)
            elif name.endswith("bias"):
                parameter.zero_()
