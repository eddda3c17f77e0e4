"""The outputs for a whole minibatch in the memory of a part of it.

Losses are functions of the outputs for a minibatch: they divide by its tokens, standardise over it,
compare pairs in it. So it is not the loss that is split but the pass through the network: each part
is read without keeping anything, the loss is taken of all outputs together, and its gradient goes
back through one part at a time, which is computed again for that. The gradient is that of the whole
minibatch whatever the loss, for one more forward pass: the gradient cache of Gao et al., "Scaling
Deep Contrastive Learning Batch Size under Memory Limited Setup" (2021), arXiv:2101.06983, done by
checkpoints (Chen et al., 2016) so that autograd keeps the books.
"""

from collections.abc import Callable, Sequence
from typing import TypeVar

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from agents.rollout import Rollout
from policies import PolicyOutputs

T = TypeVar("T")
Result = TypeVar("Result")


def in_parts(function: Callable[[T], Result], parts: Sequence[T]) -> list[Result]:
    """`function` of each part; of several, what its gradient needs is computed again in time."""
    if len(parts) == 1:
        return [function(parts[0])]
    return [
        checkpoint(function, part, use_reentrant=False, preserve_rng_state=False) for part in parts
    ]


def outputs_in_parts(
    outputs: Callable[[Rollout], PolicyOutputs], batch: Rollout, parts: Sequence[Tensor]
) -> PolicyOutputs:
    """The outputs for a batch, part by part.

    Args:
        outputs: Gives those for a part.
        batch: S sequences.
        parts: The sequences of each part, (k,) int64; together all S of them.

    Returns:
        Three tensors of shape (S, L), in the order of the batch.
    """
    length = batch.tokens.shape[1]
    of_each = in_parts(outputs, [batch.select(part) for part in parts])
    order = torch.cat(list(parts)).argsort()
    return PolicyOutputs(
        *(
            torch.cat([F.pad(x, (0, length - x.shape[1])) for x in of_parts])[order]
            for of_parts in zip(*of_each, strict=True)
        )
    )


def parts_of(batch: Rollout, max_tokens: int | None) -> list[Tensor]:
    """Sequences that go through the network together, (k,) int64 each.

    Those of a group stand side by side, so that a prompt that they share is read once.

    Args:
        batch: S sequences.
        max_tokens: At most so many tokens a part, prompts included; a longer sequence has a part
            of its own. None puts all into one part.
    """
    order = batch.groups.argsort(stable=True)
    if max_tokens is None:
        return [order]
    places = torch.arange(batch.tokens.shape[1], device=batch.tokens.device)
    counts = (batch.mask * places).amax(1)[order].tolist()  # what follows is not read
    starts, tokens = [0], 0
    for number, count in enumerate(counts):
        if number > starts[-1] and tokens + count > max_tokens:
            starts.append(number)
            tokens = 0
        tokens += count
    return list(order.tensor_split(starts[1:]))
