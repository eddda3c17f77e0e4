"""A batch as most libraries have it, and what they make of scores."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from agents.testing.batches import Advantages, LossBatch
from agents.testing.laws import Law, advantages_of, check_law


class Answers(NamedTuple):
    """The answers alone, as most libraries have them: (S, T), from place 0 on, right-padded."""

    tokens: Tensor
    mask: Tensor
    logprobs: Tensor
    old_logprobs: Tensor
    ref_logprobs: Tensor
    advantages: Tensor
    entropies: Tensor


def answers_of(batch: LossBatch) -> Answers:
    """The batch without its prompts; advantages (S,) are spread over the tokens."""
    begins = batch.mask.int().argmax(1, keepdim=True)
    steps = torch.arange(int(batch.lengths.max()))[None]
    places = (begins + steps).clamp(max=batch.tokens.shape[1] - 1)
    mask = steps < batch.lengths[:, None]
    assert batch.advantages is not None
    spread = batch.advantages
    spread = (spread if spread.dim() == 2 else spread[:, None]).expand(batch.mask.shape)

    def moved(values: Tensor) -> Tensor:
        return torch.where(mask, values.gather(1, places), 0)

    return Answers(
        tokens=moved(batch.tokens),
        mask=mask,
        logprobs=moved(batch.logprobs),
        old_logprobs=moved(batch.old_logprobs),
        ref_logprobs=moved(batch.ref_logprobs),
        advantages=moved(spread),
        entropies=moved(batch.entropies),
    )


def of_law(law: Law) -> Advantages:
    """The advantages of a law: for a library that computes them inside a long method.

    The result is the formula's and not the library's; a report on it speaks of the loss alone.

    Raises:
        OptionError: A part of the law has no such name.
    """
    check_law(law)
    return lambda batch: advantages_of(law, batch)


def pairs_of(batch: LossBatch) -> tuple[Tensor, Tensor]:
    """Rows of the better and of the worse answer; answers 0 and 1 are a pair, 2 and 3, ..."""
    first = torch.arange(0, len(batch), 2)
    better = torch.where(batch.scores[first] >= batch.scores[first + 1], first, first + 1)
    return better, first + (first + 1) - better


def dpo_formula(beta: float = 0.1) -> Callable[[LossBatch], Tensor]:
    """DPO's weight of each token, shape (S, L).

        beta sigmoid(-h) / pairs for the better answer, minus that for the worse,
        h = beta (log-ratio to the reference of the better answer - that of the worse)

    Rafailov et al. (2023), arXiv:2305.18290, section 4.
    """

    def weights(batch: LossBatch) -> Tensor:
        better, worse = pairs_of(batch)
        own = torch.where(batch.mask, batch.logprobs.detach() - batch.ref_logprobs, 0.0).sum(1)
        push = beta * torch.sigmoid(-beta * (own[better] - own[worse])) / len(better)
        found = torch.zeros_like(own)
        found[better], found[worse] = push, -push
        return found[:, None].expand(batch.mask.shape)

    return weights
