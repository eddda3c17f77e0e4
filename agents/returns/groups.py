"""Credit by comparison: returns of answers, or of turns, with those of the same group."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, TypeAlias

import torch
from torch import Tensor

from agents.returns.scaling import rounding_of
from agents.returns.steps import turn_begins, turn_returns

if TYPE_CHECKING:
    from agents.rollout import Rollout

Comparison: TypeAlias = Callable[[Tensor, Tensor, Tensor], Tensor]
"""From scores, penalties and groups, each (N,), to N advantages."""


def _group_numbers(returns: Tensor, groups: Tensor) -> tuple[Tensor, Tensor]:
    """Number the groups 0..G-1: each sequence's group (S,) and each group's size (G,).

    Group numbers of a rollout have gaps and any order; these can index arrays of length G.
    """
    if returns.dim() != 1 or groups.shape != returns.shape:
        raise ValueError(
            f"returns and groups must both be (sequences,), got {tuple(returns.shape)} and "
            f"{tuple(groups.shape)}"
        )
    if groups.is_floating_point():
        raise ValueError(f"groups must be integers, got {groups.dtype}")
    _, index, sizes = torch.unique(groups, return_inverse=True, return_counts=True)
    return index, sizes


def group_sizes(groups: Tensor) -> Tensor:
    """How many sequences have each sequence's group number, (S,) int64; `groups` is (S,) int64."""
    _, index, sizes = torch.unique(groups, return_inverse=True, return_counts=True)
    return sizes[index]


def _group_means(x: Tensor, index: Tensor, sizes: Tensor) -> Tensor:
    """The mean of each sequence's group, (S,)."""
    sums = x.new_zeros(sizes.shape).index_add(0, index, x)
    return (sums / sizes)[index]


def _group_deviations(x: Tensor, groups: Tensor) -> Tensor:
    """The standard deviation of each sequence's group, (S,)."""
    return _group_means(group_centred(x, groups).square(), *_group_numbers(x, groups)).sqrt()


def group_centred(returns: Tensor, groups: Tensor) -> Tensor:
    """Each return minus the mean of its group.

        A_s = r_s - mean of the r of s's group

    Equal returns give exactly 0. The standard deviation is left out on purpose: Liu et al.,
    "Understanding R1-Zero-Like Training" (Dr. GRPO, 2025), arXiv:2503.20783.

    Use it where several answers to a prompt are compared and the scale of the returns means
    something (`DrGRPO`). For groups of n it is `leave_one_out` times (n - 1) / n.

    Args:
        returns: (S,) floats, the return of each episode.
        groups: (S,) integers; sequences with the same number (and prompt) are compared.

    Returns:
        (S,); sums to 0 over each group, so a group of one gets 0.

    Raises:
        ValueError: If shapes disagree or `groups` is not integral.
    """
    index, sizes = _group_numbers(returns, groups)
    # Subtracting the smallest first costs nothing and makes equal returns cancel exactly; a mean
    # taken directly is off by a rounding error, which `group_standardised` would blow up.
    lowest = returns.new_zeros(sizes.shape).scatter_reduce(
        0, index, returns, "amin", include_self=False
    )
    above = returns - lowest[index]
    return above - _group_means(above, index, sizes)


def group_standardised(returns: Tensor, groups: Tensor, eps: float = 1e-4) -> Tensor:
    """Each return, standardised within its group (GRPO).

        A_s = (r_s - mean) / (std + eps)    over s's group

    Shao et al., "DeepSeekMath" (2024), arXiv:2402.03300, section 4.1.2.

    Use it where the scale of the returns differs between prompts (`GRPO`). It gives groups of
    little spread, such as those of very easy and very hard prompts, as much weight as others, which
    biases the gradient: `group_centred` and `leave_one_out` do not.

    Args:
        returns: (S,) floats, the return of each episode.
        groups: (S,) integers; sequences with the same number (and prompt) are compared.
        eps: Keeps tiny spreads from being blown up.

    Returns:
        (S,); sums to 0 over each group, so a group of one gets 0.

    Raises:
        ValueError: If shapes disagree or `groups` is not integral.
    """
    return group_centred(returns, groups) / (_group_deviations(returns, groups) + eps)


def group_standardised_less(
    scores: Tensor, penalties: Tensor, groups: Tensor, eps: float = 1e-4
) -> Tensor:
    """Scores less KL penalties, both in units of the spread of the group's *scores*.

        A_s = ((r_s - p_s) - mean of (r - p)) / (std of r + eps)    over s's group

    The penalties of answers that score alike have a spread too. Divided by that, they would have
    the same size at every `kl_coef`. Here they are divided by the spread of the scores, and left as
    they are in a group without one. Use it where a KL penalty is part of the returns (`GRPO`).
    Without penalties it is `group_standardised`. Where score less penalty is the same for all
    answers, as at the optimum of the penalised score, it is 0.

    Args:
        scores: (S,) floats, the score of each episode.
        penalties: (S,) floats, the KL penalty of each episode, weighted by its coefficient.
        groups: (S,) integers; sequences with the same number (and prompt) are compared.
        eps: Keeps tiny spreads from being blown up.

    Returns:
        (S,); sums to 0 over each group, so a group of one gets 0.

    Raises:
        ValueError: If shapes disagree or `groups` is not integral.
    """
    deviations = _group_deviations(scores, groups)
    rounding = rounding_of(scores) * scores.abs()
    units = torch.where(deviations > rounding, deviations + eps, 1.0)
    return group_standardised(scores, groups, eps) - group_centred(penalties, groups) / units


