"""Trust region policy optimisation."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn.utils import parameters_to_vector

from agents import losses, returns
from agents.algorithm import Algorithm, Metrics
from agents.rollout import Rollout
from policies import Scores

if TYPE_CHECKING:
    from agents.trainer import Trainer


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

    max_kl: float = 0.01
    iterations: int = 10
    damping: float = 0.01
    halvings: int = 10

    def advantages(self, rollout: Rollout) -> Tensor:
        """Return minus the mean of the others, shape (S,)."""
        return returns.leave_one_out(rollout.episode_returns, rollout.groups)

    def loss(self, batch: Rollout, scores: Scores) -> Tensor:
        """Minus the surrogate."""
        assert batch.advantages is not None
        arguments = (scores.logprobs, batch.logprobs, batch.advantages, batch.mask)
        return -losses.masked_mean(losses.clipped_surrogate(*arguments, 1.0, torch.inf), batch.mask)

    def step(self, trainer: "Trainer", batch: Rollout) -> tuple[Scores, Metrics]:
        """The natural gradient's step, as far as the bound allows."""
        start = parameters_to_vector(trainer.trained).detach()
        scores = trainer.score(batch)
        old, before = scores.logprobs.detach(), self.loss(batch, scores)
        gradient = _flat_gradient(before, trainer)

        def fisher(v: Tensor) -> Tensor:
            # The gradient of half the mean square of log pi - log pi_old is F h v at start + h v.
            h = 1e-2 / (v.norm() + 1e-12)
            _move_to(start + h * v, trainer)
            moved = trainer.score(batch).logprobs - old
            product = _flat_gradient(0.5 * losses.masked_mean(moved.square(), batch.mask), trainer)
            return product / h + self.damping * v

        direction = conjugate_gradient(fisher, -gradient, self.iterations)
        length = (2 * self.max_kl / (direction @ fisher(direction)).clamp(min=1e-12)).sqrt()
        for halving in range(self.halvings):
            _move_to(start + length * 0.5**halving * direction, trainer)
            with torch.no_grad():
                now = trainer.score(batch)
            kl = losses.masked_mean(losses.kl_k3(old, now.logprobs, batch.mask), batch.mask)
            if kl <= self.max_kl and self.loss(batch, now) < before:
                return scores, {"loss": before, "step_kl": kl, "halvings": torch.tensor(halving)}
        _move_to(start, trainer)
        return scores, {"loss": before, "step_kl": 0 * before, "halvings": torch.tensor(-1)}


def conjugate_gradient(product: Callable[[Tensor], Tensor], b: Tensor, iterations: int) -> Tensor:
    """Solve A x = b for a positive definite A known by its products (Hestenes & Stiefel, 1952)."""
    x, residual = torch.zeros_like(b), b.clone()
    direction, square = residual.clone(), residual @ residual
    for _ in range(iterations):
        if square < 1e-20:
            break
        image = product(direction)
        length = square / (direction @ image)
        x += length * direction
        residual -= length * image
        square, previous = residual @ residual, square
        direction = residual + square / previous * direction
    return x


def _flat_gradient(loss: Tensor, trainer: "Trainer") -> Tensor:
    gradients = torch.autograd.grad(loss, trainer.trained, allow_unused=True)
    pairs = zip(gradients, trainer.trained, strict=True)
    return torch.cat([(torch.zeros_like(p) if g is None else g).flatten() for g, p in pairs])


@torch.no_grad()
def _move_to(vector: Tensor, trainer: "Trainer") -> None:
    parts = vector.split([p.numel() for p in trainer.trained])
    for parameter, part in zip(trainer.trained, parts, strict=True):
        parameter.copy_(part.view_as(parameter))
