"""`check_loss`: anyone's loss against the exact gradient and against known laws."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from itertools import product
from typing import NamedTuple

import torch
from torch import Tensor

from agents.testing.batches import STOP, Advantages, Loss, LossBatch, Oracle, probe, twice
from agents.testing.laws import (
    BASELINES,
    IN_REWARD,
    KL_TERMS,
    MEANS,
    SPREADS,
    WRONG_BASELINES,
    WRONG_MEANS,
    WRONG_SPREADS,
    Law,
    advantages_of,
    bias_names,
    fault_names,
    kl_weights,
    policy_weights,
)

TOLERANCE = 1e-3
"""Relative error up to which a gradient is that of a formula; float32 and epsilons are below."""
NOTHING = 1e-7
"""What is smaller than this share of the largest weight counts as 0."""

Formula = Law | Callable[[LossBatch], Tensor]


@dataclass(frozen=True)
class LossReport:
    """What `check_loss` found.

    Attributes:
        name: Whose loss it is.
        multiple: The expected update is this multiple of the exact gradient, plus `error`.
        error: What is left of the expected update beside that multiple, as a share of its norm.
        law: The formula whose weights of tokens are those of the loss; None if none is.
        law_error: How far the nearest formula's weights are, as a share of the norm of them all.
        scale: The weights are this multiple of the formula's.
        kl_weight: The KL term's weight as a multiple of the one that was asked for; None without.
        ratio: The importance ratio in front of the weights on answers of an older policy.
        clipped: Share of tokens that have no gradient on stale answers (log-ratios of 0.5).
        aside: Share of the gradient that does not go through the chosen tokens' log-probabilities,
            such as an entropy bonus.
        biases: Documented ones.
        faults: What no paper states.
    """

    name: str
    multiple: float
    error: float
    law: Law | None
    law_error: float
    scale: float
    kl_weight: float | None
    ratio: str
    clipped: float
    aside: float
    biases: tuple[str, ...]
    faults: tuple[str, ...]

    @property
    def unbiased(self) -> bool:
        """The expected update is a positive multiple of the exact gradient."""
        return self.error < TOLERANCE and self.multiple > 0

    @property
    def healthy(self) -> bool:
        """No fault was found; a documented bias is none."""
        return not self.faults

    def __str__(self) -> str:
        """The report to read."""
        verdict = "unbiased" if self.unbiased else "biased"
        lines = [
            f"{self.name}: {verdict}, {'; '.join(self.faults) or 'no fault'}",
            f"  expected update: {self.multiple:.4g} times the exact gradient, "
            f"error {self.error:.2g} of its norm",
            f"  law: {self.law or 'none that is known'} "
            f"(error {self.law_error:.2g}, scale {self.scale:.4g})",
            f"  ratio: {self.ratio}; without gradient on stale answers: {self.clipped:.0%}",
        ]
        if self.kl_weight is not None:
            lines.append(f"  KL term: {self.kl_weight:.4g} times the weight asked for")
        if self.aside > TOLERANCE:
            lines.append(f"  beside the chosen tokens' log-probabilities: {self.aside:.0%}")
        return "\n".join(lines + [f"  bias: {bias}" for bias in self.biases])


def leave_one_out(batch: LossBatch) -> Tensor:
    """Scores less the mean of the other scores to the same prompt: no bias; shape (S,)."""
    return BASELINES["others"](batch.scores, batch)


def check_loss(
    loss: Loss,
    advantages: Advantages = leave_one_out,
    *,
    formula: Formula | None = None,
    kl_coef: float = 0.0,
    accumulates: bool = False,
    name: str = "loss",
) -> LossReport:
    """Compare a loss, from any library, with the exact gradient and with known laws.

    The exact gradient is that of E[score] - kl_coef KL(policy || reference) on an environment whose
    answers are all listed: every batch of it is tried, nothing is sampled. What the loss does with
    a token is the derivative in that token's log-probability; it is compared with the formulas of
    papers and of known mistakes on three batches that never change. It takes about a second.

    Not covered: how a trainer makes the batch (use `check_agent`), value losses, discounts.

    Args:
        loss: The scalar to minimise, from a `LossBatch`; it reads `batch.logprobs`, or
            `batch.logits`, with gradient and `batch.advantages`.
        advantages: What the library makes of `batch.scores`, shape (S,) or (S, L). The unbiased
            one by default, which checks the loss alone.
        formula: What the loss should be: a law, or a function that gives the weight of each chosen
            token's log-probability, shape (S, L). Other laws and scales are then faults.
        kl_coef: The weight of the KL to the reference that loss and advantages are asked for.
        accumulates: The loss is given parts of a step (`batch.parts` says how many), and its
            gradients are summed. They should be that of the whole.
        name: Shown in the report.
    """

    def gradient(batch: LossBatch) -> Tensor:
        return _gradient(loss, advantages, batch)

    oracle = Oracle(kl_coef)
    update, exact = oracle.expected_update(gradient), oracle.exact_gradient()
    multiple = float((update * exact).sum() / exact.square().sum())
    error = float((update - multiple * exact).norm() / update.norm().clamp(min=1e-30))

    batch = probe(kl_coef=kl_coef)
    weights, aside = _weights(gradient(batch), batch)
    faults: list[str] = []
    biases: list[str] = []
    if weights.abs().max() < 1e-12:
        faults.append("no gradient")
        return LossReport(
            name, multiple, 1.0, None, 1.0, 0.0, None, "none", 0.0, 0.0, (), tuple(faults)
        )
    found = _support(weights, batch, faults)
    fit = _fit(weights, found, formula, kl_coef)
    _judge_fit(fit, formula, kl_coef, faults, biases)
    unbiased = error < TOLERANCE and multiple > 0
    if multiple < 0 or fit.scale < 0:
        faults.append("sign: the update goes against the gradient")
    if fit.law is None and not unbiased and not callable(formula) and not faults:
        faults.append("biased by no law that is known")

    _judge_size(gradient, faults, biases)
    if accumulates:
        _judge_accumulation(loss, advantages, batch, faults, biases)
    ratio, clipped = _stale(gradient, fit, formula, kl_coef)
    if clipped:
        biases.append(f"clip: {clipped:.0%} of stale tokens have no gradient")
    if ratio not in ("each token's", "unknown", "none"):
        biases.append(f"ratio: {ratio}")
    return LossReport(
        name=name,
        multiple=multiple,
        error=error,
        law=fit.law,
        law_error=fit.error,
        scale=fit.scale,
        kl_weight=fit.kl_weight,
        ratio=ratio,
        clipped=clipped,
        aside=aside,
        biases=tuple(biases),
        faults=tuple(dict.fromkeys(faults)),
    )


def _gradient(loss: Loss, advantages: Advantages, batch: LossBatch) -> Tensor:
    """Of the loss in the logits, (S, L, V)."""
    batch = dataclasses.replace(batch, advantages=advantages(batch).detach())
    return _of(loss(batch), batch.logits)


def _of(value: Tensor, logits: Tensor) -> Tensor:
    if not value.requires_grad:
        return torch.zeros_like(logits)
    found = torch.autograd.grad(value, logits, allow_unused=True)[0]
    return torch.zeros_like(logits) if found is None else found.double()


def _weights(gradient: Tensor, batch: LossBatch) -> tuple[Tensor, float]:
    """The weight of each token's log-probability (S, L), and the share that is no such weight.

    An entropy bonus pulls at all logits of a choice. Its part is fitted beside, so that it does not
    pass for a weight of the chosen token.
    """
    logs = batch.logits.detach().log_softmax(-1)
    probabilities = logs.exp()
    chosen = -probabilities
    chosen.scatter_add_(-1, batch.tokens[..., None], torch.ones_like(chosen[..., :1]))
    entropy = -probabilities * (logs - (probabilities * logs).sum(-1, keepdim=True))
    columns = torch.stack([chosen, entropy], -1)
    weights = -torch.linalg.lstsq(columns, gradient[..., None]).solution[..., 0, 0]
    rest = gradient + weights[..., None] * chosen
    return weights, float(rest.norm() / gradient.norm().clamp(min=1e-30))


def _support(weights: Tensor, batch: LossBatch, faults: list[str]) -> LossBatch:
    """The batch with the mask that the loss seems to have; what is wrong with it is added."""
    counts = weights.abs() > NOTHING * weights.abs().max()
    mask, live = batch.mask, (counts & batch.mask).any(1)
    order = mask.cumsum(1)
    first, last = mask & (order == 1), mask & (order == batch.lengths[:, None])
    ended = last & (batch.tokens == STOP)
    before, after = (order == 0) & ~mask, (order == batch.lengths[:, None]) & ~mask
    inner = mask & ~first & ~last
    rows = live[:, None]
    if bool((counts & inner).sum() < (inner & rows).sum()):
        return batch  # single tokens lack: a rule of its own, not a mask
    lost_first = bool((~counts & first & rows).sum() == (first & rows).sum())
    lost_end = bool((~counts & ended & rows).sum() == (ended & rows).sum())
    lost_last = bool((~counts & last & rows).sum() == (last & rows).sum())
    in_prompt, in_padding = bool((counts & before).any()), bool((counts & after).any())
    if lost_first or (lost_last and in_prompt):
        faults.append("mask off by one")
    elif lost_last:
        faults.append("mask: the last token of every answer has no gradient (off by one)")
    elif lost_end:
        faults.append("end token: it has no gradient")
    elif in_prompt:
        faults.append("mask: prompt tokens are in it")
    if in_padding and not lost_first:
        faults.append("mask: what stands behind the answer is in it")
    if not (lost_first or lost_last or lost_end or in_prompt or in_padding):
        return batch
    seen = counts | (mask & ~first & ~last) if not (lost_first or lost_last) else counts
    return dataclasses.replace(batch, mask=seen)


@dataclass(frozen=True)
class _Fit:
    law: Law | None
    error: float
    scale: float
    kl_weight: float | None
    only_kl: bool
    dropped: int


def _fit(weights: Tensor, batch: LossBatch, formula: Formula | None, kl_coef: float) -> _Fit:
    """The law, known or not, whose weights are nearest."""
    if formula is not None and not isinstance(formula, Law):
        given = torch.where(batch.mask, formula(batch), 0.0)
        scale = float((weights * given).sum() / given.square().sum())
        error = float((weights - scale * given).norm() / weights.norm())
        return _Fit(None, error, scale, None, False, 0)
    silent = (weights.abs() <= NOTHING * weights.abs().max()).all(1)
    found = _nearest(weights, batch, kl_coef)
    if found.error > TOLERANCE and 0 < int(silent.sum()) <= len(batch) - 3:
        kept = (~silent).nonzero().squeeze(1)
        part = _nearest(weights[kept], batch.select(kept), kl_coef)
        if part.error < found.error:
            return dataclasses.replace(part, dropped=int(silent.sum()))
    return found


class _Design(NamedTuple):
    """The weights of chosen tokens by each law: of the policy's part and, for 1, of the KL's."""

    laws: list[Law]
    policy: Tensor
    kl: Tensor


def _design(batch: LossBatch, kl_coef: float) -> _Design:
    means = MEANS | WRONG_MEANS
    shares = {mean: weights(batch)[:, None] for mean, weights in means.items()}
    found: list[Law] = []
    policy, kl = [], []
    terms = {
        (mean, name): kl_weights(Law(mean=mean, kl=name), batch)[batch.mask]
        for mean in means
        for name in ["none", *KL_TERMS, IN_REWARD]
    }
    for in_scores in [False, True] if kl_coef else [False]:
        kinds = [IN_REWARD] if in_scores else ["none", *KL_TERMS] if kl_coef else ["none"]
        for baseline, spread in product(BASELINES | WRONG_BASELINES, SPREADS | WRONG_SPREADS):
            advantages = advantages_of(Law(baseline, spread, kl=kinds[0]), batch)
            for mean in means:
                x = (advantages * shares[mean])[batch.mask]
                for kind in kinds:
                    found.append(Law(baseline, spread, mean, kind))
                    policy.append(x)
                    kl.append(terms[mean, kind])
    return _Design(found, torch.stack(policy), torch.stack(kl))


@lru_cache(maxsize=4)
def _probe_design(kl_coef: float) -> _Design:
    return _design(probe(kl_coef=kl_coef), kl_coef)


def _nearest(weights: Tensor, batch: LossBatch, kl_coef: float) -> _Fit:
    """Least squares of the policy's and the KL's part for all laws at once (normal equations)."""
    plain = probe(kl_coef=kl_coef)
    same = batch.mask.shape == plain.mask.shape and bool((batch.mask == plain.mask).all())
    found, x, k = _probe_design(kl_coef) if same else _design(batch, kl_coef)
    y, total = weights[batch.mask], weights.square().sum()
    xx, kk, xk = x.square().sum(1), k.square().sum(1), (x * k).sum(1)
    xy, ky = x @ y, k @ y
    with_kl = kk > 0
    determinant = (xx * kk - xk.square()).clamp(min=1e-300)
    scale = torch.where(with_kl, (xy * kk - ky * xk) / determinant, xy / xx.clamp(min=1e-300))
    weight = torch.where(with_kl, (ky * xx - xy * xk) / determinant, 0.0)
    left = (y - scale[:, None] * x - weight[:, None] * k).square().sum(1)
    # What the loss does at places that are not in the mask is in no law.
    errors = ((left + (total - y.square().sum()).clamp(min=0)) / total).sqrt()
    wrong = torch.tensor([len(fault_names(law)) for law in found])
    off = (scale - 1).abs() > 0.01
    good = errors < TOLERANCE
    if good.any():  # the one of papers, then the one of the right size, then the first
        rank = torch.where(good, 2.0 * wrong + off, torch.inf)
        best = int((rank == rank.min()).nonzero()[0])
    else:
        best = int(errors.argmin())
    law, kl_weight = found[best], None
    if bool(with_kl[best]) and float(scale[best]):
        kl_weight = float(weight[best] / scale[best] / kl_coef)
    share = float((scale[best] * x[best]).norm() / y.norm().clamp(min=1e-300))
    return _Fit(
        law=law if bool(good[best]) else None,
        error=float(errors[best]),
        scale=float(scale[best]),
        kl_weight=kl_weight,
        only_kl=bool(with_kl[best]) and share < TOLERANCE,
        dropped=0,
    )


def _judge_fit(
    fit: _Fit, formula: Formula | None, kl_coef: float, faults: list[str], biases: list[str]
) -> None:
    if formula is not None and not isinstance(formula, Law):
        if fit.error > TOLERANCE:
            faults.append(f"not the formula: {fit.error:.2g} of the weights differ")
        elif abs(fit.scale - 1) > 0.01:
            faults.append(f"scale: {fit.scale:.4g} times the formula")
        return
    if fit.dropped:
        faults.append(f"{fit.dropped} of 12 answers have no gradient")
    if fit.law is None:
        return
    if fit.only_kl:
        faults.append("only the KL term has a gradient")
        return
    faults.extend(fault_names(fit.law))
    biases.extend(bias_names(fit.law))
    if kl_coef and fit.law.kl == "none":
        faults.append("kl_coef has no effect")
    if fit.law.kl.startswith(("k1", "absolute")):
        faults.append(f"KL estimator in the loss with another gradient ({fit.law.kl})")
    if fit.kl_weight is not None and abs(fit.kl_weight - 1) > 0.01:
        faults.append(f"scale: the KL term has {fit.kl_weight:.4g} times its weight")
    if formula is None:
        return
    for part, is_, due in zip(Law._fields, fit.law, formula, strict=True):
        if is_ != due:
            faults.append(f"{part} is {is_!r}; the formula says {due!r}")
    if fit.law == formula and abs(fit.scale - 1) > 0.01:
        faults.append(f"scale: {fit.scale:.4g} times the formula")


def _judge_size(
    gradient: Callable[[LossBatch], Tensor], faults: list[str], biases: list[str]
) -> None:
    """With every answer twice each should have half the weight."""
    batch = probe()
    double = twice(batch)
    single, _ = _weights(gradient(batch), batch)
    again, _ = _weights(gradient(double), double)
    share = float((single * again[: len(single)]).sum() / single.square().sum().clamp(min=1e-30))
    if share <= 0:
        return
    power = -math.log2(share)
    if abs(power) < 0.1:
        biases.append("a sum over the batch: twice the answers make a step twice as large")
    elif power > 1.5:
        faults.append(f"divided twice: weights fall with the batch's size to the power {power:.2g}")


def _judge_accumulation(
    loss: Loss, advantages: Advantages, batch: LossBatch, faults: list[str], biases: list[str]
) -> None:
    """The gradients of a step's parts should sum to that of the whole."""
    found = dataclasses.replace(batch, advantages=advantages(batch).detach())
    whole = _of(loss(found), found.logits)
    groups = found.groups.unique()
    parts = torch.zeros_like(whole)
    for group in groups:
        part = found.select((found.groups == group).nonzero().squeeze(1))
        parts = parts + _of(loss(dataclasses.replace(part, parts=len(groups))), found.logits)
    scale = float((parts * whole).sum() / whole.square().sum())
    left = float((parts - scale * whole).norm() / parts.norm().clamp(min=1e-30))
    if abs(scale - 1) > 0.01 and left < TOLERANCE:
        faults.append(f"scale by accumulation: {scale:.4g} times the gradient of one batch")
    elif left > TOLERANCE:
        biases.append(
            f"accumulation: {left:.0%} of the gradient depends on how a step is split"
            + (f", {scale:.4g} times as large" if abs(scale - 1) > 0.5 else "")
        )
        if scale > 2 or scale < 0.5:
            faults.append(f"scale by accumulation: about {scale:.2g} times that of one batch")


