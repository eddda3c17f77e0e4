"""TRPO's step: the natural policy gradient under a KL bound."""

from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor
from torch.nn.utils import parameters_to_vector

from agents import losses
from agents.algorithm import Metrics, StepTaker
from agents.distribution.gathering import is_divided
from agents.optimisation.precision import check_finite
from agents.rollout import Rollout
from policies import PolicyOutputs
from textenv.errors import UnmetNeedError


class TrustRegion(Protocol):
    """What the step needs from its algorithm; the fields are those of `TRPO`."""

    @property
    def max_kl(self) -> float: ...  # noqa: D102
    @property
    def iterations(self) -> int: ...  # noqa: D102
    @property
    def damping(self) -> float: ...  # noqa: D102
    @property
    def halvings(self) -> int: ...  # noqa: D102

    def loss(self, batch: Rollout, outputs: PolicyOutputs) -> Tensor:
        """Minus the surrogate."""
        ...


def step(
    algorithm: TrustRegion, trainer: StepTaker, batch: Rollout
) -> tuple[PolicyOutputs, Metrics]:
    """Move the policy along the natural gradient, as far as the KL bound allows.

    Returns:
        The policy's outputs for the minibatch before the step, and numbers to report. `halvings` is
        -1 if no step was short enough; the policy has not moved then.

    Raises:
        UnmetNeedError: The network is sharded.
        DivergedError: The loss, its gradient or the direction of the step is not finite.
    """
    if is_divided(trainer.trained):
        raise UnmetNeedError(
            "TRPO differentiates and moves all parameters at once, and those of a sharded network "
            "are in several processes: take PPO, or leave the network whole"
        )
    start = parameters_to_vector(trainer.trained).detach()
    try:
        return _step(algorithm, trainer, batch, start)
    except BaseException:  # an interrupt too: the weights of a trial are nobody's
        _move_to(start, trainer)
        raise


def _step(
    algorithm: TrustRegion, trainer: StepTaker, batch: Rollout, start: Tensor
) -> tuple[PolicyOutputs, Metrics]:
    outputs = trainer.outputs(batch)
    old, before = outputs.logprobs.detach(), algorithm.loss(batch, outputs)
    gradient = _flat_gradient(before, trainer)
    check_finite("loss", before)
    check_finite("norm of the gradient", gradient.norm())

    def fisher(v: Tensor) -> Tensor:
        # The gradient of half the mean square of log pi - log pi_old is F h v at start + h v. So F
        # v costs one backward pass, and works with attention kernels without a second derivative.
        # h v has the length 1e-2 whatever v: short enough to be linear, long enough for float32.
        h = 1e-2 / (v.norm() + 1e-12)
        _move_to(start + h * v, trainer)
        moved = trainer.outputs(batch).logprobs - old
        product = _flat_gradient(0.5 * losses.masked_mean(moved.square(), batch.mask), trainer)
        # F is singular: there are more parameters than tokens. The damping makes it invertible.
        return product / h + algorithm.damping * v

    direction = conjugate_gradient(fisher, -gradient, algorithm.iterations)
    check_finite("norm of the natural gradient", direction.norm())
    # The KL of a step s is s F s / 2 to second order; this length makes it max_kl. Further away
    # that is an estimate, so each candidate's KL and surrogate are measured before it is taken.
    length = (2 * algorithm.max_kl / (direction @ fisher(direction)).clamp(min=1e-12)).sqrt()
    for halving in range(algorithm.halvings):
        _move_to(start + length * 0.5**halving * direction, trainer)
        now = trainer.fixed_outputs(batch)
        kl = losses.masked_mean(losses.kl_k3(old, now.logprobs, batch.mask), batch.mask)
        good = bool(kl <= algorithm.max_kl and algorithm.loss(batch, now) < before)
        if trainer.ranks.of_first(good):
            return outputs, {"loss": before, "step_kl": kl, "halvings": torch.tensor(halving)}
    # No step was good enough. Better none than one beyond the bound.
    _move_to(start, trainer)
    return outputs, {"loss": before, "step_kl": 0 * before, "halvings": torch.tensor(-1)}


def conjugate_gradient(product: Callable[[Tensor], Tensor], b: Tensor, iterations: int) -> Tensor:
    """Solve A x = b for a positive definite A known by its products (Hestenes & Stiefel, 1952)."""
    x, residual = torch.zeros_like(b), b.clone()
    direction, square = residual.clone(), residual @ residual
    for _ in range(iterations):
        if square < 1e-20:  # solved: the next length would be 0 / 0
            break
        image = product(direction)
        length = square / (direction @ image)
        x += length * direction
        residual -= length * image
        square, previous = residual @ residual, square
        # Conjugate to all earlier directions, so no later step undoes the progress along them.
        direction = residual + square / previous * direction
    return x


def _flat_gradient(loss: Tensor, trainer: StepTaker) -> Tensor:
    # A parameter without influence on this loss, such as the value head, has the gradient 0.
    gradients = torch.autograd.grad(loss, trainer.trained, allow_unused=True)
    pairs = zip(gradients, trainer.trained, strict=True)
    flat = torch.cat([(torch.zeros_like(p) if g is None else g).flatten() for g, p in pairs])
    return trainer.ranks.sum_(flat)


@torch.no_grad()
def _move_to(vector: Tensor, trainer: StepTaker) -> None:
    parts = vector.split([p.numel() for p in trainer.trained])
    for parameter, part in zip(trainer.trained, parts, strict=True):
        parameter.copy_(part.view_as(parameter))
