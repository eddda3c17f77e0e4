"""Linear layers that multiply with weights packed once, where that pays.

A rollout uses the same weights for thousands of tokens, so they can be laid out once in the order
in which a product reads them. Products stay true fp32. On AMD processors this is faster than the
default library; on others it is not used. Few threads use our own product
(`policies.compiled.panels`), more threads that of oneDNN. The choice depends on the processor, the
shape and the number of threads alone, never on a measurement at run time, so that equal seeds give
equal bits. `benchmarks/linear.py` measures all of them.
"""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from policies import kernels

FEW_ROWS = 256
"""Packed weights are for products of few rows, as in generation; larger ones use the default."""

LARGE = 2**16
"""With this many entries in a weight, the fixed cost of a oneDNN product no longer matters."""

Layer = Callable[[Tensor], Tensor]
"""Rows (*, inputs) to rows (*, outputs), by a weight and a bias that are packed."""


@functools.cache
def packing_pays() -> bool:
    """Whether this is a processor on which packed products were found to be faster."""
    cpuinfo = Path("/proc/cpuinfo")
    return cpuinfo.exists() and "AuthenticAMD" in cpuinfo.read_text(encoding="utf-8")


def pack(weight: Tensor, bias: Tensor | None) -> Layer | None:
    """`x @ weight.T + bias` as a function of x; None where packing is not possible or no use."""
    if weight.device.type != "cpu" or weight.dtype != torch.float32:
        return None
    if kernels.panels_fit():
        return kernels.Panels(weight, bias)
    if weight.numel() >= LARGE and torch.backends.mkldnn.is_available():
        return pack_for_onednn(weight, bias)
    return None


def pack_for_onednn(weight: Tensor, bias: Tensor | None) -> Layer:
    """`x @ weight.T + bias` by oneDNN, as a function of x."""
    packed = torch.ops.mkldnn._reorder_linear_weight(weight.detach(), None)
    operator = _operator()
    return lambda x: operator(x, packed, bias, "none", [], "")


@functools.cache
def _operator() -> Any:
    """Cached, because the lookup costs as much as a small product."""
    return torch.ops.mkldnn._linear_pointwise.default


class Packed:
    """Keeps something made of parameters, such as a packed form, until one of them changes."""

    def __init__(self) -> None:
        self._made: Any = None
        self._version: object = None

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        """A copied layer packs its own parameters."""
        return type(self)()

    def __reduce__(self) -> tuple[Any, ...]:
        """Packed parameters are not pickled."""
        return (type(self), ())

    def of(self, make: Callable[..., Any], *parameters: Tensor | None) -> Any:
        """`make(*parameters)`, or its earlier result if no parameter has changed since."""
        version = [(p._version, p.data_ptr()) for p in parameters if p is not None]
        if version != self._version:
            self._made = make(*parameters)
            self._version = version
        return self._made

    def forget(self) -> None:
        """Give up what was made."""
        self._made = self._version = None


def packs(x: Tensor, inputs: int) -> bool:
    """Whether rows like `x` (*, inputs) are multiplied with packed weights."""
    return (
        torch.is_inference_mode_enabled()
        and packing_pays()
        and x.numel() <= FEW_ROWS * inputs
        and x.dtype == torch.float32
        and not torch.is_autocast_enabled("cpu")
    )


def forget_packed(module: nn.Module) -> None:
    """Give up the packed forms of all weights in a module: they take as much memory as these."""
    for part in module.modules():
        for value in vars(part).values():
            if isinstance(value, Packed):
                value.forget()


class PackedWeight(Packed):
    """A weight matrix and a bias in packed form."""

    def linear(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """`x @ weight.T + bias`, packed where that is possible and pays."""
        if packs(x, weight.shape[1]):
            layer: Layer | None = self.of(pack, weight, bias)
            if layer is not None:
                return layer(x)
        return F.linear(x, weight, bias)


class Linear(nn.Linear):
    """`torch.nn.Linear` with a packed weight for generation."""

    def __init__(self, in_features: int, out_features: int, bias: bool = True):
        super().__init__(in_features, out_features, bias)
        self._packed = PackedWeight()

    def forward(self, x: Tensor) -> Tensor:
        """Rows (*, in_features) to (*, out_features)."""
        return self._packed.linear(x, self.weight, self.bias)


def pack_layers(model: nn.Module) -> None:
    """Let the linear layers of any model keep a packed weight, by changing their class."""
    for module in model.modules():
        if type(module) is nn.Linear:
            # The layer and its parameters stay the same objects; only `forward` changes.
            module.__class__ = Linear
            module._packed = PackedWeight()  # type: ignore[assignment]
