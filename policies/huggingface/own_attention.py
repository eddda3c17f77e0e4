"""Families whose attention is not in transformers' register, and what is put in its place.

GPT-J, CodeGen and GPT-Neo attend in a method `_attn`, Falcon in the `forward` of its layer. Both
are replaced in the layers of one model. With no rows, these do what they did before.
"""

from functools import partial
from typing import Any

import torch
from torch import Tensor

from policies.huggingface.registered_attention import attend, rows_now
from policies.rows import AttentionForm


def replace_own_attention(model: Any) -> bool:
    """Let layers that are known here work on flat tokens when there are rows; whether any are."""
    found = False
    for layer in model.modules():
        if hasattr(type(layer), "_attn") and _number(layer) is not None:
            layer._attn, found = partial(_by_method, layer), True
        elif type(layer).__name__ == "FalconAttention" and not model.config.alibi:
            layer.forward, found = partial(_by_layer, layer), True
    return found


def _number(layer: Any) -> Any:
    return getattr(layer, "layer_idx", getattr(layer, "layer_id", None))


def _by_method(
    layer: Any, query: Tensor, key: Tensor, value: Tensor, *mask: Any, **masks: Any
) -> Any:
    if (rows := rows_now()) is None:
        return type(layer)._attn(layer, query, key, value, *mask, **masks)
    local = getattr(layer, "attention_type", None) == "local"  # GPT-Neo's
    divisor = getattr(layer, "scale_attn", getattr(layer, "norm_factor", 1.0))  # GPT-Neo: 1
    window = layer.config.window_size if local else None
    form = AttentionForm(_number(layer), 1 / float(divisor), window)
    return attend(rows, form, query, key, value).transpose(0, 1)[None], None


def _by_layer(layer: Any, hidden: Tensor, *others: Any, **options: Any) -> Any:
    if (rows := rows_now()) is None:
        return type(layer).forward(layer, hidden, *others, **options)
    q, k, v = (x.transpose(1, 2) for x in layer._split_heads(layer.query_key_value(hidden)))
    cos, sin = (x.unsqueeze(1) for x in options["position_embeddings"])
    q, k = (x * cos + _turned(x) * sin for x in (q, k))
    out = attend(rows, AttentionForm(layer.layer_idx), q, k, v)
    return layer.dense(out.flatten(1))[None], None


def _turned(x: Tensor) -> Tensor:
    """Halves of the last dimension changed, as rotary positions do."""
    first, second = x.chunk(2, dim=-1)
    return torch.cat([-second, first], dim=-1)
