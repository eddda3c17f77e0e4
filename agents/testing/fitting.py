"""Which formula the weights of tokens are nearest to."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache, lru_cache
from itertools import product
from typing import NamedTuple, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor

from agents.testing.batches import LossBatch, probe
from agents.testing.laws import (
    Law,
    advantages_of,
    fault_names,
    kl_weights,
    policy_weights,
    twice_over_some,
)
from agents.testing.parts import (
    BASELINES,
    IN_REWARD,
    KL_TERMS,
    MEANS,
    SPREADS,
    TWICE,
    WRONG_GROUPS,
    WRONG_MEANS,
    WRONG_SPREADS,
    of_lambda,
)
from agents.testing.report import TOLERANCE

NOTHING = 1e-7
"""What is smaller than this share of the largest weight counts as 0."""
LEAST = 1e-5
"""The tolerance of a KL term is a share of the term, but not below this share of all weights."""

Formula: TypeAlias = Law | Callable[[LossBatch], Tensor]


@dataclass(frozen=True)
class Fit:
    """The formula that was found.

    Attributes:
        law: Its name; None if none is near, or if the formula is a function.
        error: How far the nearest one is, as a share of the norm of the weights.
        scale: The weights are this multiple of it.
        kl_weight: The KL term's weight as a multiple of the one that was asked for.
        only_kl: Nothing but the KL term has a weight.
        dropped: Answers without a weight that the formula leaves out.
    """

    law: Law | None
    error: float
    scale: float
    kl_weight: float | None = None
    only_kl: bool = False
    dropped: int = 0


class Again(NamedTuple):
    """The weights of tokens in another batch, of other lengths and scores."""

    weights: Tensor
    batch: LossBatch


def fit(
    weights: Tensor,
    batch: LossBatch,
    formula: Formula | None,
    kl_coef: float,
    again: Again | None = None,
) -> Fit:
    """The law, known or not, whose weights are nearest; or how near a function's are.

    On one batch a mean over its tokens is one over its answers times a number. The scale of the
    right one is the same `again`.
    """
    if formula is not None and not isinstance(formula, Law):
        given = torch.where(batch.mask, formula(batch), 0.0)
        scale = float((weights * given).sum() / given.square().sum())
        return Fit(None, float((weights - scale * given).norm() / weights.norm()), scale)
    found = _nearest(weights, batch, _known(batch, kl_coef), kl_coef, formula, again)
    if found.law is not None:
        return found
    others = [_with_lambda(weights, batch, kl_coef, formula, again)]
    silent = (weights.abs() <= NOTHING * weights.abs().max()).all(1)
    if 0 < int(silent.sum()) <= len(batch) - 3:
        others += _of_some(weights, batch, (~silent).nonzero().squeeze(1), kl_coef)
    return min([found, *others], key=lambda one: one.error)


class _Design(NamedTuple):
    """The weights of chosen tokens by each law, shape (laws, tokens).

    Attributes:
        laws: Their names.
        policy: What they make of scores.
        kl: Their KL terms for a weight of 1.
        due: The norm of the KL term that a loss should have with this mean; 0 if it is in the
            scores.
    """

    laws: list[Law]
    policy: Tensor
    kl: Tensor
    due: Tensor


def _design(
    batch: LossBatch, kl_coef: float, baselines: Iterable[str], spreads: Iterable[str]
) -> _Design:
    means = MEANS | WRONG_MEANS
    shares = {mean: weights(batch)[:, None] for mean, weights in means.items()}
    laws: list[Law] = []
    policy, kl, due = [], [], []
    terms = {
        (mean, name): kl_weights(Law(mean=mean, kl=name), batch)[batch.mask]
        for mean in means
        for name in ["none", *KL_TERMS, IN_REWARD]
    }
    spreads = list(spreads)
    for in_scores in [False, True] if kl_coef else [False]:
        kinds = [IN_REWARD] if in_scores else ["none", *KL_TERMS] if kl_coef else ["none"]
        for baseline, spread in product(baselines, spreads):
            advantages = advantages_of(Law(baseline, spread, kl=kinds[0]), batch)
            for mean in means:
                x = (advantages * shares[mean])[batch.mask]
                expected = 0.0 if in_scores else float(terms[mean, next(iter(KL_TERMS))].norm())
                for kind in kinds:
                    laws.append(Law(baseline, spread, mean, kind))
                    policy.append(x)
                    kl.append(terms[mean, kind])
                    due.append(expected)
    return _Design(laws, torch.stack(policy), torch.stack(kl), torch.tensor(due).double())


def _of_all(batch: LossBatch, kl_coef: float) -> _Design:
    return _design(batch, kl_coef, [*BASELINES, *WRONG_GROUPS], [*SPREADS, *WRONG_SPREADS])


@lru_cache(maxsize=4)
def _of_probe(kl_coef: float) -> _Design:
    return _of_all(probe(kl_coef=kl_coef), kl_coef)


def _known(batch: LossBatch, kl_coef: float) -> _Design:
    plain = probe(kl_coef=kl_coef)
    same = batch.mask.shape == plain.mask.shape and bool((batch.mask == plain.mask).all())
    return _of_probe(kl_coef) if same else _of_all(batch, kl_coef)


def _nearest(
    weights: Tensor,
    batch: LossBatch,
    design: _Design,
    kl_coef: float,
    formula: Law | None = None,
    again: Again | None = None,
) -> Fit:
    """The nearest law, by least squares; of several equal ones that of papers, and of `again`."""
    laws, x, k, due = design
    y, total = weights[batch.mask], weights.square().sum()
    scale, weight = _coefficients(x, k, y)
    with_kl = k.square().sum(1) > 0
    left = (y - scale[:, None] * x - weight[:, None] * k).square().sum(1)
    # What the loss does at places that are not in the mask is in no law.
    errors = ((left + (total - y.square().sum()).clamp(min=0)) / total).sqrt()
    # A KL term may be a thousandth of all weights: other laws would be within the tolerance then.
    part = kl_coef * scale.abs() * due / total.sqrt()
    limit = torch.where(part > 0, TOLERANCE * part.clamp(LEAST / TOLERANCE, 1), TOLERANCE)
    good = (errors < limit) & (errors <= 3 * errors.min() + NOTHING)
    best = int(errors.argmin())
    if good.any():

        def rank(number: int) -> tuple[float, ...]:
            law, times = laws[number], float(scale[number])
            varies = again is not None and abs(_scale(law, again) - times) > 2e-3 * abs(times)
            other = formula is not None and law != formula
            return len(fault_names(law)), varies, other, abs(times - 1) > 0.01

        best = min(good.nonzero().flatten().tolist(), key=rank)
    kl_weight = None
    if bool(with_kl[best]) and float(scale[best]):
        kl_weight = float(weight[best] / scale[best] / kl_coef)
    share = float((scale[best] * x[best]).norm() / y.norm().clamp(min=1e-300))
    return Fit(
        law=laws[best] if bool(good[best]) else None,
        error=float(errors[best]),
        scale=float(scale[best]),
        kl_weight=kl_weight,
        only_kl=bool(with_kl[best]) and share < TOLERANCE,
    )


def _coefficients(x: Tensor, k: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """The factors of x and of k, (N, tokens) each, that bring their sum nearest to y.

    By the normal equations of all N at once.
    """
    xx, kk, xk = x.square().sum(1), k.square().sum(1), (x * k).sum(1)
    xy, ky = x @ y, k @ y
    determinant = (xx * kk - xk.square()).clamp(min=1e-300)
    scale = torch.where(kk > 0, (xy * kk - ky * xk) / determinant, xy / xx.clamp(min=1e-300))
    return scale, torch.where(kk > 0, (ky * xx - xy * xk) / determinant, 0.0)


def _scale(law: Law, again: Again) -> float:
    """The multiple of the law that another batch's weights are."""
    weights, batch = again
    x, k = (of(law, batch)[batch.mask][None] for of in (policy_weights, kl_weights))
    return float(_coefficients(x, k, weights[batch.mask])[0])


