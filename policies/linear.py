"""Linear layers that multiply with weights packed once, where that pays.

A rollout uses the same weights for thousands of tokens. oneDNN can lay a weight out once for its
kernels; the product stays true fp32. On AMD processors that is faster than the default library for
all but small layers, whose time is the fixed cost of the call; elsewhere nothing is assumed. The
choice depends on the processor and the shape alone, never on a measurement at run time, so that
equal seeds give equal bits. `benchmarks/linear.py` measures both ways.
"""

import functools
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

FEW_ROWS = 256
"""Packing is for products of few rows, as in generation; large ones are left to the default."""

LARGE = 2**16
"""Entries of a weight from which on the fixed cost of a packed product does not matter."""


@functools.cache
def packing_pays() -> bool:
    """Whether this is a processor on which packed products were found to be faster."""
    cpuinfo = Path("/proc/cpuinfo")
    amd = cpuinfo.exists() and "AuthenticAMD" in cpuinfo.read_text(encoding="utf-8")
    return amd and torch.backends.mkldnn.is_available()


def _pack(weight: Tensor) -> Tensor | None:
    """The packed form; None where it is not possible or does not pay."""
    if weight.device.type == "cpu" and weight.dtype == torch.float32 and weight.numel() >= LARGE:
        packed: Tensor = torch.ops.mkldnn._reorder_linear_weight(weight.detach(), None)
        return packed
    return None


def packed_product(x: Tensor, packed: Tensor, bias: Tensor | None) -> Tensor:
    """`x @ weight.T + bias` from the packed form of `weight`."""
    product: Tensor = _operator()(x, packed, bias, "none", [], "")
    return product


@functools.cache
def _operator() -> Any:
    """Looked up once: at every call that takes as long as a small product."""
    return torch.ops.mkldnn._linear_pointwise.default


class PackedWeight:
    """A weight matrix and its packed form, renewed when the weight has changed."""

    def __init__(self) -> None:
        self._packed: Tensor | None = None
        self._version: tuple[int, int] | None = None

    def __deepcopy__(self, memo: dict[int, Any]) -> "PackedWeight":
        """A copied layer packs its own weight."""
        return PackedWeight()

    def __reduce__(self) -> tuple[Any, ...]:
        """Packed weights are not pickled."""
        return (PackedWeight, ())

    def linear(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """`x @ weight.T + bias`, packed where that is possible and pays."""
        few = x.shape[:-1].numel() <= FEW_ROWS
        if not (few and torch.is_inference_mode_enabled() and packing_pays()):
            return F.linear(x, weight, bias)
        version = (weight._version, weight.data_ptr())
        if version != self._version:
            self._packed = _pack(weight)
            self._version = version
        if self._packed is None or x.dtype != torch.float32 or torch.is_autocast_enabled("cpu"):
            return F.linear(x, weight, bias)
        return packed_product(x, self._packed, bias)


class Linear(nn.Linear):
    """`torch.nn.Linear` with a packed weight for generation."""

    def __init__(self, in_features: int, out_features: int):
        super().__init__(in_features, out_features)
        self._packed = PackedWeight()

    def forward(self, x: Tensor) -> Tensor:
        """Rows (*, in_features) to (*, out_features)."""
        return self._packed.linear(x, self.weight, self.bias)


def pack_layers(model: nn.Module) -> None:
    """Let the linear layers of someone else's model keep a packed weight too."""
    for module in model.modules():
        if type(module) is nn.Linear:
            # The same layer with the same parameters: only what it does with them is another thing.
            module.__class__ = Linear
            module._packed = PackedWeight()  # type: ignore[assignment]