def _stale(
    gradient: Callable[[LossBatch], Tensor], fit: _Fit, formula: Formula | None, kl_coef: float
) -> tuple[str, float]:
    """Which ratio weighs stale answers, and the share of tokens without a gradient."""

    def expected(batch: LossBatch) -> tuple[Tensor, Tensor]:
        if formula is not None and not isinstance(formula, Law):
            return fit.scale * torch.where(batch.mask, formula(batch), 0.0), batch.mask * 0.0
        assert fit.law is not None
        policy = fit.scale * policy_weights(fit.law, batch)
        kl = fit.scale * (fit.kl_weight or 0.0) * kl_coef * kl_weights(fit.law, batch)
        return policy, kl

    if fit.law is None and (formula is None or isinstance(formula, Law)):
        return "unknown", 0.0
    near, far = probe(0.03, kl_coef), probe(0.5, kl_coef)
    found, _ = _weights(gradient(near), near)
    policy, kl = expected(near)
    errors = {
        name: min(float((found - policy * r - kl * s).norm()) for s in (1.0, r))
        for name, r in _ratios(near).items()
    }
    name = min(errors, key=lambda n: errors[n])
    if errors[name] > 0.01 * float(found.norm()):
        return "unknown", 0.0
    found, _ = _weights(gradient(far), far)
    policy, _ = expected(far)
    due = policy.abs() > NOTHING * policy.abs().max()
    if kl_coef and fit.kl_weight:
        return name, 0.0
    silent = due & (found.abs() < NOTHING * found.abs().max())
    return name, float(silent.sum() / due.sum())


def _ratios(batch: LossBatch) -> dict[str, Tensor]:
    """Ratios of new to old probabilities that a loss may weigh tokens by, (S, L) each."""
    moved = torch.where(batch.mask, batch.logprobs.detach() - batch.old_logprobs, 0.0)
    whole = moved.sum(1, keepdim=True)
    return {
        "each token's": moved.exp(),
        "the answer's (product)": whole.exp().expand_as(moved),
        "the answer's geometric mean": (whole / batch.lengths[:, None]).exp().expand_as(moved),
        "the text's up to the token": moved.cumsum(1).exp(),
        "none": torch.ones_like(moved),
    }
