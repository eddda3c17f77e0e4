"""Checks that the arrays of a rollout fit together."""

import torch
from torch import Tensor


def check_aligned(mask: Tensor, **arrays: Tensor) -> None:
    """Check that `mask` is boolean and that every array has its shape.

    Raises:
        ValueError: If not; the message names the array and the shapes.
    """
    if mask.dtype != torch.bool:
        raise ValueError(f"mask must be a bool tensor, got {mask.dtype}; use mask.bool()")
    for name, array in arrays.items():
        if array.shape != mask.shape:
            raise ValueError(
                f"{name} has shape {tuple(array.shape)}, but mask has {tuple(mask.shape)}"
            )
