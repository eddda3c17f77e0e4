"""The rule for gradients: they reach the network, and are those of what is told."""

import copy
from typing import Any
from unittest import SkipTest

import numpy as np

from textenv.testing.making import require
from textenv.testing.policy_trial import (
    Floats,
    Outputs,
    PolicyTrial,
    array,
    move,
    outputs,
    tensors,
)

DIRECTIONS, STEP = 3, 0.001
"""Directions that are tried, and how far weights are moved, as a share of their own size."""
MOST_OUT = 0.05
"""Difference of both derivatives that is allowed, as a share of what is usual for a direction."""


def gradients_reach_the_network(trial: PolicyTrial) -> None:
    """Gradients of log-probabilities reach more than the heads, and all gradients are true.

    True is what a small step of the weights does to log-probabilities, values and entropies.
    """
    policy = copy.deepcopy(trial.policy)
    heads = ("value_head.", "token_head.")
    trained = {name: p for name, p in policy.named_parameters() if p.requires_grad}
    inner = {name: p for name, p in trained.items() if not name.startswith(heads)}
    if not inner:
        raise SkipTest("no weight of the network is trained")
    policy.outputs(*tensors(policy, *trial.texts)).logprobs.sum().backward()
    gradients = {name: array(p.grad) for name, p in inner.items() if p.grad is not None}
    for name, gradient in gradients.items():
        require(
            bool(np.isfinite(gradient).all()),
            f"the gradient of the weight {name} is not finite",
        )
    require(
        any(gradient.any() for gradient in gradients.values()),
        f"no gradient reaches {', '.join(list(inner)[:3])}: `outputs` must compute with gradients, "
        "without detach() or no_grad()",
    )
    _compare_with_differences(trial, _precise(trial))


def _precise(trial: PolicyTrial) -> Any:
    """A copy that computes with doubles, or as it does anyway where the network cannot."""
    policy = copy.deepcopy(trial.policy)
    move(policy)  # at the start of training entropies hardly change
    precise = copy.deepcopy(policy)
    try:
        found = outputs(precise.double(), *trial.texts)
    except (RuntimeError, TypeError, ValueError):  # a number type that is fixed, or is not there
        return policy
    return policy if any(np.isnan(part).any() for part in found) else precise


def _compare_with_differences(trial: PolicyTrial, policy: Any) -> None:
    """Derivatives in random directions, by gradients and by a step to either side."""
    rng = np.random.default_rng(6)
    trained = [p for p in policy.parameters() if p.requires_grad]
    sizes = [max(float(np.sqrt((array(p) ** 2).mean())), 0.01) for p in trained]
    # Places of minus infinity have no derivative.
    mask = trial.texts[1] & np.isfinite(outputs(policy, *trial.texts).logprobs)
    weights = rng.normal(size=mask.shape) * mask
    gradients = _gradients(trial, policy, trained, weights)
    rounding = 0.05 * trial.tolerance * float(np.sqrt((weights**2).sum())) / STEP
    for _ in range(DIRECTIONS):
        direction = [
            rng.normal(scale=s, size=tuple(p.shape)) for p, s in zip(trained, sizes, strict=True)
        ]
        after = _sums(trial, policy, trained, direction, STEP, weights)
        before = _sums(trial, policy, trained, direction, -STEP, weights)
        for name, gradient, high, low in zip(
            Outputs._fields, gradients, after, before, strict=True
        ):
            told = sum(float((g * d).sum()) for g, d in zip(gradient, direction, strict=True))
            found = (high - low) / (2 * STEP)
            usual = np.sqrt(sum(((s * g) ** 2).sum() for g, s in zip(gradient, sizes, strict=True)))
            require(
                abs(told - found) <= MOST_OUT * max(float(usual), abs(found)) + rounding,
                f"a step of the weights changes a sum of {name} at a rate of {found:.4g}, and "
                f"their gradient says {told:.4g}: a part of it is lost. Look for detach() or "
                "no_grad() on the way, such as in a state that goes from step to step",
            )


def _gradients(
    trial: PolicyTrial, policy: Any, trained: list[Any], weights: Floats
) -> list[list[Floats]]:
    """Of each weighted sum of outputs the gradient in each trained parameter."""
    found = []
    for name in Outputs._fields:
        for parameter in trained:
            parameter.grad = None
        tokens, mask, kept = tensors(policy, *trial.texts, weights != 0)
        told = getattr(policy.outputs(tokens, mask), name)[kept]
        total = (told * told.detach().new_tensor(weights[weights != 0])).sum()
        if total.requires_grad:
            total.backward()
        found.append(
            [np.zeros(tuple(p.shape)) if p.grad is None else array(p.grad) for p in trained]
        )
    return found


def _sums(
    trial: PolicyTrial,
    policy: Any,
    trained: list[Any],
    direction: list[Floats],
    step: float,
    weights: Floats,
) -> list[float]:
    """Weighted sums of log-probabilities, values and entropies after a step of the parameters."""
    before = [p.detach().clone() for p in trained]
    for parameter, change in zip(trained, direction, strict=True):
        parameter.detach().add_(parameter.detach().new_tensor(step * change))
    kept = weights != 0
    sums = [float((part[kept] * weights[kept]).sum()) for part in outputs(policy, *trial.texts)]
    for parameter, value in zip(trained, before, strict=True):
        parameter.detach().copy_(value)
    return sums
