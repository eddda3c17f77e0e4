"""On-policy distillation: the student answers, and the teacher says of each token what it would do.

The teacher is the learner's `reference`, a policy of any size with the same vocabulary. No reward
is needed; the environment's is shown and not learned from. `agents.supervised.distillation` learns
from text instead, which is quicker at first: what the student itself would write is not in it.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from agents import losses
from agents.algorithm import Algorithm, Needs
from agents.algorithms.advantages import Following, LogRatio, PolicyGradient
from agents.optimisation import distilling
from agents.optimisation.bounds import bounded
from textenv.errors import UnmetNeedError

if TYPE_CHECKING:
    from torch import Tensor

    from agents.algorithm import Metrics, StepTaker
    from agents.rollout import Rollout
    from policies import PolicyOutputs


@dataclass(frozen=True)
class OnPolicyDistillation(PolicyGradient):
    """The policy gradient of minus the KL to a teacher, by the tokens that were sampled.

        A_t = sum over u >= t of gamma^(u - t) (log p_teacher(a_u) - log pi(a_u))
        loss = -mean over tokens of ratio_t A_t

    Gu et al., "MiniLLM" (2023), arXiv:2306.08543, without its teacher-mixed sampling; with gamma of
    0 the form of Lu, "On-Policy Distillation" (Thinking Machines, 2025). Use it where a teacher's
    distributions cannot be had, only its log-probabilities of given tokens, and to add other
    advantages (`advantage=Own() + AdvantagesOf(RLOO())`). `GKD` compares whole distributions and
    has less noise.

    With gamma of 0 a token is judged by the teacher's opinion of it alone: little noise, and still
    the teacher's law is a fixed point. With gamma of 1 the gradient is an unbiased estimate of that
    of minus the KL of whole answers, up to the mean's division by tokens. A student that cannot be
    the teacher ends near one of its modes (reverse KL).

    Attributes:
        gamma: Discount for each chosen token, 0 to 1.
    """

    needs: ClassVar[Needs] = Needs(reference=True)

    gamma: float = bounded(0.0, minimum=0, maximum=1)

    def advantages(self, rollout: Rollout) -> Tensor:
        """Log-ratios to the teacher from each token on, shape (S, L)."""
        return Following(LogRatio(), self.gamma)(rollout)

    def loss(self, batch: Rollout, outputs: PolicyOutputs) -> Tensor:
        """Policy gradient, averaged over tokens."""
        assert batch.advantages is not None
        weighted = losses.surrogate(
            logprobs=outputs.logprobs,
            old_logprobs=batch.logprobs,
            advantages=batch.weighed(batch.advantages),
            mask=batch.mask,
        )
        return -losses.masked_mean(weighted, batch.mask)


@dataclass(frozen=True)
class GKD(Algorithm):
    """Generalised knowledge distillation (Agarwal et al., 2023): whole distributions are compared.

        loss = f mean over the student's tokens of D(p_teacher || pi)
               + (1 - f) mean over the data's tokens of D(p_teacher || pi)
        D = beta KL(p || m) + (1 - beta) KL(pi || m),    m = beta p + (1 - beta) pi
        D = KL(p || pi) at beta 0, KL(pi || p) at beta 1

    arXiv:2306.13649, equations 1 to 3 and algorithm 1. Use it to make a student of a teacher whose
    distributions can be had. Each token's divergence is exact over the vocabulary, so only the
    texts are sampled; as in the paper, no gradient goes through the sampling. beta 0 covers all
    that the teacher might say, beta 1 keeps to what it says most; between them the divergence is
    bounded, and near the teacher its gradient is beta (1 - beta) times that of the KL.

    `data` holds answers of the teacher (`Collector(teacher, envs).collect_episodes(n)`), answers of
    people (`Rollout.from_log`) or both (`Rollout.cat`). The paper tosses a coin for each batch;
    here each step takes both with these weights, the same in the mean and less noisy. For data
    alone use `agents.supervised.distillation` or `textenv sft`.

    Attributes:
        beta: From 0 (KL of the teacher to the student) to 1 (the reverse).
        student_fraction: f, what the student's own answers weigh; 1 needs no data.
        data: Answers that others gave, of any number.
        data_batch: Answers of the data in each optimiser step.
    """

    needs: ClassVar[Needs] = Needs(reference=True)

    beta: float = bounded(0.5, minimum=0, maximum=1)
    student_fraction: float = bounded(1.0, above=0, maximum=1)
    data: Rollout | None = dataclasses.field(
        default=None, repr=False, compare=False, metadata={"from_code": True}
    )
    data_batch: int = bounded(16, minimum=1)

    def __post_init__(self) -> None:
        """Refuse numbers out of their bounds, and a share of data without data, or the reverse."""
        super().__post_init__()
        if (self.student_fraction < 1) != (self.data is not None):
            raise UnmetNeedError(
                f"student_fraction is {self.student_fraction} and there is "
                f"{'no data' if self.data is None else 'data, which would not be read'}: give both "
                "data and a fraction below 1, or neither"
            )

    def advantages(self, rollout: Rollout) -> Tensor:
        """Log-ratios to the teacher, (S, L), to be looked at: the loss does not use them."""
        return LogRatio()(rollout)

    def loss(self, batch: Rollout, outputs: PolicyOutputs) -> Tensor:
        """Not from these outputs, which are of the chosen tokens alone; see `step`."""
        raise UnmetNeedError(
            "GKD compares whole distributions, which outputs of the chosen tokens do not hold: "
            "train with a Learner or a Trainer, which call its step"
        )

    def step(self, trainer: StepTaker, batch: Rollout) -> tuple[PolicyOutputs, Metrics]:
        """One optimiser step on the student's answers and on some of the data."""
        outputs, divergences = distilling.divergences(trainer, batch, self.beta)
        loss = losses.masked_mean(divergences, batch.mask)
        reported: Metrics = {"divergence": loss}
        if self.data is not None:
            drawn = distilling.some(self.data, self.data_batch, trainer)
            _, of_data = distilling.divergences(trainer, drawn, self.beta)
            data_loss = losses.masked_mean(of_data, drawn.mask)
            reported["data_divergence"] = data_loss
            loss = self.student_fraction * loss + (1 - self.student_fraction) * data_loss
        return outputs, reported | {"loss": loss, "grad_norm": trainer.descend(loss)}
