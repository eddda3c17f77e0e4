"""Matrix products in a lower precision, and optimiser steps that survive it."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer


class Precision:
    """Autocast to a dtype; for `torch.float16` with a loss scale that adapts.

    Weights, their gradients and the optimiser stay fp32. Small gradients vanish in float16, so the
    loss is multiplied by a scale before it is differentiated, and the gradients are divided by it
    afterwards. A step whose gradients overflow is skipped, and the scale is halved (Micikevicius et
    al., "Mixed Precision Training", 2018, arXiv:1710.03740). `torch.bfloat16` has the range of fp32
    and needs no scale.

    Args:
        dtype: Number format of the matrix products; `torch.float32` changes nothing.
        device: Device of the weights, such as `"cpu"` or `"cuda"`.
    """

    def __init__(self, dtype: torch.dtype, device: str):
        self.dtype, self.device = dtype, device
        self.scaler = torch.amp.GradScaler(device, enabled=dtype == torch.float16)

    def autocast(self) -> torch.autocast:
        """The context in which losses are computed."""
        lower = self.dtype != torch.float32
        return torch.autocast(self.device, self.dtype if lower else None, enabled=lower)

    def backward(self, loss: Tensor) -> None:
        """Add the gradient of `loss`, times the scale, to the parameters' gradients."""
        self.scaler.scale(loss).backward()

    def step(self, optimizer: Optimizer, parameters: Sequence[Tensor], max_norm: float) -> Tensor:
        """One step down the true gradients, scaled down to `max_norm`; returns their norm."""
        # Unscaled first: `max_norm` is a bound on the true gradients.
        self.scaler.unscale_(optimizer)
        norm = nn.utils.clip_grad_norm_(parameters, max_norm)
        self.scaler.step(optimizer)
        self.scaler.update()
        return norm

    def state_dict(self) -> dict[str, Any]:
        """The state of the loss scale; empty if there is no scale."""
        return self.scaler.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue with the scale that `state_dict` returned."""
        if state:
            self.scaler.load_state_dict(state)
