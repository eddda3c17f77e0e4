"""Supervised learning on answers that scored well."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from agents import losses, returns
from agents.algorithm import Algorithm, Needs
from agents.optimisation.bounds import bounded

if TYPE_CHECKING:
    from torch import Tensor

    from agents.rollout import Rollout
    from policies import PolicyOutputs


@dataclass(frozen=True)
class BestOfN(Algorithm):
    """Best-of-n distillation: learn to give at once the best of n answers (Dong et al., 2023).

        loss = -mean over the best answers of sum_t log pi(a_t)

    RAFT, arXiv:2304.06767, repeated at every rollout. Use it when only the order of the scores can
    be trusted, not their size, or when a simple and stable method is wanted. It learns nothing
    from bad answers; `RLOO` does. Larger groups move further at a time: the best of n samples has
    a KL of at most log n - (n - 1) / n nats to the policy that sampled. Left out: a filter that
    drops prompts whose best answer is poor.
    """

    needs: ClassVar[Needs] = Needs(groups=True, whole_episodes=True)

    def advantages(self, rollout: Rollout) -> Tensor:
        """1 for the best of each group, 0 for the others, shape (S,)."""
        return returns.is_group_best(rollout.episode_returns, rollout.groups)

    def loss(self, batch: Rollout, outputs: PolicyOutputs) -> Tensor:
        """Cross-entropy of the best answers."""
        assert batch.advantages is not None
        best = batch.mask & (batch.advantages > 0)[:, None]
        return -losses.sequence_sum(outputs.logprobs, best)


@dataclass(frozen=True)
class RewardWeightedRegression(Algorithm):
    """Maximum likelihood with weights that grow with the return (Peters & Schaal, 2007).

        w_s = exp(r_s / beta) / mean of exp(r / beta),    loss = -mean of w_s sum_t log pi(a_t)

    Use it when scored answers come from elsewhere, such as a log: no old probabilities are needed.
    Large `beta` weighs all answers alike, which is supervised fine-tuning; `beta` near 0 learns
    from the best answer alone. On answers that the reference gave, the optimum is
    pi_ref exp(r / beta) / Z. On answers of the policy itself, every rollout moves the optimum on.
    Left out: advantages instead of returns (AWR).

    Attributes:
        beta: Temperature of the weights, in units of the score; smaller learns from the best
            answers alone.
    """

    needs: ClassVar[Needs] = Needs(whole_episodes=True)

    beta: float = bounded(1.0, above=0)

    def advantages(self, rollout: Rollout) -> Tensor:
        """The weights, shape (S,)."""
        scaled = rollout.scores / self.beta
        # The softmax cannot overflow as exp(r / beta) would; its mean is 1 after the factor.
        return scaled.softmax(0) * len(scaled)

    def loss(self, batch: Rollout, outputs: PolicyOutputs) -> Tensor:
        """Weighted cross-entropy."""
        assert batch.advantages is not None
        return -losses.sequence_sum(batch.advantages[:, None] * outputs.logprobs, batch.mask)
