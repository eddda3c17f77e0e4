"""What a loss does with answers of an older policy: its importance ratio and its clip."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from agents.testing.batches import LossBatch, probe
from agents.testing.fitting import NOTHING, Fit, Formula
from agents.testing.laws import Law, kl_weights, policy_weights
from agents.testing.weights import of_tokens

UPSIDE_DOWN = "upside down, old over new"


class Stale(NamedTuple):
    """What was found.

    Attributes:
        ratio: Which ratio the weights are multiplied by.
        clipped: Share of tokens that have no gradient where log-ratios are 0.5.
        faults: What no paper states.
        biases: Documented ones.
    """

    ratio: str = "unknown"
    clipped: float = 0.0
    faults: tuple[str, ...] = ()
    biases: tuple[str, ...] = ()


def stale(
    gradient: Callable[[LossBatch], Tensor], found: Fit, formula: Formula | None, kl_coef: float
) -> Stale:
    """Which ratio weighs stale answers, and which tokens are without a gradient.

    Args:
        gradient: Of the loss in the logits.
        found: The formula that its weights are those of on fresh answers.
        formula: What was asked for; a function takes the place of the law.
        kl_coef: As in `LossBatch`.
    """

    def expected(batch: LossBatch) -> tuple[Tensor, Tensor]:
        if formula is not None and not isinstance(formula, Law):
            return found.scale * torch.where(batch.mask, formula(batch), 0.0), batch.mask * 0.0
        assert found.law is not None
        policy = found.scale * policy_weights(found.law, batch)
        kl = found.scale * (found.kl_weight or 0.0) * kl_coef * kl_weights(found.law, batch)
        return policy, kl

    if (
        found.dropped
        or found.only_kl
        or (found.law is None and (formula is None or isinstance(formula, Law)))
    ):
        return Stale()
    near, far = probe(0.03, kl_coef), probe(0.5, kl_coef)
    weights, _ = of_tokens(gradient(near), near)
    policy, kl = expected(near)
    # A narrow clip leaves some tokens out already; the others show the ratio.
    shown = torch.ones_like(near.mask) if kl.any() else ~_silent(weights, policy)
    ratios = _ratios(near)
    errors = {
        name: min(float(((weights - policy * r - kl * s) * shown).norm()) for s in (1.0, r))
        for name, r in ratios.items()
    }
    name = min(errors, key=lambda n: errors[n])
    if errors[name] > 0.01 * float((weights * shown).norm()):
        name = "unknown"
    faults, biases = [], []
    if UPSIDE_DOWN in name:
        faults.append(f"ratio: {name}")
    elif name not in ("each token's", "unknown", "none"):
        biases.append(f"ratio: {name}")
    weights, _ = of_tokens(gradient(far), far)
    policy, kl = expected(far)
    if kl.any():  # it has a gradient where the clip leaves none
        return Stale(name, 0.0, tuple(faults), tuple(biases))
    silent, due = _silent(weights, policy), _due(policy)
    clipped = float(silent.sum() / due.sum())
    if clipped:
        # The minimum of PPO is there for those: their ratio moves against their advantage.
        back = silent & (policy * (_ratios(far).get(name, torch.ones_like(policy)) - 1) < 0)
        told = f"{clipped:.0%} of stale tokens have no gradient"
        if bool((back == silent).all()):
            faults.append(f"clip upside down: {told}, just those whose ratio went the wrong way")
        else:
            also = ", also where their ratio went the wrong way" if back.any() else ""
            biases.append(f"clip: {told}{also}")
    return Stale(name, clipped, tuple(faults), tuple(biases))


def _due(policy: Tensor) -> Tensor:
    """Tokens that have a weight by the formula."""
    return policy.abs() > NOTHING * policy.abs().max()


def _silent(weights: Tensor, policy: Tensor) -> Tensor:
    """Those of them that have none."""
    return _due(policy) & (weights.abs() < NOTHING * weights.abs().max())


def _ratios(batch: LossBatch) -> dict[str, Tensor]:
    """Ratios of new to old probabilities that a loss may weigh tokens by, (S, L) each."""
    moved = torch.where(batch.mask, batch.logprobs.detach() - batch.old_logprobs, 0.0)
    whole = moved.sum(1, keepdim=True).expand_as(moved)
    return {
        "each token's": moved.exp(),
        "the answer's (product)": whole.exp(),
        "the answer's geometric mean": (whole / batch.lengths[:, None]).exp(),
        "the text's up to the token": moved.cumsum(1).exp(),
        "none": torch.ones_like(moved),
        f"each token's {UPSIDE_DOWN}": (-moved).exp(),
        f"the answer's {UPSIDE_DOWN}": (-whole).exp(),
        f"the answer's geometric mean {UPSIDE_DOWN}": (-whole / batch.lengths[:, None]).exp(),
    }
