"""The parts of known losses: a baseline, a spread, a mean over tokens, a KL term.

They are those that papers state, and mistakes that look like them (`WRONG_GROUPS`, `WRONG_SPREADS`,
`WRONG_MEANS`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import torch
from torch import Tensor

from agents.testing.batches import LossBatch

Centre: TypeAlias = Callable[[Tensor, LossBatch], Tensor]
Weights: TypeAlias = Callable[[LossBatch], Tensor]


def _group_sums(x: Tensor, groups: Tensor) -> tuple[Tensor, Tensor]:
    same = (groups[:, None] == groups).to(x.dtype)
    return same @ x, same.sum(1)


def _group_mean(x: Tensor, groups: Tensor) -> Tensor:
    total, count = _group_sums(x, groups)
    return total / count


def _over_tokens(x: Tensor, batch: LossBatch) -> Tensor:
    """The chosen tokens' entries of (S,) or (S, L), shape (tokens,)."""
    return (x if x.dim() == 2 else x[:, None].expand(batch.mask.shape))[batch.mask]


def _others(x: Tensor, batch: LossBatch) -> Tensor:
    total, count = _group_sums(x, batch.groups)
    return x - (total - x) / (count - 1).clamp(min=1)


def _value(x: Tensor, batch: LossBatch) -> Tensor:
    return (x if x.dim() == 2 else x[:, None]) - batch.values


def _value_centred(x: Tensor, batch: LossBatch) -> Tensor:
    advantages = _value(x, batch)
    return advantages - _over_tokens(advantages, batch).mean()


def _group_centred(x: Tensor, batch: LossBatch) -> Tensor:
    """REINFORCE++ with baseline (Hu, 2025, arXiv:2501.03262)."""
    advantages = x - _group_mean(x, batch.groups)
    return advantages - _over_tokens(advantages, batch).mean()


def _by_length(x: Tensor, batch: LossBatch) -> Tensor:
    """The baseline of least variance, roughly (OPO; Hao et al., 2025, arXiv:2505.23585)."""
    lengths = batch.lengths.to(x.dtype)
    return x - _group_mean(lengths * x, batch.groups) / _group_mean(lengths, batch.groups)


def _best(x: Tensor, batch: LossBatch) -> Tensor:
    groups = batch.groups
    top = torch.where(groups[:, None] == groups, x, -torch.inf).max(1).values
    best = (x == top).to(x.dtype)
    best_ones, count = _group_sums(best, groups)
    return best * count / best_ones


def _generalised(x: Tensor, batch: LossBatch, lam: float) -> Tensor:
    """Generalised advantages without discount (Schulman et al., 2016, arXiv:1506.02438)."""
    earned = (x if x.dim() == 2 else x[:, None]).expand(batch.mask.shape).where(batch.mask, 0.0)
    values = batch.values.where(batch.mask, 0.0)
    steps = earned - _next(earned) + _next(values) - values
    advantages, following = torch.zeros_like(steps), torch.zeros_like(steps[:, 0])
    for place in reversed(range(steps.shape[1])):
        following = steps[:, place] + lam * following
        advantages[:, place] = following
    return advantages


def _next(x: Tensor) -> Tensor:
    return torch.cat([x[:, 1:], torch.zeros_like(x[:, :1])], 1)


BASELINES: dict[str, Centre] = {
    "others": _others,
    "group": lambda x, batch: x - _group_mean(x, batch.groups),
    "batch": lambda x, batch: x - x.mean(),
    "tokens of the batch": lambda x, batch: x - _over_tokens(x, batch).mean(),
    "values": _value,
    "values, then the tokens' mean": _value_centred,
    "group, then the tokens' mean": _group_centred,
    "group, weighed by length": _by_length,
    "none": lambda x, batch: x,
    "the best answer alone": _best,
}

BY_TOKEN = ("values", "tokens of the batch")
"""How baselines begin of algorithms that pay the KL penalty at each token."""

LAMBDA = ", lambda "
"""In a baseline's name: values with generalised advantages, such as "values, lambda 0.95"."""


def of_lambda(lam: float) -> list[str]:
    """The names of baselines of generalised advantages, as those of `BASELINES` are."""
    return [f"values{LAMBDA}{lam:g}", f"values{LAMBDA}{lam:g}, then the tokens' mean"]


def _inside(groups: Tensor) -> Tensor:
    """The place of each answer in its group, from 0."""
    same = groups[:, None] == groups
    return same.tril(-1).sum(1)


def _halved(batch: LossBatch) -> Tensor:
    same = batch.groups[:, None] == batch.groups
    return 2 * batch.groups + (2 * _inside(batch.groups) >= same.sum(1))


WRONG_GROUP = "(wrong group)"
WRONG_GROUPS: dict[str, Callable[[LossBatch], Tensor]] = {
    f"every n-th answer {WRONG_GROUP}": lambda b: torch.arange(len(b)) % len(b.groups.unique()),
    f"a group shifted by one answer {WRONG_GROUP}": lambda b: b.groups.roll(1),
    f"every other answer of a group {WRONG_GROUP}": lambda b: 2 * b.groups + _inside(b.groups) % 2,
    f"half of a group {WRONG_GROUP}": _halved,
}
"""Baselines whose group, and the group whose spread divides, are not those of the prompt."""


