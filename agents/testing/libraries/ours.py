"""The losses of this library."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from agents.rollout import Rollout
from agents.testing.batches import Advantages, Loss, LossBatch
from policies import PolicyOutputs

if TYPE_CHECKING:
    from agents.algorithm import Algorithm


def of_algorithm(algorithm: Algorithm) -> tuple[Loss, Advantages]:
    """An algorithm's loss and advantages, with the KL penalty in the rewards as a learner has it.

    A value loss is left out of the gradient: values are constants here.
    """

    def rollout_of(batch: LossBatch) -> Rollout:
        log = Rollout.from_log(batch.tokens, batch.mask, batch.scores, batch.groups)
        order = batch.mask.cumsum(1)
        last = batch.mask & (order == batch.lengths[:, None])
        difference = batch.old_logprobs - batch.ref_logprobs
        penalties = batch.kl_coef * torch.where(batch.mask, difference, 0.0)
        return replace(
            log,
            logprobs=batch.old_logprobs,
            values=batch.values,
            rewards=torch.where(last, batch.scores[:, None], 0.0) - penalties,
            penalties=penalties,
            ref_logprobs=batch.ref_logprobs,
            present_logprobs=batch.old_logprobs,
        )

    def advantages(batch: LossBatch) -> Tensor:
        rollout = rollout_of(batch)
        return algorithm.mix(replace(rollout, advantages=algorithm.advantages(rollout)))

    def loss(batch: LossBatch) -> Tensor:
        assert batch.advantages is not None
        rollout = replace(rollout_of(batch), advantages=batch.advantages)
        targets = algorithm.value_targets(rollout, batch.advantages)
        outputs = PolicyOutputs(batch.logprobs, batch.values, batch.entropies)
        found = algorithm.loss(replace(rollout, value_targets=targets), outputs)
        return found[0] if isinstance(found, tuple) else found

    return loss, advantages
