"""Smaller copies of a policy for answering: weights of eight bits, and weights set to zero.

    chatty = int8(policy)              # weights of 8 bits, products in float32
    chatty = int8(policy, products)    # products of 8 bits too, by torchao's configuration
    sparse = pruned(policy, 0.5)       # the smaller half of the weights is 0

Both are frozen copies that act, generate and are scored as the policy itself. They choose a little
differently: where they sample for a learner, its `importance_cap` weighs their tokens. A smaller
network that learns from the policy is made by `textenv distil`.

Left out: the token embedding and the output head, which most of our networks share and which stay
as they are; saving in eight bits, since a saved policy is made smaller in no time when it is read.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import nn
from torch.nn.utils import prune

from policies.linear import Linear, forget_packed
from policies.policy import Policy
from textenv.errors import OptionError, UnsupportedModelError
from textenv.imports import optional

P = TypeVar("P", bound=Policy)
Configuration = Callable[[], Any]


def weights() -> Any:
    """Eight bits for each weight and a scale for each output; products in float32.

    A quarter of the layers' memory. Weights are unpacked for each product: on processors it is not
    quicker than float32.
    """
    with _torchao():
        from torchao.quantization import Int8WeightOnlyConfig
    return Int8WeightOnlyConfig(version=2)


def products() -> Any:
    """The same weights; inputs are rounded to eight bits for each row, and products are integers.

    Quicker than float32 where layers are large and there are many rows, and a little less exact.
    Dettmers et al., "LLM.int8()" (2022), arXiv:2208.07339, without its columns of outliers.
    """
    with _torchao():
        from torchao.quantization import Int8DynamicActivationInt8WeightConfig
    return Int8DynamicActivationInt8WeightConfig(version=2)


def int8(policy: P, configuration: Configuration = weights) -> P:
    """A frozen copy whose linear layers hold weights of eight bits, by torchao.

    Args:
        policy: Any policy; its value head, embeddings and output head stay as they are.
        configuration: `weights`, `products`, or a function that gives another configuration of
            `torchao.quantization`.

    Raises:
        MissingExtraError: torchao is not installed.
        UnsupportedModelError: The policy has no linear layer of its own that could be made smaller.
    """
    with _torchao():
        from torchao.quantization import quantize_
    small = policy.frozen_copy()
    forget_packed(small)
    layers = layers_of(small)
    for layer in layers.values():
        if type(layer) is Linear:  # which would pack its weight as float32
            layer.__class__ = nn.Linear  # type: ignore[assignment]
    chosen = set(map(id, layers.values()))
    quantize_(small, configuration(), filter_fn=lambda module, name: id(module) in chosen)
    return small


def pruned(policy: P, share: float) -> P:
    """A frozen copy in which this share of the layers' weights is 0: those nearest to it.

    Magnitudes are compared over all layers together (Han et al., "Learning both Weights and
    Connections", 2015, arXiv:1506.02626), by `torch.nn.utils.prune`. Products take as long as
    before; files and wires that compress zeros have less to carry. Without further training few
    policies bear more than a half.

    Args:
        policy: Any policy; its value head, embeddings and output head stay as they are.
        share: From 0 to 1.

    Raises:
        OptionError: The share is not within 0 to 1.
        UnsupportedModelError: The policy has no linear layer of its own that could be pruned.
    """
    if not 0 <= share <= 1:
        raise OptionError(f"share is {share}; it must be from 0 to 1")
    small = policy.frozen_copy()
    forget_packed(small)
    places = [(layer, "weight") for layer in layers_of(small).values()]
    prune.global_unstructured(places, pruning_method=prune.L1Unstructured, amount=float(share))
    for layer, name in places:
        prune.remove(layer, name)
    return small.requires_grad_(False)


def layers_of(policy: Policy) -> dict[str, nn.Linear]:
    """The linear layers inside a policy's network, by name.

    Raises:
        UnsupportedModelError: There is none.
    """
    outside = {id(policy.value_head)}
    found = {
        name: module
        for name, module in policy.named_modules()
        if isinstance(module, nn.Linear)
        and id(module) not in outside
        and module.out_features != policy.vocab_size
        and module.weight.is_floating_point()
    }
    if not found:
        raise UnsupportedModelError(
            f"{type(policy).__name__} has no torch.nn.Linear between its embeddings and its output "
            "head: there is nothing to make smaller"
        )
    return found


def bytes_of(policy: Policy) -> int:
    """What a policy's weights take in memory, in bytes; weights that are shared count once."""
    return sum(_bytes(weight) for weight in policy.parameters())


def _bytes(weight: torch.Tensor) -> int:
    if not hasattr(weight, "__tensor_flatten__"):
        return weight.numel() * weight.element_size()
    names, _ = weight.__tensor_flatten__()
    return sum(_bytes(getattr(weight, name)) for name in names)


def _torchao() -> Any:
    # It says at import which libraries for other devices it does not find.
    logging.getLogger("torchao").setLevel(logging.ERROR)
    return optional("torchao", extra="int8", purpose="a policy with weights of eight bits")
