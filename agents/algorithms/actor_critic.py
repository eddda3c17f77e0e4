"""Policy gradients with a value head as baseline."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from agents import losses, returns
from agents.algorithm import Needs
from agents.algorithms.advantages import PolicyGradient
from agents.optimisation.bounds import bounded

if TYPE_CHECKING:
    from torch import Tensor

    from agents.algorithm import Metrics
    from agents.rollout import Rollout
    from policies import PolicyOutputs


@dataclass(frozen=True)
class REINFORCE(PolicyGradient):
    """The policy gradient with a learned baseline (Williams, 1992; Sutton et al., 2000).

        A_t = G_t - V_t,    loss = -mean over sequences of sum_t ratio_t A_t

    Use it when the gradient must be unbiased, and for a first experiment: nothing is clipped and
    nothing is bootstrapped. `A2C` with `gae_lambda` below 1 has less variance, `PPO` learns from
    each rollout several times, and `RLOO` needs no value head.

    It takes one step on each rollout. The ratio is 1 there, and its gradient is that of
    log pi(a_t). With `gamma` of 1 the gradient is an unbiased estimate of that of the expected
    return. An episode that ran on across an update has tokens of an earlier policy; the ratio
    weighs them. Left out: discounting of the states' distribution.

    Attributes:
        value_coef: Weight of the value loss; larger trains the value head faster.
        gamma: Discount for each chosen token, 0 to 1; 1 counts late rewards in full.
    """

    needs: ClassVar[Needs] = Needs(values=True)

    value_coef: float = bounded(0.5, minimum=0)
    gamma: float = bounded(1.0, minimum=0, maximum=1)

    def advantages(self, rollout: Rollout) -> Tensor:
        """Return minus value, shape (S, L)."""
        following = returns.discounted_returns(
            rollout.rewards, rollout.mask, rollout.bootstrap_values, self.gamma
        )
        return (following - rollout.values).where(rollout.mask, 0.0)

    def loss(self, batch: Rollout, outputs: PolicyOutputs) -> tuple[Tensor, Metrics]:
        """Policy gradient + value loss."""
        assert batch.advantages is not None and batch.value_targets is not None
        weighted = losses.surrogate(
            logprobs=outputs.logprobs,
            old_logprobs=batch.logprobs,
            advantages=batch.weighed(batch.advantages),
            mask=batch.mask,
        )
        policy_loss = -losses.sequence_sum(weighted, batch.mask)
        value_loss = losses.value_loss(outputs.values, batch.value_targets, batch.mask)
        loss = policy_loss + self.value_coef * value_loss
        return loss, {"policy_loss": policy_loss, "value_loss": value_loss}


@dataclass(frozen=True)
class A2C(PolicyGradient):
    """Advantage actor-critic (Mnih et al., 2016), synchronous.

        A_t = GAE,    loss = -mean over tokens of ratio_t A_t + value loss - entropy bonus

    Use it when rewards come inside an answer and the policy should learn from them at once: it is
    made for short rollouts (`n_steps` of 5 to 20) that are cut and bootstrapped. On whole episodes
    with `gae_lambda` of 1 its advantages are those of `REINFORCE`. Use `PPO` to learn from each
    rollout several times.

    It takes one step on each rollout. Cut rollouts hold tokens of the present policy alone: the
    ratio is 1 and its gradient is that of log pi(a_t). Whole episodes that ran on across an update
    have tokens of an earlier policy; the ratio weighs them. With `gae_lambda` below 1 the values'
    errors bias the gradient. Left out: RMSProp; the learner's optimiser is used.

    Attributes:
        value_coef: Weight of the value loss; larger trains the value head faster.
        entropy_coef: Weight of the entropy bonus; larger keeps the choices more varied.
        gamma: Discount for each chosen token, 0 to 1; 1 counts late rewards in full.
        gae_lambda: Lambda of GAE: 0 trusts the values (less variance, more bias), 1 trusts the
            rewards.
    """

    needs: ClassVar[Needs] = Needs(values=True)

    value_coef: float = bounded(0.5, minimum=0)
    entropy_coef: float = bounded(0.0, any_number=True)
    gamma: float = bounded(1.0, minimum=0, maximum=1)
    gae_lambda: float = bounded(1.0, minimum=0, maximum=1)

    def advantages(self, rollout: Rollout) -> Tensor:
        """GAE, shape (S, L)."""
        return returns.gae(
            rewards=rollout.rewards,
            values=rollout.values,
            mask=rollout.mask,
            bootstrap_values=rollout.bootstrap_values,
            gamma=self.gamma,
            lam=self.gae_lambda,
        )

    def loss(self, batch: Rollout, outputs: PolicyOutputs) -> tuple[Tensor, Metrics]:
        """Policy gradient + value loss - entropy bonus."""
        assert batch.advantages is not None and batch.value_targets is not None
        weighted = losses.surrogate(
            logprobs=outputs.logprobs,
            old_logprobs=batch.logprobs,
            advantages=batch.weighed(batch.advantages),
            mask=batch.mask,
        )
        policy_loss = -losses.masked_mean(weighted, batch.mask)
        value_loss = losses.value_loss(outputs.values, batch.value_targets, batch.mask)
        entropy = losses.masked_mean(outputs.entropies, batch.mask)
        loss = policy_loss + self.value_coef * value_loss - self.entropy_coef * entropy
        return loss, {"policy_loss": policy_loss, "value_loss": value_loss}
