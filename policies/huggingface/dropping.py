"""Dropout in models of transformers: one set of places for all families.

Families put their own dropout at different places, and many (Llama, Qwen, Gemma) have none but in
attention. So a model stays in evaluation, and hooks drop at the places of `policies.Dropout`; in an
encoder-decoder in both stacks, and in the attention to the source too. Left out: an adapter's own
`lora_dropout`.
"""

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from torch import nn
from torch.utils.hooks import RemovableHandle

from policies.dropout import Dropout, dropped
from policies.huggingface.checks import unsupported

ATTENTION = (
    *("self_attn", "attn", "attention", "self_attention"),
    *("encoder_attn", "SelfAttention", "EncDecAttention"),
)
MLP = ("mlp", "feed_forward", "block_sparse_moe", "fc2", "DenseReluDense")
"""What families call the two parts of a layer that add to the residual stream."""


@contextmanager
def dropping_in(stack: Any, rates: Dropout) -> Iterator[None]:
    """Drop from the sum of embeddings and from what layers add to the residual stream.

    Args:
        stack: A decoder or an encoder.
        rates: What to drop; the weights of attention are dropped elsewhere.

    Raises:
        UnsupportedModelError: Its layers are not made of an attention and an MLP by known names.
    """
    layers = _layers(stack)
    handles: list[RemovableHandle] = []
    try:
        if rates.residual:
            for layer in layers:
                for names in (ATTENTION, MLP):
                    parts = list(_parts(layer, names))
                    if not parts:
                        raise _not_known(stack, layer)
                    hook = partial(_drop_output, rates.residual)
                    handles += [part.register_forward_hook(hook) for part in parts]
        if rates.embedding:
            first = partial(_drop_input, rates.embedding)
            handles.append(layers[0].register_forward_pre_hook(first, with_kwargs=True))
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def dropping_weights(stack: Any, rate: float) -> Iterator[None]:
    """Let the attention of `stack` drop weights as transformers' own does in training.

    For attention that hands its rate on to the function that computes it, as T5's and BART's do.

    Raises:
        UnsupportedModelError: Its attention is not known by its names, or has no rate.
    """
    parts = [part for layer in _layers(stack) for part in _parts(layer, ATTENTION)] if rate else []
    before = [(part, getattr(part, "dropout", None), part.training) for part in parts]
    if rate and not (parts and all(isinstance(own, float) for _, own, _ in before)):
        raise _not_known(stack, _layers(stack)[0])
    try:
        for part in parts:
            part.dropout, part.training = rate, True  # type: ignore[assignment]
        yield
    finally:
        for part, own, training in before:
            part.dropout, part.training = own, training  # type: ignore[assignment]


def _parts(module: nn.Module, names: Collection[str]) -> Iterator[nn.Module]:
    """The outermost modules within `module` that have one of these names."""
    for name, child in module.named_children():
        if name in names:
            yield child
        else:
            yield from _parts(child, names)


def _layers(stack: Any) -> list[nn.Module]:
    from transformers.modeling_layers import GradientCheckpointingLayer

    found = [m for m in stack.modules() if isinstance(m, GradientCheckpointingLayer)]
    if not found:
        raise _not_known(stack, stack)
    return found


def _not_known(stack: Any, layer: nn.Module) -> Exception:
    parts = ", ".join(name for name, _ in layer.named_children())
    return unsupported(
        stack,
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
