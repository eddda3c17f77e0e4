"""Matrix products in a lower precision, and optimiser steps that survive it."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from textenv.errors import DivergedError

SMALLEST_SCALE = 2.0**-14
"""Gradients that overflow float16 at this loss scale are beyond 1e9: no scale will mend them."""


class Precision:
    """Autocast to a dtype; for `torch.float16` with a loss scale that adapts.

    Weights, their gradients and the optimiser stay fp32. Small gradients vanish in float16, so the
    loss is multiplied by a scale before it is differentiated, and the gradients are divided by it
    afterwards. A step whose gradients overflow is skipped, and the scale is halved (Micikevicius et
    al., "Mixed Precision Training", 2018, arXiv:1710.03740). `torch.bfloat16` has the range of fp32
    and needs no scale.

    Every optimiser step goes through here, so here a loss or a gradient that is not finite is
    refused before it reaches the weights.

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
        """Add the gradient of `loss`, times the scale, to the parameters' gradients.

        Raises:
            DivergedError: The loss is not a finite number; see `step`.
        """
        self.scaler.scale(loss).backward()
        self._check("loss", loss)

    def step(self, optimizer: Optimizer, parameters: Sequence[Tensor], max_norm: float) -> Tensor:
        """One step down the true gradients, scaled down to `max_norm`; returns their norm.

        Raises:
            DivergedError: The norm is not a finite number. With a loss scale the step is skipped
                instead, until the scale has become so small that it cannot be the reason.
        """
        # Unscaled first: `max_norm` is a bound on the true gradients.
        self.scaler.unscale_(optimizer)
        norm = clip(parameters, max_norm)
        self._check("norm of the gradient", norm)
        self.scaler.step(optimizer)
        self.scaler.update()
        return norm

    def _check(self, name: str, value: Tensor) -> None:
        if not self.scaler.is_enabled() or self.scaler.get_scale() < SMALLEST_SCALE:
            check_finite(name, value)

    def state_dict(self) -> dict[str, Any]:
        """The state of the loss scale; empty if there is no scale."""
        return self.scaler.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue with the scale that `state_dict` returned."""
        if state:
            self.scaler.load_state_dict(state)


def clip(parameters: Sequence[Tensor], max_norm: float) -> Tensor:
    """Scale gradients down to a norm of `max_norm` together; returns the norm that they had.

    Processes may hold parts of some parameters, and others as a whole.
    """
    kinds: dict[bool, list[Tensor]] = {}
    for parameter in parameters:
        if parameter.grad is not None:
            kinds.setdefault(hasattr(parameter, "full_tensor"), []).append(parameter)
    if not kinds:
        return torch.zeros(())
    norms = [
        nn.utils.get_total_norm([p.grad for p in kind if p.grad is not None])
        for kind in kinds.values()
    ]
    whole = [norm.full_tensor() if hasattr(norm, "full_tensor") else norm for norm in norms]
    norm = whole[0] if len(whole) == 1 else torch.stack(whole).norm()
    for kind in kinds.values():
        nn.utils.clip_grads_with_norm_(kind, max_norm, norm)
    return norm


def check_finite(name: str, value: Tensor) -> None:
    """Refuse a loss, or the norm of a gradient, from which no step can be taken.

    Raises:
        DivergedError: `value`, a scalar, is infinite or NaN.
    """
    if not value.isfinite():
        raise DivergedError(
            f"the {name} is {value.item()}, so no step was taken and the weights are as they were "
            "before it: train with a smaller learning rate, or look for rewards or a loss that are "
            "too large"
        )
