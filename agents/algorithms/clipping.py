"""The loss of algorithms that clip ratios of probabilities and have no value head."""

from __future__ import annotations

from typing import TYPE_CHECKING

from agents import losses

if TYPE_CHECKING:
    from torch import Tensor

    from agents.algorithm import Metrics
    from agents.rollout import Rollout
    from policies import PolicyOutputs


def clipped_loss(
    batch: Rollout, outputs: PolicyOutputs, advantages: Tensor, clip: float
) -> tuple[Tensor, Metrics]:
    """PPO's clipped surrogate, averaged over tokens, and the share of them that it clips.

    Args:
        batch: What is learned from.
        outputs: What the policy says of it now.
        advantages: Shape (S, L), or (S,).
        clip: A ratio outside 1 - clip to 1 + clip earns nothing more.
    """
    loss = losses.ppo_clip(
        logprobs=outputs.logprobs,
        old_logprobs=batch.logprobs,
        advantages=batch.weighed(advantages),
        mask=batch.mask,
        clip_low=clip,
        clip_high=clip,
    )
    clipped = losses.clip_fraction(
        logprobs=outputs.logprobs,
        old_logprobs=batch.logprobs,
        mask=batch.mask,
        clip_low=clip,
        clip_high=clip,
    )
    return loss, {"clip_fraction": clipped}
