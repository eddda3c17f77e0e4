"""Linear layers that multiply with weights packed once, where that pays.

A rollout uses the same weights for thousands of tokens. oneDNN can lay a weight out once for its
kernels; the product stays true fp32. Each such call has a fixed cost, so it pays for a head as
wide as a vocabulary on AMD processors, and for every layer on those of them where the default
library runs at half speed. `benchmarks/linear.py` measures both.
"""

import functools
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

FEW_ROWS = 256
"""Packing is for products of few rows, as in generation; large ones are left to the default."""

LARGE = 2**22
"""Entries of a weight from which on the fixed cost of a packed product does not matter."""

CLEARLY_FASTER = 1.4
"""The quotient that decides for small layers. It is far from both that occur, 1 and 2, so that the
same machine always decides alike, and equal seeds give equal bits."""


@functools.cache
def is_amd() -> bool:
    """Whether the processor is one on which packed products are no slower than the default."""
    cpuinfo = Path("/proc/cpuinfo")
    amd = cpuinfo.exists() and "AuthenticAMD" in cpuinfo.read_text(encoding="utf-8")
    return amd and torch.backends.mkldnn.is_available()


@functools.cache
def small_layers_pay() -> bool:
    """Whether packing is clearly faster for small layers, by a measurement of some milliseconds."""
    if not is_amd():
        return False
    x, weight = torch.ones(32, 512), torch.ones(512, 512)
    packed = torch.ops.mkldnn._reorder_linear_weight(weight, None)
    plain_seconds = packed_seconds = float("inf")
    for _ in range(20):  # the best of many: other programs only ever add to a time
        plain_seconds = min(plain_seconds, _seconds(lambda: F.linear(x, weight)))
        packed_seconds = min(packed_seconds, _seconds(lambda: _packed_product(x, packed, None)))
    return plain_seconds > CLEARLY_FASTER * packed_seconds


def _seconds(run: Callable[[], Any]) -> float:
    begin = time.perf_counter()
    run()
    return time.perf_counter() - begin


def _packed_product(x: Tensor, packed: Tensor, bias: Tensor | None) -> Tensor:
    return torch.ops.mkldnn._linear_pointwise(x, packed, bias, "none", [], "")


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
        if not (
            torch.is_inference_mode_enabled()
            and x.shape[0] <= FEW_ROWS
            and x.device.type == "cpu"
            and x.dtype == weight.dtype == torch.float32
            and not torch.is_autocast_enabled("cpu")
            and (is_amd() if weight.numel() >= LARGE else small_layers_pay())
        ):
            return F.linear(x, weight, bias)
        version = (weight._version, weight.data_ptr())
        if version != self._version:
            self._packed = torch.ops.mkldnn._reorder_linear_weight(weight.detach(), None)
            self._version = version
        assert self._packed is not None
        return _packed_product(x, self._packed, bias)


class Linear(nn.Linear):
    """`torch.nn.Linear` with a packed weight for generation."""

    def __init__(self, in_features: int, out_features: int):
        super().__init__(in_features, out_features)
        self._packed = PackedWeight()

    def forward(self, x: Tensor) -> Tensor:
        """Rows (N, in_features) to (N, out_features)."""
        return self._packed.linear(x, self.weight, self.bias)
