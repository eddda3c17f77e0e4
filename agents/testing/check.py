"""`check_loss`: anyone's loss against the exact gradient and against known laws."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

import torch
from torch import Tensor

from agents.testing.batches import STOP, Advantages, Loss, LossBatch, Oracle, probe, twice
from agents.testing.fitting import NOTHING, Again, Fit, Formula, fit
from agents.testing.laws import Law, bias_names, check_law, fault_names
from agents.testing.parts import BASELINES
from agents.testing.report import TOLERANCE, LossReport
from agents.testing.stale import stale
from agents.testing.weights import of_tokens
from textenv.records import short


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
    papers and of known mistakes on four batches that never change. It takes about a second.

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

    Raises:
        OptionError: A part of the law that is given has no such name.
        ValueError: The loss is not one number, or advantages have another shape.
    """
    if isinstance(formula, Law):
        check_law(formula)
    broken: list[LossBatch] = []

    def gradient(batch: LossBatch) -> Tensor:
        found = _gradient(loss, advantages, batch)
        if not found.isfinite().all():
            broken.append(batch)
        return found.nan_to_num(0.0, 0.0, 0.0)

    oracle = Oracle(kl_coef)
    update, exact = oracle.expected_update(gradient), oracle.exact_gradient()
    multiple = float((update * exact).sum() / exact.square().sum())
    error = float((update - multiple * exact).norm() / update.norm().clamp(min=1e-30))

    batch = probe(kl_coef=kl_coef)
    of_logits = gradient(batch)
    weights, aside = of_tokens(of_logits, batch)
    faults: list[str] = []
    biases: list[str] = []
    if broken:
        faults.append(_not_finite(broken))
    if weights.abs().max() < 1e-12:
        if not broken:
            other = " in the log-probabilities of what was chosen" if of_logits.any() else ""
            faults.append(f"no gradient{other}")
        return LossReport(
            name, multiple, 1.0, None, 1.0, 0.0, None, "none", 0.0, aside, (), tuple(faults)
        )
    seen = _support(weights, batch, faults)
    two = _two_groups(batch)
    again = Again(of_tokens(gradient(two), two)[0], two) if seen is batch else None
    found = fit(weights, seen, formula, kl_coef, again)
    _judge_fit(found, formula, kl_coef, faults, biases)
    unbiased = error < TOLERANCE and multiple > 0
    # Beside a law, other terms such as an entropy bonus may outweigh it.
    known = found.law is not None or callable(formula)
    if found.scale < 0 if known else multiple < 0:
        faults.append("sign: the update goes against the gradient")
    if not known and not unbiased and not faults:
        faults.append("biased by no law that is known")

    _judge_size(gradient, faults, biases)
    if accumulates:
        _judge_accumulation(loss, advantages, batch, faults, biases)
    old = stale(gradient, found, formula, kl_coef)
    faults.extend(old.faults)
    biases.extend(old.biases)
    return LossReport(
        name=name,
        multiple=multiple,
        error=error,
        law=found.law,
        law_error=found.error,
        scale=found.scale,
        kl_weight=found.kl_weight,
        ratio=old.ratio,
        clipped=old.clipped,
        aside=aside,
        biases=tuple(biases),
        faults=tuple(dict.fromkeys(faults)),
    )


def _two_groups(batch: LossBatch) -> LossBatch:
    """A batch without the answers to its last prompt."""
    part = batch.select((batch.groups < batch.groups.max()).nonzero().squeeze(1))
    return dataclasses.replace(part, step_answers=len(part), step_tokens=int(part.mask.sum()))


def _gradient(loss: Loss, advantages: Advantages, batch: LossBatch) -> Tensor:
    """Of the loss in the logits, (S, L, V)."""
    made = advantages(batch)
    if made.shape not in (batch.scores.shape, batch.mask.shape):
        raise ValueError(
            f"the advantages have shape {tuple(made.shape)}; they must have one entry for each "
            f"answer, {tuple(batch.scores.shape)}, or for each token, {tuple(batch.mask.shape)}"
        )
    batch = dataclasses.replace(batch, advantages=made.detach())
    return _of(loss(batch), batch.logits)


def _of(value: Tensor, logits: Tensor) -> Tensor:
    if not isinstance(value, Tensor) or value.numel() != 1:
        found = f"shape {tuple(value.shape)}" if isinstance(value, Tensor) else short(value)
        raise ValueError(f"the loss is {found}; it must be a tensor with one number to minimise")
    if not value.requires_grad:
        return torch.zeros_like(logits)
    slope = torch.autograd.grad(value, logits, allow_unused=True)[0]
    return torch.zeros_like(logits) if slope is None else slope.double()


def _not_finite(broken: list[LossBatch]) -> str:
    """What to say of batches on which the gradient is NaN or infinite."""

    def alike(batch: LossBatch) -> bool:
        groups = batch.groups
        return any(len(batch.scores[groups == group].unique()) == 1 for group in groups.unique())

    shared = {
        "a group scores alike": all(map(alike, broken)),
        "an answer has one token": all(bool((batch.lengths == 1).any()) for batch in broken),
    }
    where = " and ".join(name for name, in_all in shared.items() if in_all)
    return f"the gradient is NaN or infinite on {len(broken)} batches" + (
        f", in all of which {where}" if where else ""
    )


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


def _judge_fit(
    found: Fit, formula: Formula | None, kl_coef: float, faults: list[str], biases: list[str]
) -> None:
    if formula is not None and not isinstance(formula, Law):
        if found.error > TOLERANCE:
            faults.append(f"not the formula: {found.error:.2g} of the weights differ")
        elif abs(found.scale - 1) > 0.01:
            faults.append(f"scale: {found.scale:.4g} times the formula")
        return
    if found.dropped:
        faults.append(f"{found.dropped} of 12 answers have no gradient")
    if found.law is None:
        return
    if found.only_kl:
        faults.append("only the KL term has a gradient")
        return
    faults.extend(fault_names(found.law))
    biases.extend(bias_names(found.law))
    if kl_coef and found.law.kl == "none":
        faults.append("kl_coef has no effect")
    if found.law.kl.startswith(("k1", "absolute")):
        faults.append(f"KL estimator in the loss with another gradient ({found.law.kl})")
    if found.kl_weight is not None and found.kl_weight < 0:
        faults.append(f"sign: the KL term has {found.kl_weight:.4g} times its weight")
    elif found.kl_weight is not None and abs(found.kl_weight - 1) > 0.01:
        faults.append(f"scale: the KL term has {found.kl_weight:.4g} times its weight")
    if formula is None:
        return
    for part, is_, due in zip(Law._fields, found.law, formula, strict=True):
        if is_ != due:
            faults.append(f"{part} is {is_!r}; the formula says {due!r}")
    if found.law == formula and abs(found.scale - 1) > 0.01:
        faults.append(f"scale: {found.scale:.4g} times the formula")


def _judge_size(
    gradient: Callable[[LossBatch], Tensor], faults: list[str], biases: list[str]
) -> None:
    """With every answer twice each should have half the weight."""
    batch = probe()
    double = twice(batch)
    single, _ = of_tokens(gradient(batch), batch)
    again, _ = of_tokens(gradient(double), double)
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
