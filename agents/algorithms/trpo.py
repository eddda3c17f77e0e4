"""Trust region policy optimisation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from agents import losses, returns
from agents.algorithm import Algorithm, Needs
from agents.optimisation import natural_gradient

if TYPE_CHECKING:
    from torch import Tensor

    from agents.algorithm import Metrics, StepTaker
    from agents.rollout import Rollout
    from policies import PolicyOutputs


@dataclass(frozen=True)
class TRPO(Algorithm):
    """The natural policy gradient with a line search under a KL bound (Schulman et al., 2015).

        step = sqrt(2 max_kl / (x F x)) x,    F x = g
        F = mean over tokens of grad log pi(a_t) grad log pi(a_t)^T

    arXiv:1502.05477. g is the gradient of mean ratio_t A_s; x comes from conjugate gradients. F is
    estimated at the sampled tokens, and F v by one backward pass at a point a little along v, so
    nothing is differentiated twice. The step is halved until the surrogate rises within the KL
    bound. One step on each rollout; the learner's optimiser and rate are not used. Needs groups.
    Left out: a value head, for which the mean of a group's others stands.

    Attributes:
        max_kl: How far the policy may move, in nats per token.
        iterations: Conjugate gradient steps.
        damping: Added to F's diagonal.
        halvings: How often the step is halved before it is given up.
    """

    needs: ClassVar[Needs] = Needs(groups=True, whole_episodes=True)

    max_kl: float = 0.01
    iterations: int = 10
    damping: float = 0.01
    halvings: int = 10

    def advantages(self, rollout: Rollout) -> Tensor:
        """Return minus the mean of the others, shape (S,)."""
        return returns.leave_one_out(rollout.episode_returns, rollout.groups)

    def loss(self, batch: Rollout, outputs: PolicyOutputs) -> Tensor:
        """Minus the surrogate."""
        assert batch.advantages is not None
        weighted = losses.surrogate(
            logprobs=outputs.logprobs,
            old_logprobs=batch.logprobs,
            advantages=batch.advantages,
            mask=batch.mask,
        )
        return -losses.masked_mean(weighted, batch.mask)

    def step(self, trainer: StepTaker, batch: Rollout) -> tuple[PolicyOutputs, Metrics]:
        """The natural gradient's step, as far as the bound allows."""
        return natural_gradient.step(self, trainer, batch)
