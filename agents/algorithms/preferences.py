"""Learning from which answers are better: on preferences from a file, or on groups of a rollout.

A preference is two sequences of one group; the better one has the higher score. `Rollout.from_log`
makes such rollouts. All algorithms here need a reference.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from agents import preference_losses
from agents.algorithm import Algorithm, Needs
from agents.optimisation.bounds import bounded

if TYPE_CHECKING:
    from torch import Tensor

    from agents.algorithm import Metrics, StepTaker
    from agents.rollout import Rollout
    from policies import PolicyOutputs


@dataclass(frozen=True)
class DPO(Algorithm):
    """Direct preference optimisation (Rafailov et al., 2023): learns from pairs of answers.

    The loss is `preference_losses.dpo`. Use it when there are preferences between answers and no
    reward model. It learns from every pair of a group in which one answer is better. If the
    preferences never contradict each other, it pushes margins up without end; `IPO` stops at a
    margin. Use `KTO` for answers that are judged one by one. Left out: label smoothing.

    Attributes:
        beta: Strength of the leash to the reference, per nat; smaller lets the policy move further.
    """

    needs: ClassVar[Needs] = Needs(groups=True, whole_episodes=True, reference=True)

    beta: float = bounded(0.1, above=0)

    def advantages(self, rollout: Rollout) -> Tensor:
        """The scores, which say what is better, shape (S,)."""
        return rollout.scores

    def loss(self, batch: Rollout, outputs: PolicyOutputs) -> tuple[Tensor, Metrics]:
        """The loss over all pairs."""
        log_ratios = _log_ratios(batch, outputs)
        chosen, rejected = preference_losses.ranked_pairs(batch.scores, batch.groups)
        margins = log_ratios[chosen] - log_ratios[rejected]
        loss = self.pair_loss(log_ratios[chosen], log_ratios[rejected])
        return loss, {"pair_accuracy": (margins > 0).float().mean(), "margin": margins.mean()}

    def pair_loss(self, chosen: Tensor, rejected: Tensor) -> Tensor:
        """The loss from the log ratios of each pair, both (P,)."""
        return preference_losses.dpo(chosen, rejected, self.beta)


@dataclass(frozen=True)
class IPO(DPO):
    """Identity preference optimisation (Azar et al., 2023): DPO with a target for the margin.

    The loss is `preference_losses.ipo`. Use it instead of `DPO` when the preferences hardly ever
    contradict each other, or when DPO overfits. It fits the difference of log ratios to
    1 / (2 beta) nats and then stops.
    """

    def pair_loss(self, chosen: Tensor, rejected: Tensor) -> Tensor:
        """The loss from the log ratios of each pair, both (P,)."""
        return preference_losses.ipo(chosen, rejected, self.beta)


@dataclass(frozen=True)
class KTO(Algorithm):
    """Kahneman-Tversky optimisation (Ethayarajh et al., 2024): answers judged one by one.

    The loss is `preference_losses.kto`. Use it when each answer is judged good or bad by itself,
    such as by a thumb up or down. With pairs, `DPO` and `IPO` also learn which answer is better.

    The reference point is the mean log ratio of mismatched pairs: the minibatch's prompts, each
    with the answer to another one. It is at least 0, as in the paper's section 4.1. A minibatch
    therefore needs several prompts. Left out: weights of good and bad answers.

    Attributes:
        beta: Strength of the leash to the reference, per nat; smaller lets the policy move further.
        desirable_above: Answers that score more than this are good, the others bad.
    """

    needs: ClassVar[Needs] = Needs(whole_episodes=True, reference=True)

    beta: float = bounded(0.1, above=0)
    desirable_above: float = bounded(0.0, any_number=True)

    def advantages(self, rollout: Rollout) -> Tensor:
        """1 for desirable answers, -1 for others, shape (S,)."""
        return (rollout.scores > self.desirable_above).float() * 2 - 1

    def loss(self, batch: Rollout, outputs: PolicyOutputs, point: Tensor | None = None) -> Tensor:
        """The loss over all answers around a reference point, a scalar; 0 if None."""
        assert batch.advantages is not None
        log_ratios = _log_ratios(batch, outputs)
        kl = log_ratios.new_zeros(()) if point is None else point
        return preference_losses.kto(log_ratios, batch.advantages > 0, kl, self.beta)

    def step(self, trainer: StepTaker, batch: Rollout) -> tuple[PolicyOutputs, Metrics]:
        """One optimiser step around the reference point of the present policy."""
        # Without gradient: the paper does not differentiate the reference point either.
        others = trainer.with_reference(batch.with_answers_of_others(trainer.policy.context))
        point = _log_ratios(others, trainer.fixed_outputs(others)).mean().clamp(min=0)
        outputs = trainer.outputs(batch)
        loss = self.loss(batch, outputs, point)
        return outputs, {"loss": loss, "reference_point": point, "grad_norm": trainer.descend(loss)}


def _log_ratios(batch: Rollout, outputs: PolicyOutputs) -> Tensor:
    assert batch.ref_logprobs is not None
    return preference_losses.sequence_log_ratios(outputs.logprobs, batch.ref_logprobs, batch.mask)
