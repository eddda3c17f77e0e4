"""Proximal policy optimisation, with a clip and with a KL penalty."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from agents import losses, returns
from agents.algorithm import Needs
from agents.algorithms.advantages import PolicyGradient
from agents.algorithms.credit import (
    BY_VALUES,
    Credit,
    check_credit,
    credit_field,
    credit_function,
    steps_of,
)
from agents.optimisation.bounds import bounded

if TYPE_CHECKING:
    from torch import Tensor

    from agents.algorithm import Metrics
    from agents.rollout import Rollout
    from policies import PolicyOutputs


@dataclass(frozen=True)
class PPO(PolicyGradient):
    """Proximal policy optimisation with a clipped objective (Schulman et al., 2017).

    arXiv:1707.06347. Use it when sampling is dear, so that each rollout should be learned from
    several times, or when rewards come inside an answer. It trains a value head; with several
    answers to each prompt, `GRPO` needs none. One step on each rollout (`n_epochs` of 1 and
    `minibatch_tokens` of None) never meets the clip: that is `A2C` with standardised advantages.

    Advantages come from `credit` and are standardised within each minibatch, as Stable-Baselines3
    and CleanRL do. In a conversation `credit=returns.gae_by_turn` makes a turn one step: gamma and
    lambda act once a turn, and values are fitted where turns begin. Left out: advantage
    standardisation over the whole rollout, shared clip ranges that decay.

    Attributes:
        clip: A ratio of new to old probability outside 1 - clip to 1 + clip earns nothing more;
            smaller is more careful.
        value_clip: A value that moves further than this in one update earns nothing more, in units
            of return; None does not limit it.
        value_coef: Weight of the value loss; larger trains the value head faster.
        entropy_coef: Weight of the entropy bonus; larger keeps the choices more varied.
        gamma: Discount for each step of the credit, 0 to 1; 1 counts late rewards in full. An
            answer is a single step, so `gae_by_answer` uses neither this nor lambda.
        gae_lambda: Lambda of GAE: 0 trusts the values (less variance, more bias), 1 trusts the
            rewards.
        credit: What a step is: a token (gae), a turn (gae_by_turn) or the whole answer
            (gae_by_answer). A function of your own is called with the keyword arguments of
            `returns.gae_by_turn`; values are then fitted where its attribute `begins(mask, turns)`
            is True, shape (S, L), and at every chosen token if it has none. A `functools.partial`
            has that of its function.
    """

    needs: ClassVar[Needs] = Needs(values=True)

    n_epochs: int = 4
    minibatch_tokens: int | None = 1024
    clip: float = bounded(0.2, above=0)
    value_clip: float | None = bounded(None, above=0)
    value_coef: float = bounded(0.5, minimum=0)
    entropy_coef: float = bounded(0.0, any_number=True)
    gamma: float = bounded(1.0, minimum=0, maximum=1)
    gae_lambda: float = bounded(0.95, minimum=0, maximum=1)
    credit: Credit = credit_field(BY_VALUES)

    def __post_init__(self) -> None:
        """Refuse numbers out of their bounds, and a credit that does not exist."""
        super().__post_init__()
        check_credit(self.credit, BY_VALUES)

    def advantages(self, rollout: Rollout) -> Tensor:
        """GAE over the steps of `credit`, shape (S, L)."""
        advantages: Tensor = credit_function(self.credit)(
            rewards=rollout.rewards,
            values=rollout.values,
            mask=rollout.mask,
            bootstrap_values=rollout.bootstrap_values,
            gamma=self.gamma,
            lam=self.gae_lambda,
            turns=rollout.turns,
            mid_turn=rollout.mid_turn,
        )
        return advantages

    def value_mask(self, rollout: Rollout) -> Tensor:
        """Where the steps of `credit` begin, shape (S, L), bool: there values are read."""
        begins = steps_of(self.credit)
        return rollout.mask if begins is None else begins(rollout.mask, rollout.turns)

    def policy_loss(self, batch: Rollout, outputs: PolicyOutputs, advantages: Tensor) -> Tensor:
        """The clipped surrogate, decoupled where the rollout has importance weights."""
        return losses.ppo_clip(
            logprobs=outputs.logprobs,
            old_logprobs=batch.logprobs,
            advantages=batch.weighed(advantages),
            mask=batch.mask,
            clip_low=self.clip,
            clip_high=self.clip,
        )

    def loss(self, batch: Rollout, outputs: PolicyOutputs) -> tuple[Tensor, Metrics]:
        """Clipped surrogate + value loss - entropy bonus."""
        assert batch.advantages is not None and batch.value_targets is not None
        mask = batch.mask
        # Per minibatch, so that the clip and the coefficients do not depend on the rewards' scale.
        advantages = returns.standardise(batch.advantages, mask)
        policy_loss = self.policy_loss(batch, outputs, advantages)
        fitted = self.value_mask(batch)
        if self.value_clip is None:
            value_loss = losses.value_loss(outputs.values, batch.value_targets, fitted)
        else:
            value_loss = losses.clipped_value_loss(
                values=outputs.values,
                old_values=batch.values,
                targets=batch.value_targets,
                mask=fitted,
                clip=self.value_clip,
            )
        entropy = losses.masked_mean(outputs.entropies, mask)
        loss = policy_loss + self.value_coef * value_loss - self.entropy_coef * entropy
        clipped = losses.clip_fraction(
            logprobs=outputs.logprobs,
            old_logprobs=batch.logprobs,
            mask=mask,
            clip_low=self.clip,
            clip_high=self.clip,
        )
        return loss, {
            "policy_loss": policy_loss,
            "value_loss": value_loss,
            "clip_fraction": clipped,
        }


@dataclass(frozen=True)
class PPOPenalty(PPO):
    """PPO that is held near the sampling policy by a KL penalty instead of a clip.

        loss = -mean over tokens of [ratio_t A_t - penalty KL_t(old || new)]

    Schulman et al. (2017), equation 8, with a fixed coefficient (their table 1). Use it when no
    token should lose its gradient at the edge of a clip. A `penalty` of 0 holds nothing back. Use
    `PPO` otherwise: in the paper the clip did better than any penalty.

    The KL is estimated at the sampled tokens by ratio - 1 - log ratio, whose expected gradient is
    the exact one. Left out: the coefficient that adapts to a target.

    Attributes:
        clip: Ratios outside 1 - clip to 1 + clip are counted as `clip_fraction`; nothing is
            clipped.
        penalty: Weight of the KL to the sampling policy, in nats per token; larger moves less.
    """

    penalty: float = bounded(1.0, minimum=0)

    def policy_loss(self, batch: Rollout, outputs: PolicyOutputs, advantages: Tensor) -> Tensor:
        """Importance-weighted advantages less the penalty."""
        moved = losses.kl_from_old(outputs.logprobs, batch.logprobs, batch.mask)
        penalty = losses.masked_mean(batch.weighed(moved), batch.mask)
        weighted = losses.surrogate(
            logprobs=outputs.logprobs,
            old_logprobs=batch.logprobs,
            advantages=batch.weighed(advantages),
            mask=batch.mask,
        )
        return self.penalty * penalty - losses.masked_mean(weighted, batch.mask)
