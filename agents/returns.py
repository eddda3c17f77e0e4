"""Returns, advantages and baselines: from rewards to what multiplies the gradient.

A rollout is S sequences padded to L tokens. Per-token arrays are (S, L) and aligned with the
tokens: entry [s, p] belongs to the choice of token p. `mask[s, p]` is True where the agent chose
the token. Elsewhere (prompts, tool outputs, padding) arrays may hold anything, NaN included. Values
are therefore selected with `torch.where` and never multiplied by the mask.

Rewards and scores are best given in float64, as a `Rollout` holds them: scores near 1e8 that differ
by 1 are equal in float32. Results keep the dtype.

Standard deviations are those of the population (divided by n, not n - 1), so one value has one.
Nothing here carries a gradient to the policy: the results are constants of the loss.
"""

import torch
from torch import Tensor

from agents.shapes import check_aligned


def _check_rollout(mask: Tensor, bootstrap_values: Tensor, **arrays: Tensor) -> None:
    """Check (S, L) arrays and their (S,) bootstrap values."""
    check_aligned(mask, **arrays)
    if mask.dim() != 2:
        raise ValueError(f"mask must be (sequences, tokens), got shape {tuple(mask.shape)}")
    if bootstrap_values.shape != mask.shape[:1]:
        raise ValueError(
            f"bootstrap_values has shape {tuple(bootstrap_values.shape)}, but mask has "
            f"{tuple(mask.shape)}: it needs one value for each sequence"
        )
    if not bootstrap_values.is_floating_point():
        raise ValueError(f"bootstrap_values must be floats, got {bootstrap_values.dtype}")


def _zeros(mask: Tensor, rewards: Tensor, bootstrap_values: Tensor) -> Tensor:
    """Zeros of the shape of `mask` that lose no digit of the rewards."""
    dtype = torch.promote_types(rewards.dtype, bootstrap_values.dtype)
    return torch.zeros(mask.shape, dtype=dtype, device=mask.device)


def _above_lowest(x: Tensor, mask: Tensor) -> Tensor:
    """How far each entry lies above the lowest one in the mask.

    A mean of large numbers is off by a rounding error of their size, which may be more than they
    differ by. What this leaves is only as large as the differences.
    """
    return x - x[mask].min()


def _columns_backwards(mask: Tensor) -> list[int]:
    """The positions at which any sequence has a chosen token, last first.

    Other columns change nothing: prompts and tool outputs cost no step of the recursion.
    """
    # One copy to the CPU here; asking each column of a GPU would wait for it every time.
    positions: list[int] = mask.any(dim=0).nonzero().flatten().flip(0).tolist()
    return positions


@torch.no_grad()
def discounted_returns(
    rewards: Tensor, mask: Tensor, bootstrap_values: Tensor, gamma: float
) -> Tensor:
    """The discounted sum of the rewards from each chosen token on.

        G_t = r_t + gamma * G_{t+1},    G_T = bootstrap value

    where t counts chosen tokens only. What lies between two of them is skipped without a discount,
    and so are rewards outside the mask. Sutton & Barto, "Reinforcement Learning" (2018), section
    3.3.

    Use it where the gradient must be unbiased (`REINFORCE`). With gamma = 1 every token gets the
    sum of all rewards that follow, with gamma = 0 its own reward alone. Subtract values, or use
    `gae`, to reduce the variance.

    Args:
        rewards: (S, L), the reward paid for choosing each token.
        mask: (S, L) bool.
        bootstrap_values: (S,) floats, the value after the last chosen token; 0 where terminated.
        gamma: Discount for each chosen token.

    Returns:
        (S, L), the wider dtype of `rewards` and `bootstrap_values`, 0 outside the mask.

    Raises:
        ValueError: If shapes disagree or a dtype is wrong.
    """
    _check_rollout(mask, bootstrap_values, rewards=rewards)
    returns = _zeros(mask, rewards, bootstrap_values)
    running = bootstrap_values.to(returns.dtype)
    for p in _columns_backwards(mask):
        # Where the agent did not choose, a row keeps its sum: no reward and no discount.
        running = torch.where(mask[:, p], rewards[:, p] + gamma * running, running)
        returns[:, p] = running
    # A column holds the running sums of all rows, also of those that chose nothing there.
    return torch.where(mask, returns, 0.0)


