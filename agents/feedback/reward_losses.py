"""Losses of a reward model on ranked answers, as functions of its scores.

All take the scores of a batch of answers (S,), their ranks (S,), of which the lowest is the best,
and their groups (S,), equal for answers to the same prompt. Only answers of one group are compared,
and equal ranks say nothing of one another: ties make no pair. All agree where every prompt has two
answers. Without any pair the loss is 0.
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

    A prompt with many answers weighs as much as its pairs are many.

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

    Ouyang et al. (2022), arXiv:2203.02155, equation 1. Ties make no pair, so with ties the number
    of a prompt's pairs is below (K choose 2); it is this number that divides. Prompts without any
    pair are left out of the mean.

    Args:
        scores: (S,) floats.
        ranks: (S,), lowest is best.
        groups: (S,) integers.
    """
    better, worse = ranked_pairs(-ranks, groups)
    _, prompt, pairs = groups[better].unique(return_inverse=True, return_counts=True)
    losses = -F.logsigmoid(scores[better] - scores[worse]) / pairs[prompt]
    return losses.sum() / max(len(pairs), 1)


def plackett_luce(scores: Tensor, ranks: Tensor, groups: Tensor) -> Tensor:
    """The likelihood of the whole ranking, made by choosing the best of what is left over and over.

        -mean over prompts of the sum over its answers i of
            score_i - log(exp score_i + sum over worse answers j of exp score_j)

    Plackett, "The Analysis of Permutations" (1975); Luce (1959). Without ties this is the
    log-likelihood of the ranking. Of ties each is chosen from itself and what is worse, its equals
    left out, so they are neither pulled together nor apart. Prompts whose answers are all tied are
    left out of the mean.

    Args:
        scores: (S,) floats.
        ranks: (S,), lowest is best.
        groups: (S,) integers.
    """
    worse = (groups[:, None] == groups) & (ranks[:, None] < ranks)
    rivals = worse | torch.eye(len(scores), dtype=torch.bool, device=scores.device)
    against = scores.expand(len(scores), -1).masked_fill(~rivals, -torch.inf).logsumexp(1)
    prompts = len(groups[worse.any(1)].unique())
    return (against - scores).sum() / max(prompts, 1)
