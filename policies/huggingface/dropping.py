"""Dropout in causal models of transformers: one set of places for all families.

Families put their own dropout at different places, and many (Llama, Qwen, Gemma) have none but in
attention. So a model stays in evaluation, and hooks drop at the places of `policies.Dropout`. Left
out: an adapter's own `lora_dropout`, and encoder-decoders.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from torch import nn
from torch.utils.hooks import RemovableHandle

from policies.dropout import Dropout, dropped
from policies.huggingface.checks import unsupported

ATTENTION = ("self_attn", "attn", "attention", "self_attention")
MLP = ("mlp", "feed_forward", "block_sparse_moe", "fc2")
"""What families call the two parts of a layer that add to the residual stream."""


@contextmanager
def dropping_in(decoder: Any, rates: Dropout) -> Iterator[None]:
    """Drop from the sum of embeddings and from what layers add to the residual stream.

    Raises:
        UnsupportedModelError: Its layers are not made of an attention and an MLP by known names.
    """
    layers = _layers(decoder)
    handles: list[RemovableHandle] = []
    try:
        if rates.residual:
            for layer in layers:
                for names in (ATTENTION, MLP):
                    part = next((p for n, p in layer.named_children() if n in names), None)
                    if part is None:
                        raise _not_known(decoder, layer)
                    handles.append(
                        part.register_forward_hook(partial(_drop_output, rates.residual))
                    )
        if rates.embedding:
            hook = partial(_drop_input, rates.embedding)
            handles.append(layers[0].register_forward_pre_hook(hook, with_kwargs=True))
        yield
    finally:
        for handle in handles:
            handle.remove()


def _layers(decoder: Any) -> list[nn.Module]:
    from transformers.modeling_layers import GradientCheckpointingLayer

    found = [m for m in decoder.modules() if isinstance(m, GradientCheckpointingLayer)]
    if not found:
        raise _not_known(decoder, decoder)
    return found


def _not_known(decoder: Any, layer: nn.Module) -> Exception:
    parts = ", ".join(name for name, _ in layer.named_children())
    return unsupported(
        decoder,
        f"where its layers add to the residual stream is not known ({type(layer).__name__} has "
        f"{parts}), so dropout has no place there",
    )


def _drop_output(rate: float, layer: nn.Module, given: Any, output: Any) -> Any:
    if isinstance(output, tuple):  # attention: its output and weights
        return dropped(output[0], rate), *output[1:]
    return dropped(output, rate)


def _drop_input(rate: float, layer: nn.Module, given: Any, options: Any) -> Any:
    if given:
        return (dropped(given[0], rate), *given[1:]), options
    return given, options | {"hidden_states": dropped(options["hidden_states"], rate)}
