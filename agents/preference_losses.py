"""Losses on preferred and dispreferred answers, as functions of log ratios.

The log ratio of an answer y to a prompt x is log pi(y|x) - log pi_ref(y|x): the implicit reward of
the policy, up to a factor and a constant of the prompt (Rafailov et al., 2023).
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from agents.shapes import check_aligned


def sequence_log_ratios(logprobs: Tensor, ref_logprobs: Tensor, mask: Tensor) -> Tensor:
    """Sum over each answer's tokens of log pi - log pi_ref; (S, L) each, to (S,).

    Use it to get the argument of the losses below. No gradient flows into the reference.
    """
    check_aligned(mask, logprobs=logprobs, ref_logprobs=ref_logprobs)
    # Blanked before the sum: outside the mask an entry may be NaN.
    return torch.where(mask, logprobs - ref_logprobs.detach(), 0.0).sum(1)


def ranked_pairs(returns: Tensor, groups: Tensor) -> tuple[Tensor, Tensor]:
    """All pairs of answers to one prompt; the first of each pair has the higher return.

    Args:
        returns: (S,) floats.
        groups: (S,) integers; answers to the same prompt have the same.

    Returns:
        The better and the worse of each of P pairs, both (P,) int64. Ties make no pair.
    """
    # Sorted, the answers of a group stand side by side. Shifted by d, the order against itself
    # holds every pair that is d apart, so no (S, S) table is needed.
    order = groups.argsort(stable=True)
    largest = int(torch.unique(groups, return_counts=True)[1].max()) if len(groups) else 0
    pairs = [torch.stack([order[:-d], order[d:]]) for d in range(1, largest)]
    both = torch.cat([order.new_zeros(2, 0), *pairs], dim=1)  # the empty one: there may be no pair
    both = both[:, (groups[both[0]] == groups[both[1]]) & (returns[both[0]] != returns[both[1]])]
    better = returns[both[0]] > returns[both[1]]
    return torch.where(better, both[0], both[1]), torch.where(better, both[1], both[0])


def dpo(chosen: Tensor, rejected: Tensor, beta: float) -> Tensor:
    """Direct preference optimisation.

        -mean over pairs of log sigmoid(beta (chosen - rejected))

    Rafailov et al., "Direct Preference Optimization" (2023), arXiv:2305.18290, equation 7.

    Use it on pairs of answers. Preferences that never contradict each other push the margin up
    without end; `ipo` stops at a margin. `kto` needs no pairs.

    Args:
        chosen: Log ratio of the preferred answer of each pair, (P,).
        rejected: Log ratio of the other, (P,).
        beta: Strength of the leash to the reference, per nat; smaller lets the policy move further.

    Returns:
        A scalar; 0 without pairs.
    """
    return -F.logsigmoid(beta * (chosen - rejected)).sum() / max(len(chosen), 1)


def ipo(chosen: Tensor, rejected: Tensor, beta: float) -> Tensor:
    """Identity preference optimisation: the margin is fitted to a target and then stops growing.

        mean over pairs of (chosen - rejected - 1 / (2 beta))^2

    Azar et al., "A General Theoretical Paradigm to Understand Learning from Human Preferences"
    (2023), arXiv:2310.12036, equation 17. Use it instead of `dpo` where the preferences hardly ever
    contradict each other. A smaller `beta` asks for a larger margin. Log ratios are those of whole
    answers, as in the paper, not means over tokens. The arguments are those of `dpo`.
    """
    return (chosen - rejected - 1 / (2 * beta)).square().sum() / max(len(chosen), 1)


def kto(
    log_ratios: Tensor,
    desirable: Tensor,
    kl: Tensor,
    beta: float,
    desirable_weight: float = 1.0,
    undesirable_weight: float = 1.0,
) -> Tensor:
    """Kahneman-Tversky optimisation: answers that are good or bad by themselves, not in pairs.

        v = sigmoid(beta (log ratio - kl))    for a desirable answer
        v = sigmoid(beta (kl - log ratio))    for an undesirable one
        mean over answers of weight (1 - v)

    Ethayarajh et al., "KTO" (2024), arXiv:2402.01306, equation 8.

    Use it where each answer is judged good or bad by itself. With pairs, `dpo` and `ipo` know more.
    Far from the reference point the loss is flat, so answers that are hopeless or settled move the
    policy little.

    Args:
        log_ratios: (S,).
        desirable: (S,) bool.
        kl: The reference point, an estimate of KL(policy || reference) per answer; a scalar, at
            least 0, without gradient.
        beta: Strength of the leash to the reference, per nat; smaller lets the policy move further.
        desirable_weight: Weight of desirable answers; raise it where these are few.
        undesirable_weight: Weight of undesirable answers; raise it where these are few.

    Returns:
        A scalar.
    """
    gain = torch.where(desirable, log_ratios - kl.detach(), kl.detach() - log_ratios)
    weights = torch.where(desirable, desirable_weight, undesirable_weight)
    return (weights * (1 - torch.sigmoid(beta * gain))).mean()
