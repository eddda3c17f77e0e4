"""Weights on their way to another process: one flat buffer of all that may change."""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

Buffer = NDArray[np.uint8]


class SentWeights:
    """The tensors of a network that a copy of it must be sent: all that are trained, and buffers.

    Frozen ones, such as the layers under adapters, are sent from the time on at which they are
    written all the same. Writes through `parameter.data` leave no trace and are missed, as they are
    by a policy's cache.

    Args:
        network: The network whose copies are kept up to date.

    Attributes:
        version: How often something was written between two looks.
        names: What is sent.
    """

    def __init__(self, network: nn.Module):
        self.version = 0
        self._tensors = dict(_tensors(network))
        self._marks = self._marks_now()
        frozen = {name for name, p in network.named_parameters() if not p.requires_grad}
        self.names = [name for name in self._tensors if name not in frozen]

    def look(self) -> None:
        """Count a new version if anything was written since the last look."""
        marks = self._marks_now()
        written = {name for name in marks if marks[name] != self._marks[name]}
        self._marks = marks
        self.version += bool(written)
        self.names += [name for name in marks if name in written - {*self.names}]

    def packed(self) -> Buffer:
        """The tensors of `names` one after the other, as bytes."""
        parts = [self._tensors[name].detach().cpu().contiguous() for name in self.names]
        return torch.cat([part.view(-1).view(torch.uint8) for part in parts]).numpy()

    def _marks_now(self) -> dict[str, tuple[int, int]]:
        # In-place operations raise a tensor's version counter; replaced data has a new address.
        return {name: (x._version, x.data_ptr()) for name, x in self._tensors.items()}


@torch.no_grad()
def unpack(buffer: Buffer, names: Sequence[str], network: nn.Module) -> None:
    """Write what `SentWeights.packed` gave into a copy of the network."""
    tensors, begin = dict(_tensors(network)), 0
    for name in names:
        tensor = tensors[name]
        end = begin + tensor.numel() * tensor.element_size()
        # A copy: the buffer may be memory that several processes read, or begin at an odd byte.
        part = torch.from_numpy(buffer[begin:end].copy()).view(tensor.dtype)
        tensor.copy_(part.view(tensor.shape))
        begin = end


def _tensors(network: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Each tensor once, shared ones under their first name."""
    yield from network.named_parameters()
    yield from network.named_buffers()