@torch.no_grad()
def gae(
    rewards: Tensor,
    values: Tensor,
    mask: Tensor,
    bootstrap_values: Tensor,
    gamma: float,
    lam: float,
) -> Tensor:
    """Generalised advantage estimation.

        delta_t = r_t + gamma * V_{t+1} - V_t
        A_t     = delta_t + gamma * lam * A_{t+1},    A_T = 0

    where t counts chosen tokens only, so V_{t+1} is the value before the *next chosen* token.
    Schulman et al., "High-Dimensional Continuous Control Using Generalized Advantage Estimation"
    (2016), arXiv:1506.02438. `gae(...) + values` is the TD(lambda) target of the values.

    Use it where a value head is trained (`PPO`, `A2C`). With lam = 0 it is the one-step error
    delta_t: little variance, but the values' errors bias it. With lam = 1 it is
    `discounted_returns(...) - values`: no bias where the episode terminated, but the variance of
    the returns. Use `leave_one_out` or the other group functions where there are no values.

    Args:
        rewards: (S, L), the reward paid for choosing each token.
        values: (S, L), the value of the text before each token.
        mask: (S, L) bool.
        bootstrap_values: (S,) floats, the value after the last chosen token; 0 where terminated.
        gamma: Discount for each chosen token.
        lam: From 0 (trusts the values) to 1 (trusts the rewards).

    Returns:
        (S, L), the wider dtype of `rewards` and `bootstrap_values`, 0 outside the mask.

    Raises:
        ValueError: If shapes disagree or a dtype is wrong.
    """
    _check_rollout(mask, bootstrap_values, rewards=rewards, values=values)
    advantages = _zeros(mask, rewards, bootstrap_values)
    next_value, running = bootstrap_values, advantages.new_zeros(len(mask))
    for p in _columns_backwards(mask):
        # Rewards and values may be NaN outside the mask; `where` below lets no NaN into `running`.
        delta = rewards[:, p] + gamma * next_value - values[:, p]
        running = torch.where(mask[:, p], delta + gamma * lam * running, running)
        # Kept over tool outputs, so that V_{t+1} is the value before the next *chosen* token.
        next_value = torch.where(mask[:, p], values[:, p], next_value)
        advantages[:, p] = running
    return torch.where(mask, advantages, 0.0)


def standardise(x: Tensor, mask: Tensor, eps: float = 1e-8) -> Tensor:
    """Shift and scale to mean 0 and standard deviation 1 over the mask.

        (x - mean) / (std + eps)

    Equal values, and so a single one, become 0. Andrychowicz et al., "What Matters In On-Policy
    Reinforcement Learning?" (2021), arXiv:2006.05990, choice C67.

    Use it on advantages, so that the size of a step does not depend on the scale of the rewards.
    It can change a sign, so use `rescale` on rewards. Use `group_standardised` to compare each
    answer with those to its own prompt alone.

    Args:
        x: Floats of any shape, such as advantages (S, L).
        mask: The same shape, bool.
        eps: Keeps tiny spreads from being blown up.

    Returns:
        The shape of `x`, 0 outside the mask.

    Raises:
        ValueError: If shapes disagree or `mask` is not bool.
    """
    check_aligned(mask, x=x)
    if not mask.any():  # the mean of nothing would be NaN
        return torch.zeros_like(x)
    x = _above_lowest(x, mask)
    variance, mean = torch.var_mean(x[mask], correction=0)
    # eps is added to the deviation, not to the variance, as Stable-Baselines3 and CleanRL do.
    return torch.where(mask, (x - mean) / (variance.sqrt() + eps), 0.0)


def rescale(x: Tensor, mask: Tensor, eps: float = 1e-8) -> Tensor:
    """Scale to standard deviation 1 over the mask and leave the mean's sign alone.

        x / std

    Values without spread (std <= eps, as for a single one) are left as they are: there is no scale
    to divide by. Use it on rewards, whose sign means something; use `standardise` on advantages.

    Args:
        x: Floats of any shape, such as rewards (S, L).
        mask: The same shape, bool.
        eps: The smallest standard deviation that is divided by.

    Returns:
        The shape of `x`, 0 outside the mask.

    Raises:
        ValueError: If shapes disagree or `mask` is not bool.
    """
    check_aligned(mask, x=x)
    if not mask.any():  # the deviation of nothing would be NaN
        return torch.zeros_like(x)
    std = torch.var(_above_lowest(x, mask)[mask], correction=0).sqrt()
    return torch.where(mask, x / torch.where(std > eps, std, 1.0), 0.0)


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


def _rounding(scores: Tensor) -> float:
    """Scores that differ by a smaller share than this are equal: their sums are no finer."""
    return 2.0**-40 if scores.dtype == torch.float64 else 2.0**-22


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
    rounding = _rounding(scores) * scores.abs()
    units = torch.where(deviations > rounding, deviations + eps, 1.0)
    return group_standardised(scores, groups, eps) - group_centred(penalties, groups) / units


def standardised_less(scores: Tensor, penalties: Tensor, mask: Tensor, eps: float = 1e-8) -> Tensor:
    """`group_standardised_less` for single tokens, over the whole rollout (`REINFORCEPlusPlus`).

    Args:
        scores: (S, L) floats, such as the sum of the rewards to come.
        penalties: (S, L) floats, such as the sum of the KL penalties to come.
        mask: (S, L) bool.
        eps: Keeps tiny spreads from being blown up.

    Returns:
        (S, L), 0 outside the mask.

    Raises:
        ValueError: If shapes disagree or `mask` is not bool.
    """
    check_aligned(mask, scores=scores, penalties=penalties)
    if not mask.any():  # the mean of nothing would be NaN
        return torch.zeros_like(scores)
    rounding = _rounding(scores) * scores[mask].abs().max()
    scores = _above_lowest(scores, mask)
    deviation = torch.var(scores[mask], correction=0).sqrt()
    unit = torch.where(deviation > rounding, deviation + eps, 1.0)
    returns = scores - penalties
    return torch.where(mask, (returns - returns[mask].mean()) / unit, 0.0)


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
    rounding = _rounding(returns) * torch.maximum(*(extreme.abs() for extreme in extremes))
    return (extremes[1] - extremes[0] > rounding)[index]
