"""GRPO with another importance ratio: the answer's, or one that is clipped and keeps its gradient.

Both need groups and whole episodes, as GRPO does.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from agents import losses
from agents.algorithms.advantages import spread
from agents.algorithms.groups import GRPO
from agents.optimisation.bounds import bounded

if TYPE_CHECKING:
    from torch import Tensor

    from agents.algorithm import Metrics
    from agents.rollout import Rollout
    from policies import PolicyOutputs


@dataclass(frozen=True)
class GSPO(GRPO):
    """Group sequence policy optimisation (Zheng et al., 2025): one ratio for each answer.

        s = exp(mean over tokens of log ratio_t)
        loss = -mean over sequences of min(s A_s, clip(s, 1 - clip, 1 + clip_high) A_s)

    arXiv:2507.18071, equations 5 to 7; A_s as in `GRPO`. Use it instead of `GRPO` where single
    tokens' ratios are noisy, as with mixtures of experts: an answer is clipped as a whole. The
    geometric mean stays near 1, so the clips are a thousand times narrower. On the first step its
    gradient is that of `GRPO`, which divides by each answer's length. Left out: the variant with a
    factor for each token (GSPO-token).
    """

    clip: float = bounded(3e-4, above=0)
    clip_high: float | None = bounded(4e-4, above=0)

    def loss(self, batch: Rollout, outputs: PolicyOutputs) -> tuple[Tensor, Metrics]:
        """Clipped surrogate of whole answers; each token's advantage is weighed by its own."""
        assert batch.advantages is not None
        moved = (outputs.logprobs - batch.logprobs.detach()).where(batch.mask, 0.0)
        mean = moved.sum(1, keepdim=True) / batch.mask.sum(1, keepdim=True).clamp(min=1)
        high = self.clip if self.clip_high is None else self.clip_high
        # The same number at each token, whose gradient reaches all tokens of the answer.
        old = moved.new_zeros(moved.shape)
        arguments = mean.expand_as(moved), old
        surrogate = losses.clipped_surrogate(
            *arguments, batch.weighed(batch.advantages), batch.mask, self.clip, high
        )
        clipped = losses.clip_fraction(*arguments, batch.mask, self.clip, high)
        return -self.mean(surrogate, batch.mask), {"clip_fraction": clipped}


@dataclass(frozen=True)
class CISPO(GRPO):
    """Clipped importance weights, no clipped tokens (MiniMax-M1, 2025).

        loss = -mean over tokens of stopped(min(ratio_t, 1 + clip_high)) A_s log pi(a_t)

    arXiv:2506.13585, equations 4 and 5; A_s as in `GRPO`. Use it instead of `DAPO` where rare
    tokens, whose ratios move most, must not lose their gradient: a ratio beyond the clip is cut and
    the token still teaches. The paper has no lower clip, and neither has this.

    Attributes:
        clip: Read where `clip_high` is None alone.
        clip_high: The weight of a token is at most 1 + clip_high; None takes `clip`.
    """

    clip_high: float | None = bounded(4.0, above=0)

    def loss(self, batch: Rollout, outputs: PolicyOutputs) -> tuple[Tensor, Metrics]:
        """Weighted policy gradient."""
        assert batch.advantages is not None
        cap = 1 + (self.clip if self.clip_high is None else self.clip_high)
        weights = losses.truncated_ratios(outputs.logprobs, batch.logprobs, batch.mask, cap)
        advantages = spread(batch.weighed(batch.advantages), batch)
        factors = (weights * advantages).where(batch.mask, 0.0).to(weights.dtype)
        clipped = losses.masked_mean((weights == cap).to(weights.dtype), batch.mask)
        loss = -self.mean(factors * outputs.logprobs, batch.mask)
        return loss, {"clip_fraction": clipped}

    def mean(self, surrogate: Tensor, mask: Tensor) -> Tensor:
        """The mean over all tokens: long answers weigh more."""
        return losses.masked_mean(surrogate, mask)
