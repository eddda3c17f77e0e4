"""Steps of an encoder-decoder's decoder in which each row stands at a place of its own.

transformers' decoders step all rows of a batch at one position. Here the new tokens of all rows are
laid end to end in one row. The decoder is given a cache that answers its questions token by token:
how long the past is, which makes absolute and relative positions right, and what the keys and
values of answers and sources are. Our attention function knows the rows.

Import this module only when a model is there: it imports transformers.
"""

from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.cache_utils import DynamicCache, EncoderDecoderCache
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from policies.huggingface.sources import SourceStore
from policies.rows import AttentionForm, RowStore, attention, visible

ANSWERS = "textenv_answers"
"""Name of the keyword argument, and of the attention function in transformers' register."""


def register_attention() -> None:
    """Make `ANSWERS` known to transformers as an attention function."""
    AttentionInterface.register(ANSWERS, _attend)
    AttentionMaskInterface.register(ANSWERS, sdpa_mask)


def _attend(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, mask: Any, **options: Any
) -> tuple[Tensor, None]:
    tokens: NewTokens | None = options.pop(ANSWERS, None)
    if tokens is None:  # whole rows, or the model is called by someone else
        output: tuple[Tensor, None] = sdpa_attention_forward(
            module, query, key, value, mask, **options
        )
        return output
    bias = options.get("position_bias")
    if bias is not None:  # T5's, of each new token to each key of its row
        mask = mask + tokens.in_rows(bias)
    form = AttentionForm(0, options.get("scaling"), None, options.get("softcap"))
    return tokens.flat(attention(tokens.in_rows(query), key, value, mask, form)), None


class NewTokens:
    """Which rows and positions the new tokens of a step have.

    Args:
        rows: Row of each token, shape (N,), int64, ascending.
        positions: Its position in the answer, shape (N,), int64, ascending in a row.
        counts: New tokens of each of the k rows that take part, shape (k,), int64.

    Attributes:
        last: Flat index of each row's last new token, shape (k,).
    """

    def __init__(self, rows: Tensor, positions: Tensor, counts: Tensor):
        self.rows, self.positions = rows, positions
        ends = counts.cumsum(0)
        self.last = ends - 1
        self.single = len(rows) == len(counts)  # nearly always
        steps = torch.arange(int(counts.max()), device=rows.device)
        self.inside = steps < counts[:, None]
        self.index = (ends - counts)[:, None] + torch.minimum(steps, counts[:, None] - 1)

    def in_rows(self, x: Tensor) -> Tensor:
        """Flat (1, heads, N, d) to rows (k, heads, W, d), which end with copies of the last one."""
        x = x[0].transpose(0, 1)
        return x.unsqueeze(2) if self.single else x[self.index].transpose(1, 2)

    def flat(self, x: Tensor) -> Tensor:
        """Rows (k, heads, W, d) to flat (1, N, heads, d)."""
        x = x.transpose(1, 2)
        return (x.squeeze(1) if self.single else x[self.inside])[None]


class Past(EncoderDecoderCache):  # type: ignore[misc]
    """The past of a step's new tokens, in the form in which transformers' decoders ask for it.

    Args:
        store: Keys and values so far; those of the new tokens are written into it.
        tokens: The new tokens.
    """

    def __init__(self, store: SourceStore, tokens: NewTokens):
        # The base class's __init__ is not called: it makes caches of its own.
        active = tokens.rows[tokens.last]
        part: Any = slice(None) if len(active) == store.answers.rows else active
        self.self_attention_cache = _Answers(store.answers, tokens, part)
        self.lengths = torch.from_numpy(store.lengths).to(active.device)[part]
        width = int(self.lengths.max())
        self.cross_attention_cache = SimpleNamespace(
            layers={
                layer: SimpleNamespace(
                    keys=k[part, :width].transpose(1, 2), values=v[part, :width].transpose(1, 2)
                )
                for layer, (k, v) in store.sources.layers.items()
            }
        )
        self.is_updated = dict.fromkeys(store.sources.layers, True)
        self._past = tokens.positions - torch.arange(len(tokens.rows), device=active.device)
        self._places, self._width = tokens.positions[tokens.index], width

    def get_seq_length(self, layer_idx: int | None = None) -> Any:
        """How far each token's position lies behind its place in the flat row.

        Decoders with absolute positions add it to `arange(N)`; T5's attention, which asks for its
        layer, to a column.
        """
        return self._past if layer_idx is None else self._past[:, None]

    def masks(self, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Additive masks (k, 1, W, answer) and (k, 1, 1, source), which are used as they are."""
        own = visible(self._places, self.self_attention_cache.width, None, dtype)[:, None]
        return own, visible(self.lengths - 1, self._width, None, dtype)[:, None, None]


class _Answers:
    """The decoder's own keys and values."""

    def __init__(self, store: RowStore, tokens: NewTokens, part: Any):
        self.store, self.tokens, self.part = store, tokens, part
        self.width = int(tokens.positions.max()) + 1
        store.reserve(self.width)

    def update(
        self, key: Tensor, value: Tensor, layer_idx: int, *_: Any, **__: Any
    ) -> tuple[Tensor, Tensor]:
        """Keep those of the new tokens (1, key heads, N, d); returns all of the rows' answers."""
        new = tuple(x[0].transpose(0, 1) for x in (key, value))
        stored = self.store.layer(layer_idx, *new)
        for kept, some in zip(stored, new, strict=True):
            kept[self.tokens.rows, self.tokens.positions] = some
        k, v = (kept[self.part, : self.width].transpose(1, 2) for kept in stored)
        return k, v


def source_keys(decoder: Any, start: int, memory: Tensor, mask: Tensor) -> Any:
    """Keys and values of encoded sources, by one step of the decoder itself.

    Args:
        decoder: The decoder of a model of transformers.
        start: The token that an answer begins with.
        memory: The encoder's hidden states, shape (n, W, n_embd).
        mask: True where a source has a token, shape (n, W), bool.

    Returns:
        Keys and values for each layer, both (n, key heads, W, head_dim).
    """
    past = EncoderDecoderCache(DynamicCache(), DynamicCache())
    decoder(
        input_ids=torch.full((len(memory), 1), start, device=memory.device),
        encoder_hidden_states=memory,
        encoder_attention_mask=mask,
        past_key_values=past,
        use_cache=True,
    )
    return [(layer.keys, layer.values) for layer in past.cross_attention_cache.layers]
