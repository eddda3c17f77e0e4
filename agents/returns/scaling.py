"""Scales of returns and advantages: standard deviations over what was chosen in a rollout."""

import torch
from torch import Tensor

from agents.shapes import check_aligned


def _above_lowest(x: Tensor, mask: Tensor) -> Tensor:
    """How far each entry lies above the lowest one in the mask.

    A mean of large numbers is off by a rounding error of their size, which may be more than they
    differ by. What this leaves is only as large as the differences.
    """
    return x - x[mask].min()


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


def rounding_of(scores: Tensor) -> float:
    """Scores that differ by a smaller share than this are equal: their sums are no finer."""
    return 2.0**-40 if scores.dtype == torch.float64 else 2.0**-22


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
    rounding = rounding_of(scores) * scores[mask].abs().max()
    scores = _above_lowest(scores, mask)
    deviation = torch.var(scores[mask], correction=0).sqrt()
    unit = torch.where(deviation > rounding, deviation + eps, 1.0)
    returns = scores - penalties
    return torch.where(mask, (returns - returns[mask].mean()) / unit, 0.0)
