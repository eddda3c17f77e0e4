"""The state of an optimiser in a checkpoint, whose parameters may be divided among processes."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import nn
from torch.optim import Optimizer

from agents.distribution.gathering import is_divided
from textenv.imports import deferred

if TYPE_CHECKING:
    from agents.distribution import optimizer_files
else:  # what it imports takes a second, and only divided networks need it
    optimizer_files = deferred("agents.distribution.optimizer_files")

OPTIMIZER = "optimizer"
"""Folder of a checkpoint in which each process has a part of the optimiser's state."""


def written_state(folder: Path, module: nn.Module, optimizer: Optimizer) -> dict[str, Any] | None:
    """The whole state, to be saved; None where each process has written its part into `folder`.

    Every process of a group calls it.

    Raises:
        OSError: A rank cannot write its part.
        LostProcessError: The first rank cannot write.
    """
    if not _is_divided(optimizer):
        return optimizer.state_dict()
    optimizer_files.write_optimizer(folder / OPTIMIZER, module, optimizer)
    return None


def restore(
    folder: Path, module: nn.Module, optimizer: Optimizer, state: dict[str, Any] | None
) -> None:
    """Give `optimizer` what `written_state` gave of one like it, divided or not.

    Raises:
        CheckpointError: Its files cannot be read, or are those of other parameters.
    """
    if state is None:
        optimizer_files.read_optimizer(folder / OPTIMIZER, module, optimizer)
    elif _is_divided(optimizer):
        optimizer_files.load_whole_state(optimizer, state)
    else:
        optimizer.load_state_dict(state)


def _is_divided(optimizer: Optimizer) -> bool:
    return is_divided([p for group in optimizer.param_groups for p in group["params"]])
