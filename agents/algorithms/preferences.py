"""Learning from which answers are better: on preferences from a file, or on groups of a rollout.

A preference is two sequences of a rollout in one group, the better one with the higher score;
`Rollout.from_log` makes such rollouts. All of them need a reference.
"""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from agents import preference_losses
from agents.algorithm import Algorithm, Metrics
from agents.rollout import Rollout
from policies import Scores

if TYPE_CHECKING:
    from agents.trainer import Trainer


@dataclass(frozen=True)
class DPO(Algorithm):
    """Direct preference optimisation (Rafailov et al., 2023): see `preference_losses.dpo`.

    All pairs of a group of which one is better. Left out: label smoothing.

    Attributes:
        beta: Strength of the leash to the reference.
    """

    beta: float = 0.1

    def advantages(self, rollout: Rollout) -> Tensor:
        """The scores, which say what is better, shape (S,)."""
        return rollout.scores

    def loss(self, batch: Rollout, scores: Scores) -> tuple[Tensor, Metrics]:
        """The loss over all pairs."""
        log_ratios = _log_ratios(batch, scores)
        chosen, rejected = preference_losses.ranked_pairs(batch.scores, batch.groups)
        margins = log_ratios[chosen] - log_ratios[rejected]
        loss = self.pair_loss(log_ratios[chosen], log_ratios[rejected])
        return loss, {"pair_accuracy": (margins > 0).float().mean(), "margin": margins.mean()}

    def pair_loss(self, chosen: Tensor, rejected: Tensor) -> Tensor:
        """The loss from the log ratios of each pair, both (P,)."""
        return preference_losses.dpo(chosen, rejected, self.beta)


@dataclass(frozen=True)
class IPO(DPO):
    """Identity preference optimisation (Azar et al., 2023): see `preference_losses.ipo`."""

    def pair_loss(self, chosen: Tensor, rejected: Tensor) -> Tensor:
        """The loss from the log ratios of each pair, both (P,)."""
        return preference_losses.ipo(chosen, rejected, self.beta)


@dataclass(frozen=True)
class KTO(Algorithm):
    """Kahneman-Tversky optimisation (Ethayarajh et al., 2024): see `preference_losses.kto`.

    Answers are good or bad by themselves. The reference point is the mean log ratio of the prompts
    of the minibatch with answers to others of them, at least 0, as in the paper's section 4.1: so
    a minibatch needs several prompts. Left out: weights of good and bad answers.

    Attributes:
        beta: Strength of the leash to the reference.
        desirable_above: Answers that score more than this are desirable.
    """

    beta: float = 0.1
    desirable_above: float = 0.0

    def advantages(self, rollout: Rollout) -> Tensor:
        """1 for desirable answers, -1 for others, shape (S,)."""
        return torch.where(rollout.scores > self.desirable_above, 1.0, -1.0)

    def loss(self, batch: Rollout, scores: Scores, point: Tensor | None = None) -> Tensor:
        """The loss over all answers around a reference point, a scalar; 0 if None."""
        assert batch.advantages is not None
        log_ratios = _log_ratios(batch, scores)
        kl = log_ratios.new_zeros(()) if point is None else point
        return preference_losses.kto(log_ratios, batch.advantages > 0, kl, self.beta)

    def step(self, trainer: "Trainer", batch: Rollout) -> tuple[Scores, Metrics]:
        """One optimiser step around the reference point of the present policy."""
        others = mismatched(batch, trainer.policy.context)
        with torch.no_grad():
            others = trainer.with_reference(others)
            point = _log_ratios(others, trainer.score(others)).mean().clamp(min=0)
        scores = trainer.score(batch)
        loss = self.loss(batch, scores, point)
        return scores, {"loss": loss, "reference_point": point, "grad_norm": trainer.descend(loss)}


def mismatched(batch: Rollout, context: int) -> Rollout:
    """Each prompt with an answer to another one: that of the sequence half a batch away.

    Not of the next one, since answers to the same prompt stand side by side.

    Args:
        batch: S sequences; an answer is all that follows the first chosen token.
        context: Longer sequences lose their end.
    """
    length, away = batch.tokens.shape[1], len(batch) // 2
    begins = batch.mask.int().argmax(1, keepdim=True)
    places = torch.arange(min(2 * length, context), device=batch.tokens.device)
    # Which place of the other sequence comes to stand at each place.
    others = places - begins + begins.roll(away, 0)
    answers = (places >= begins) & (others < length)
    others = others.clamp(0, length - 1)

    def moved(values: Tensor) -> Tensor:
        return values.roll(away, 0).gather(1, others)

    prompts = batch.tokens[:, places.clamp(max=length - 1)]
    tokens = torch.where(answers, moved(batch.tokens), prompts)
    log = Rollout.from_log(tokens, answers & moved(batch.mask), batch.scores, batch.groups)
    if batch.mask_ids is None:
        return log
    return replace(log, mask_ids=moved(batch.mask_ids), mask_table=batch.mask_table)


def _log_ratios(batch: Rollout, scores: Scores) -> Tensor:
    if batch.ref_logprobs is None:
        raise ValueError(
            "preferences are learned relative to a reference and there is none: pass "
            "reference=policy.frozen_copy()"
        )
    return preference_losses.sequence_log_ratios(scores.logprobs, batch.ref_logprobs, batch.mask)
