"""Learning from which answers are better: on preferences from a file, or on groups of a rollout.

A preference is two sequences of a rollout in one group, the better one with the higher score;
`Rollout.from_log` makes such rollouts. All of them need a reference.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from agents import preference_losses
from agents.algorithm import Algorithm, Metrics
from agents.rollout import Rollout
from policies import Scores


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

    Answers are good or bad by themselves. The reference point is the mean log ratio of the
    minibatch, at least 0. Left out: the paper's estimate of it by answers to other prompts.

    Attributes:
        beta: Strength of the leash to the reference.
        desirable_above: Answers that score more than this are desirable.
    """

    beta: float = 0.1
    desirable_above: float = 0.0

    def advantages(self, rollout: Rollout) -> Tensor:
        """1 for desirable answers, -1 for others, shape (S,)."""
        return torch.where(rollout.scores > self.desirable_above, 1.0, -1.0)

    def loss(self, batch: Rollout, scores: Scores) -> Tensor:
        """The loss over all answers."""
        assert batch.advantages is not None
        log_ratios = _log_ratios(batch, scores)
        kl = log_ratios.detach().mean().clamp(min=0)
        return preference_losses.kto(log_ratios, batch.advantages > 0, kl, self.beta)


def _log_ratios(batch: Rollout, scores: Scores) -> Tensor:
    if batch.ref_logprobs is None:
        raise ValueError(
            "preferences are learned relative to a reference and there is none: pass "
            "reference=policy.frozen_copy()"
        )
    return preference_losses.sequence_log_ratios(scores.logprobs, batch.ref_logprobs, batch.mask)
