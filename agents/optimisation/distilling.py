"""Divergences of a student's distributions from its teacher's, for every choice of a rollout."""

from typing import NamedTuple

import torch
from torch import Tensor

from agents.algorithm import StepTaker
from agents.optimisation.micro_batches import outputs_of
from agents.rollout import Rollout
from agents.supervised.distillation import check_vocabularies, generalised_jsd
from policies import Policy, PolicyOutputs
from policies.head import EXCLUDED, logprobs_of_logits
from policies.outputs import spread
from policies.sampling import mask_logits


class _Compared(NamedTuple):
    """What a pass gives; each is (S, L), 0 outside the mask."""

    logprobs: Tensor
    values: Tensor
    entropies: Tensor
    divergences: Tensor


def divergences(trainer: StepTaker, batch: Rollout, beta: float) -> tuple[PolicyOutputs, Tensor]:
    """The generalised Jensen-Shannon divergence from the reference at each chosen token.

    Both distributions are those that are sampled from: at the trainer's temperature, under the
    rollout's action masks. Logits of (tokens, V) are held for one part of `micro_batch_tokens`.

    Args:
        trainer: Whose policy is the student and whose reference is the teacher.
        batch: S sequences.
        beta: See `generalised_jsd`.

    Returns:
        The student's outputs, and the divergences in nats, (S, L), 0 outside the mask, both with
        gradient.

    Raises:
        VocabularyMismatchError: The two have different vocabularies.
    """
    student, teacher = trainer.policy, trainer.reference
    assert teacher is not None  # the algorithm needs it
    check_vocabularies(teacher, student)

    def compared(part: Rollout) -> _Compared:
        with trainer.precision.autocast():
            hidden = _hidden(student, part)
            said = _logits(trainer, student, part, hidden)
            values = student.value_head(hidden).float().squeeze(1)
            with torch.no_grad():
                wanted = _logits(trainer, teacher, part, _hidden(teacher, part))
        logprobs, entropies = logprobs_of_logits(said, part.tokens[part.mask])
        distances = generalised_jsd(said, wanted, beta)
        return _Compared(*(spread(x, part.mask) for x in (logprobs, values, entropies, distances)))

    found = outputs_of(compared, batch, trainer.micro_batch_tokens, trainer.readers)
    return PolicyOutputs(found.logprobs, found.values, found.entropies), found.divergences


def some(rollout: Rollout, count: int, trainer: StepTaker) -> Rollout:
    """`count` random sequences of a rollout, each at most once, on the policy's device."""
    drawn = trainer.generator.permutation(len(rollout))[:count]
    return rollout.select(torch.from_numpy(drawn)).to(trainer.policy.device)


def _hidden(policy: Policy, part: Rollout) -> Tensor:
    """Hidden states before the choices, (N, n_embd)."""
    places = torch.arange(part.tokens.shape[1], device=part.tokens.device)
    lengths = (part.mask * places).amax(1).clamp(min=1)
    return policy.hidden_before(part.tokens, part.mask, lengths)


def _logits(trainer: StepTaker, policy: Policy, part: Rollout, hidden: Tensor) -> Tensor:
    """Logits of the choices, (N, V), float32, finite: minus infinity has no gradient of its own."""
    logits = policy.choices(hidden).float() / trainer.settings.temperature
    return mask_logits(logits, part.action_masks).clamp(min=EXCLUDED)