def _with_lambda(
    weights: Tensor, batch: LossBatch, kl_coef: float, formula: Law | None, again: Again | None
) -> Fit:
    """The nearest law of generalised advantages, its lambda found to three digits."""
    spreads = [name for name in SPREADS if name == "none" or "over tokens" in name]

    def design(thousandths: int) -> _Design:
        return _design(batch, kl_coef, of_lambda(thousandths / 1000), spreads)

    @cache
    def error(thousandths: int) -> float:
        return _nearest(weights, batch, design(thousandths), kl_coef).error

    best = 500
    for step, reach in ((50, 10), (10, 5), (1, 10)):
        around = range(best - reach * step, best + reach * step + 1, step)
        best = min((n for n in around if 0 <= n <= 1000), key=error)
    return _nearest(weights, batch, design(best), kl_coef, formula, again)


def _of_some(weights: Tensor, batch: LossBatch, kept: Tensor, kl_coef: float) -> list[Fit]:
    """The nearest law of the answers that have a weight.

    Their advantages may have been made of them alone, or of all; then perhaps once more of them.
    """
    part = batch.select(kept)
    of_all = _known(batch, kl_coef)
    rows = torch.arange(len(batch))[:, None].expand(batch.mask.shape)[batch.mask]
    tokens = torch.isin(rows, kept)
    laws, policy = list(of_all.laws), [of_all.policy[:, tokens]]
    for spread, by_token, mean in product(SPREADS, (False, True), MEANS):
        if spread == "none" or "over tokens" in spread:
            continue
        advantages = twice_over_some(spread, batch, kept, by_token)
        laws.append(Law("group", f"{spread}, then that of the answers kept {TWICE}", mean))
        policy.append(
            (advantages * MEANS[mean](part))[:, None].expand(part.mask.shape)[part.mask][None]
        )
    more = len(laws) - len(of_all.laws)
    once_or_twice = _Design(
        laws,
        torch.cat(policy),
        F.pad(of_all.kl[:, tokens], (0, 0, 0, more)),
        F.pad(of_all.due, (0, more)),
    )
    found = [
        _nearest(weights[kept], part, design, kl_coef)
        for design in (_known(part, kl_coef), once_or_twice)
    ]
    return [dataclasses.replace(one, dropped=len(batch) - len(kept)) for one in found]
