"""Learning again from rollouts of the past."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from agents import losses, returns
from agents.algorithm import Algorithm, Needs
from agents.algorithms.advantages import PolicyGradient, spread
from agents.optimisation.bounds import bounded

if TYPE_CHECKING:
    from torch import Tensor

    from agents.algorithm import Metrics
    from agents.rollout import Rollout
    from policies import PolicyOutputs


@dataclass(frozen=True)
class OffPolicyGradient(PolicyGradient):
    """The policy gradient on stale rollouts, with truncated importance weights.

        w_t = min(pi(a_t) / pi_sampled(a_t), cap)
        loss = -mean over sequences of sum_t stopped(w_t) A_s log pi(a_t)

    Use it when sampling is dear and old answers should be learned from again. On rollouts of the
    present policy all weights are 1, and it is `RLOO`.

    Each token has its own weight, as in V-trace (Espeholt et al., 2018, arXiv:1802.01561) and in
    IMPALA's descendants for language models. The variance is bounded. The price is a bias: weights
    are truncated, and the probability of reaching a token is not corrected. It needs groups. The
    learner's KL penalty is that of the present policy, for stale rollouts too.

    Attributes:
        cap: The largest importance weight; smaller has less variance and more bias.
        replay: How many of the latest rollouts to learn from at once; more uses older answers.
    """

    needs: ClassVar[Needs] = Needs(groups=True, whole_episodes=True)

    cap: float = bounded(2.0, above=0)
    replay: int = 4

    def advantages(self, rollout: Rollout) -> Tensor:
        """Return minus the mean of the others, shape (S,)."""
        return returns.leave_one_out(rollout.episode_returns, rollout.groups)

    def loss(self, batch: Rollout, outputs: PolicyOutputs) -> tuple[Tensor, Metrics]:
        """Weighted policy gradient of whole answers."""
        assert batch.advantages is not None
        # Without gradient: the loss's is the policy's alone and not also that of the weight.
        weights = losses.truncated_ratios(
            outputs.logprobs, batch.behaviour_logprobs, batch.mask, self.cap
        )
        advantages = spread(batch.advantages, batch)
        loss = -losses.sequence_sum(weights * advantages * outputs.logprobs, batch.mask)
        capped = losses.masked_mean((weights == self.cap).float(), batch.mask)
        return loss, {"capped_fraction": capped}


@dataclass(frozen=True)
class SoftQLearning(Algorithm):
    """Soft Q-learning over tokens: value-based and off-policy, for the KL-regularised return.

        Q(s, a) = V(s) + beta log(pi(a|s) / pi_ref(a|s))
        loss = mean over tokens of (Q(s_t, a_t) - target_t)^2 / 2
        target_t = r_t + [soft lambda-return of the text after token t]

    Use it when old rollouts should be learned from again without importance weights, or when each
    token needs a value of its own. Whoever gave the answers, the fixed point is the optimum
    pi_ref exp(r / beta) / Z. Use `PPO` where fresh answers are cheap.

    Any Q splits in one way into its soft value V and the policy that is optimal for it, so the
    value head and the logits together *are* Q (Nachum et al., "Bridging the Gap", 2017,
    arXiv:1702.08892; for text Guo et al., 2022, arXiv:2106.07704). Targets come from the policy as
    it was at the start of the update: a target network that is renewed each time. It needs a
    reference. Rewards are those of the environment: leave the learner's `kl_coef` at 0. Left out:
    priorities.

    Attributes:
        beta: Weight of the KL to the reference, in reward per nat; larger stays closer to it.
        gae_lambda: Lambda of the returns: 0 is one-step Q-learning; near 1 the reward at the end
            reaches every token at once.
        replay: How many of the latest rollouts to learn from at once; more uses older answers.
    """

    needs: ClassVar[Needs] = Needs(reference=True, values=True)

    n_epochs: int = 4
    beta: float = bounded(0.1, above=0)
    gae_lambda: float = bounded(0.95, minimum=0, maximum=1)
    replay: int = 4

    def advantages(self, rollout: Rollout) -> Tensor:
        """How much too low Q is under the target network, shape (S, L)."""
        assert rollout.present_logprobs is not None
        soft = rollout.rewards - self.beta * self._log_ratios(rollout, rollout.present_logprobs)
        return returns.gae(
            rewards=soft,
            values=rollout.values,
            mask=rollout.mask,
            bootstrap_values=rollout.bootstrap_values,
            gamma=1.0,
            lam=self.gae_lambda,
        )

    def value_targets(self, rollout: Rollout, advantages: Tensor) -> Tensor:
        """What Q is fitted to."""
        assert rollout.present_logprobs is not None
        own = self.beta * self._log_ratios(rollout, rollout.present_logprobs)
        return super().value_targets(rollout, advantages) + own.where(rollout.mask, 0.0)

    def loss(self, batch: Rollout, outputs: PolicyOutputs) -> Tensor:
        """Squared error of Q."""
        assert batch.value_targets is not None
        q = outputs.values + self.beta * self._log_ratios(batch, outputs.logprobs)
        return losses.value_loss(q, batch.value_targets, batch.mask)

    def _log_ratios(self, batch: Rollout, logprobs: Tensor) -> Tensor:
        assert batch.ref_logprobs is not None
        return logprobs - batch.ref_logprobs
