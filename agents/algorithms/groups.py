"""Algorithms that compare answers to the same prompt, each an advantage and a loss."""

from dataclasses import dataclass

from torch import Tensor

from agents import losses, returns
from agents.algorithm import Algorithm, Metrics
from agents.rollout import Rollout
from policies import Scores


@dataclass(frozen=True)
class GRPO(Algorithm):
    """Group-relative policy optimisation (Shao et al., 2024), with DAPO's token mean.

        A_s = (r_s - group mean) / (group std + eps)
        loss = -mean over tokens of min(ratio * A_s, clip(ratio) * A_s)

    Needs whole episodes in groups: an environment with `group_size`, a learner with `n_episodes`.
    Left out: the KL term in the loss, for which the learner's KL penalty in the reward stands.

    Attributes:
        clip: The ratio of new to old probability earns nothing outside 1 - clip .. 1 + clip.
    """

    clip: float = 0.2

    def advantages(self, rollout: Rollout) -> Tensor:
        """Standardised returns of each group, shape (S,)."""
        return returns.group_standardised(rollout.episode_returns, rollout.groups)

    def loss(self, batch: Rollout, scores: Scores) -> tuple[Tensor, Metrics]:
        """Clipped surrogate, averaged over tokens."""
        assert batch.advantages is not None
        arguments = (scores.logprobs, batch.logprobs)
        clips = (self.clip, self.clip)
        loss = losses.ppo_clip(*arguments, batch.advantages, batch.mask, *clips)
        return loss, {"clip_fraction": losses.clip_fraction(*arguments, batch.mask, *clips)}