def leave_one_out(returns: Tensor, groups: Tensor) -> Tensor:
    """Each return minus the mean of the *others* of its group (RLOO).

        A_s = r_s - mean of the other r = n / (n - 1) * (r_s - mean)    over s's group of n

    Use it where several answers to a prompt are compared and the gradient should be unbiased
    (`RLOO`): the baseline does not depend on the answer it judges. With large groups it becomes
    `group_centred`. A group of one has no others: it gets 0 and teaches nothing, rather than its
    raw return without a baseline. Kool et al., "Buy 4 REINFORCE Samples, Get a Baseline for Free!"
    (2019); Ahmadian et al., "Back to Basics" (2024), arXiv:2402.14740.

    Args:
        returns: (S,) floats, the return of each episode.
        groups: (S,) integers; sequences with the same number (and prompt) are compared.

    Returns:
        (S,); sums to 0 over each group.

    Raises:
        ValueError: If shapes disagree or `groups` is not integral.
    """
    index, sizes = _group_numbers(returns, groups)
    # n / (n - 1) times the centred return: equal returns cancel exactly there. A group of one has a
    # centred return of 0, so any divisor but 0 serves.
    others = (sizes - 1).clamp(min=1)
    return group_centred(returns, groups) * sizes[index] / others[index]


def is_group_best(returns: Tensor, groups: Tensor) -> Tensor:
    """1.0 for the best sequence of each group, 0.0 for the rest.

    Exactly one sequence of each group gets 1.0: the first of those that tie. Use it as an advantage
    to learn from the best of n alone (`BestOfN`): Dong et al., "RAFT" (2023), arXiv:2304.06767. It
    knows the order of the returns, not their size; `leave_one_out` learns from bad answers too.

    Args:
        returns: (S,), the return of each episode.
        groups: (S,) integers; sequences with the same number (and prompt) are compared.

    Returns:
        (S,) floats.

    Raises:
        ValueError: If shapes disagree or `groups` is not integral.
    """
    index, sizes = _group_numbers(returns, groups)
    best = returns.new_zeros(sizes.shape).scatter_reduce(
        0, index, returns, "amax", include_self=False
    )
    # Among ties the smallest row number wins, so that no prompt counts more than another.
    rows = torch.arange(len(returns), device=returns.device)
    candidates = torch.where(returns == best[index], rows, len(returns))
    first = rows.new_zeros(sizes.shape).scatter_reduce(
        0, index, candidates, "amin", include_self=False
    )
    return (rows == first[index]).float()


def differs_in_group(returns: Tensor, groups: Tensor) -> Tensor:
    """Which sequences belong to a group whose returns are not all equal, (S,) bool.

    Use it to drop the other groups (`DAPO`): their group advantages are 0, so they teach nothing
    (Yu et al., "DAPO", 2025, arXiv:2503.14476, section 3.2). The arguments are those of
    `is_group_best`.
    """
    index, sizes = _group_numbers(returns, groups)
    # Equal extremes, not a deviation of 0: that one is off by a rounding error.
    extremes = [
        returns.new_zeros(sizes.shape).scatter_reduce(0, index, returns, which, include_self=False)
        for which in ("amin", "amax")
    ]
    # 0.1 + 0.2 and 0.3 are the same score.
    rounding = rounding_of(returns) * torch.maximum(*(extreme.abs() for extreme in extremes))
    return (extremes[1] - extremes[0] > rounding)[index]


# ---------------------------------------------------------------- what is compared


def by_answer(compare: Comparison, rollout: Rollout) -> Tensor:
    """Whole answers, or whole conversations, are compared: one advantage each.

    Use it where an episode is scored as a whole. In a conversation every token is praised for all
    that the episode earned, also for what was earned before it.

    Args:
        compare: What an algorithm makes of scores, KL penalties and groups, each (N,), such as
            `group_standardised_less`.
        rollout: S sequences.

    Returns:
        (S,).
    """
    return compare(rollout.scores, rollout.episode_penalties, rollout.groups)


def by_turn(compare: Comparison, rollout: Rollout) -> Tensor:
    """Turns are compared: each has an advantage of its own.

        G_sk = what episode s earned from the beginning of turn k on
        A_sk = compare(G_sk with the G_jk of the episodes j of s's group that have a turn k)

    Use it in conversations whose rewards come in turns: a turn is not praised for what was earned
    before it. The baseline is the mean over the group's k-th turns, whose texts differ; it does not
    depend on what the turn says, so `leave_one_out` leaves the gradient unbiased where all episodes
    of a group have a turn k. A k-th turn that no other episode of its group has is compared with
    nothing and gets 0, as a group of one does: late turns that few episodes reach are learned more
    slowly. Zeng et al., "Reinforcing Multi-Turn Reasoning in LLM Agents via Turn-Level Credit
    Assignment" (2025), arXiv:2505.11821, give turns advantages of their own in GRPO.

    Args:
        compare: As for `by_answer`; it gets one entry for each turn of each sequence.
        rollout: S whole episodes that know their turns.

    Returns:
        (S, L), 0 outside the mask.

    Raises:
        UnmetNeedError: The rollout does not know its turns.
    """
    begins = turn_begins(rollout.turns)
    assert rollout.turns is not None
    penalties = rollout.token_penalties
    scores, penalties = (
        turn_returns(paid, rollout.turns)[begins]
        for paid in (rollout.rewards + penalties, penalties)
    )
    # One number for each group and turn: turns start at 1.
    groups = rollout.groups[:, None] * (rollout.turns.max() + 1) + rollout.turns
    compared = compare(scores, penalties, groups[begins])
    # The n-th beginning is the n-th compared one; the tokens behind it have the same number.
    number = begins.flatten().cumsum(0).view_as(begins) - 1
    return torch.where(rollout.mask, compared[number.clamp(min=0)], 0.0)