def centred(name: str, scores: Tensor, batch: LossBatch) -> Tensor:
    """Scores less the baseline of that name."""
    told = name.partition(LAMBDA)[2]
    if not told:
        return BASELINES[name](scores, batch)
    lam, _, then = told.partition(",")
    advantages = _generalised(scores, batch, float(lam))
    return advantages - _over_tokens(advantages, batch).mean() if then else advantages


def _group_std(x: Tensor, batch: LossBatch, correction: int) -> Tensor:
    centred = x - _group_mean(x, batch.groups)
    total, count = _group_sums(centred.square(), batch.groups)
    return (total / (count - correction).clamp(min=1)).sqrt()


Spread: TypeAlias = Callable[[Tensor, Tensor, LossBatch], Tensor]
"""Advantages from centred scores and the scores themselves."""


def _divided(x: Tensor, by: Tensor) -> Tensor:
    by = by[:, None] if x.dim() == 2 and by.dim() == 1 else by
    return torch.where(by > 1e-9, x / by.clamp(min=1e-9), 0.0)


def _by_group(correction: int) -> Spread:
    return lambda a, x, batch: _divided(a, _group_std(x, batch, correction))


def _by_batch(correction: int) -> Spread:
    return lambda a, x, batch: _divided(a, x.std(correction=correction))


def _by_tokens(correction: int) -> Spread:
    return lambda a, x, batch: _divided(a, _over_tokens(a, batch).std(correction=correction))


def _by_answers(correction: int) -> Spread:
    over_tokens = _by_tokens(correction)

    def divided(a: Tensor, x: Tensor, batch: LossBatch) -> Tensor:
        if a.dim() == 2:  # an answer has none of its own
            return over_tokens(a, x, batch)
        return _divided(a, a.std(correction=correction))

    return divided


SPREADS: dict[str, Spread] = {
    "none": lambda a, x, batch: a,
    "the group's spread": _by_group(0),
    "the group's spread (n - 1)": _by_group(1),
    "the scores' spread in the batch": _by_batch(0),
    "the scores' spread in the batch (n - 1)": _by_batch(1),
    # Before those over answers: where tokens have advantages of their own, these are meant.
    "the advantages' spread over tokens": _by_tokens(0),
    "the advantages' spread over tokens (n - 1)": _by_tokens(1),
    "the advantages' spread over answers": _by_answers(0),
    "the advantages' spread over answers (n - 1)": _by_answers(1),
}


def _twice(first: Spread, second: Spread, centre: str) -> Spread:
    def divided(a: Tensor, x: Tensor, batch: LossBatch) -> Tensor:
        once = first(a, x, batch)
        return second(BASELINES[centre](once, batch), once, batch)

    return divided


TWICE = "(normalised twice)"
WRONG_SPREADS: dict[str, Spread] = {
    f"the group's spread{first}, then that of {second} {TWICE}": _twice(
        _by_group(c), then(d), centre
    )
    for (first, c) in (("", 0), (" (n - 1)", 1))
    for (second, then, centre, d) in (
        ("the batch", _by_batch, "batch", 0),
        ("the batch (n - 1)", _by_batch, "batch", 1),
        ("the tokens", _by_tokens, "tokens of the batch", 0),
        ("the tokens (n - 1)", _by_tokens, "tokens of the batch", 1),
    )
}
WRONG_SPREADS[f"the group's variance {TWICE}"] = lambda a, x, batch: _divided(
    a, _group_std(x, batch, 0).square()
)


def _each(batch: LossBatch) -> Tensor:
    return torch.ones_like(batch.scores) / len(batch)


MEANS: dict[str, Weights] = {
    "answers": _each,
    "tokens of each answer": lambda b: _each(b) / b.lengths.clamp(min=1),
    "tokens of the batch": lambda b: torch.ones_like(b.scores) / b.mask.sum(),
}

BY_LENGTH = "(scale by length)"
WRONG_MEANS: dict[str, Weights] = {
    f"tokens of each answer, twice {BY_LENGTH}": lambda b: (
        _each(b) / b.lengths.clamp(min=1).square()
    ),
    f"multiplied by the length {BY_LENGTH}": lambda b: _each(b) * b.lengths,
    f"square root of the length {BY_LENGTH}": lambda b: _each(b) / b.lengths.clamp(min=1).sqrt(),
}

KL_TERMS: dict[str, Callable[[Tensor], Tensor]] = {
    "k2: the gradient of KL(policy || reference) by token": lambda d: d,
    "k3: the gradient of KL(reference || policy) by token": lambda d: 1 - (-d).exp(),
    "k1: no expected gradient": torch.ones_like,
    "absolute: no KL's gradient": torch.sign,
}
"""What the term in the loss makes of d = log pi - log pi_ref: its derivative in log pi."""

IN_REWARD = "in the scores"
