"""Trust region policy optimisation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from agents import losses, returns
from agents.algorithm import Needs
from agents.algorithms.advantages import PolicyGradient
from agents.optimisation import natural_gradient
from agents.optimisation.bounds import bounded

if TYPE_CHECKING:
    from torch import Tensor

    from agents.algorithm import Metrics, StepTaker
    from agents.rollout import Rollout
    from policies import PolicyOutputs


@dataclass(frozen=True)
class TRPO(PolicyGradient):
    """The natural policy gradient with a line search under a KL bound (Schulman et al., 2015).

        step = sqrt(2 max_kl / (x F x)) x,    F x = g
        F = mean over tokens of grad log pi(a_t) grad log pi(a_t)^T

    arXiv:1502.05477. Use it when no update may move the policy further than a known KL. A step
    costs about `iterations` forward and backward passes and those of the line search. `PPO` and
    `GRPO` take one pass a step and keep to no exact bound.

    g is the gradient of mean ratio_t A_s; x comes from conjugate gradients. F is estimated at the
    sampled tokens. F v takes one backward pass at a point a little along v, so nothing is
    differentiated twice. The step is halved until the surrogate rises within the KL bound. There is
    one step on each rollout; the learner's optimiser and learning rate are not used. It needs
    groups. Left out: a value head; the baseline is the mean of the group's other answers.

    Attributes:
        max_kl: How far one update may move the policy, in nats per token.
        iterations: Conjugate gradient steps for one update; more solve for the direction better and
            cost a forward and a backward pass each.
        damping: Added to the diagonal of the Fisher matrix; larger is more stable and closer to the
            plain gradient.
        halvings: How many lengths of the step are tried, each half the one before; then the update
            is given up.
    """

    needs: ClassVar[Needs] = Needs(groups=True, whole_episodes=True)

    max_kl: float = bounded(0.01, above=0)
    iterations: int = bounded(10, minimum=1)
    damping: float = bounded(0.01, minimum=0)
    halvings: int = bounded(10, minimum=1)

    def advantages(self, rollout: Rollout) -> Tensor:
        """Return minus the mean of the others, shape (S,)."""
        return returns.leave_one_out(rollout.episode_returns, rollout.groups)

    def loss(self, batch: Rollout, outputs: PolicyOutputs) -> Tensor:
        """Minus the surrogate."""
        assert batch.advantages is not None
        weighted = losses.surrogate(
            logprobs=outputs.logprobs,
            old_logprobs=batch.logprobs,
            advantages=batch.weighed(batch.advantages),
            mask=batch.mask,
        )
        return -losses.masked_mean(weighted, batch.mask)

    def step(self, trainer: StepTaker, batch: Rollout) -> tuple[PolicyOutputs, Metrics]:
        """The natural gradient's step, as far as the bound allows."""
        return natural_gradient.step(self, trainer, batch)
