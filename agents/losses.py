"""Losses: from log-probabilities, values and advantages to one number to minimise.

A batch is S sequences padded to L tokens. Per-token arrays are (S, L) and aligned with the tokens;
`mask[s, p]` is True where the agent chose token p. Elsewhere arrays may hold anything, NaN
included: it reaches neither a result nor a gradient. Each function therefore blanks such entries
with `torch.where` *before* they become a factor or an exponent. Blanking only the result would
leave a gradient of 0 x NaN, which is NaN.

Advantages, old log-probabilities, reference log-probabilities and value targets are constants: no
gradient flows into them. Advantages and value targets may be float64; results have the dtype of the
policy's outputs. Ratios of probabilities above e^20 go on as a straight line, so that values and
gradients stay finite. Scalars are means over all chosen tokens of the batch (`masked_mean`). For
another mean, reduce a per-token function with `sequence_mean` or `sequence_sum`. Every function
raises a ValueError that names the shapes if they disagree or if `mask` is not bool.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from agents.shapes import check_aligned

STEEPEST = 20.0
"""Log ratio, in nats, from which on an exponential is continued by its tangent."""


def masked_mean(x: Tensor, mask: Tensor) -> Tensor:
    """The mean over all chosen tokens; 0 if there are none.

        sum of the chosen x / number of chosen tokens

    Use it where every token should weigh the same, so that long answers weigh more than short ones.
    Yu et al., "DAPO" (2025), arXiv:2503.14476, section 3.3, prefer this to `sequence_mean`. Where
    all answers have the same length, both are equal.

    Args:
        x: Any shape.
        mask: The same shape, bool.

    Returns:
        A scalar.
    """
    check_aligned(mask, x=x)
    # Divided by the tokens of this batch: the steps of minibatches of different sizes weigh alike.
    return torch.where(mask, x, 0.0).sum() / mask.sum().clamp(min=1)


def sequence_mean(x: Tensor, mask: Tensor) -> Tensor:
    """The mean over sequences of each one's mean over its chosen tokens.

        1/S' * sum_s (sum of the chosen x of s / number of chosen tokens of s)

    over the S' sequences with a chosen token; 0 if there are none. Use it where every answer should
    weigh the same, as GRPO does; each token of a long answer then weighs less. Shao et al.,
    "DeepSeekMath" (2024), arXiv:2402.03300, equation 3.

    Args:
        x: (S, L).
        mask: (S, L) bool.

    Returns:
        A scalar.
    """
    check_aligned(mask, x=x)
    if mask.dim() != 2:
        raise ValueError(f"mask must be (sequences, tokens), got shape {tuple(mask.shape)}")
    lengths = mask.sum(dim=1)
    # A sequence without a chosen token has no mean; it is left out below and not counted as 0.
    means = torch.where(mask, x, 0.0).sum(dim=1) / lengths.clamp(min=1)
    return masked_mean(means, lengths > 0)


def sequence_sum(x: Tensor, mask: Tensor) -> Tensor:
    """The mean over sequences of each one's sum over its chosen tokens.

        1/S' * sum_s sum of the chosen x of s

    over the S' sequences with a chosen token; 0 if there are none. Use it where the gradient should
    be that of the expected return (`REINFORCE`, `RLOO`, `DrGRPO`): where lengths differ, neither
    mean above gives it. It grows with the length of the answers. Liu et al.,
    "Understanding R1-Zero-Like Training" (Dr. GRPO, 2025), arXiv:2503.20783, section 3.

    Args:
        x: (S, L).
        mask: (S, L) bool.

    Returns:
        A scalar.
    """
    check_aligned(mask, x=x)
    return torch.where(mask, x, 0.0).sum() / mask.any(-1).sum().clamp(min=1)


def _constant_per_token(advantages: Tensor, mask: Tensor, dtype: torch.dtype) -> Tensor:
    """Advantages (S, L), or (S,) spread over their tokens, without gradient, 0 outside `mask`."""
    # One advantage for a whole answer serves each of its tokens; expanding copies nothing.
    if mask.dim() == 2 and advantages.shape == mask.shape[:1]:
        advantages = advantages[:, None].expand_as(mask)
    check_aligned(mask, advantages=advantages)
    return torch.where(mask, advantages.detach(), 0.0).to(dtype)


def policy_gradient(logprobs: Tensor, advantages: Tensor, mask: Tensor) -> Tensor:
    """The loss whose gradient is the policy gradient (REINFORCE, A2C).

        -mean over tokens of A_t * log pi(a_t)

    Williams, "Simple statistical gradient-following algorithms for connectionist reinforcement
    learning" (1992). Use it for one step on tokens that the present policy chose. With advantages
    of 1 it is the cross-entropy of supervised training. Use `surrogate` where an earlier policy
    chose some of the tokens, and `clipped_surrogate` for several steps.

    Args:
        logprobs: (S, L), log-probability of each chosen token under the policy.
        advantages: (S, L), or (S,) for one per sequence.
        mask: (S, L) bool.

    Returns:
        A scalar.
    """
    check_aligned(mask, logprobs=logprobs)
    advantages = _constant_per_token(advantages, mask, logprobs.dtype)
    # The factors are 0 outside the mask, and `masked_mean` drops the products there.
    return -masked_mean(advantages * logprobs, mask)


def _bounded(exponential: Callable[[Tensor], Tensor], log_ratios: Tensor) -> Tensor:
    """`torch.exp` or `torch.expm1`, continued from `STEEPEST` on by the tangent there."""
    # Float32 ends at 88 nats, and the square of a gradient at 44. A clamp would be finite too, but
    # its gradient of 0 would never bring the policy back.
    beyond = (log_ratios - STEEPEST).relu()
    return exponential(log_ratios.clamp(max=STEEPEST)) + math.exp(STEEPEST) * beyond


def _ratio(logprobs: Tensor, old_logprobs: Tensor, mask: Tensor) -> Tensor:
    """pi(a_t) / pi_old(a_t), (S, L), 1 outside the mask."""
    check_aligned(mask, logprobs=logprobs, old_logprobs=old_logprobs)
    # The difference is blanked before exp, which could overflow at positions that do not count.
    return _bounded(torch.exp, torch.where(mask, logprobs - old_logprobs.detach(), 0.0))


@torch.no_grad()
def truncated_ratios(
    logprobs: Tensor, sampled_logprobs: Tensor, mask: Tensor, cap: float
) -> Tensor:
    """What tokens weigh that another policy chose than the one from which an update begins.

        w_t = min(pi_proximal(a_t) / pi_sampled(a_t), cap)

    Multiplied with the advantages they give the decoupled objective of Hilton, Cobbe & Schulman,
    "Batch size-invariance for policy optimization" (2021), arXiv:2110.00641:

        w_t min(ratio_t A_t, clip(ratio_t) A_t),    ratio_t = pi(a_t) / pi_proximal(a_t)

    The clip then holds the policy near the one from which the update begins, and the weight says
    how much likelier that one finds the token than the one that sampled it. Use it for rollouts of
    older weights (Fu et al., "AReaL", 2025, arXiv:2505.24298), or where sampling and updates round
    differently. The cap bounds the variance at the price of a bias (Espeholt et al.,
    2018, arXiv:1802.01561): each token has its own weight, the probability of reaching it has none.

    Args:
        logprobs: (S, L), log-probability of each chosen token under the proximal policy.
        sampled_logprobs: (S, L), the same under the policy that chose.
        mask: (S, L) bool.
        cap: The largest weight; infinity truncates nothing.

    Returns:
        (S, L), 1 outside the mask, without gradient.
    """
    return torch.where(mask, _ratio(logprobs, sampled_logprobs, mask).clamp(max=cap), 1.0)


def surrogate(logprobs: Tensor, old_logprobs: Tensor, advantages: Tensor, mask: Tensor) -> Tensor:
    """The importance-weighted advantage of each token, to be maximised: PPO's without its clip.

        ratio_t * A_t,    ratio_t = pi(a_t) / pi_old(a_t)

    Use it for one step on each rollout where tokens of an earlier policy must be weighed; use
    `clipped_surrogate` for several steps. At the policy that chose, ratio_t is 1 and its gradient
    is that of log pi(a_t), so this is the policy gradient there. Kakade & Langford, "Approximately
    Optimal Approximate Reinforcement Learning" (2002); Schulman et al. (2017), equation 6.

    Args:
        logprobs: (S, L), log-probability of each chosen token under the policy.
        old_logprobs: (S, L), the same under the policy that chose.
        advantages: (S, L), or (S,) for one per sequence.
        mask: (S, L) bool.

    Returns:
        (S, L), 0 outside the mask.
    """
    constants = _constant_per_token(advantages, mask, logprobs.dtype)
    return _ratio(logprobs, old_logprobs, mask) * constants


def clipped_surrogate(
    logprobs: Tensor,
    old_logprobs: Tensor,
    advantages: Tensor,
    mask: Tensor,
    clip_low: float,
    clip_high: float,
) -> Tensor:
    """PPO's objective for each token, to be maximised; `ppo_clip` is minus its token mean.

        ratio_t = pi(a_t) / pi_old(a_t)
        min(ratio_t * A_t, clip(ratio_t, 1 - clip_low, 1 + clip_high) * A_t)

    Use it for several steps on one rollout, reduced by the mean of your choice. Wide clips
    (clip_low = 1, clip_high = inf) give `surrogate`. The arguments are those of `ppo_clip`.

    Returns:
        (S, L), 0 outside the mask.
    """
    advantages = _constant_per_token(advantages, mask, logprobs.dtype)
    ratio = _ratio(logprobs, old_logprobs, mask)
    clipped = ratio.clamp(1 - clip_low, 1 + clip_high)
    # The minimum is pessimistic: a ratio that went the wrong way keeps its gradient and is undone.
    return torch.minimum(ratio * advantages, clipped * advantages)


def ppo_clip(
    logprobs: Tensor,
    old_logprobs: Tensor,
    advantages: Tensor,
    mask: Tensor,
    clip_low: float,
    clip_high: float,
) -> Tensor:
    """PPO's clipped loss.

        -mean over tokens of min(ratio_t * A_t, clip(ratio_t, 1 - clip_low, 1 + clip_high) * A_t)

    Schulman et al., "Proximal Policy Optimization Algorithms" (2017), arXiv:1707.06347, equation
    7, where both clips are equal (0.2). Yu et al., "DAPO" (2025), arXiv:2503.14476, raise
    `clip_high` alone (0.28) to keep the entropy up.

    Use it for several steps on one rollout where every token weighs the same. For another mean over
    tokens, reduce `clipped_surrogate`. At the first step all ratios are 1, and the gradient is that
    of `policy_gradient`.

    Args:
        logprobs: (S, L), log-probability of each chosen token under the policy.
        old_logprobs: (S, L), the same under the policy that chose.
        advantages: (S, L), or (S,) for one per sequence.
        mask: (S, L) bool.
        clip_low: How far below 1 the ratio may fall.
        clip_high: How far above 1 the ratio may rise.

    Returns:
        A scalar.
    """
    objective = clipped_surrogate(logprobs, old_logprobs, advantages, mask, clip_low, clip_high)
    return -masked_mean(objective, mask)


@torch.no_grad()
def clip_fraction(
    logprobs: Tensor, old_logprobs: Tensor, mask: Tensor, clip_low: float, clip_high: float
) -> Tensor:
    """The share of chosen tokens whose ratio has left the clipping range; 0 if none are chosen.

        mean over tokens of [ratio_t < 1 - clip_low or ratio_t > 1 + clip_high]

    Use it to see whether a clip acts: at 0 it never does. Tokens count whatever the sign of their
    advantage, as in Stable-Baselines3 and CleanRL. The arguments are those of `ppo_clip`; the
    result is a scalar without gradient.
    """
    ratio = _ratio(logprobs, old_logprobs, mask)
    outside = (ratio < 1 - clip_low) | (ratio > 1 + clip_high)
    return masked_mean(outside.to(ratio.dtype), mask)


def value_loss(values: Tensor, targets: Tensor, mask: Tensor) -> Tensor:
    """Half the mean squared error of the values.

        0.5 * mean over tokens of (V_t - target_t)^2

    Use it to train a value head. The half makes the gradient the plain error. The paper (Schulman
    et al., 2017, arXiv:1707.06347, equation 9) and Stable-Baselines3 leave it out.

    Args:
        values: (S, L), the value of the text before each token.
        targets: (S, L), such as `gae(...) + values` or `discounted_returns(...)`.
        mask: (S, L) bool.

    Returns:
        A scalar.
    """
    check_aligned(mask, values=values, targets=targets)
    # Blanked before the square, whose gradient is the error itself and would be 0 x NaN.
    errors = torch.where(mask, values - targets.detach(), 0.0).to(values.dtype)
    return 0.5 * masked_mean(errors.square(), mask)


def clipped_value_loss(
    values: Tensor, old_values: Tensor, targets: Tensor, mask: Tensor, clip: float
) -> Tensor:
    """Half the mean squared error, without reward for moving further than `clip` at once.

        V'_t = V_old_t + clip(V_t - V_old_t, -clip, clip)
        0.5 * mean over tokens of max((V_t - target_t)^2, (V'_t - target_t)^2)

    From OpenAI Baselines' PPO; Huang et al., "The 37 Implementation Details of Proximal Policy
    Optimization" (2022), detail 9, which also notes that it seldom helps. Use it to reproduce an
    implementation that clips values, and `value_loss` otherwise. With a large clip both are equal.

    Args:
        values: (S, L), the value of the text before each token.
        old_values: (S, L), the same at rollout.
        targets: (S, L).
        mask: (S, L) bool.
        clip: The largest rewarded change, in units of return.

    Returns:
        A scalar.
    """
    check_aligned(mask, values=values, old_values=old_values, targets=targets)
    # All three are blanked here: a NaN would pass through clamp and maximum into the gradient.
    values = torch.where(mask, values, 0.0)
    old_values = torch.where(mask, old_values.detach(), 0.0)
    targets = torch.where(mask, targets.detach(), 0.0).to(values.dtype)
    near = old_values + (values - old_values).clamp(-clip, clip)
    # The larger error counts, so a value that moved too far gets no gradient to move on.
    return 0.5 * masked_mean(
        torch.maximum((values - targets).square(), (near - targets).square()), mask
    )


@torch.no_grad()
def explained_variance(values: Tensor, targets: Tensor, mask: Tensor) -> Tensor:
    """The share of the targets' variance that the values predict.

        1 - Var[target - V] / Var[target]

    Use it to see whether a value head has learned anything: 1 is perfect, 0 is as good as a
    constant, below 0 is worse. Where the targets have no variance there is nothing to explain, and
    the answer is 0.

    Args:
        values: (S, L).
        targets: (S, L).
        mask: (S, L) bool.

    Returns:
        A scalar, without gradient.
    """
    check_aligned(mask, values=values, targets=targets)
    if not mask.any():  # the variance of nothing would be NaN
        return values.new_zeros(())
    errors, targets = (targets - values)[mask], targets[mask]
    total = targets.var(correction=0)
    return torch.where(total > 0, 1 - errors.var(correction=0) / total, 0.0)


def _log_ratio(logprobs: Tensor, ref_logprobs: Tensor, mask: Tensor) -> Tensor:
    """How much likelier the policy finds each token, in nats, (S, L), 0 outside the mask."""
    check_aligned(mask, logprobs=logprobs, ref_logprobs=ref_logprobs)
    # 0 outside the mask, where every estimator below is 0 too.
    return torch.where(mask, logprobs - ref_logprobs.detach(), 0.0)


def kl_k1(logprobs: Tensor, ref_logprobs: Tensor, mask: Tensor) -> Tensor:
    """Estimate KL(pi || pi_ref) at tokens drawn from pi: unbiased, may be negative.

        k1 = log pi(a_t) - log pi_ref(a_t)

    Schulman, "Approximating KL Divergence" (2020), http://joschu.net/blog/kl-approx.html. Use it
    in the reward. In a loss it does nothing, since its expected gradient is 0 (Tang & Munos, "On a
    few pitfalls in KL divergence gradient estimation for RL", 2025, arXiv:2506.09477); use `kl_k2`
    there.

    Args:
        logprobs: (S, L), log-probability of each chosen token under the policy, which drew it.
        ref_logprobs: (S, L), the same under the reference.
        mask: (S, L) bool.

    Returns:
        (S, L), 0 outside the mask.
    """
    return _log_ratio(logprobs, ref_logprobs, mask)


def kl_k2(logprobs: Tensor, ref_logprobs: Tensor, mask: Tensor) -> Tensor:
    """Estimate KL(pi || pi_ref) at tokens drawn from pi: biased, small variance, never negative.

        k2 = (log pi(a_t) - log pi_ref(a_t))^2 / 2

    Schulman (2020), http://joschu.net/blog/kl-approx.html. Use it in a loss: its expected
    *gradient* is exactly that of the token's KL(pi || pi_ref) (Tang & Munos, 2025,
    arXiv:2506.09477). The arguments are those of `kl_k1`.

    Returns:
        (S, L), 0 outside the mask.
    """
    return 0.5 * _log_ratio(logprobs, ref_logprobs, mask).square()


def kl_k3(logprobs: Tensor, ref_logprobs: Tensor, mask: Tensor) -> Tensor:
    """Estimate KL(pi || pi_ref) at tokens drawn from pi: unbiased and never negative.

        d = log pi(a_t) - log pi_ref(a_t),    k3 = exp(-d) - 1 + d

    Schulman (2020), http://joschu.net/blog/kl-approx.html. Use it to report the KL. In a loss, as
    in GRPO, its expected gradient is that of the reverse, KL(pi_ref || pi) (Tang & Munos, 2025,
    arXiv:2506.09477); use `kl_k2` there. The arguments are those of `kl_k1`.

    Returns:
        (S, L), 0 outside the mask.
    """
    difference = _log_ratio(logprobs, ref_logprobs, mask)
    # expm1: exp(-d) - 1 would lose all digits where the two policies nearly agree.
    return _bounded(torch.expm1, -difference) + difference


def kl_from_old(logprobs: Tensor, old_logprobs: Tensor, mask: Tensor) -> Tensor:
    """Estimate KL(pi_old || pi) at tokens drawn from pi_old: unbiased and never negative.

        d = log pi(a_t) - log pi_old(a_t),    k3 = exp(d) - 1 - d

    Use it in a loss, to hold the policy near the one that chose: its expected gradient is the exact
    one (`PPOPenalty`). The arguments are those of `clip_fraction`.

    Returns:
        (S, L), 0 outside the mask.
    """
    difference = _log_ratio(logprobs, old_logprobs, mask)
    return _bounded(torch.expm1, difference) - difference
