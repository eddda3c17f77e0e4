"""What known losses make of scores: the weights of tokens, put together from parts.

Every policy-gradient loss is, at the policy that sampled, a weight for each chosen token's
log-probability. A law is a formula for these weights; its parts are those of `parts`.
"""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor

from agents.testing.batches import LossBatch
from agents.testing.parts import (
    BASELINES,
    BY_LENGTH,
    BY_TOKEN,
    IN_REWARD,
    KL_TERMS,
    LAMBDA,
    MEANS,
    SPREADS,
    TWICE,
    WRONG_GROUP,
    WRONG_GROUPS,
    WRONG_MEANS,
    WRONG_SPREADS,
    centred,
)
from textenv.errors import OptionError


class Law(NamedTuple):
    """The parts of a loss by their names in `BASELINES`, `SPREADS`, `MEANS` and `KL_TERMS`."""

    baseline: str = "others"
    spread: str = "none"
    mean: str = "answers"
    kl: str = "none"

    def __str__(self) -> str:
        """In words."""
        parts = [f"baseline: {self.baseline}", f"divided by: {self.spread}", f"mean: {self.mean}"]
        return "; ".join(parts + ([f"KL: {self.kl}"] if self.kl != "none" else []))


def check_law(law: Law) -> None:
    """Refuse a law with a part that has no such name.

    Raises:
        OptionError: It has one.
    """
    names = {
        "baseline": [*BASELINES],
        "spread": [*SPREADS],
        "mean": [*MEANS],
        "kl": ["none", *KL_TERMS, IN_REWARD],
    }
    for part, known in names.items():
        name = getattr(law, part)
        if name not in known and not (part == "baseline" and name.startswith(f"values{LAMBDA}")):
            raise OptionError(f"Law: {part} is {name!r}; it must be one of {', '.join(known)}")


def advantages_of(law: Law, batch: LossBatch) -> Tensor:
    """(S, L) from scores, less the KL penalty if it is in the scores."""
    scores = batch.scores
    if law.kl == IN_REWARD:
        # Penalties are those of the policy that sampled: they are part of what it earned.
        d = torch.where(batch.mask, batch.old_logprobs - batch.ref_logprobs, 0.0)
        if law.baseline.startswith(BY_TOKEN):  # what is earned from each token on
            scores = scores[:, None] - batch.kl_coef * d.flip(1).cumsum(1).flip(1)
        else:
            scores = scores - batch.kl_coef * d.sum(1)
    baseline = law.baseline
    if baseline in WRONG_GROUPS:
        batch, baseline = replace(batch, groups=WRONG_GROUPS[baseline](batch)), "group"
    of = scores if scores.dim() == 1 else batch.scores
    found = (SPREADS | WRONG_SPREADS)[law.spread](centred(baseline, scores, batch), of, batch)
    found = found if found.dim() == 2 else found[:, None]
    return torch.where(batch.mask, found, 0.0)


def twice_over_some(spread: str, batch: LossBatch, kept: Tensor, by_token: bool) -> Tensor:
    """Advantages in their groups, and of some answers once more; shape (kept,), but for a factor.

    Args:
        spread: What they are divided by at first; see `SPREADS`.
        batch: All answers.
        kept: Rows of some of them.
        by_token: Whether the mean that is taken off in the end is that over tokens.
    """
    once = SPREADS[spread](centred("group", batch.scores, batch), batch.scores, batch)[kept]
    weights = batch.lengths[kept].to(once.dtype) if by_token else torch.ones_like(once)
    return once - (weights * once).sum() / weights.sum()


def policy_weights(law: Law, batch: LossBatch) -> Tensor:
    """What each chosen token's log-probability is multiplied by, shape (S, L)."""
    return advantages_of(law, batch) * (MEANS | WRONG_MEANS)[law.mean](batch)[:, None]


def kl_weights(law: Law, batch: LossBatch) -> Tensor:
    """The same of the KL term in the loss, for a weight of 1; 0 without one."""
    if law.kl not in KL_TERMS:
        return torch.zeros_like(batch.old_logprobs)
    d = torch.where(batch.mask, batch.logprobs.detach() - batch.ref_logprobs, 0.0)
    weights = -KL_TERMS[law.kl](d) * (MEANS | WRONG_MEANS)[law.mean](batch)[:, None]
    return torch.where(batch.mask, weights, 0.0)


def fault_names(law: Law) -> list[str]:
    """The parts of it that no paper states."""
    return [part for part in law if part.endswith((WRONG_GROUP, TWICE, BY_LENGTH))]


BIASES = {
    "the group's spread": "prompts whose answers score alike weigh more",
    "the scores' spread in the batch": "the step's size depends on the batch's spread",
    "the advantages' spread": "the step's size depends on the batch's spread",
    "tokens of each answer": "tokens of long answers weigh less",
    "tokens of the batch": "the step's size depends on the batch's lengths",
    "the best answer alone": "imitates the best of the group",
    f"values{LAMBDA}": "what a token earns later is partly read off the values",
    "k3": "KL term with the gradient of KL(reference || policy)",
    "k2": "KL by token: what a token does to the KL of later ones is left out",
}
"""Documented biases by how a law's part begins."""


def bias_names(law: Law) -> list[str]:
    """What is known of the law's biases."""
    # The baseline "tokens of the batch" is no mean.
    baseline = law.baseline if law.baseline.startswith(("the", f"values{LAMBDA}")) else ""
    parts = (law.spread, law.mean, law.kl, baseline)
    return [text for begin, text in BIASES.items() if any(p.startswith(begin) for p in parts)]
