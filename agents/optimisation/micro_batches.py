"""The outputs for a whole minibatch, in the memory of a part of it.

A loss is a function of a whole minibatch: it divides by its tokens, standardises over it, compares
pairs in it. The loss can therefore not be split, but the pass through the network can. Each part
passes forward and keeps nothing. The loss is computed from all outputs together. Its gradient then
goes back through one part at a time, and each part is computed again for that. The gradient is that
of the whole minibatch, whatever the loss; the price is one more forward pass. This is the gradient
cache of Gao et al., "Scaling Deep Contrastive Learning Batch Size under Memory Limited Setup"
(2021), arXiv:2101.06983, built from checkpoints (Chen et al., 2016) so that autograd does the
bookkeeping.
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
    """`function` of each part; with several parts, the backward pass computes each one again."""
    if len(parts) == 1:  # nothing to save: a checkpoint would only compute it twice
        return [function(parts[0])]
    # Random states need not be restored: dropout is off wherever log-probabilities are compared.
    return [
        checkpoint(function, part, use_reentrant=False, preserve_rng_state=False) for part in parts
    ]


def outputs_in_parts(
    outputs: Callable[[Rollout], PolicyOutputs], batch: Rollout, parts: Sequence[Tensor]
) -> PolicyOutputs:
    """The outputs for a batch, part by part.

    Args:
        outputs: Computes the outputs for a part.
        batch: S sequences.
        parts: The sequences of each part, (k,) int64; together they are all S.

    Returns:
        Three tensors of shape (S, L), in the order of the batch.
    """
    length = batch.tokens.shape[1]
    # `select` cuts each part to its own longest sequence, so short ones cost no padding.
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

    Sequences of a group stand side by side, so the network reads their shared prompt once.

    Args:
        batch: S sequences.
        max_tokens: Tokens of a part at most, prompts included; a longer sequence has a part of its
            own. None puts all into one part.
    """
    order = batch.groups.argsort(stable=True)
    if max_tokens is None:
        return [order]
    places = torch.arange(batch.tokens.shape[1], device=batch.tokens.device)
    counts = (batch.mask * places).amax(1)[order].tolist()  # up to the last token that is read
    starts, tokens = [0], 0
    for number, count in enumerate(counts):
        if number > starts[-1] and tokens + count > max_tokens:
            starts.append(number)
            tokens = 0
        tokens += count
    return list(order.tensor_split(starts[1:]))
