"""What makes one algorithm differ from another: an advantage and a loss."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from agents.rollout import Rollout
from policies import Scores

if TYPE_CHECKING:
    from agents.trainer import Trainer

Metrics = dict[str, Tensor]


@dataclass(frozen=True)
class Algorithm(ABC):
    """Base class; a subclass states `advantages` and `loss`.

    Attributes:
        n_epochs: Passes over each rollout.
        minibatch_tokens: About so many chosen tokens make one optimiser step; None takes the whole
            rollout at once. Sequences are never split. What is in memory at once is the trainer's
            `micro_batch_tokens`.
        target_kl: Stop the epochs of a rollout once the policy has moved so far from the one that
            sampled it (nats per token, estimator k3); None never stops.
        replay: So many rollouts, the last one and those before it, are learned from at once; 0
            learns from the last one alone and looks at nothing again.
    """

    n_epochs: int = 1
    minibatch_tokens: int | None = None
    target_kl: float | None = None
    replay: int = 0

    @abstractmethod
    def advantages(self, rollout: Rollout) -> Tensor:
        """How much better each choice was than expected: (S, L), or (S,) for whole episodes."""

    @abstractmethod
    def loss(self, batch: Rollout, scores: Scores) -> Tensor | tuple[Tensor, Metrics]:
        """The scalar to minimise over a minibatch, and numbers to report if there are any.

        Args:
            batch: Sequences with `advantages` and `value_targets` set.
            scores: What the present policy says of their choices, with gradients.
        """

    def value_targets(self, rollout: Rollout, advantages: Tensor) -> Tensor:
        """What the value head is fitted to: the value that was expected plus the advantage."""
        spread = advantages if advantages.dim() == 2 else advantages[:, None]
        return torch.where(rollout.mask, rollout.values + spread, 0.0)

    def gather(self, collect: Callable[[], Rollout]) -> Rollout:
        """A rollout to learn from; an algorithm that picks its data may call `collect` again."""
        return collect()

    def step(self, trainer: "Trainer", batch: Rollout) -> tuple[Scores, Metrics]:
        """One optimiser step on a minibatch; what was said of it before, and numbers to report."""
        scores = trainer.score(batch)
        loss = self.loss(batch, scores)
        loss, reported = loss if isinstance(loss, tuple) else (loss, {})
        return scores, reported | {"loss": loss, "grad_norm": trainer.descend(loss)}
