"""The weights of a sharded network, all together for a while; of a whole one, as they are.

A rollout passes hundreds of tokens, one after the other, and would gather a sharded network for
each. It is therefore played by a plain copy of the network, whose weights are there for as long as
`gathered` lasts and have no memory otherwise. `agents.distribution.sharded.shard` makes the copy.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.autograd.graph import increment_version

from agents.distribution.ranks import Ranks
from policies import Policy
from policies.linear import forget_packed

M = TypeVar("M", bound=nn.Module)

COPY = "_plain_copy"


def plain_copy(module: M) -> M:
    """The copy that `gathered` fills with weights; of a network that is whole, itself."""
    kept: list[M] = vars(module).get(COPY, [module])
    return kept[0]


@contextmanager
def gathered(module: M) -> Iterator[M]:
    """Within it every rank has all weights in the plain copy; a whole network is given as it is.

    All ranks enter it together. What was packed of the weights is given up with them.
    """
    plain = plain_copy(module)
    if plain is module:
        yield module
        return
    pairs = list(zip(plain.parameters(), module.parameters(), strict=True))
    try:
        with torch.no_grad():
            for whole, part in pairs:
                whole.data = full(part)
                # What was computed of other weights at the same address is out of date.
                increment_version(whole)
        yield plain
    finally:
        forget_packed(plain)
        for whole, _ in pairs:
            whole.data = whole.new_empty(0)


def full(tensor: Tensor) -> Tensor:
    """All of a tensor, whether it is divided among the ranks or not."""
    if hasattr(tensor, "full_tensor"):
        together: Tensor = tensor.full_tensor()
        return together
    return tensor.detach()


def is_divided(tensors: Sequence[Tensor]) -> bool:
    """Whether parameters are those of a sharded network."""
    return any(hasattr(tensor, "full_tensor") for tensor in tensors)


def divided(whole: Tensor, like: Tensor) -> Tensor:
    """A tensor divided as a parameter is, if it has its shape."""
    if not hasattr(like, "full_tensor") or whole.shape != like.shape:
        return whole
    from torch.distributed.tensor import distribute_tensor  # takes a second: only where needed

    place: Any = like
    return distribute_tensor(
        whole.detach(), place.device_mesh, place.placements, src_data_rank=None
    )


def load_weights(module: nn.Module, folder: Path) -> None:
    """`module.load_weights(folder)`, sharded or not."""
    with gathered(module) as plain:
        plain.load_weights(folder)  # type: ignore[operator]
        if plain is module:
            return
        with torch.no_grad():
            for part, whole in zip(module.parameters(), plain.parameters(), strict=True):
                part.copy_(divided(whole, part))
            for mine, its in zip(module.buffers(), plain.buffers(), strict=True):
                mine.copy_(its)


def save_whole(policy: Policy, folder: Path) -> Path:
    """`policy.save(folder)`, sharded or not; of several processes the first one writes."""
    with gathered(policy) as plain:
        return Ranks.found().by_first(lambda: plain.save(folder))


def give_up(module: nn.Module) -> None:
    """Let a sharded network give up what it has gathered for a pass without a way back."""
    if hasattr(module, "reshard"):
        module.reshard()  # type: ignore[operator]
