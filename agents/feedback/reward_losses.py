"""Losses of a reward model on ranked answers, as functions of its scores.

All take three arrays (S,) about a batch of answers: scores; ranks, where the lowest is the best;
and groups, which are equal for answers to the same prompt. Only answers of one group are compared.
Ties make no pair. Where every prompt has two answers, all the losses agree. Without any pair the
loss is 0.
"""

from collections.abc import Callable
from typing import TypeAlias

import torch
from torch import Tensor
from torch.nn import functional as F

from agents.preference_losses import ranked_pairs

RankingLoss: TypeAlias = Callable[[Tensor, Tensor, Tensor], Tensor]
"""Scores, ranks and groups, (S,) each, to a scalar."""


def pairwise(scores: Tensor, ranks: Tensor, groups: Tensor) -> Tensor:
    """The model of Bradley and Terry (1952), over all pairs alike.

        -mean over pairs of log sigmoid(score of the better - score of the worse)

    Use it where every comparison should weigh the same. A prompt with K answers has about K^2 / 2
    pairs and weighs that much more; `kwise` gives every prompt the same weight.

    Args:
        scores: (S,) floats.
        ranks: (S,), lowest is best.
        groups: (S,) integers.
    """
    better, worse = ranked_pairs(-ranks, groups)
    return -F.logsigmoid(scores[better] - scores[worse]).sum() / max(len(better), 1)


def kwise(scores: Tensor, ranks: Tensor, groups: Tensor) -> Tensor:
    """All pairs of one prompt as one element of the batch, divided by their number.

        -mean over prompts of 1 / (K choose 2) * sum over its pairs of
            log sigmoid(score of the better - score of the worse)

    Ouyang et al. (2022), arXiv:2203.02155, equation 1. Use it where prompts differ in their number
    of answers: every prompt weighs the same. With two answers each it is `pairwise`. Ties make no
    pair, so with ties a prompt has fewer pairs than (K choose 2), and the number it has divides.
    Prompts without any pair are left out of the mean.

    Args:
        scores: (S,) floats.
        ranks: (S,), lowest is best.
        groups: (S,) integers.
    """
    better, worse = ranked_pairs(-ranks, groups)
    # Counted over the pairs and not over the answers, so prompts of ties alone do not count.
    _, prompt, pairs = groups[better].unique(return_inverse=True, return_counts=True)
    losses = -F.logsigmoid(scores[better] - scores[worse]) / pairs[prompt]
    return losses.sum() / max(len(pairs), 1)


def plackett_luce(scores: Tensor, ranks: Tensor, groups: Tensor) -> Tensor:
    """The likelihood of the whole ranking: choose the best, then the best of the rest, and so on.

        -mean over prompts of the sum over its answers i of
            score_i - log(exp score_i + sum over worse answers j of exp score_j)

    Plackett, "The Analysis of Permutations" (1975); Luce (1959). Use it where people ranked all
    answers at once: its pairs depend on each other, and `kwise` treats them as if they did not.
    With two answers each it is `pairwise`. Without ties this is minus the log-likelihood of the
    ranking. An answer that ties is chosen from itself and the worse ones; its equals are left out,
    so they are neither pulled together nor apart. Prompts whose answers all tie are left out of the
    mean.

    Args:
        scores: (S,) floats.
        ranks: (S,), lowest is best.
        groups: (S,) integers.
    """
    worse = (groups[:, None] == groups) & (ranks[:, None] < ranks)
    # An answer competes with itself and the worse ones. The worst of a prompt has itself alone and
    # adds exactly 0.
    rivals = worse | torch.eye(len(scores), dtype=torch.bool, device=scores.device)
    against = scores.expand(len(scores), -1).masked_fill(~rivals, -torch.inf).logsumexp(1)
    prompts = len(groups[worse.any(1)].unique())
    return (against - scores).sum() / max(prompts, 1)
