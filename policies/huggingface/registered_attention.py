"""The attention function that models of transformers call, and how they are made to call it.

The rows do not come as an argument: some layers (StableLM's) do not hand arguments on, and then
tokens of all rows would attend to one another. They are set for the time of a pass instead.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor, nn

from policies.huggingface.checks import unsupported
from policies.rows import AttentionForm, Rows, attention, visible
from textenv.errors import UnsupportedModelError

ROWS = "textenv_rows"
"""Name of the attention function in transformers' register."""

_rows: ContextVar[Rows | None] = ContextVar(ROWS, default=None)


@contextmanager
def reading(rows: Rows | None) -> Iterator[None]:
    """Let attention work on flat tokens that belong to `rows`; as transformers does if None."""
    before = _rows.set(rows)
    try:
        yield
    finally:
        _rows.reset(before)


def rows_now() -> Rows | None:
    """The rows that flat tokens belong to at present."""
    return _rows.get()


def register_attention() -> None:
    """Make `ROWS` known to transformers as an attention function."""
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.integrations.sdpa_attention import sdpa_attention_forward
    from transformers.masking_utils import sdpa_mask

    def in_rows(
        module: nn.Module,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attention_mask: Any,
        **options: Any,
    ) -> tuple[Tensor, None]:
        rows = rows_now()
        if rows is None:  # not called by a policy, but for instance by the model's own `generate`
            if options.get("softcap") is not None:
                return _soft_capped(query, key, value, attention_mask, options), None
            output: tuple[Tensor, None] = sdpa_attention_forward(
                module, query, key, value, attention_mask, **options
            )
            return output
        if options.get("s_aux") is not None:
            raise UnsupportedModelError("its attention has sinks, which are not supported")
        form = AttentionForm(
            int(module.layer_idx),  # type: ignore[arg-type]
            options.get("scaling"),
            options.get("sliding_window"),
            options.get("softcap"),
        )
        return attend(rows, form, query, key, value)[None], None

    AttentionInterface.register(ROWS, in_rows)
    AttentionMaskInterface.register(ROWS, sdpa_mask)


def attend(rows: Rows, form: AttentionForm, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Queries, keys and values (1, heads, N, d) to outputs (N, heads, d)."""
    q, k, v = (x[0].transpose(0, 1) for x in (query, key, value))
    return rows.attend(form, q, k, v)


def replace_attention(model: Any, name: str) -> None:
    """Let the model's attention layers use the function of that name in transformers' register.

    Raises:
        UnsupportedModelError: Its attention cannot be replaced.
    """
    model.set_attn_implementation(name)
    if model.config._attn_implementation != name:
        raise unsupported(
            model,
            "its attention layers compute everything themselves, with the mask and the positions "
            "of a padded batch, and do not call a function that could be replaced by one that "
            "knows rows",
        )


def _soft_capped(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, options: Any) -> Tensor:
    """Attention of a padded batch, with the mask that goes with `sdpa`, for models with a cap."""
    length, total = q.shape[2], k.shape[2]
    if mask is None:
        positions = torch.arange(total - length, total, device=q.device)
        mask = visible(positions, total, None, q.dtype)
    elif mask.dtype == torch.bool:
        mask = torch.zeros_like(mask, dtype=q.dtype).masked_fill_(~mask, -torch.inf)
    form = AttentionForm(0, options.get("scaling"), None, options["softcap"])
    return attention(q, k, v, mask, form).transpose(1, 2)
