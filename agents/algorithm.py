"""What makes one algorithm differ from another: an advantage and a loss."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from agents import losses, returns
from agents.rollout import Rollout
from policies import Scores

Metrics = dict[str, Tensor]


@dataclass(frozen=True)
class Algorithm(ABC):
    """Base class; a subclass states `advantages` and `loss`.

    Attributes:
        n_epochs: Passes over each rollout.
        minibatch_tokens: About so many chosen tokens make one optimiser step; None takes the whole
            rollout at once. Sequences are never split.
        target_kl: Stop the epochs of a rollout once the policy has moved so far from the one that
            sampled it (nats per token, estimator k3); None never stops.
    """

    n_epochs: int = 1
    minibatch_tokens: int | None = None
    target_kl: float | None = None

    @abstractmethod
    def advantages(self, rollout: Rollout) -> Tensor:
        """How much better each choice was than expected: (S, L), or (S,) for whole episodes."""

    @abstractmethod
    def loss(self, batch: Rollout, scores: Scores) -> Tensor | tuple[Tensor, Metrics]:
        """The scalar to minimise over a minibatch, and numbers to report if there are any.

        Args:
            batch: Sequences with `advantages` and `value_targets` set.
            scores: What the present policy says of their choices, with gradients.
        """

    def value_targets(self, rollout: Rollout, advantages: Tensor) -> Tensor:
        """What the value head is fitted to: the value that was expected plus the advantage."""
        spread = advantages if advantages.dim() == 2 else advantages[:, None]
        return torch.where(rollout.mask, rollout.values + spread, 0.0)


@dataclass(frozen=True)
class PPO(Algorithm):
    """Proximal policy optimisation with a clipped objective (Schulman et al., 2017).

    Advantages by GAE, standardised within each minibatch as Stable-Baselines3 and CleanRL do. Left
    out: advantage standardisation over the whole rollout, shared clip ranges that decay.

    Attributes:
        clip: The ratio of new to old probability earns nothing outside 1 - clip .. 1 + clip.
        value_clip: Values may move so far in one update; None does not limit them.
        value_coef: Weight of the value loss.
        entropy_coef: Weight of the entropy bonus.
        gamma: Discount of each chosen token.
        gae_lambda: Trade of bias (0) for variance (1) in GAE.
    """

    n_epochs: int = 4
    minibatch_tokens: int | None = 1024
    clip: float = 0.2
    value_clip: float | None = None
    value_coef: float = 0.5
    entropy_coef: float = 0.0
    gamma: float = 1.0
    gae_lambda: float = 0.95

    def advantages(self, rollout: Rollout) -> Tensor:
        """GAE, shape (S, L)."""
        return returns.gae(
            rollout.rewards,
            rollout.values,
            rollout.mask,
            rollout.bootstrap_values,
            self.gamma,
            self.gae_lambda,
        )

    def loss(self, batch: Rollout, scores: Scores) -> tuple[Tensor, Metrics]:
        """Clipped surrogate + value loss - entropy bonus."""
        assert batch.advantages is not None and batch.value_targets is not None
        mask = batch.mask
        advantages = returns.standardise(batch.advantages, mask)
        policy_loss = losses.ppo_clip(
            scores.logprobs, batch.logprobs, advantages, mask, self.clip, self.clip
        )
        if self.value_clip is None:
            value_loss = losses.value_loss(scores.values, batch.value_targets, mask)
        else:
            value_loss = losses.clipped_value_loss(
                scores.values, batch.values, batch.value_targets, mask, self.value_clip
            )
        entropy = losses.masked_mean(scores.entropies, mask)
        loss = policy_loss + self.value_coef * value_loss - self.entropy_coef * entropy
        return loss, {
            "policy_loss": policy_loss,
            "value_loss": value_loss,
            "clip_fraction": losses.clip_fraction(
                scores.logprobs, batch.logprobs, mask, self.clip, self.clip
            ),
        }
