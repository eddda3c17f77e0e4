"""A decoder in the form of GPT-2 or of Llama, on tokens laid end to end, whatever their rows.

Attention layers ask an object of `policies.rows` which tokens may look at which.

GPT's activation is the exact GELU, as in nanoGPT: the tanh form of GPT-2 takes twice its time.
Dropout acts only while `policies.dropout.dropping` asks for it, since policies compare
log-probabilities. Left out: sliding windows, mixtures of experts.
"""

import functools
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Literal, Self, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from policies import kernels
from policies.dropout import Dropout, dropped
from policies.linear import Linear, Packed, packs
from policies.rotary import Rope, turned
from policies.rows import AttentionForm, ContinuedRows, Rows


@dataclass(frozen=True)
class TransformerConfig:
    """Shape of the network; by default GPT-2's form, and `TransformerConfig.llama` makes Llama's.

    Attributes:
        vocab_size: Number of tokens V; padding is not one of them.
        context: Longest sequence of positions.
        n_layer: Number of blocks.
        n_head: Attention heads; must divide `n_embd`, unless `head_dim` is given.
        n_embd: Width of the residual stream.
        n_kv_head: Heads of keys and values, each shared by as many neighbouring query heads
            (Ainslie et al., "GQA", 2023, arXiv:2305.13245); as many as `n_head` if None.
        head_dim: Numbers of a head; n_embd / n_head if None.
        norm: `layer`, or `rms` without mean and bias (Zhang and Sennrich, 2019, arXiv:1910.07467).
        norm_eps: Added to the variance in norms.
        mlp: `gelu`, or `swiglu` with a gate (Shazeer, 2020, arXiv:2002.05202).
        mlp_width: Width inside an MLP; if None 4 n_embd for `gelu`, and for `swiglu` 8/3 n_embd, to
            the next multiple of 32, which is as many parameters.
        bias: Whether linear layers have biases.
        rope: Rotary positions; if None, positions are embedded, as in GPT-2.
        tied: Whether the output head is the token embedding.
    """

    vocab_size: int
    context: int
    n_layer: int = 4
    n_head: int = 4
    n_embd: int = 128
    n_kv_head: int | None = None
    head_dim: int | None = None
    norm: Literal["layer", "rms"] = "layer"
    norm_eps: float = 1e-5
    mlp: Literal["gelu", "swiglu"] = "gelu"
    mlp_width: int | None = None
    bias: bool = True
    rope: Rope | None = None
    tied: bool = True

    def __post_init__(self) -> None:
        """Refuse shapes that make no network."""
        if self.head_dim is None and self.n_embd % self.n_head:
            raise ValueError(f"n_head {self.n_head} does not divide n_embd {self.n_embd}")
        if min(self.vocab_size, self.context, self.n_layer, self.n_head, self.key_heads) < 1:
            raise ValueError(f"every size must be 1 or more: {self}")
        if self.n_head % self.key_heads:
            raise ValueError(f"n_kv_head {self.n_kv_head} does not divide n_head {self.n_head}")
        if self.rope is not None and self.head_size % 2:
            raise ValueError(
                f"rotary positions turn pairs, and a head has {self.head_size} numbers"
            )
        if self.norm not in ("layer", "rms") or self.mlp not in ("gelu", "swiglu"):
            raise ValueError(
                f"norm is {self.norm!r} and mlp {self.mlp!r}: norms are 'layer' or 'rms', MLPs "
                "'gelu' or 'swiglu'"
            )

    @classmethod
    def llama(cls, vocab_size: int, context: int, **shape: Any) -> Self:
        """Llama's form: RMSNorm, rotary positions, SwiGLU, no biases (Touvron et al., 2023).

        Args:
            vocab_size: See the class.
            context: See the class.
            **shape: What differs from that form, or from the sizes of the class.
        """
        form: dict[str, Any] = {"norm": "rms", "mlp": "swiglu", "bias": False, "rope": Rope()}
        return cls(vocab_size, context, **(form | shape))

    @property
    def key_heads(self) -> int:
        """Heads of keys and values."""
        return self.n_head if self.n_kv_head is None else self.n_kv_head

    @property
    def head_size(self) -> int:
        """Numbers of a head."""
        return self.n_embd // self.n_head if self.head_dim is None else self.head_dim

    @property
    def inner_width(self) -> int:
        """Width inside an MLP."""
        if self.mlp_width is not None:
            return self.mlp_width
        return 4 * self.n_embd if self.mlp == "gelu" else -(-8 * self.n_embd // 96) * 32

    def as_json(self) -> dict[str, Any]:
        """What `from_json` reads: sizes, and what differs from GPT-2's form."""
        sizes = ("vocab_size", "context", "n_layer", "n_head", "n_embd")
        given = {f.name: getattr(self, f.name) for f in fields(self)}
        kept = {f.name for f in fields(self) if f.name in sizes or given[f.name] != f.default}
        rope = {} if self.rope is None else {"rope": self.rope.as_json()}
        return {name: value for name, value in given.items() if name in kept} | rope

    @classmethod
    def from_json(cls, known: Mapping[str, Any]) -> Self:
        """The one that `as_json` wrote, here or in a version that knew GPT-2's form alone.

        Raises:
            ValueError: It makes no network.
            KeyError: Its rotary scaling is unknown.
            TypeError: It has other fields.
        """
        rope = {} if known.get("rope") is None else {"rope": Rope.from_json(known["rope"])}
        return cls(**{**known, **rope})


class Block(nn.Module):
    """Attention and MLP, each behind a norm and added to the residual stream."""

    def __init__(self, config: TransformerConfig, layer: int):
        super().__init__()
        width, inner, self.d = config.n_embd, config.inner_width, config.head_size
        self.form, self.n_head, self.key_heads = (
            AttentionForm(layer),
            config.n_head,
            config.key_heads,
        )
        self.gated, self.residual_dropout = config.mlp == "swiglu", 0.0
        self.ln_1, self.eps = norm(config), config.norm_eps
        self.qkv = Linear(width, (self.n_head + 2 * self.key_heads) * self.d, config.bias)
        self.attn_out = Linear(self.n_head * self.d, width, config.bias)
        self.ln_2 = norm(config)
        self.mlp_in = Linear(width, (1 + self.gated) * inner, config.bias)
        self.mlp_out = Linear(inner, width, config.bias)
        self._packed = Packed()

    def forward(
        self, x: Tensor, rows: Rows, turns: Tensor | None = None, wanted: Tensor | None = None
    ) -> Tensor:
        """Residual stream (N, n_embd) to the same, or to the `wanted` (k,) of its N places.

        `turns` (2, N, d / 2) are those of `policies.rotary.turned`; None without rotary positions.
        """
        if isinstance(rows, ContinuedRows) and rows.compiled(x) and self._compiled(x):
            return self._one_call(x, rows, turns, wanted)
        qkv = self.qkv(self.ln_1(x)).unflatten(-1, (-1, self.d))
        q, k, v = qkv.split([self.n_head, self.key_heads, self.key_heads], dim=1)
        if turns is not None:
            q, k = turned(q, turns), turned(k, turns)
        attended = rows.attend(self.form, q, k, v).flatten(1)
        if wanted is not None:
            x, attended = x.index_select(0, wanted), attended.index_select(0, wanted)
        x = x + dropped(self.attn_out(attended), self.residual_dropout)
        return x + dropped(
            self.mlp_out(self._activated(self.mlp_in(self.ln_2(x)))), self.residual_dropout
        )

    def _activated(self, inner: Tensor) -> Tensor:
        if not self.gated:
            return F.gelu(inner)
        gate, up = inner.chunk(2, dim=-1)
        return F.silu(gate) * up

    def _compiled(self, x: Tensor) -> bool:
        """Whether a decoding step can do all of this by one call of a compiled loop."""
        return (
            kernels.panels_fit()
            and packs(x, x.shape[1])
            # The loop knows nothing of adapters, hooks and dropout.
            and not self.residual_dropout
            and all(
                type(part) in (Linear, nn.LayerNorm, nn.RMSNorm)
                and not (part._forward_hooks or part._forward_pre_hooks)
                for part in self._parts()
            )
        )

    def _parts(self) -> Iterable[nn.Module]:
        # `children()` would do the same, but takes as long as a small product.
        return cast(Iterable[nn.Module], self._modules.values())

    def _one_call(
        self, x: Tensor, rows: ContinuedRows, turns: Tensor | None, wanted: Tensor | None
    ) -> Tensor:
        parameters = [
            part._parameters.get(name) for part in self._parts() for name in ("weight", "bias")
        ]
        rms = type(self.ln_1) is nn.RMSNorm
        make = functools.partial(kernels.Block, self.eps, rms)
        block = self._packed.of(make, *parameters)
        heads = x.new_empty(0, self.key_heads, self.d)
        stored = rows.store.layer(self.form.layer, heads, heads)
        return block(x, stored, rows.rows, rows.at, turns, wanted)


def norm(config: TransformerConfig) -> nn.LayerNorm | nn.RMSNorm:
    """A norm over the residual stream."""
    if config.norm == "rms":
        return nn.RMSNorm(config.n_embd, config.norm_eps)
    return nn.LayerNorm(config.n_embd, config.norm_eps)


class Transformer(nn.Module):
    """Embeddings of tokens and, without rotary positions, of positions; the blocks; a final norm.

    Weights start from N(0, 0.02), the two projections that write to the residual stream from
    N(0, 0.02 / sqrt(2 n_layer)) (Radford et al., 2019).

    Attributes:
        recompute: Keep only the inputs of each block, and compute the rest again in the backward
            pass (Chen et al., "Training Deep Nets with Sublinear Memory Cost", 2016): a third more
            time for a fraction of the memory.
        dropout: Rates at which this pass drops; see `drop`.
    """

    rope_table: Tensor | None

    def __init__(self, config: TransformerConfig, seed: int = 0):
        super().__init__()
        self.config = config
        self.recompute, self.dropout = False, Dropout()
        self.token_embedding = nn.Embedding(config.vocab_size, config.n_embd)
        self.position_embedding = None
        if config.rope is None:
            self.position_embedding = nn.Embedding(config.context, config.n_embd)
        self.register_buffer("rope_table", None, persistent=False)
        self.set_rope(config.rope, config.context)
        self.blocks = nn.ModuleList(Block(config, layer) for layer in range(config.n_layer))
        self.ln_f = norm(config)
        self.head = None
        if not config.tied:
            self.head = nn.Linear(config.n_embd, config.vocab_size, bias=False)
        self._initialise(torch.Generator().manual_seed(seed))

    def set_rope(self, rope: Rope | None, context: int) -> None:
        """Turn queries and keys by these rotary positions from now on."""
        self.config = replace(self.config, rope=rope, context=context)
        if rope is not None:
            table = rope.table(context, self.config.head_size)
            self.rope_table = table.to(self.token_embedding.weight.device)

    @property
    def head_weight(self) -> Tensor:
        """The output head, shape (V, n_embd): the token embedding, unless it has its own."""
        return self.token_embedding.weight if self.head is None else self.head.weight

    def drop(self, rates: Dropout) -> None:
        """Drop at these rates from now on; `policies.dropout.dropping` undoes it."""
        self.dropout = rates
        for block in self.blocks:
            cast(Block, block).residual_dropout = rates.residual

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
        x, turns = self.token_embedding(tokens), None
        if self.position_embedding is not None:
            x = x + self.position_embedding(positions)
        if self.rope_table is not None:  # every block turns by the same angles
            turns = self.rope_table.index_select(1, positions)
        x = dropped(x, self.dropout.embedding)
        *others, last = self.blocks
        if self.recompute and torch.is_grad_enabled():
            for block in others:
                x = checkpoint(block, x, rows, turns, use_reentrant=False)
            return self.ln_f(checkpoint(last, x, rows, turns, wanted, use_reentrant=False))
        for block in others:
            x = block(x, rows, turns)
        return self.ln_f(last(x, rows, turns, wanted))

    @torch.no_grad()
    def _initialise(self, generator: torch.Generator) -> None:
        residual = 0.02 / math.sqrt(2 * self.config.n_layer)
        for name, parameter in self.named_parameters():
            if parameter.ndim == 2:
                std = residual if name.endswith(("attn_out.weight", "mlp_out.weight")) else 0.02
                parameter.normal_(0.0, std, generator=generator)
            elif name.endswith("bias"):
                parameter.zero_()
