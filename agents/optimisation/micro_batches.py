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

from agents.distribution.ranks import Ranks
from agents.distribution.shares import cut_evenly, nothing_of, padded
from agents.rollout import Rollout

T = TypeVar("T")
Result = TypeVar("Result")
Outputs = TypeVar("Outputs", bound=tuple[Tensor, ...])


def in_parts(function: Callable[[T], Result], parts: Sequence[T]) -> list[Result]:
    """`function` of each part; with several parts, the backward pass computes each one again."""
    if len(parts) == 1:  # nothing to save: a checkpoint would only compute it twice
        return [function(parts[0])]
    # Random states need not be restored: dropout is off wherever log-probabilities are compared.
    return [
        checkpoint(function, part, use_reentrant=False, preserve_rng_state=False) for part in parts
    ]


def outputs_of(
    outputs: Callable[[Rollout], Outputs],
    batch: Rollout,
    max_tokens: int | None,
    ranks: Ranks,
) -> Outputs:
    """The outputs for a batch, part by part; each rank computes those of its share.

    Args:
        outputs: Computes the outputs for a part: `PolicyOutputs`, or another named tuple of arrays
            of shape (S, L).
        batch: S sequences, the same on all ranks.
        max_tokens: Tokens of a part at most; see `parts_of`.
        ranks: Who shares the work. A loss of all outputs has, on each rank, the gradient through
            those of its own share: the sum over ranks is the gradient.

    Returns:
        Tensors of shape (S, L), in the order of the batch.
    """
    shares = [parts_of(batch, max_tokens, share) for share in shares_of(batch, ranks.size)]
    if ranks.size == 1 and len(shares[0]) == 1:
        return outputs(batch)
    length, nobody = batch.tokens.shape[1], batch.groups[:1] * 0
    parts, count = padded(shares, ranks.rank, nobody)
    # `select` cuts each part to its own longest sequence, so short ones cost no padding.
    of_each = in_parts(outputs, [batch.select(part) for part in parts])
    lengths = [sum(map(len, share)) for share in shares]
    order = torch.cat([part for share in shares for part in share]).argsort()

    def together(of_parts: tuple[Tensor, ...]) -> Tensor:
        empty = of_parts[0].new_zeros(0, length)
        own = [F.pad(x, (0, length - x.shape[1])) for x in of_parts[:count]]
        # What others need no longer counts nothing, and its pass back is taken all the same.
        spare = [nothing_of(x) for x in of_parts[count:]]
        return ranks.gathered(torch.cat([empty, *own]) + sum(spare), lengths)[order]

    return type(of_each[0])(*map(together, zip(*of_each, strict=True)))


def shares_of(batch: Rollout, count: int) -> list[Tensor]:
    """The sequences of each rank, (k,) int64, with about equally many tokens to read.

    Sequences of a group stand side by side, so the network reads their shared prompt once.
    """
    order = batch.groups.argsort(stable=True)
    if count == 1:
        return [order]
    tokens = _tokens_read(batch, order).cpu().numpy()
    return [order[torch.from_numpy(some).to(order.device)] for some in cut_evenly(tokens, count)]


def _tokens_read(batch: Rollout, sequences: Tensor) -> Tensor:
    """How many tokens of each sequence are read: those before the last chosen one."""
    places = torch.arange(batch.tokens.shape[1], device=batch.tokens.device)
    return (batch.mask[sequences] * places).amax(1)


def parts_of(batch: Rollout, max_tokens: int | None, order: Tensor | None = None) -> list[Tensor]:
    """Sequences that go through the network together, (k,) int64 each.

    Args:
        batch: S sequences.
        max_tokens: Tokens of a part at most, prompts included; a longer sequence has a part of its
            own. None puts all into one part.
        order: Some of the sequences, groups side by side; all if None. There may be none, and no
            part then.
    """
    if order is None:
        (order,) = shares_of(batch, 1)
    if max_tokens is None or not len(order):
        return [order] if len(order) else []
    counts = _tokens_read(batch, order).tolist()
    starts, tokens = [0], 0
    for number, count in enumerate(counts):
        if number > starts[-1] and tokens + count > max_tokens:
            starts.append(number)
            tokens = 0
        tokens += count
    return list(order.tensor_split(starts[1:]))
